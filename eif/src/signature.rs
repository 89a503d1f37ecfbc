//! The signature section: a COSE_Sign1 over PCR0 and the certificate for it.
//!
//! The section is a CBOR array of one map with `signing_certificate` (PEM) and
//! `signature` (COSE_Sign1 with the payload `{register_index: 0,
//! register_value: PCR0}`). AWS's writer stores all three byte vectors as CBOR
//! arrays of integers; byte strings are read too.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED,
    ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED, ECDSA_P521_SHA512_FIXED_SIGNING,
    EcdsaKeyPair, EcdsaSigningAlgorithm, EcdsaVerificationAlgorithm, KeyPair, UnparsedPublicKey,
};
use aws_nitro_enclaves_cose::CoseSign1;
use aws_nitro_enclaves_cose::crypto::{
    Hash, MessageDigest, SignatureAlgorithm, SigningPrivateKey, SigningPublicKey,
};
use aws_nitro_enclaves_cose::error::CoseError;
use aws_nitro_enclaves_cose::header_map::HeaderMap;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_NIST_EC_P521,
};
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo, X509Certificate};

use crate::Pcr;
use crate::header::MAX_SIGNATURE;

/// Why an image cannot be signed, or its signature does not hold.
#[derive(Debug, Error)]
pub enum SigningError {
    /// The private key is not one that can be used.
    #[error(
        "the signing key cannot be used ({0}): give an unencrypted PEM file with a PKCS#8 or SEC1 key on P-256, P-384 or P-521"
    )]
    Key(String),
    /// The certificate is not one that can be used.
    #[error(
        "the signing certificate cannot be used ({0}): give a PEM file with one X.509 certificate for a P-256, P-384 or P-521 key"
    )]
    Certificate(String),
    /// The key and the certificate do not belong together.
    #[error("the signing key does not belong to the signing certificate")]
    Mismatch,
    /// Signing failed.
    #[error("signing failed: {0}")]
    Sign(String),
    /// The section is not what it should be.
    #[error("the signature section cannot be read: {0}")]
    Malformed(String),
    /// The signature does not fit the certificate, or the image.
    #[error("the signature does not hold: {0}; do not use this image")]
    Invalid(&'static str),
}

/// A curve that images are signed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    const ALL: [Self; 3] = [Self::P256, Self::P384, Self::P521];

    fn signing(self) -> &'static EcdsaSigningAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
            Self::P384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
            Self::P521 => &ECDSA_P521_SHA512_FIXED_SIGNING,
        }
    }

    fn verification(self) -> &'static EcdsaVerificationAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_FIXED,
            Self::P384 => &ECDSA_P384_SHA384_FIXED,
            Self::P521 => &ECDSA_P521_SHA512_FIXED,
        }
    }

    fn parameters(self) -> (SignatureAlgorithm, MessageDigest) {
        match self {
            Self::P256 => (SignatureAlgorithm::ES256, MessageDigest::Sha256),
            Self::P384 => (SignatureAlgorithm::ES384, MessageDigest::Sha384),
            Self::P521 => (SignatureAlgorithm::ES512, MessageDigest::Sha512),
        }
    }
}

/// A key and its certificate, ready to sign images.
#[derive(Debug)]
pub struct Signer {
    key: EcdsaKeyPair,
    certificate: Certificate,
}

impl Signer {
    /// Reads a private key and its certificate, both PEM.
    pub fn from_pem(key: &[u8], certificate: &[u8]) -> Result<Self, SigningError> {
        let certificate = Certificate::from_pem(certificate)?;
        let (_, pem) = x509_parser::pem::parse_x509_pem(key)
            .map_err(|error| SigningError::Key(error.to_string()))?;
        let algorithm = certificate.public_key.curve.signing();
        let key = match pem.label.as_str() {
            "PRIVATE KEY" => EcdsaKeyPair::from_pkcs8(algorithm, &pem.contents),
            "EC PRIVATE KEY" => EcdsaKeyPair::from_private_key_der(algorithm, &pem.contents),
            label => return Err(SigningError::Key(format!("its label is {label}"))),
        }
        .map_err(|error| SigningError::Key(error.to_string()))?;
        if key.public_key().as_ref() != certificate.public_key.point {
            return Err(SigningError::Mismatch);
        }
        Ok(Self { key, certificate })
    }

    /// PCR8 of every image that this key signs.
    pub fn pcr8(&self) -> Pcr {
        self.certificate.pcr8()
    }

    /// The contents of a signature section for an image with this PCR0.
    pub(crate) fn sign(&self, pcr0: Pcr) -> Result<Vec<u8>, SigningError> {
        let payload = encode(&Payload {
            register_index: 0,
            register_value: pcr0.as_bytes().to_vec(),
        })?;
        let failed = |error: CoseError| SigningError::Sign(error.to_string());
        let cose = CoseSign1::new::<WholeMessage>(&payload, &HeaderMap::new(), self);
        let cose = cose.map_err(failed)?.as_bytes(false).map_err(failed)?;
        encode(&[Section {
            signing_certificate: self.certificate.pem.clone(),
            signature: cose,
        }])
    }
}

/// An image's signature, found to hold for the image and its certificate. Who
/// the certificate belongs to is for a verifier to judge, by PCR8.
#[derive(Debug, Clone)]
pub struct Signature {
    certificate: Certificate,
}

impl Signature {
    /// Reads a signature section and checks it against the image's PCR0.
    pub(crate) fn verify(section: &[u8], pcr0: Pcr) -> Result<Self, SigningError> {
        let entries: Vec<Section> = decode(section)?;
        let [entry] = entries.as_slice() else {
            return Err(SigningError::Malformed(format!(
                "it holds {} signatures instead of one",
                entries.len()
            )));
        };
        let certificate = Certificate::from_pem(&entry.signing_certificate)?;
        let cose = CoseSign1::from_bytes(&entry.signature)
            .map_err(|error| SigningError::Malformed(error.to_string()))?;
        let payload = cose
            .get_payload::<WholeMessage>(Some(&certificate.public_key))
            .map_err(|_| SigningError::Invalid("the certificate's key did not make it"))?;
        let payload: Payload = decode(&payload)?;
        if payload.register_index != 0 || payload.register_value != pcr0.as_bytes() {
            return Err(SigningError::Invalid("it is for another image"));
        }
        Ok(Self { certificate })
    }

    /// The measurement of the signing certificate.
    pub fn pcr8(&self) -> Pcr {
        self.certificate.pcr8()
    }

    /// The signing certificate's subject, for people.
    pub fn subject(&self) -> &str {
        &self.certificate.subject
    }

    /// The signing certificate, DER.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate.der
    }
}

#[derive(Debug, Clone)]
struct Certificate {
    pem: Vec<u8>,
    der: Vec<u8>,
    subject: String,
    public_key: PublicKey,
}

#[derive(Debug, Clone)]
struct PublicKey {
    curve: Curve,
    /// The uncompressed point.
    point: Vec<u8>,
}

impl Certificate {
    fn from_pem(pem: &[u8]) -> Result<Self, SigningError> {
        let unusable = |reason: &dyn ToString| SigningError::Certificate(reason.to_string());
        let mut blocks = Pem::iter_from_buffer(pem);
        let (Some(block), None) = (blocks.next(), blocks.next()) else {
            return Err(unusable(&"it is not exactly one PEM block"));
        };
        let block = block.map_err(|error| unusable(&error))?;
        if block.label != "CERTIFICATE" {
            return Err(unusable(&format!("its label is {}", block.label)));
        }
        let (rest, certificate) =
            X509Certificate::from_der(&block.contents).map_err(|error| unusable(&error))?;
        if !rest.is_empty() {
            return Err(unusable(&"bytes follow the certificate"));
        }
        Ok(Self {
            pem: pem.to_vec(),
            subject: certificate.subject().to_string(),
            public_key: PublicKey::from_info(certificate.public_key())
                .ok_or_else(|| unusable(&"its key is not on P-256, P-384 or P-521"))?,
            der: block.contents.clone(),
        })
    }

    fn pcr8(&self) -> Pcr {
        crate::measure::pcr_of(&self.der)
    }
}

impl PublicKey {
    fn from_info(info: &SubjectPublicKeyInfo<'_>) -> Option<Self> {
        if info.algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY {
            return None;
        }
        let parameter = info.algorithm.parameters.as_ref()?.as_oid().ok()?;
        let curve = Curve::ALL.into_iter().find(|curve| {
            parameter
                == match curve {
                    Curve::P256 => OID_EC_P256,
                    Curve::P384 => OID_NIST_EC_P384,
                    Curve::P521 => OID_NIST_EC_P521,
                }
        })?;
        Some(Self {
            curve,
            point: info.subject_public_key.data.to_vec(),
        })
    }
}

/// Passes the message on as its own digest: aws-lc-rs hashes while it signs and
/// verifies, with the hash that the curve's algorithm prescribes.
struct WholeMessage;

impl Hash for WholeMessage {
    fn hash(_: MessageDigest, data: &[u8]) -> Result<Vec<u8>, CoseError> {
        Ok(data.to_vec())
    }
}

impl SigningPublicKey for PublicKey {
    fn get_parameters(&self) -> Result<(SignatureAlgorithm, MessageDigest), CoseError> {
        Ok(self.curve.parameters())
    }

    fn verify(&self, message: &[u8], signature: &[u8]) -> Result<bool, CoseError> {
        Ok(
            UnparsedPublicKey::new(self.curve.verification(), &self.point)
                .verify(message, signature)
                .is_ok(),
        )
    }
}

impl SigningPublicKey for Signer {
    fn get_parameters(&self) -> Result<(SignatureAlgorithm, MessageDigest), CoseError> {
        self.certificate.public_key.get_parameters()
    }

    fn verify(&self, message: &[u8], signature: &[u8]) -> Result<bool, CoseError> {
        self.certificate.public_key.verify(message, signature)
    }
}

impl SigningPrivateKey for Signer {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, CoseError> {
        self.key
            .sign(&SystemRandom::new(), message)
            .map(|signature| signature.as_ref().to_vec())
            .map_err(|error| CoseError::SignatureError(Box::new(error)))
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Section {
    #[serde(deserialize_with = "bytes_or_integers")]
    signing_certificate: Vec<u8>,
    #[serde(deserialize_with = "bytes_or_integers")]
    signature: Vec<u8>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Payload {
    register_index: i32,
    #[serde(deserialize_with = "bytes_or_integers")]
    register_value: Vec<u8>,
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, SigningError> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes)
        .map_err(|error| SigningError::Sign(error.to_string()))?;
    Ok(bytes)
}

fn decode<T: for<'de> Deserialize<'de>>(mut bytes: &[u8]) -> Result<T, SigningError> {
    let value = ciborium::from_reader(&mut bytes)
        .map_err(|error| SigningError::Malformed(error.to_string()))?;
    if bytes.is_empty() {
        Ok(value)
    } else {
        Err(SigningError::Malformed(format!(
            "{} bytes follow it",
            bytes.len()
        )))
    }
}

fn bytes_or_integers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    struct Bytes;

    impl<'de> Visitor<'de> for Bytes {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a byte string or an array of integers from 0 to 255")
        }

        fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_vec())
        }

        fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
            Ok(bytes)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Vec<u8>, A::Error> {
            let limit = usize::try_from(MAX_SIGNATURE).unwrap_or(usize::MAX);
            let mut bytes = Vec::new();
            while let Some(byte) = sequence.next_element()? {
                if bytes.len() == limit {
                    return Err(serde::de::Error::custom("too many bytes"));
                }
                bytes.push(byte);
            }
            Ok(bytes)
        }
    }

    deserializer.deserialize_any(Bytes)
}
