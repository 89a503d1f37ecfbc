//! Documents as files: binary, hexadecimal, base64 or PEM.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, anyhow};
use attestation::MAX_DOCUMENT;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Largest file that is read: a document as hexadecimal digits with line ends.
const MAX_INPUT: u64 = 4 * MAX_DOCUMENT as u64;

/// The bytes of the document in a file; `-` is standard input.
pub(crate) fn read_document(file: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read =
        |reader: &mut dyn Read, bytes: &mut Vec<u8>| reader.take(MAX_INPUT + 1).read_to_end(bytes);
    if file == Path::new("-") {
        read(&mut std::io::stdin(), &mut bytes).context("cannot read standard input")?;
    } else {
        std::fs::File::open(file)
            .and_then(|mut file| read(&mut file, &mut bytes))
            .with_context(|| format!("cannot read {}", file.display()))?;
    }
    if bytes.len() as u64 > MAX_INPUT {
        return Err(anyhow!(
            "{} has more than {MAX_INPUT} bytes: is this a document?",
            file.display()
        ));
    }
    if bytes.is_empty() {
        return Err(anyhow!("{} is empty", file.display()));
    }
    Ok(decode_text(&bytes).unwrap_or(bytes))
}

/// The bytes of a document written as hex, base64 or PEM. A binary document is
/// never text: its first byte is not ASCII.
fn decode_text(bytes: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let body: String = text
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .flat_map(|line| line.chars().filter(|character| !character.is_whitespace()))
        .collect();
    hex::decode(&body)
        .ok()
        .or_else(|| STANDARD.decode(&body).ok())
}
