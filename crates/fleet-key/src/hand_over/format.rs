//! Requests and gifts as bytes: CBOR (RFC 8949) in the one form that each has.
//!
//! A request is `[version, challenge (bytes, 32), generation, document (bytes)]`, a gift
//! `[version, the giver's generation, what was encrypted (bytes), document (bytes)]`.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use thiserror::Error;

use super::rules::Generation;

/// The formats' version.
const FORMAT_VERSION: u16 = 1;
/// Bytes of a challenge.
pub const CHALLENGE_BYTES: usize = 32;
/// Largest document, in bytes: the NSM's response buffer is 12 KiB.
const MAX_DOCUMENT: usize = 12 * 1024;
/// Most bytes that a seed is encrypted to.
const MAX_SEALED: usize = 128;
/// Largest request, in bytes: the document, and less than 64 bytes of the rest.
pub const MAX_REQUEST: usize = MAX_DOCUMENT + 64;
/// Largest gift, in bytes: the document, what was encrypted, and less than 32 bytes of the
/// rest.
pub const MAX_GIFT: usize = MAX_DOCUMENT + MAX_SEALED + 32;

/// A giver's nonce.
pub type Challenge = [u8; CHALLENGE_BYTES];

/// Why bytes are no request, or no gift.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FormatError {
    /// Another version.
    #[error(
        "it is of version {0}, and this release knows {FORMAT_VERSION}: hand over between images whose releases of the toolkit agree"
    )]
    Version(u16),
    /// Anything else.
    #[error("it is not what the other enclave wrote for this step, or not all of it")]
    Form,
}

/// What a receiver asks with. Nothing of it is to be believed before its document is
/// verified.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Request {
    /// The giver's nonce.
    pub challenge: Challenge,
    /// The generation that the receiver states.
    pub generation: Generation,
    /// The receiver's document.
    pub document: Vec<u8>,
}

/// What a giver answers with. Nothing of it is to be believed before its document is
/// verified.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gift {
    /// The generation that the giver states.
    pub generation: Generation,
    /// The seed, encrypted.
    pub sealed: Vec<u8>,
    /// The giver's document.
    pub document: Vec<u8>,
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct RequestFields {
    #[n(0)]
    version: u16,
    #[n(1)]
    challenge: ByteVec,
    #[n(2)]
    generation: u32,
    #[n(3)]
    document: ByteVec,
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct GiftFields {
    #[n(0)]
    version: u16,
    #[n(1)]
    generation: u32,
    #[n(2)]
    sealed: ByteVec,
    #[n(3)]
    document: ByteVec,
}

/// The beginning that every version has.
#[derive(Decode)]
#[cbor(array)]
struct AnyVersion {
    #[n(0)]
    version: u16,
}

impl Request {
    /// Reads a request: nothing but the bytes that are written for its contents.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let fields: RequestFields = read(bytes, MAX_REQUEST)?;
        let request = Self {
            challenge: fields
                .challenge
                .as_slice()
                .try_into()
                .map_err(|_| FormatError::Form)?,
            generation: Generation::new(fields.generation).ok_or(FormatError::Form)?,
            document: document(fields.document)?,
        };
        same(bytes, &request.to_bytes())?;
        Ok(request)
    }

    /// The request's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(&RequestFields {
            version: FORMAT_VERSION,
            challenge: self.challenge.to_vec().into(),
            generation: self.generation.get(),
            document: self.document.clone().into(),
        })
    }
}

impl Gift {
    /// Reads a gift: nothing but the bytes that are written for its contents.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let fields: GiftFields = read(bytes, MAX_GIFT)?;
        if !(1..=MAX_SEALED).contains(&fields.sealed.len()) {
            return Err(FormatError::Form);
        }
        let gift = Self {
            generation: Generation::new(fields.generation).ok_or(FormatError::Form)?,
            sealed: fields.sealed.into(),
            document: document(fields.document)?,
        };
        same(bytes, &gift.to_bytes())?;
        Ok(gift)
    }

    /// The gift's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(&GiftFields {
            version: FORMAT_VERSION,
            generation: self.generation.get(),
            sealed: self.sealed.clone().into(),
            document: self.document.clone().into(),
        })
    }
}

fn read<'b, T: Decode<'b, ()>>(bytes: &'b [u8], limit: usize) -> Result<T, FormatError> {
    if bytes.len() > limit {
        return Err(FormatError::Form);
    }
    let AnyVersion { version } = minicbor::decode(bytes).map_err(|_| FormatError::Form)?;
    if version != FORMAT_VERSION {
        return Err(FormatError::Version(version));
    }
    minicbor::decode(bytes).map_err(|_| FormatError::Form)
}

fn document(bytes: ByteVec) -> Result<Vec<u8>, FormatError> {
    if (1..=MAX_DOCUMENT).contains(&bytes.len()) {
        Ok(bytes.into())
    } else {
        Err(FormatError::Form)
    }
}

/// Longer forms, further fields and bytes behind it are none of ours.
fn same(bytes: &[u8], written: &[u8]) -> Result<(), FormatError> {
    if bytes == written {
        Ok(())
    } else {
        Err(FormatError::Form)
    }
}

fn encode(value: &impl Encode<()>) -> Vec<u8> {
    minicbor::to_vec(value).expect("a vector takes all bytes")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request() -> Request {
        Request {
            challenge: [7; CHALLENGE_BYTES],
            generation: Generation::MAX,
            document: vec![1; MAX_DOCUMENT],
        }
    }

    fn gift() -> Gift {
        Gift {
            generation: Generation::MIN,
            sealed: vec![2; MAX_SEALED],
            document: vec![1; MAX_DOCUMENT],
        }
    }

    #[test]
    fn hand_over_messages_are_read_as_they_are_written() {
        let bytes = request().to_bytes();
        assert!(bytes.len() <= MAX_REQUEST);
        assert_eq!(Request::parse(&bytes), Ok(request()));
        assert_eq!(Gift::parse(&bytes), Err(FormatError::Form));
        let bytes = gift().to_bytes();
        assert!(bytes.len() <= MAX_GIFT);
        assert_eq!(Gift::parse(&bytes), Ok(gift()));
        assert_eq!(Request::parse(&bytes), Err(FormatError::Form));
    }

    #[test]
    fn hand_over_messages_have_one_form() {
        let mut small = request();
        small.document = vec![1];
        let bytes = small.to_bytes();
        for length in 0..bytes.len() {
            assert!(Request::parse(&bytes[..length]).is_err(), "{length}");
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert_eq!(Request::parse(&longer), Err(FormatError::Form));
        // The array of five elements, of which the last is unknown.
        let mut more = longer;
        more[0] = 0x85;
        assert_eq!(Request::parse(&more), Err(FormatError::Form));
        let mut newer = bytes;
        newer[1] = 2;
        assert_eq!(Request::parse(&newer), Err(FormatError::Version(2)));
        let empty = Gift {
            sealed: Vec::new(),
            ..gift()
        };
        let large = Gift {
            document: vec![1; MAX_DOCUMENT + 1],
            ..gift()
        };
        for gift in [empty, large] {
            assert_eq!(Gift::parse(&gift.to_bytes()), Err(FormatError::Form));
        }
    }

    proptest! {
        #[test]
        fn hand_over_messages_of_any_bytes_do_not_panic(bytes: Vec<u8>) {
            if let Ok(request) = Request::parse(&bytes) {
                prop_assert_eq!(request.to_bytes(), bytes.clone());
            }
            if let Ok(gift) = Gift::parse(&bytes) {
                prop_assert_eq!(gift.to_bytes(), bytes);
            }
        }
    }
}
