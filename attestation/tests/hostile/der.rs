//! Certificates, DER by hand: every field can be wrong.

use aws_lc_rs::digest::{SHA384, digest};
use p384::ecdsa::signature::Signer;
use p384::ecdsa::{Signature, SigningKey};
use time::OffsetDateTime;

pub(crate) const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
pub(crate) const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
pub(crate) const NAME_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x1e];
pub(crate) const CERTIFICATE_POLICIES: &[u8] = &[0x55, 0x1d, 0x20];
pub(crate) const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
/// An arc for examples (RFC 5612).
pub(crate) const UNKNOWN: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x81, 0xfd, 0x59, 0x01];

const ECDSA_WITH_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const ECDSA_WITH_SHA384: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03];
const ECDSA_WITH_SHA512: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04];
const RSA_WITH_SHA384: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0c];
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const P521: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x23];

pub(crate) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    match content.len() {
        length @ 0..0x80 => bytes.push(u8::try_from(length).unwrap()),
        length @ 0x80..0x100 => bytes.extend([0x81, u8::try_from(length).unwrap()]),
        length => {
            bytes.push(0x82);
            bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
    }
    bytes.extend(content);
    bytes
}

pub(crate) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

fn oid(content: &[u8]) -> Vec<u8> {
    tlv(0x06, content)
}

fn bit_string(unused: u8, content: &[u8]) -> Vec<u8> {
    tlv(0x03, &[&[unused], content].concat())
}

pub(crate) fn extension(id: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if critical { &[0x01, 1, 0xff] } else { &[] };
    sequence(&[&oid(id), critical, &tlv(0x04, value)])
}

/// Basic constraints; `None` is left out, as DER has defaults.
pub(crate) fn basic_constraints(authority: bool, path_length: Option<u8>) -> Vec<u8> {
    let authority: &[u8] = if authority { &[0x01, 1, 0xff] } else { &[] };
    let path_length = path_length.map_or(Vec::new(), |limit| tlv(0x02, &[limit]));
    extension(
        BASIC_CONSTRAINTS,
        true,
        &sequence(&[authority, &path_length]),
    )
}

/// Key usage of the bits in the first byte, the highest first.
pub(crate) fn key_usage(bits: u8) -> Vec<u8> {
    let unused = u8::try_from(bits.trailing_zeros().min(7)).unwrap();
    extension(KEY_USAGE, true, &bit_string(unused, &[bits]))
}

pub(crate) const DIGITAL_SIGNATURE: u8 = 0x80;
pub(crate) const KEY_CERT_SIGN: u8 = 0x04;

pub(crate) fn name(common_name: &str) -> Vec<u8> {
    name_of_type(0x0c, common_name)
}

pub(crate) fn name_of_type(string_type: u8, common_name: &str) -> Vec<u8> {
    let attribute = sequence(&[
        &oid(&[0x55, 0x04, 0x03]),
        &tlv(string_type, common_name.as_bytes()),
    ]);
    sequence(&[&tlv(0x31, &attribute)])
}

/// An instant in milliseconds since 1970.
pub(crate) fn utc_time(milliseconds: i64) -> Vec<u8> {
    let time = OffsetDateTime::from_unix_timestamp(milliseconds / 1000).unwrap();
    let text = format!(
        "{:02}{:02}{:02}{:02}{:02}{:02}Z",
        time.year() - 2000,
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second()
    );
    tlv(0x17, text.as_bytes())
}

/// Algorithms by name.
pub(crate) fn algorithm(name: &str) -> Vec<u8> {
    let null: &[u8] = &[0x05, 0];
    match name {
        "ecdsa-sha256" => sequence(&[&oid(ECDSA_WITH_SHA256)]),
        "ecdsa-sha384" => sequence(&[&oid(ECDSA_WITH_SHA384)]),
        "ecdsa-sha384-null" => sequence(&[&oid(ECDSA_WITH_SHA384), null]),
        "ecdsa-sha512" => sequence(&[&oid(ECDSA_WITH_SHA512)]),
        "rsa-sha384" => sequence(&[&oid(RSA_WITH_SHA384), null]),
        "ed25519" => sequence(&[&oid(ED25519)]),
        _ => panic!("{name}"),
    }
}

/// A key of some kind, or one that only looks like P-384. `point` is a good one.
pub(crate) fn public_key(kind: &str, point: &[u8]) -> Vec<u8> {
    let on = |curve: &[u8], point: &[u8]| {
        sequence(&[&sequence(&[&oid(EC), &oid(curve)]), &bit_string(0, point)])
    };
    let with_form = |form: u8, length: usize| [&[form], &point[1..length]].concat();
    let mut off_curve = point.to_vec();
    off_curve[96] ^= 1;
    match kind {
        "p384" => on(P384, point),
        "p256" => on(P256, &with_form(4, 65)),
        "p521" => on(P521, &[&[4], [1; 132].as_slice()].concat()),
        "p384 without a curve" => sequence(&[&sequence(&[&oid(EC)]), &bit_string(0, point)]),
        "p384 with a third parameter" => sequence(&[
            &sequence(&[&oid(EC), &oid(P384), &[0x05, 0]]),
            &bit_string(0, point),
        ]),
        "off the curve" => on(P384, &off_curve),
        "compressed" => on(P384, &with_form(2 + (point[96] & 1), 49)),
        "hybrid" => on(P384, &with_form(6 + (point[96] & 1), 97)),
        "at infinity" => on(P384, &[0]),
        "of zeros" => on(P384, &with_zeros(4)),
        "of ones" => on(P384, &[&[4], [0xff; 96].as_slice()].concat()),
        "empty" => on(P384, &[]),
        "one byte short" => on(P384, &point[..96]),
        "one byte long" => on(P384, &[point, &[0]].concat()),
        "rsa" => sequence(&[
            &sequence(&[&oid(RSA), &[0x05, 0]]),
            &bit_string(
                0,
                &sequence(&[
                    &tlv(0x02, &[&[0], [0xc1; 256].as_slice()].concat()),
                    &tlv(0x02, &[1, 0, 1]),
                ]),
            ),
        ]),
        "ed25519" => sequence(&[&sequence(&[&oid(ED25519)]), &bit_string(0, &[7; 32])]),
        _ => panic!("{kind}"),
    }
}

fn with_zeros(form: u8) -> Vec<u8> {
    [&[form], [0; 96].as_slice()].concat()
}

/// A P-384 key that signs certificates and documents. Signatures are those of RFC 6979,
/// so that the same corpus is made each time.
pub(crate) struct Key {
    key: SigningKey,
    point: Vec<u8>,
}

impl Key {
    /// The key of this name.
    pub(crate) fn of(name: &str) -> Self {
        let seed = digest(&SHA384, format!("attestation corpus: {name}").as_bytes());
        let key = SigningKey::from_slice(seed.as_ref()).unwrap();
        let point = key.verifying_key().to_sec1_point(false).as_bytes().to_vec();
        Self { key, point }
    }

    pub(crate) fn point(&self) -> &[u8] {
        &self.point
    }

    /// A signature as certificates have it.
    pub(crate) fn sign_asn1(&self, message: &[u8]) -> Vec<u8> {
        let signature: Signature = self.key.sign(message);
        signature.to_der().as_bytes().to_vec()
    }

    /// The other signature of the same nonce, which is as good: `s` is negated.
    pub(crate) fn sign_asn1_otherwise(&self, message: &[u8]) -> Vec<u8> {
        let signature: Signature = self.key.sign(message);
        let (r, s) = signature.split_scalars();
        let other = Signature::from_scalars(r, -s).unwrap();
        other.to_der().as_bytes().to_vec()
    }

    /// A signature as documents have it.
    pub(crate) fn sign_fixed(&self, message: &[u8]) -> Vec<u8> {
        let signature: Signature = self.key.sign(message);
        signature.to_bytes().to_vec()
    }
}

/// A certificate's fields, each as DER.
#[derive(Clone)]
pub(crate) struct Fields {
    pub(crate) version: Vec<u8>,
    pub(crate) serial: Vec<u8>,
    pub(crate) inner_algorithm: Vec<u8>,
    pub(crate) issuer: Vec<u8>,
    pub(crate) validity: Vec<u8>,
    pub(crate) subject: Vec<u8>,
    pub(crate) public_key: Vec<u8>,
    /// Between key and extensions: unique ids.
    pub(crate) unique_ids: Vec<u8>,
    pub(crate) extensions: Vec<Vec<u8>>,
    /// Behind the extensions, in the signed part.
    pub(crate) after_extensions: Vec<u8>,
    pub(crate) outer_algorithm: Vec<u8>,
    /// Behind the signature, in the certificate.
    pub(crate) after_signature: Vec<u8>,
}

impl Fields {
    pub(crate) fn body(&self) -> Vec<u8> {
        let extensions = if self.extensions.is_empty() {
            Vec::new()
        } else {
            tlv(0xa3, &tlv(0x30, &self.extensions.concat()))
        };
        sequence(&[
            &self.version,
            &self.serial,
            &self.inner_algorithm,
            &self.issuer,
            &self.validity,
            &self.subject,
            &self.public_key,
            &self.unique_ids,
            &extensions,
            &self.after_extensions,
        ])
    }

    /// The certificate with this signature, and so many unused bits in it.
    pub(crate) fn assemble(&self, body: &[u8], signature: &[u8], unused_bits: u8) -> Vec<u8> {
        sequence(&[
            body,
            &self.outer_algorithm,
            &bit_string(unused_bits, signature),
            &self.after_signature,
        ])
    }

    pub(crate) fn sign(&self, issuer: &Key) -> Vec<u8> {
        let body = self.body();
        self.assemble(&body, &issuer.sign_asn1(&body), 0)
    }
}
