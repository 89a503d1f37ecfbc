//! A sealed secret as bytes: CBOR (RFC 8949) in the one form that a secret has.
//!
//! `[content (bytes), signature (bytes, 64)]`, and the content is `[version, [KEM, KDF,
//! AEAD], name (text), registers (their mask), encapsulated key (bytes, 32), ciphertext
//! (bytes)]`. The signature is over a fixed text and the content.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use thiserror::Error;

use crate::sender::{SIGNATURE_BYTES, Sender};
use crate::suite::{KEY_BYTES, SUITE, TAG_BYTES};

/// The format's version.
pub const FORMAT_VERSION: u16 = 1;
/// Largest secret, in bytes: one that is sealed fits into a frame of the control channel.
pub const MAX_SECRET: usize = 32 * 1024;
/// Longest name of a secret, in bytes.
pub const MAX_NAME: usize = 63;
/// Largest sealed secret, in bytes: the secret, and less than 512 bytes of the rest.
pub const MAX_SEALED: usize = MAX_SECRET + 512;

/// Why bytes are no sealed secret.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FormatError {
    /// Too many bytes.
    #[error("it has more than {MAX_SEALED} bytes: is this the right file?")]
    TooLarge,
    /// Another version.
    #[error(
        "it is a sealed secret of version {0}, and this program knows {FORMAT_VERSION}: seal it with the release that the enclave has"
    )]
    Version(u16),
    /// Anything else.
    #[error("it is not a sealed secret: is this the file that `attest seal` wrote, and all of it?")]
    Form,
}

/// A sealed secret. Nothing of it is to be believed before it is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    pub(crate) envelope: Envelope,
    pub(crate) content: Content,
}

/// The outer array.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Envelope {
    #[n(0)]
    pub(crate) content: ByteVec,
    #[n(1)]
    pub(crate) signature: ByteVec,
}

/// What is signed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Content {
    #[n(0)]
    pub(crate) version: u16,
    #[n(1)]
    pub(crate) suite: [u16; 3],
    #[n(2)]
    pub(crate) name: String,
    #[n(3)]
    pub(crate) registers: u32,
    #[n(4)]
    pub(crate) encapsulated: ByteVec,
    #[n(5)]
    pub(crate) ciphertext: ByteVec,
}

/// The beginning that every version has.
#[derive(Decode)]
#[cbor(array)]
struct AnyVersion {
    #[n(0)]
    version: u16,
}

impl Sealed {
    /// Reads a sealed secret: nothing but the bytes that are written for its contents.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        if bytes.len() > MAX_SEALED {
            return Err(FormatError::TooLarge);
        }
        let envelope: Envelope = minicbor::decode(bytes).map_err(|_| FormatError::Form)?;
        let AnyVersion { version } =
            minicbor::decode(&envelope.content).map_err(|_| FormatError::Form)?;
        if version != FORMAT_VERSION {
            return Err(FormatError::Version(version));
        }
        let content: Content =
            minicbor::decode(&envelope.content).map_err(|_| FormatError::Form)?;
        let ciphertext = TAG_BYTES..=TAG_BYTES + MAX_SECRET;
        let is_valid = content.suite == SUITE
            && is_name(&content.name)
            && content.encapsulated.len() == KEY_BYTES
            && ciphertext.contains(&content.ciphertext.len())
            && envelope.signature.len() == SIGNATURE_BYTES
            // Longer forms, further fields and bytes behind it are none of ours.
            && encode(&content) == *envelope.content
            && encode(&envelope) == bytes;
        if !is_valid {
            return Err(FormatError::Form);
        }
        Ok(Self { envelope, content })
    }

    /// Whether this sender has signed it. [`SealingKey::open`](crate::SealingKey::open)
    /// demands that, too.
    pub fn is_signed_by(&self, sender: &Sender) -> bool {
        sender.has_signed(&self.envelope.content, &self.envelope.signature)
    }

    /// The name that it claims to have.
    pub fn name(&self) -> &str {
        &self.content.name
    }

    /// The registers that it claims to be bound to, in order.
    pub fn registers(&self) -> impl Iterator<Item = u8> + use<> {
        let mask = self.content.registers;
        (0..32).filter(move |index| mask >> index & 1 == 1)
    }
}

/// Whether a text can be a secret's name: 1 to [`MAX_NAME`] lower-case letters, digits and
/// hyphens, as the names in a manifest are.
pub(crate) fn is_name(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(is_allowed)
}

/// The only encoding of a value.
pub(crate) fn encode(value: &impl Encode<()>) -> Vec<u8> {
    minicbor::to_vec(value).expect("a vector takes all bytes")
}
