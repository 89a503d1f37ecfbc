//! The messages of a hand-over as bytes: CBOR (RFC 8949) in the one form that each has.

use std::fmt;

use aws_lc_rs::digest::{Context, SHA384};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use thiserror::Error;

/// Largest attestation document, in bytes: the NSM's response buffer is 12 KiB.
const MAX_DOCUMENT: usize = 12 * 1024;
/// Bytes of what is sealed: HPKE's encapsulated key, the seed, and the tag of AES-GCM.
const SEALED_BYTES: usize = 32 + 32 + 16;
/// Largest message, in bytes: a document, and less than 256 bytes of the rest.
pub const MAX_MESSAGE: usize = MAX_DOCUMENT + 256;
/// The format's version, for which another first field would stand.
const VERSION: u8 = 1;
/// The beginning of what the giver's document is challenged with.
const CHALLENGE: &[u8] = b"enclave family hand-over, version 1\0";
/// Bytes of a nonce.
const NONCE_BYTES: usize = 32;

/// Bytes that are no message of a hand-over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("it is not {0}: pass messages on as they are, between enclaves of one release")]
pub struct MessageError(&'static str);

/// 32 random bytes that were never used before.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nonce([u8; NONCE_BYTES]);

/// What a receiver answers to an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The giver's nonce, which the document holds.
    pub offer: Nonce,
    /// The receiver's own nonce.
    pub ask: Nonce,
    /// The generation that the receiver says it has.
    pub generation: u64,
    /// The receiver's document.
    pub document: Vec<u8>,
}

/// What a giver answers to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The giver's nonce.
    pub offer: Nonce,
    /// The receiver's nonce.
    pub ask: Nonce,
    /// The generation that the giver says it has.
    pub generation: u64,
    /// The seed, sealed to the receiver.
    pub sealed: Vec<u8>,
    /// The giver's document, over the receiver's nonce and what was sealed.
    pub document: Vec<u8>,
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct RequestFields {
    #[n(0)]
    version: u8,
    #[n(1)]
    offer: ByteVec,
    #[n(2)]
    ask: ByteVec,
    #[n(3)]
    generation: u64,
    #[n(4)]
    document: ByteVec,
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct AnswerFields {
    #[n(0)]
    version: u8,
    #[n(1)]
    offer: ByteVec,
    #[n(2)]
    ask: ByteVec,
    #[n(3)]
    generation: u64,
    #[n(4)]
    document: ByteVec,
    #[n(5)]
    sealed: ByteVec,
}

impl Nonce {
    /// The number of a nonce's bytes.
    pub const BYTES: usize = NONCE_BYTES;

    /// The nonce of these bytes.
    pub const fn new(bytes: [u8; NONCE_BYTES]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; NONCE_BYTES] {
        &self.0
    }

    /// Reads an offer: a nonce and nothing else.
    pub fn parse(bytes: &[u8]) -> Result<Self, MessageError> {
        bytes
            .try_into()
            .map(Self)
            .map_err(|_| MessageError("an offer of a giver"))
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Nonce({})", hex::encode(self.0))
    }
}

impl Request {
    /// The message.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(&RequestFields {
            version: VERSION,
            offer: self.offer.0.to_vec().into(),
            ask: self.ask.0.to_vec().into(),
            generation: self.generation,
            document: self.document.clone().into(),
        })
    }

    /// Reads a message: nothing but the bytes that are written for its contents.
    pub fn parse(bytes: &[u8]) -> Result<Self, MessageError> {
        let error = MessageError("a request of a receiver");
        let fields: RequestFields = decode(bytes).ok_or(error)?;
        if fields.version != VERSION || fields.document.len() > MAX_DOCUMENT {
            return Err(error);
        }
        Ok(Self {
            offer: Nonce::parse(&fields.offer).map_err(|_| error)?,
            ask: Nonce::parse(&fields.ask).map_err(|_| error)?,
            generation: fields.generation,
            document: fields.document.into(),
        })
    }
}

impl Answer {
    /// What the giver's document has to hold as its nonce.
    pub fn challenge(&self) -> Vec<u8> {
        challenge(&self.ask, &self.sealed)
    }

    /// The message.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(&AnswerFields {
            version: VERSION,
            offer: self.offer.0.to_vec().into(),
            ask: self.ask.0.to_vec().into(),
            generation: self.generation,
            document: self.document.clone().into(),
            sealed: self.sealed.clone().into(),
        })
    }

    /// Reads a message: nothing but the bytes that are written for its contents.
    pub fn parse(bytes: &[u8]) -> Result<Self, MessageError> {
        let error = MessageError("an answer of a giver");
        let fields: AnswerFields = decode(bytes).ok_or(error)?;
        let is_valid = fields.version == VERSION
            && fields.document.len() <= MAX_DOCUMENT
            && fields.sealed.len() == SEALED_BYTES;
        if !is_valid {
            return Err(error);
        }
        Ok(Self {
            offer: Nonce::parse(&fields.offer).map_err(|_| error)?,
            ask: Nonce::parse(&fields.ask).map_err(|_| error)?,
            generation: fields.generation,
            sealed: fields.sealed.into(),
            document: fields.document.into(),
        })
    }
}

/// The nonce of the giver's document: SHA-384 over the receiver's nonce, and what was sealed.
pub(crate) fn challenge(ask: &Nonce, sealed: &[u8]) -> Vec<u8> {
    let mut context = Context::new(&SHA384);
    context.update(CHALLENGE);
    context.update(ask.as_bytes());
    context.update(sealed);
    context.finish().as_ref().to_vec()
}

fn decode<'b, T: Decode<'b, ()> + Encode<()>>(bytes: &'b [u8]) -> Option<T> {
    if bytes.len() > MAX_MESSAGE {
        return None;
    }
    let fields: T = minicbor::decode(bytes).ok()?;
    // Longer forms, further fields and bytes behind it are none of ours.
    (encode(&fields) == bytes).then_some(fields)
}

fn encode(value: &impl Encode<()>) -> Vec<u8> {
    minicbor::to_vec(value).expect("a vector takes all bytes")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(document: usize) -> Request {
        Request {
            offer: Nonce::new([1; 32]),
            ask: Nonce::new([2; 32]),
            generation: 3,
            document: vec![4; document],
        }
    }

    fn answer(document: usize) -> Answer {
        Answer {
            offer: Nonce::new([1; 32]),
            ask: Nonce::new([2; 32]),
            generation: u64::MAX,
            sealed: vec![5; SEALED_BYTES],
            document: vec![4; document],
        }
    }

    #[test]
    fn messages_read_back_up_to_their_limits() {
        for document in [0, 1, MAX_DOCUMENT] {
            let (request, answer) = (request(document), answer(document));
            assert_eq!(Request::parse(&request.to_bytes()), Ok(request));
            let bytes = answer.to_bytes();
            assert!(bytes.len() <= MAX_MESSAGE, "{}", bytes.len());
            assert_eq!(Answer::parse(&bytes), Ok(answer));
        }
        assert!(Request::parse(&request(MAX_DOCUMENT + 1).to_bytes()).is_err());
        assert!(Answer::parse(&answer(MAX_DOCUMENT + 1).to_bytes()).is_err());
        let mut longer = answer(1);
        longer.sealed.push(0);
        assert!(Answer::parse(&longer.to_bytes()).is_err());
    }

    #[test]
    fn messages_that_are_cut_or_of_the_other_kind_are_refused() {
        let (request, answer) = (request(9).to_bytes(), answer(9).to_bytes());
        for length in 0..request.len() {
            assert!(Request::parse(&request[..length]).is_err());
        }
        for length in 0..answer.len() {
            assert!(Answer::parse(&answer[..length]).is_err());
        }
        assert!(Request::parse(&answer).is_err());
        assert!(Answer::parse(&request).is_err());
        let mut other = request.clone();
        other[1] = VERSION + 1;
        let error = Request::parse(&other).unwrap_err().to_string();
        assert!(error.contains("not a request of a receiver"), "{error}");
        for length in [0, 31, 33] {
            assert!(Nonce::parse(&vec![0; length]).is_err());
        }
    }

    #[test]
    fn challenges_cover_the_receivers_nonce_and_what_was_sealed() {
        let nonce = Nonce::new([1; 32]);
        let known = challenge(&nonce, b"sealed");
        assert_eq!(known, challenge(&nonce, b"sealed"));
        assert_ne!(known, challenge(&nonce, b"seale"));
        assert_ne!(known, challenge(&Nonce::new([2; 32]), b"sealed"));
    }

    proptest! {
        #[test]
        fn messages_are_read_as_they_are_written_or_not_at_all(
            place in any::<prop::sample::Index>(),
            byte: u8,
        ) {
            let mut bytes = request(20).to_bytes();
            let place = place.index(bytes.len());
            bytes[place] = byte;
            if let Ok(request) = Request::parse(&bytes) {
                prop_assert_eq!(request.to_bytes(), bytes);
            }
            let mut bytes = answer(20).to_bytes();
            bytes[place] = byte;
            if let Ok(answer) = Answer::parse(&bytes) {
                prop_assert_eq!(answer.to_bytes(), bytes);
            }
        }
    }
}
