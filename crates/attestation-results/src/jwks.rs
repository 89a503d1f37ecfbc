//! The public keys that results are believed from.

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, ParsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use crate::rule::shown;
use crate::signing_key::{ALGORITHM, COORDINATE, CURVE};
use crate::strict_json;

/// Largest key set, in bytes.
pub const MAX_JWKS: usize = 256 * 1024;
/// Most keys of a set, those that are of no use here included.
const MAX_KEYS: usize = 256;

/// Why a key set cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum JwksError {
    /// It is too large.
    #[error("the key set has {0} bytes, and may have {MAX_JWKS}")]
    Size(usize),
    /// It is not a JWK set.
    #[error("it is not a JWK set, `{{\"keys\": […]}}`: {0}")]
    Form(String),
    /// It has too many keys.
    #[error("the key set has {0} keys, and may have {MAX_KEYS}")]
    TooMany(usize),
    /// A key is wrong.
    #[error("the key {kid:?} cannot be used: {reason}")]
    Key {
        /// Which.
        kid: String,
        /// Why.
        reason: &'static str,
    },
    /// There is none.
    #[error("the key set has no key that signs results: one on P-384 for ES384, with a `kid`")]
    Empty,
}

/// The public keys of an issuer, a JWK set (RFC 7517, section 5).
///
/// Each key has one algorithm, which follows from its kind and never from a token.
/// Keys of other kinds and for other uses are left out.
#[derive(Debug)]
pub struct Jwks(Vec<(String, ParsedPublicKey)>);

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Key {
    kty: String,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    #[serde(rename = "key_ops")]
    operations: Option<Vec<String>>,
    d: Option<Value>,
}

impl Key {
    /// Whether it verifies results.
    fn verifies(&self) -> bool {
        let unless = |value: &Option<String>, expected: &str| {
            value.as_ref().is_none_or(|value| value == expected)
        };
        self.kty == "EC"
            && self.crv.as_deref() == Some(CURVE)
            && unless(&self.alg, ALGORITHM)
            && unless(&self.usage, "sig")
            && self
                .operations
                .as_ref()
                .is_none_or(|names| names.iter().any(|name| name == "verify"))
    }

    fn public_key(&self) -> Option<ParsedPublicKey> {
        let mut point = vec![4];
        for text in [&self.x, &self.y] {
            let coordinate = URL_SAFE_NO_PAD.decode(text.as_ref()?).ok()?;
            if coordinate.len() != COORDINATE {
                return None;
            }
            point.extend(coordinate);
        }
        ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point).ok()
    }
}

impl Jwks {
    /// Reads a JWK set.
    pub fn from_json(json: &[u8]) -> Result<Self, JwksError> {
        if json.len() > MAX_JWKS {
            return Err(JwksError::Size(json.len()));
        }
        let set: Set = strict_json::parse(json).map_err(JwksError::Form)?;
        if set.keys.len() > MAX_KEYS {
            return Err(JwksError::TooMany(set.keys.len()));
        }
        let mut keys: Vec<(String, ParsedPublicKey)> = Vec::new();
        for key in set.keys {
            // What has no known form is of another kind (RFC 7517, section 5).
            let Ok(key) = serde_json::from_value::<Key>(key) else {
                continue;
            };
            let wrong = |reason| JwksError::Key {
                kid: shown(key.kid.as_deref().unwrap_or_default()),
                reason,
            };
            if key.d.is_some() {
                return Err(wrong(
                    "it is a private key: remove `d`, and replace the key, since others have seen it",
                ));
            }
            let Some(kid) = key.kid.clone().filter(|_| key.verifies()) else {
                continue;
            };
            if keys.iter().any(|(other, _)| *other == kid) {
                return Err(wrong("another key of the set has this `kid`"));
            }
            let public = key
                .public_key()
                .ok_or_else(|| wrong("`x` and `y` are not a point on P-384"))?;
            keys.push((kid, public));
        }
        if keys.is_empty() {
            return Err(JwksError::Empty);
        }
        Ok(Self(keys))
    }

    /// The key of this id.
    pub(crate) fn get(&self, kid: &str) -> Option<&ParsedPublicKey> {
        let (_, key) = self.0.iter().find(|(other, _)| other == kid)?;
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::SigningKey;

    fn jwk() -> Value {
        let (key, _) = SigningKey::generate().unwrap();
        serde_json::to_value(key.jwk()).unwrap()
    }

    fn with(name: &str, value: Value) -> Value {
        let mut key = jwk();
        key[name] = value;
        key
    }

    fn read(keys: &[Value]) -> Result<Jwks, JwksError> {
        Jwks::from_json(json!({ "keys": keys }).to_string().as_bytes())
    }

    #[test]
    fn jwks_are_read_and_keys_of_other_kinds_left_out() {
        let good = jwk();
        let others = [
            json!({ "kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "a" }),
            json!({ "kty": "oct", "k": "AAAA", "kid": "b" }),
            json!({ "kty": "new", "crv": 7 }),
            with("crv", json!("P-256")),
            with("alg", json!("ES256")),
            with("use", json!("enc")),
            with("key_ops", json!(["sign"])),
        ];
        let keys = read(&[&others[..], std::slice::from_ref(&good)].concat()).unwrap();
        assert_eq!(keys.0.len(), 1);
        assert!(keys.get(good["kid"].as_str().unwrap()).is_some());
        for other in others {
            assert_eq!(read(&[other]).unwrap_err(), JwksError::Empty);
        }
    }

    #[test]
    fn jwks_that_are_ambiguous_or_wrong_are_refused() {
        let good = jwk();
        let mut same_id = jwk();
        same_id["kid"] = good["kid"].clone();
        let refused = |keys: &[Value]| read(keys).unwrap_err().to_string();
        assert!(refused(&[good.clone(), same_id]).contains("another key"));
        assert!(refused(&[with("d", json!("AAAA"))]).contains("private key"));
        for name in ["x", "y"] {
            for value in ["", "AAAA", &"A".repeat(64), &"_".repeat(64), "?"] {
                let error = refused(&[with(name, json!(value))]);
                assert!(error.contains("not a point"), "{name} {value}: {error}");
            }
        }
        let error = |text: &str| Jwks::from_json(text.as_bytes()).unwrap_err();
        for text in ["", "[]", "{}", r#"{"keys":[],"keys":[]}"#] {
            assert!(matches!(error(text), JwksError::Form(_)), "{text}");
        }
        assert_eq!(error(r#"{"keys":[]}"#), JwksError::Empty);
        assert!(matches!(
            error(&" ".repeat(MAX_JWKS + 1)),
            JwksError::Size(_)
        ));
        let many = vec![json!({ "kty": "RSA" }); MAX_KEYS + 1];
        assert_eq!(read(&many).unwrap_err(), JwksError::TooMany(MAX_KEYS + 1));
    }
}
