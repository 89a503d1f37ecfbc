//! A signed result as it travels: a JWS in compact form (RFC 7515, section 7.1).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;

use crate::jwks::Jwks;
use crate::rule::{ResultError, ResultRule, shown};
use crate::signing_key::{ALGORITHM, COORDINATE, TYPE};
use crate::strict_json;

/// Largest signed result, in bytes: three times that of the largest document.
pub const MAX_TOKEN: usize = 128 * 1024;
/// Largest header in base64url, in bytes.
const MAX_HEADER: usize = 4096;

/// What of the header matters; other parameters are to be ignored (RFC 7515,
/// section 4), and so no key is taken from there.
#[derive(Deserialize)]
struct Header {
    alg: Value,
    typ: Option<Value>,
    kid: Option<String>,
    /// Even null is not what it may be.
    #[serde(default, deserialize_with = "present")]
    crit: bool,
    /// Has a meaning only where it is critical (RFC 7797, section 6).
    #[serde(default, deserialize_with = "present")]
    b64: bool,
}

fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    serde::de::IgnoredAny::deserialize(deserializer).map(|_| true)
}

/// The claims of a result that a key of the set has signed, as JSON.
pub(crate) fn open(token: &str, keys: &Jwks) -> Result<Vec<u8>, ResultError> {
    let malformed = |reason: &str| ResultError::new(ResultRule::TokenForm, reason);
    if token.len() > MAX_TOKEN {
        return Err(malformed(&format!(
            "it has {} bytes, and a result at most {MAX_TOKEN}",
            token.len()
        )));
    }
    let (message, signature) = token
        .rsplit_once('.')
        .ok_or_else(|| malformed("it is not three parts with dots between"))?;
    let (header, claims) = message
        .split_once('.')
        .filter(|(_, claims)| !claims.contains('.'))
        .ok_or_else(|| malformed("it is not three parts with dots between"))?;
    if header.len() > MAX_HEADER {
        return Err(malformed("its header is too large"));
    }
    let decode = |part: &str, what: &str| {
        URL_SAFE_NO_PAD
            .decode(part)
            .map_err(|error| malformed(&format!("its {what} is not base64url: {error}")))
    };
    let kid = key_id(&decode(header, "header")?)?;
    let signature = decode(signature, "signature")?;
    let key = keys.get(&kid).ok_or_else(|| {
        ResultError::new(
            ResultRule::HeaderKey,
            format!(
                "no key of the set is {}: fetch the set again, it may be older than the key",
                shown(&kid)
            ),
        )
    })?;
    if signature.len() != 2 * COORDINATE || key.verify_sig(message.as_bytes(), &signature).is_err()
    {
        return Err(ResultError::new(
            ResultRule::Signature,
            format!("the key {} has not signed this", shown(&kid)),
        ));
    }
    decode(claims, "claims")
}

/// The key that the header names, if all else in it is as it must be.
pub(crate) fn key_id(header: &[u8]) -> Result<String, ResultError> {
    let header: Header = strict_json::parse(header)
        .map_err(|reason| ResultError::new(ResultRule::HeaderForm, reason))?;
    if header.crit || header.b64 {
        return Err(ResultError::new(
            ResultRule::HeaderCritical,
            "the header demands an extension, and results have none",
        ));
    }
    let media_type = |text: &str| {
        let name = match text.split_at_checked(APPLICATION.len()) {
            Some((prefix, name)) if prefix.eq_ignore_ascii_case(APPLICATION) => name,
            _ => text,
        };
        name.eq_ignore_ascii_case(TYPE)
    };
    if !header
        .typ
        .as_ref()
        .and_then(Value::as_str)
        .is_some_and(media_type)
    {
        let typ = header.typ.unwrap_or_default();
        return Err(ResultError::new(
            ResultRule::HeaderType,
            format!("`typ` is {}, not {TYPE:?}", shown(&typ.to_string())),
        ));
    }
    if header.alg != ALGORITHM {
        return Err(ResultError::new(
            ResultRule::HeaderAlgorithm,
            format!(
                "`alg` is {}, and the keys of results are for {ALGORITHM} only",
                shown(&header.alg.to_string())
            ),
        ));
    }
    header
        .kid
        .ok_or_else(|| ResultError::new(ResultRule::HeaderKey, "`kid` names no key"))
}

/// What a media type in `typ` may leave out (RFC 7515, section 4.1.9).
const APPLICATION: &str = "application/";
