//! One ES384 key: PKCS#8 in PEM, and its public half as a JWK.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair, Signature};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::Serialize;
use serde_json::json;
use thiserror::Error;

/// Bytes of a coordinate on P-384.
pub(crate) const COORDINATE: usize = 48;
/// Names of the curve, of the algorithm and of what is signed with it.
pub(crate) const CURVE: &str = "P-384";
pub(crate) const ALGORITHM: &str = "ES384";
pub(crate) const TYPE: &str = "eat+jwt";
const PEM_LABEL: &str = "PRIVATE KEY";
const PEM_LINE: usize = 64;

/// Why a key cannot be used.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The text is not PEM, or of something else.
    #[error("it is not a private key as PKCS#8 in PEM")]
    Pem,
    /// The bytes are not such a key.
    #[error("it is not a private key on P-384: {0}")]
    Rejected(String),
    /// No key could be made.
    #[error("a key could not be made")]
    Generation,
}

/// A public key (RFC 7517, RFC 7518 section 6.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Jwk {
    kty: &'static str,
    crv: &'static str,
    x: String,
    y: String,
    #[serde(rename = "use")]
    usage: &'static str,
    alg: &'static str,
    kid: String,
}

impl Jwk {
    /// The key of a point (SEC 1, section 2.3.3: 4, x, y).
    pub(crate) fn of_point(point: &[u8]) -> Result<Self, KeyError> {
        let Some((x, y)) = point
            .get(1..)
            .and_then(|point| point.split_at_checked(COORDINATE))
        else {
            return Err(KeyError::Rejected("its point is short".to_owned()));
        };
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        Ok(Self {
            kid: thumbprint(&x, &y),
            kty: "EC",
            crv: CURVE,
            x,
            y,
            usage: "sig",
            alg: ALGORITHM,
        })
    }
}

/// The header of every token of a key, encoded.
pub(crate) fn jwt_header(key: &Jwk) -> String {
    let header = json!({ "alg": ALGORITHM, "kid": key.kid, "typ": TYPE });
    URL_SAFE_NO_PAD.encode(header.to_string())
}

/// A key that signs results.
#[derive(Debug)]
pub struct SigningKey {
    pair: EcdsaKeyPair,
    random: SystemRandom,
    jwk: Jwk,
    jwt_header: String,
}

impl SigningKey {
    /// A new key, and its PKCS#8 in PEM.
    pub fn generate() -> Result<(Self, String), KeyError> {
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &SystemRandom::new())
                .map_err(|_| KeyError::Generation)?;
        let key = Self::from_pkcs8(document.as_ref())?;
        Ok((key, pem(document.as_ref())))
    }

    /// The key in a PKCS#8 PEM text.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let (_, block) =
            x509_parser::pem::parse_x509_pem(text.as_bytes()).map_err(|_| KeyError::Pem)?;
        if block.label != PEM_LABEL {
            return Err(KeyError::Pem);
        }
        Self::from_pkcs8(&block.contents)
    }

    fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, der)
            .map_err(|error| KeyError::Rejected(error.to_string()))?;
        let jwk = Jwk::of_point(pair.public_key().as_ref())?;
        Ok(Self {
            pair,
            random: SystemRandom::new(),
            jwt_header: jwt_header(&jwk),
            jwk,
        })
    }

    /// The public half.
    pub fn jwk(&self) -> &Jwk {
        &self.jwk
    }

    /// The key's id: its thumbprint (RFC 7638), 43 characters.
    pub fn id(&self) -> &str {
        &self.jwk.kid
    }

    /// The header of every token, encoded.
    pub(crate) fn jwt_header(&self) -> &str {
        &self.jwt_header
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Result<Signature, Unspecified> {
        self.pair.sign(&self.random, message)
    }
}

/// RFC 7638, section 3: the required members in order, without white space.
fn thumbprint(x: &str, y: &str) -> String {
    let members = format!(r#"{{"crv":"P-384","kty":"EC","x":"{x}","y":"{y}"}}"#);
    URL_SAFE_NO_PAD.encode(digest(&SHA256, members.as_bytes()))
}

fn pem(der: &[u8]) -> String {
    let mut body = String::new();
    for (index, character) in STANDARD.encode(der).chars().enumerate() {
        if index > 0 && index % PEM_LINE == 0 {
            body.push('\n');
        }
        body.push(character);
    }
    format!("-----BEGIN {PEM_LABEL}-----\n{body}\n-----END {PEM_LABEL}-----\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_same_after_it_was_written_and_read() {
        let (key, pem) = SigningKey::generate().unwrap();
        let read = SigningKey::from_pem(&pem).unwrap();
        assert_eq!(read.jwk(), key.jwk());
        assert_eq!(key.id().len(), 43);
        assert!(pem.lines().all(|line| line.len() <= PEM_LINE), "{pem}");
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let (_, pem) = SigningKey::generate().unwrap();
        let public = pem.replace("PRIVATE", "PUBLIC");
        for text in ["", "key", &public, &pem.replace('M', "N")] {
            assert!(SigningKey::from_pem(text).is_err(), "{text}");
        }
    }
}
