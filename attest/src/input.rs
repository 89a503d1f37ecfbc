//! What commands are given: files, documents among them, bytes in hexadecimal, instants.

use std::error::Error;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, anyhow};
use attestation_client::{DecodeError, MAX_ENCODED, Trust, decode_document};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use zeroize::Zeroizing;

/// Largest file of certificates, in bytes: all authorities of a system have some 200 KiB.
const MAX_PEM: usize = 1024 * 1024;

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

/// A file's bytes, up to a limit.
fn read_file(file: &Path, limit: usize) -> anyhow::Result<Vec<u8>> {
    let opened = File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    read_limited(opened, file, limit)
}

/// A file's bytes, or those of standard input for `-`, up to a limit.
pub(crate) fn read_input(file: &Path, limit: usize) -> anyhow::Result<Vec<u8>> {
    if file == Path::new("-") {
        return read_limited(std::io::stdin(), file, limit);
    }
    read_file(file, limit)
}

fn read_limited(input: impl Read, file: &Path, limit: usize) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    input
        .take(most)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read {}", file.display()))?;
    if bytes.len() > limit {
        return Err(anyhow!(
            "{} has more than {limit} bytes: is this the right file?",
            file.display()
        ));
    }
    Ok(bytes)
}

/// What a PEM file of certificates is read as.
pub(crate) fn read_pem<T, E>(
    file: &Path,
    parse: impl FnOnce(&[u8]) -> Result<T, E>,
) -> anyhow::Result<T>
where
    E: Error + Send + Sync + 'static,
{
    let pem = read_file(file, MAX_PEM)?;
    parse(&pem).with_context(|| file.display().to_string())
}

/// What a PEM file with a private key is read as. What was read is overwritten.
pub(crate) fn read_private_key<T, E>(
    file: &Path,
    parse: impl FnOnce(&[u8]) -> Result<T, E>,
) -> anyhow::Result<T>
where
    E: Error + Send + Sync + 'static,
{
    let pem = Zeroizing::new(read_file(file, MAX_PEM)?);
    parse(&pem).with_context(|| file.display().to_string())
}

/// Who vouches for TLS servers: the authorities in a PEM file, or the system's.
pub(crate) fn tls_authorities(file: Option<&Path>) -> anyhow::Result<Trust> {
    file.map_or_else(
        || Ok(Trust::system()),
        |file| read_pem(file, Trust::from_pem),
    )
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
