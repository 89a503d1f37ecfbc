//! Documents as files: binary, hexadecimal, base64, PEM or JSON.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, anyhow};
use attestation_client::{DecodeError, MAX_ENCODED, decode_document};

/// The bytes of the document in a file; `-` is standard input.
pub(crate) fn read_document(file: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = |reader: &mut dyn Read, bytes: &mut Vec<u8>| {
        reader.take(MAX_ENCODED as u64 + 1).read_to_end(bytes)
    };
    if file == Path::new("-") {
        read(&mut std::io::stdin(), &mut bytes).context("cannot read standard input")?;
    } else {
        std::fs::File::open(file)
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
