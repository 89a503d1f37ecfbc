//! What a document was made for: `enclave-init` says it in `user_data`.
//!
//! Whoever may ask the security module for a document chooses what it signs, so in
//! an enclave only the init may. In each document that is not the workload's own it
//! writes `user_data` itself: `enclave-purpose:` and the purpose's name, and nothing else. It
//! refuses a workload's `user_data` that begins so, whatever follows, so that no
//! document can be played under another purpose's name.
//!
//! That holds for an enclave whose measurements are those of an image with
//! `enclave-init`, which a verifier must demand besides.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// How `user_data` begins in every document that is not the workload's own.
const PREFIX: &[u8] = b"enclave-purpose:";

/// What a document was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Purpose {
    /// A challenge that came over the parent. Only the nonce is the challenger's;
    /// `public_key` is the workload's identity key if it has named one.
    RelayedChallenge,
    /// The init's verification of its own document. It holds nothing but a nonce of
    /// the init's own.
    SelfCheck,
    /// The init's comparison of its clock with the module's. It holds nothing but a
    /// nonce of the init's own, and does not leave the init.
    Clock,
    /// A call of the init's to a key management service, which encrypts its answer to
    /// `public_key`, a key that is the init's. It holds nothing else.
    KeyRelease,
    /// A challenge that came over the parent, for the key that secrets are sealed to.
    /// Only the nonce is the challenger's; `public_key` is the init's own, of this boot.
    Sealing,
    /// A request to an enclave of the same family for its seed, which is to be encrypted to
    /// `public_key`, a key that the init made for this request. The nonce is the other
    /// enclave's, and came over the parents.
    KeyRequest,
    /// The init's answer to such a request. The nonce is a digest over the request and what
    /// was encrypted.
    KeyGift,
    /// The workload asked for it, and chose nonce, `user_data` and `public_key`.
    Workload,
    /// The init made it for something that this release does not know.
    Unknown,
}

impl Purpose {
    /// Those that a verifier can demand.
    pub const KNOWN: [Self; 8] = [
        Self::RelayedChallenge,
        Self::SelfCheck,
        Self::Clock,
        Self::KeyRelease,
        Self::Sealing,
        Self::KeyRequest,
        Self::KeyGift,
        Self::Workload,
    ];
    /// Those whose `user_data` the init writes.
    const OF_THE_INIT: [Self; 7] = [
        Self::RelayedChallenge,
        Self::SelfCheck,
        Self::Clock,
        Self::KeyRelease,
        Self::Sealing,
        Self::KeyRequest,
        Self::KeyGift,
    ];

    /// The purpose of the document that holds this `user_data`.
    pub fn of(user_data: Option<&[u8]>) -> Self {
        let Some(name) = user_data.and_then(|data| data.strip_prefix(PREFIX)) else {
            return Self::Workload;
        };
        Self::OF_THE_INIT
            .into_iter()
            .find(|purpose| purpose.name().as_bytes() == name)
            .unwrap_or(Self::Unknown)
    }

    /// The `user_data` that the init writes, if the purpose is one of its own.
    pub fn user_data(self) -> Option<Vec<u8>> {
        match self {
            Self::RelayedChallenge
            | Self::SelfCheck
            | Self::Clock
            | Self::KeyRelease
            | Self::Sealing
            | Self::KeyRequest
            | Self::KeyGift => Some([PREFIX, self.name().as_bytes()].concat()),
            Self::Workload | Self::Unknown => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::RelayedChallenge => "relayed-challenge",
            Self::SelfCheck => "self-check",
            Self::Clock => "clock",
            Self::KeyRelease => "key-release",
            Self::Sealing => "sealing",
            Self::KeyRequest => "key-request",
            Self::KeyGift => "key-gift",
            Self::Workload => "workload",
            Self::Unknown => "unknown",
        }
    }
}

/// The purpose's name.
impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The purpose's name.
impl Serialize for Purpose {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Reads the name of a purpose that can be demanded.
impl FromStr for Purpose {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::KNOWN
            .into_iter()
            .find(|purpose| purpose.name() == text)
            .ok_or_else(|| {
                format!(
                    "{text:?} is no purpose that can be demanded: write {}",
                    Self::KNOWN.map(Self::name).join(", ")
                )
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purpose_of_the_init_is_told_from_its_user_data() {
        for purpose in Purpose::OF_THE_INIT {
            let data = purpose.user_data().unwrap();
            assert_eq!(Purpose::of(Some(&data)), purpose);
            assert_eq!(data, format!("enclave-purpose:{purpose}").into_bytes());
        }
        assert_eq!(Purpose::Workload.user_data(), None);
        assert_eq!(Purpose::Unknown.user_data(), None);
    }

    #[test]
    fn what_does_not_begin_as_the_inits_is_the_workloads() {
        assert_eq!(Purpose::of(None), Purpose::Workload);
        // Every way to write less than the prefix.
        for length in 0..PREFIX.len() {
            assert_eq!(Purpose::of(Some(&PREFIX[..length])), Purpose::Workload);
        }
        for data in [
            b"relayed-challenge".as_slice(),
            b"Enclave-purpose:self-check",
            b"ENCLAVE-PURPOSE:self-check",
            b"enclave-purpose self-check",
            b"enclave_purpose:self-check",
            b" enclave-purpose:self-check",
            b"\0enclave-purpose:self-check",
            b"\xef\xbb\xbfenclave-purpose:self-check",
            b"xenclave-purpose:enclave-purpose:self-check",
        ] {
            assert_eq!(Purpose::of(Some(data)), Purpose::Workload, "{data:?}");
        }
    }

    #[test]
    fn what_begins_as_the_inits_is_never_the_workloads() {
        for purpose in Purpose::OF_THE_INIT {
            let data = purpose.user_data().unwrap();
            // Every truncation, every further byte, every byte changed behind the prefix.
            for length in PREFIX.len()..data.len() {
                assert_eq!(Purpose::of(Some(&data[..length])), Purpose::Unknown);
            }
            for byte in 0..=u8::MAX {
                let longer = [data.as_slice(), &[byte]].concat();
                assert_eq!(Purpose::of(Some(&longer)), Purpose::Unknown);
                for place in PREFIX.len()..data.len() {
                    let mut changed = data.clone();
                    changed[place] = byte;
                    let same = changed == data;
                    let found = Purpose::of(Some(&changed));
                    assert_eq!(found == purpose, same, "{changed:?}");
                    assert_ne!(found, Purpose::Workload, "{changed:?}");
                }
            }
        }
        for name in [
            "",
            "workload",
            "unknown",
            "Relayed-Challenge",
            "self-check ",
            "self-check\0",
            "self-check:relayed-challenge",
            "key-releases",
        ] {
            let data = [PREFIX, name.as_bytes()].concat();
            assert_eq!(Purpose::of(Some(&data)), Purpose::Unknown, "{name}");
        }
    }

    #[test]
    fn no_name_begins_with_another() {
        for one in Purpose::KNOWN {
            for other in Purpose::KNOWN {
                assert_eq!(one.name().starts_with(other.name()), one == other);
            }
        }
    }

    #[test]
    fn what_can_be_demanded_has_a_name() {
        for purpose in Purpose::KNOWN {
            assert_eq!(purpose.to_string().parse(), Ok(purpose));
        }
        for text in [
            "",
            "unknown",
            "Workload",
            "self-check ",
            "enclave-purpose:self-check",
        ] {
            let error = text.parse::<Purpose>().unwrap_err();
            assert!(
                error.contains(
                    "relayed-challenge, self-check, clock, key-release, sealing, key-request, key-gift, workload"
                ),
                "{error}"
            );
        }
    }
}
