//! AWS credentials, as the agent hands them to the enclave.

use std::fmt;
use std::ops::Deref;

use minicbor::decode::{Decoder, Error as DecodeError};
use minicbor::encode::{Encoder, Error as EncodeError, Write};
use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

use crate::bounded::Text;

/// Longest access key id, in bytes (AWS's own limit).
pub const MAX_ACCESS_KEY_ID: usize = 128;
/// Longest secret access key, in bytes; AWS's have 40.
pub const MAX_SECRET_ACCESS_KEY: usize = 256;
/// Longest session token, in bytes. AWS names no limit; session tags and policies make
/// tokens of several KiB.
pub const MAX_SESSION_TOKEN: usize = 16 * 1024;
/// Longest name of a region, in bytes.
pub const MAX_REGION: usize = 64;

/// Credentials that an AWS SDK signs requests with.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Credentials {
    /// Whose secret it is.
    #[n(0)]
    pub access_key_id: Secret<MAX_ACCESS_KEY_ID>,
    /// What requests are signed with.
    #[n(1)]
    pub secret_access_key: Secret<MAX_SECRET_ACCESS_KEY>,
    /// Sent with each request; empty for keys without a session.
    #[n(2)]
    pub session_token: Secret<MAX_SESSION_TOKEN>,
    /// When they expire, in milliseconds since 1970.
    #[n(3)]
    pub expires_ms: u64,
    /// Where the agent's own requests go; empty if no region is known.
    #[n(4)]
    pub region: Text<MAX_REGION>,
}

/// Visible ASCII characters, at most `MAX` of them. They are never printed, and are
/// overwritten before their memory is given back.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret<const MAX: usize>(Zeroizing<String>);

impl<const MAX: usize> Secret<MAX> {
    /// The text, unless it is too long or has other characters.
    pub fn new(text: &str) -> Option<Self> {
        let is_visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        (text.len() <= MAX && is_visible).then(|| Self(Zeroizing::new(text.to_owned())))
    }
}

impl<const MAX: usize> Deref for Secret<MAX> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> fmt::Debug for Secret<MAX> {
    /// The length only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} of at most {MAX})", self.0.len())
    }
}

impl<C, const MAX: usize> Encode<C> for Secret<MAX> {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
        e.str(&self.0)?.ok()
    }
}

impl<'b, C, const MAX: usize> Decode<'b, C> for Secret<MAX> {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, DecodeError> {
        let position = d.position();
        Self::new(d.str()?).ok_or_else(|| {
            // Not a character of what it is.
            let reason = format!("a secret that is not at most {MAX} visible ASCII characters");
            DecodeError::message(reason).at(position)
        })
    }
}
