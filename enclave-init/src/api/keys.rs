//! `GET /v1/keys`, which family the enclave is of, and `GET /v1/keys/PURPOSE[?bytes=N]`, a
//! key that all enclaves of the family have.

use bytes::Bytes;
use fleet_key::{KeyLength, Purpose};
use hyper::StatusCode;
use serde_json::json;

use super::failure::Failure;
use super::{Answer, Api};
use crate::family::{FamilyKeys, Missing};

pub(super) fn describe(api: &Api) -> Result<Answer, Failure> {
    let keys = keys(api)?;
    let fingerprint = keys
        .fingerprint()
        .map(|fingerprint| fingerprint.to_string());
    let mut body = json!({ "family": keys.family().as_str(), "fingerprint": fingerprint });
    if let (Some(generation), Some(fields)) = (keys.generation(), body.as_object_mut()) {
        fields.insert("generation".to_owned(), generation.get().into());
    }
    Ok(Answer::json(StatusCode::OK, &body))
}

pub(super) fn read(api: &Api, purpose: &str, query: Option<&str>) -> Result<Answer, Failure> {
    let keys = keys(api)?;
    let purpose = purpose.parse::<Purpose>();
    let purpose = purpose.map_err(|error| Failure::bad(error.to_string()))?;
    let key = keys.key(&purpose, length_of(query)?)?;
    let body = Bytes::from_owner(key);
    Ok(Answer::new(
        StatusCode::OK,
        "application/octet-stream",
        body,
    ))
}

fn keys(api: &Api) -> Result<&FamilyKeys, Missing> {
    api.keys.as_ref().ok_or(Missing::NoFamily)
}

/// How long the key is to be.
fn length_of(query: Option<&str>) -> Result<KeyLength, Failure> {
    let Some(query) = query else {
        return Ok(KeyLength::DEFAULT);
    };
    let bytes = query.strip_prefix("bytes=");
    let bytes = bytes.and_then(|bytes| bytes.parse().ok());
    KeyLength::new(bytes.unwrap_or_default())
        .map_err(|error| Failure::bad(format!("{error}: give bytes=N")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_asked_for_with_lengths_within_limits() {
        let of = |bytes| KeyLength::new(bytes).unwrap();
        for (query, expected) in [
            (None, of(32)),
            (Some("bytes=16"), of(16)),
            (Some("bytes=64"), of(64)),
        ] {
            assert_eq!(length_of(query).unwrap(), expected);
        }
        for query in [
            "",
            "bytes",
            "bytes=",
            "bytes=15",
            "bytes=65",
            "bytes=-1",
            "bytes=32&bytes=32",
            "length=32",
            "bytes=32&",
        ] {
            let failure = length_of(Some(query)).unwrap_err();
            assert_eq!(failure.status, StatusCode::BAD_REQUEST, "{query}");
        }
    }
}
