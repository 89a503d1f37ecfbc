//! One register.

use std::fmt;
use std::str::FromStr;

#[cfg(feature = "extend")]
use aws_lc_rs::digest::{Context, SHA384, digest};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Registers that an enclave has.
pub const PCR_COUNT: usize = 32;
/// Size of a SHA-384 value in bytes.
const PCR_BYTES: usize = 48;
/// Length of its text form.
const DIGITS: usize = 2 * PCR_BYTES;
/// Bytes of a certificate's fingerprint: SHA-1 and SHA-256, and SHA-384.
const FINGERPRINTS: [usize; 3] = [20, 32, PCR_BYTES];

/// The value of a platform configuration register: 48 bytes, written in hex.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pcr([u8; PCR_BYTES]);

/// Why a text is not a [`Pcr`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PcrError {
    /// Too long or too short.
    #[error("a PCR value has {DIGITS} hexadecimal digits, this text has {0} bytes")]
    Length(usize),
    /// What `openssl x509 -fingerprint` prints of a certificate.
    #[error(
        "a PCR value has {DIGITS} hexadecimal digits, and this is as long as a certificate's fingerprint: of a signer's certificate, `attest pcr --certificate FILE` computes PCR8"
    )]
    Fingerprint,
    /// A character that is not a hexadecimal digit.
    #[error("a PCR value has {DIGITS} hexadecimal digits, this text has the character {0:?}")]
    Digit(char),
}

impl Pcr {
    /// A register that nothing has been measured into.
    pub const ZERO: Self = Self([0; PCR_BYTES]);

    /// The register with these bytes.
    pub const fn new(bytes: [u8; PCR_BYTES]) -> Self {
        Self(bytes)
    }

    /// The register's bytes.
    pub const fn as_bytes(&self) -> &[u8; PCR_BYTES] {
        &self.0
    }

    /// The register (PCR8) of an enclave whose image was signed under this certificate,
    /// DER: its SHA-384 fingerprint is measured.
    #[cfg(feature = "extend")]
    pub fn of_signer(certificate: &[u8]) -> Self {
        Self::ZERO.extend(digest(&SHA384, certificate).as_ref())
    }

    /// The register after `data` has been measured into it.
    #[cfg(feature = "extend")]
    #[must_use]
    pub fn extend(self, data: &[u8]) -> Self {
        let mut context = Context::new(&SHA384);
        context.update(&self.0);
        context.update(data);
        let mut bytes = [0; PCR_BYTES];
        // SHA-384 has exactly this length.
        for (to, from) in bytes.iter_mut().zip(context.finish().as_ref()) {
            *to = *from;
        }
        Self(bytes)
    }
}

impl fmt::Display for Pcr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex::encode(self.0))
    }
}

impl fmt::Debug for Pcr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pcr({self})")
    }
}

impl FromStr for Pcr {
    type Err = PcrError;

    fn from_str(text: &str) -> Result<Self, PcrError> {
        let mut bytes = [0; PCR_BYTES];
        if is_fingerprint(text) {
            return Err(PcrError::Fingerprint);
        }
        if let Some(digit) = text.chars().find(|digit| !digit.is_ascii_hexdigit()) {
            return Err(PcrError::Digit(digit));
        }
        hex::decode_to_slice(text, &mut bytes).map_err(|_| PcrError::Length(text.len()))?;
        Ok(Self(bytes))
    }
}

/// Whether the text is a certificate's fingerprint, with colons between its bytes or without.
fn is_fingerprint(text: &str) -> bool {
    let is_byte = |text: &str| text.len() == 2 && is_hex(text);
    if text.contains(':') {
        text.split(':').all(is_byte) && FINGERPRINTS.contains(&text.split(':').count())
    } else {
        text.len() < DIGITS && FINGERPRINTS.contains(&(text.len() / 2)) && is_hex(text)
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl TryFrom<String> for Pcr {
    type Error = PcrError;

    fn try_from(text: String) -> Result<Self, PcrError> {
        text.parse()
    }
}

impl From<Pcr> for String {
    fn from(pcr: Pcr) -> Self {
        pcr.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pcr_is_hex_of_either_case() {
        let text = "0aF".repeat(32);
        let pcr: Pcr = text.parse().unwrap();
        assert_eq!(pcr.to_string(), text.to_lowercase());
        assert_eq!(pcr.as_bytes()[..3], [0x0a, 0xf0, 0xaf]);
    }

    #[test]
    fn other_texts_are_not_pcrs() {
        let parse = |text: &str| text.parse::<Pcr>().unwrap_err();
        assert_eq!(parse(""), PcrError::Length(0));
        assert_eq!(parse(&"0".repeat(95)), PcrError::Length(95));
        assert_eq!(parse(&"0".repeat(98)), PcrError::Length(98));
        assert_eq!(parse(&"é".repeat(48)), PcrError::Digit('é'));
        assert_eq!(parse(&format!("{}g", "0".repeat(95))), PcrError::Digit('g'));
    }

    #[test]
    fn a_fingerprint_is_no_pcr_and_gets_advice() {
        for text in [
            "0a".repeat(20),
            "0A".repeat(32),
            vec!["0A"; 20].join(":"),
            vec!["0a"; 32].join(":"),
            vec!["0A"; 48].join(":"),
        ] {
            let error = text.parse::<Pcr>().unwrap_err();
            assert_eq!(error, PcrError::Fingerprint, "{text}");
            assert!(error.to_string().contains("attest pcr --certificate"));
        }
        let almost = vec!["0a"; 31].join(":");
        assert_eq!(almost.parse::<Pcr>(), Err(PcrError::Digit(':')));
        assert!("0a".repeat(48).parse::<Pcr>().is_ok());
    }

    #[cfg(feature = "extend")]
    #[test]
    fn extending_hashes_the_value_and_the_data() {
        // printf '%096d' 0 | xxd -r -p | cat - <(printf data) | sha384sum
        assert_eq!(
            Pcr::ZERO.extend(b"data").to_string(),
            "5c0b6a50c29a737e6b9a241fccd5d38090feb87efc9b17ef15c65171bf97f67ba756fd467f8d5c765a9f7527dcfd25d2"
        );
    }
}
