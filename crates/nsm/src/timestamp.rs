//! The module as a clock.

use crate::error::NsmError;

/// The timestamp of a document that the module itself has just given, in
/// milliseconds of Unix time. Nothing else is looked at, least of all the signature:
/// QEMU's module, whose documents a verifier cannot even read, is a clock all the same.
pub fn unverified_timestamp_ms(document: &[u8]) -> Result<u64, NsmError> {
    let missing = || NsmError::Message("a document without a timestamp".to_owned());
    let read = |bytes: &[u8]| {
        ciborium::from_reader::<ciborium::Value, _>(bytes)
            .map_err(|error| NsmError::Message(error.to_string()))
    };
    let signed = match read(document)? {
        ciborium::Value::Tag(_, signed) => *signed,
        signed => signed,
    };
    let payload = signed.as_array().and_then(|parts| parts.get(2)?.as_bytes());
    let payload = read(payload.ok_or_else(missing)?)?;
    let timestamp = payload.as_map().and_then(|fields| {
        let mut fields = fields.iter();
        fields.find(|(name, _)| name.as_text() == Some("timestamp"))
    });
    timestamp
        .and_then(|(_, value)| u64::try_from(value.as_integer()?).ok())
        .ok_or_else(missing)
}
