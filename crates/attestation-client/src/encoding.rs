//! Documents as text: hexadecimal, base64, PEM or JSON.

use attestation::MAX_DOCUMENT;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use thiserror::Error;

/// Largest encoded document, in bytes: hexadecimal digits with line ends.
pub const MAX_ENCODED: usize = 4 * MAX_DOCUMENT;

/// Why bytes are no document in any encoding.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Nothing at all.
    #[error("it is empty")]
    Empty,
    /// Too many bytes.
    #[error("it has more than {MAX_ENCODED} bytes")]
    TooLarge,
    /// Text of another kind.
    #[error(
        "it is text, but neither hexadecimal, base64, PEM nor JSON with a `document` in base64"
    )]
    Text,
}

/// The answer of a service that speaks JSON.
#[derive(Deserialize)]
struct Json {
    document: String,
}

/// The document in bytes that may be hexadecimal, base64 (padded), PEM or JSON
/// whose `document` is in base64; other bytes are given back as they are. No
/// binary document is text: its first byte is not ASCII.
pub fn decode_document(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::Empty);
    }
    if bytes.len() > MAX_ENCODED {
        return Err(DecodeError::TooLarge);
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Ok(bytes.to_vec());
    };
    if text.trim_start().starts_with('{') {
        let json: Json = serde_json::from_str(text).map_err(|_| DecodeError::Text)?;
        return STANDARD
            .decode(json.document)
            .map_err(|_| DecodeError::Text);
    }
    let body: String = text
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .flat_map(|line| line.chars().filter(|character| !character.is_whitespace()))
        .collect();
    hex::decode(&body)
        .ok()
        .or_else(|| STANDARD.decode(&body).ok())
        .filter(|document| !document.is_empty())
        .ok_or(DecodeError::Text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_encoding_is_recognised() {
        let document = b"\x84\x44\xa1\x01".to_vec();
        for encoded in [
            document.clone(),
            b"8444a101".to_vec(),
            b" 8444\nA101\r\n".to_vec(),
            b"hEShAQ==\n".to_vec(),
            b"-----BEGIN X-----\nhESh\nAQ==\n-----END X-----\n".to_vec(),
            br#" {"document": "hEShAQ==", "more": 1}"#.to_vec(),
        ] {
            let text = String::from_utf8_lossy(&encoded);
            assert_eq!(decode_document(&encoded).as_ref(), Ok(&document), "{text}");
        }
    }

    #[test]
    fn other_text_is_refused() {
        for (bytes, error) in [
            (b"".to_vec(), DecodeError::Empty),
            (b"<html>".to_vec(), DecodeError::Text),
            (b"\n\n".to_vec(), DecodeError::Text),
            (br#"{"document": 1}"#.to_vec(), DecodeError::Text),
            (br#"{"document": "x"}"#.to_vec(), DecodeError::Text),
            (br#"{"error": "x"}"#.to_vec(), DecodeError::Text),
            (vec![0x84; MAX_ENCODED + 1], DecodeError::TooLarge),
        ] {
            assert_eq!(decode_document(&bytes), Err(error));
        }
    }
}
