//! Results that a key elsewhere signs, such as one that never leaves KMS.

use aws_lc_rs::digest::{SHA384, digest};
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::issuer::{Appraisal, EarError, Issuer};
use crate::signing_key::{COORDINATE, Jwk, KeyError, jwt_header};

/// Bytes of a point: 4, x, y (SEC 1, section 2.3.3).
const POINT: usize = 1 + 2 * COORDINATE;

/// The public half of a key on P-384 whose private half is elsewhere.
#[derive(Debug, Clone)]
pub struct ExternalKey {
    jwk: Jwk,
    point: Vec<u8>,
}

/// A result that lacks only its signature.
#[derive(Debug, Clone)]
pub struct UnsignedToken {
    text: String,
    point: Vec<u8>,
}

impl ExternalKey {
    /// The key in a `SubjectPublicKeyInfo` in DER.
    pub fn from_spki(der: &[u8]) -> Result<Self, KeyError> {
        let (rest, info) = SubjectPublicKeyInfo::from_der(der)
            .map_err(|error| KeyError::Rejected(error.to_string()))?;
        let point = info.subject_public_key.data.as_ref();
        if !rest.is_empty() || point.len() != POINT || point.first() != Some(&4) {
            return Err(KeyError::Rejected("it is not a point on P-384".to_owned()));
        }
        Ok(Self {
            jwk: Jwk::of_point(point)?,
            point: point.to_vec(),
        })
    }

    /// The public half.
    pub fn jwk(&self) -> &Jwk {
        &self.jwk
    }
}

impl Issuer {
    /// The result of a verification, to be signed elsewhere; `now` is in seconds
    /// since 1970.
    pub fn unsigned(
        &self,
        key: &ExternalKey,
        appraisal: &Appraisal<'_>,
        now: u64,
    ) -> Result<UnsignedToken, EarError> {
        Ok(UnsignedToken {
            text: self.signing_input(&jwt_header(&key.jwk), appraisal, now)?,
            point: key.point.clone(),
        })
    }
}

impl UnsignedToken {
    /// The SHA-384 digest that is to be signed, with ECDSA.
    pub fn digest(&self) -> Vec<u8> {
        digest(&SHA384, self.text.as_bytes()).as_ref().to_vec()
    }

    /// The whole JWT, with an ECDSA signature in DER. A signature that the key does
    /// not confirm is an error.
    pub fn signed(self, der: &[u8]) -> Result<String, EarError> {
        let signature = fixed(der).ok_or(EarError::ForeignSignature)?;
        UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, &self.point)
            .verify(self.text.as_bytes(), &signature)
            .map_err(|_| EarError::ForeignSignature)?;
        let mut token = self.text;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }
}

/// The two numbers of a signature in DER (RFC 3279, section 2.2.3), as JWS has them
/// (RFC 7518, section 3.4).
fn fixed(der: &[u8]) -> Option<[u8; 2 * COORDINATE]> {
    let (rest, body) = element(der, 0x30)?;
    let (body, r) = element(body, 0x02)?;
    let (end, s) = element(body, 0x02)?;
    if !rest.is_empty() || !end.is_empty() {
        return None;
    }
    let mut signature = [0; 2 * COORDINATE];
    let (first, second) = signature.split_at_mut(COORDINATE);
    for (number, place) in [(r, first), (s, second)] {
        let number = number.strip_prefix(&[0]).unwrap_or(number);
        let start = COORDINATE.checked_sub(number.len())?;
        place.get_mut(start..)?.copy_from_slice(number);
    }
    Some(signature)
}

/// What follows an element with this tag, and its content. No length here needs
/// more than one byte.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let [first, length, rest @ ..] = der else {
        return None;
    };
    if *first != tag || *length >= 0x80 {
        return None;
    }
    let (content, rest) = rest.split_at_checked((*length).into())?;
    Some((rest, content))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use attestation::{Nonce, Policy, Profile, Roots, Verifier};
    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, KeyPair};

    use super::*;
    use crate::freshness::NonceSource;

    const DOCUMENT: &[u8] = include_bytes!("../../../attestation/corpus/aws/3a4a0301e6aa2839.cbor");
    /// When, in milliseconds since 1970.
    const MADE_MS: u64 = 1_708_930_921_439;

    fn key() -> (EcdsaKeyPair, ExternalKey) {
        let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING).unwrap();
        let spki = pair.public_key().as_der().unwrap();
        let key = ExternalKey::from_spki(spki.as_ref()).unwrap();
        (pair, key)
    }

    fn unsigned(key: &ExternalKey) -> UnsignedToken {
        let issuer = Issuer {
            developer: "tests".to_owned(),
            url: None,
            lifetime: Duration::from_secs(60),
        };
        let policy = Policy::builder().allow_any_image().build().unwrap();
        let verifier = Verifier::new(Roots::aws());
        let verification = verifier.verify_at(DOCUMENT, &policy, Nonce::Unchallenged, MADE_MS);
        let appraisal = Appraisal {
            report: &verification.report,
            document: DOCUMENT,
            profile: Profile::Enclave,
            policy_ids: &["tests"],
            nonce: NonceSource::None,
        };
        issuer.unsigned(key, &appraisal, 1000).unwrap()
    }

    #[test]
    fn a_token_that_another_signer_signed_is_whole() {
        // Often enough that numbers of fewer bytes come up.
        let (pair, key) = key();
        for _ in 0..600 {
            let token = unsigned(&key);
            let signature = pair
                .sign(&SystemRandom::new(), token.text.as_bytes())
                .unwrap();
            let text = token.signed(signature.as_ref()).unwrap();
            assert_eq!(text.split('.').count(), 3);
        }
        assert_eq!(unsigned(&key).digest().len(), 48);
    }

    #[test]
    fn a_signature_of_another_key_is_refused() {
        let (pair, _) = key();
        let (_, other) = key();
        let token = unsigned(&other);
        let signature = pair
            .sign(&SystemRandom::new(), token.text.as_bytes())
            .unwrap();
        assert!(token.clone().signed(signature.as_ref()).is_err());
        for broken in [&b""[..], b"\x30\x00", b"\x30\x80", &[0x30; 200]] {
            assert!(token.clone().signed(broken).is_err());
        }
    }

    #[test]
    fn what_is_no_key_on_the_curve_is_refused() {
        let (pair, _) = key();
        let spki = pair.public_key().as_der().unwrap();
        let mut long = spki.as_ref().to_vec();
        long.push(0);
        for broken in [&b""[..], &long, spki.as_ref().get(..60).unwrap()] {
            assert!(ExternalKey::from_spki(broken).is_err());
        }
    }
}
