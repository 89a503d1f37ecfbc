//! The seed, and what is derived from it: HKDF (RFC 5869) with SHA-256.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::family::Family;

/// Bytes of a seed.
const SEED_BYTES: usize = 32;
/// Bytes of a fingerprint.
const FINGERPRINT_BYTES: usize = 16;
/// Longest purpose of a key, in bytes.
pub const MAX_PURPOSE: usize = 64;
/// How many bytes a key may have.
pub const KEY_BYTES: std::ops::RangeInclusive<usize> = 16..=64;

/// How HKDF's `info` begins for keys, and for the fingerprint.
const KEY: &[u8] = b"enclave family key, version 1\0";
const FINGERPRINT: &[u8] = b"enclave family fingerprint, version 1\0";

/// The secret that a family shares. It is overwritten before its memory is given back.
pub struct Seed(Zeroizing<[u8; SEED_BYTES]>);

/// Other bytes than a seed has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("it has {0} bytes, and a seed has {SEED_BYTES}")]
pub struct SeedError(pub usize);

/// What tells one seed from another, and nothing else of it: public.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; FINGERPRINT_BYTES]);

/// A text is no fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "a seed's fingerprint has {} hexadecimal digits, in lower case",
    Fingerprint::DIGITS
)]
pub struct FingerprintError;

/// What a key is for: 1 to [`MAX_PURPOSE`] letters, digits, `-`, `_` and `.`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purpose(String);

/// A text names no purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "a key's purpose has 1 to {MAX_PURPOSE} letters, digits, `-`, `_` and `.`, as in `session-tokens`"
)]
pub struct PurposeError;

/// Bytes of a key, within [`KEY_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyLength(u16);

/// Too many bytes for a key, or too few.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a key has {} to {} bytes", KEY_BYTES.start(), KEY_BYTES.end())]
pub struct KeyLengthError;

impl Seed {
    /// The number of a seed's bytes.
    pub const BYTES: usize = SEED_BYTES;

    /// The bytes, for whoever encrypts them to another enclave of the family.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_slice()
    }

    /// The seed of these bytes, which are to be random.
    pub fn new(bytes: &[u8]) -> Result<Self, SeedError> {
        let mut seed = Zeroizing::new([0; SEED_BYTES]);
        if bytes.len() != SEED_BYTES {
            return Err(SeedError(bytes.len()));
        }
        seed.copy_from_slice(bytes);
        Ok(Self(seed))
    }

    /// The key for a purpose: the same in every enclave of the family, another for each
    /// purpose, family and length.
    pub fn key(&self, family: &Family, purpose: &Purpose, length: KeyLength) -> Zeroizing<Vec<u8>> {
        let mut key = Zeroizing::new(vec![0; length.0.into()]);
        let info = [
            KEY,
            &counted(family.as_str()),
            &counted(&purpose.0),
            &length.0.to_be_bytes(),
        ];
        self.expand(&info, &mut key);
        key
    }

    /// What the family can be known by.
    pub fn fingerprint(&self, family: &Family) -> Fingerprint {
        let mut fingerprint = [0; FINGERPRINT_BYTES];
        self.expand(&[FINGERPRINT, &counted(family.as_str())], &mut fingerprint);
        Fingerprint(fingerprint)
    }

    fn expand(&self, info: &[&[u8]], to: &mut [u8]) {
        let key: Prk = Salt::new(HKDF_SHA256, &[]).extract(self.0.as_slice());
        // RFC 5869 allows 8160 bytes.
        let filled = key
            .expand(info, Length(to.len()))
            .and_then(|key| key.fill(to));
        assert!(filled.is_ok(), "HKDF makes up to 8160 bytes");
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed")
    }
}

impl Fingerprint {
    /// The number of hexadecimal digits that it is written with.
    pub const DIGITS: usize = 2 * FINGERPRINT_BYTES;
}

/// In hexadecimal, in lower case.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex::encode(self.0))
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let mut fingerprint = [0; FINGERPRINT_BYTES];
        hex::decode_to_slice(text, &mut fingerprint).map_err(|_| FingerprintError)?;
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(FingerprintError);
        }
        Ok(Self(fingerprint))
    }
}

impl FromStr for Purpose {
    type Err = PurposeError;

    fn from_str(text: &str) -> Result<Self, PurposeError> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if (1..=MAX_PURPOSE).contains(&text.len()) && text.bytes().all(is_allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(PurposeError)
        }
    }
}

impl KeyLength {
    /// Of a key whose reader names no length: 32 bytes.
    pub const DEFAULT: Self = Self(32);

    /// So many bytes, if a key may have them.
    pub fn new(bytes: usize) -> Result<Self, KeyLengthError> {
        u16::try_from(bytes)
            .ok()
            .filter(|_| KEY_BYTES.contains(&bytes))
            .map(Self)
            .ok_or(KeyLengthError)
    }
}

/// What HKDF is asked for.
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// A text after its length, so that where it ends is part of what is derived.
fn counted(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_be_bytes(), text.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn seed(byte: u8) -> Seed {
        Seed::new(&[byte; SEED_BYTES]).unwrap()
    }

    /// By `tests/vectors/derive.py`, with pyca/cryptography's HKDF.
    #[test]
    fn keys_are_those_of_another_implementation() {
        let family = "payments".parse().unwrap();
        let purpose = "session-tokens".parse().unwrap();
        let key = seed(7).key(&family, &purpose, KeyLength::DEFAULT);
        assert_eq!(
            hex::encode(&*key),
            "c322f4f0dc6ee4a22b05cb0720cf0a252393b54142f75677d3a47a26a89cd411"
        );
        let fingerprint = seed(7).fingerprint(&family);
        assert_eq!(fingerprint.to_string(), "e9903d08a8b5bf5439229e7432653e04");
    }

    #[test]
    fn keys_differ_with_seed_family_purpose_and_length() {
        let mut known = BTreeSet::new();
        for byte in [1, 2] {
            for family in ["a", "ab", "b"] {
                for purpose in ["a", "b", "bc", "c"] {
                    for length in [16, 32, 64] {
                        let length = KeyLength::new(length).unwrap();
                        let (family, purpose) = (family.parse().unwrap(), purpose.parse().unwrap());
                        let key = seed(byte).key(&family, &purpose, length);
                        // Nor does one begin as another does.
                        assert!(known.insert(key[..16].to_vec()));
                    }
                }
                let fingerprint = seed(byte).fingerprint(&family.parse().unwrap());
                assert!(known.insert(fingerprint.0.to_vec()));
            }
        }
    }

    #[test]
    fn keys_have_lengths_and_purposes_within_limits() {
        for bytes in [0, 15, 65, 65_536 + 32, usize::MAX] {
            assert_eq!(KeyLength::new(bytes), Err(KeyLengthError), "{bytes}");
        }
        for bytes in KEY_BYTES {
            assert!(KeyLength::new(bytes).is_ok());
        }
        for text in ["a", "Session_tokens-2.0", &"p".repeat(MAX_PURPOSE)] {
            assert!(text.parse::<Purpose>().is_ok(), "{text}");
        }
        for text in ["", "a/b", "a b", "ä", "%41", &"p".repeat(MAX_PURPOSE + 1)] {
            assert_eq!(text.parse::<Purpose>(), Err(PurposeError), "{text}");
        }
    }

    #[test]
    fn fingerprints_are_read_as_they_are_written() {
        let fingerprint = seed(7).fingerprint(&"a".parse().unwrap());
        assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
        for text in ["", "ab", &"g".repeat(32), &"A".repeat(32), &"a".repeat(34)] {
            assert_eq!(text.parse::<Fingerprint>(), Err(FingerprintError), "{text}");
        }
    }

    #[test]
    fn seeds_have_one_length_and_are_never_printed() {
        for length in [0, SEED_BYTES - 1, SEED_BYTES + 1] {
            let seed = Seed::new(&vec![1; length]);
            assert_eq!(seed.unwrap_err(), SeedError(length));
        }
        assert_eq!(format!("{:?}", seed(7)), "Seed");
    }
}
