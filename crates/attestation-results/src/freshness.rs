//! What shows that a document is new.

use serde::{Deserialize, Serialize};

/// Bytes that a nonce may have in a result: those of `eat_nonce` (RFC 9711,
/// section 4.1).
pub const NONCE_BYTES: std::ops::RangeInclusive<usize> = 8..=64;

/// What shows that an accepted document is new; the greater, the more does.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Freshness {
    /// Nothing but its age: anybody who has the document can have it verified again.
    #[default]
    None,
    /// A nonce that the verifier's caller chose, and answers for. Whoever asks the
    /// same again gets the same answer.
    Caller,
    /// A nonce that the verifier issued, and has used up for this document.
    Challenge,
}

impl Freshness {
    /// Its name in results.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Caller => "caller",
            Self::Challenge => "challenge",
        }
    }
}

/// The nonce that a document had to carry, and who chose it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NonceSource<'a> {
    /// There was none.
    None,
    /// The caller chose it, and answers for its being new.
    Caller(&'a [u8]),
    /// The issuer chose it, and gives no other accepted result for it.
    Challenge(&'a [u8]),
}

impl<'a> NonceSource<'a> {
    pub(crate) const fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::None => None,
            Self::Caller(nonce) | Self::Challenge(nonce) => Some(nonce),
        }
    }

    pub(crate) const fn freshness(self) -> Freshness {
        match self {
            Self::None => Freshness::None,
            Self::Caller(_) => Freshness::Caller,
            Self::Challenge(_) => Freshness::Challenge,
        }
    }
}
