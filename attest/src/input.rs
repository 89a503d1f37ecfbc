//! What commands are given: files, documents among them, bytes in hexadecimal, instants.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, anyhow};
use attestation_client::{DecodeError, MAX_ENCODED, Trust, decode_document};
use command_input::read_pem;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Bytes given in hex.
#[derive(Debug, Clone)]
pub(crate) struct Hex(pub(crate) Vec<u8>);

pub(crate) fn parse_hex(text: &str) -> Result<Hex, String> {
    hex::decode(text)
        .map(Hex)
        .map_err(|error| error.to_string())
}

/// Milliseconds since 1970 of an RFC 3339 instant.
pub(crate) fn parse_instant(text: &str) -> Result<u64, String> {
    OffsetDateTime::parse(text, &Rfc3339)
        .ok()
        .and_then(|time| u64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok())
        .ok_or_else(|| format!("`{text}` is not an instant such as 2026-01-31T12:00:00Z"))
}

/// Who vouches for TLS servers: the authorities in a PEM file, or the system's.
pub(crate) fn tls_authorities(file: Option<&Path>) -> anyhow::Result<Trust> {
    Ok(match file {
        Some(file) => read_pem(file, Trust::from_pem)?,
        None => Trust::system(),
    })
}

/// The bytes of the document in a file; `-` is standard input.
pub(crate) fn read_document(file: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = |reader: &mut dyn Read, bytes: &mut Vec<u8>| {
        reader.take(MAX_ENCODED as u64 + 1).read_to_end(bytes)
    };
    if file == Path::new("-") {
        read(&mut std::io::stdin(), &mut bytes).context("cannot read standard input")?;
    } else {
        File::open(file)
            .and_then(|mut file| read(&mut file, &mut bytes))
            .with_context(|| format!("cannot read {}", file.display()))?;
    }
    match decode_document(&bytes) {
        Ok(document) => Ok(document),
        // It is no document then, and the verifier says why.
        Err(DecodeError::Text) => Ok(bytes),
        Err(error) => Err(anyhow!("{}: {error}: is this a document?", file.display())),
    }
}
