//! Verification's cryptography by OpenSSL, which shares no code with the default.

use attestation::{Crypto, Es384Key, POINT_BYTES, SignatureEncoding};
use openssl::bn::BigNum;
use openssl::bn::BigNumContext;
use openssl::ec::{EcGroup, EcKey, EcPoint};
use openssl::ecdsa::EcdsaSig;
use openssl::nid::Nid;
use openssl::sha::{Sha256, sha384};

#[derive(Debug)]
pub(crate) struct OpenSsl;

impl Crypto for OpenSsl {
    fn sha256(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut digest = Sha256::new();
        for part in parts {
            digest.update(part);
        }
        digest.finish()
    }

    fn sha384(&self, data: &[u8]) -> [u8; 48] {
        sha384(data)
    }

    fn es384_key(
        &self,
        point: &[u8; POINT_BYTES],
        encoding: SignatureEncoding,
    ) -> Option<Es384Key> {
        let group = EcGroup::from_curve_name(Nid::SECP384R1).unwrap();
        let mut context = BigNumContext::new().unwrap();
        let point = EcPoint::from_bytes(&group, point, &mut context).ok()?;
        let key = EcKey::from_public_key(&group, &point).ok()?;
        key.check_key().ok()?;
        Some(Es384Key::new(move |message, signature| {
            let signature = match encoding {
                SignatureEncoding::Der => strict(signature),
                SignatureEncoding::Fixed => fixed(signature),
            };
            signature.is_some_and(|signature| {
                signature
                    .verify(&sha384(message), &key)
                    .is_ok_and(|signed| signed)
            })
        }))
    }
}

/// OpenSSL also reads what is not DER.
fn strict(der: &[u8]) -> Option<EcdsaSig> {
    let signature = EcdsaSig::from_der(der).ok()?;
    (signature.to_der().ok()? == der).then_some(signature)
}

fn fixed(numbers: &[u8]) -> Option<EcdsaSig> {
    let (r, s) = numbers.split_at_checked(48)?;
    let number = |bytes| BigNum::from_slice(bytes).ok();
    EcdsaSig::from_private_components(number(r)?, number(s)?).ok()
}
