//! A question about a name's records, and what the agent found.

use minicbor::{Decode, Encode};

use crate::bounded::{Bytes, Text, array};
use crate::target::{MAX_HOST, MAX_REASON, Refusal};

/// Most records of an answer. Who finds more passes on the first ones.
pub const MAX_RECORDS: usize = 64;
/// Most strings of a record of type TXT.
pub const MAX_STRINGS: usize = 32;
/// Longest of these strings, in bytes (RFC 1035, section 3.3).
pub const MAX_STRING: usize = 255;
/// Largest frame that carries a question or the answer to it, in bytes.
pub const MAX_ANSWER: usize = 32 * 1024;

/// What the records are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Kind {
    /// Where a service is (RFC 2782).
    #[n(0)]
    Srv,
    /// Texts.
    #[n(1)]
    Txt,
}

/// Asks for all records of one type that a name has.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Question {
    /// The name, which the egress list must allow.
    #[n(0)]
    pub name: Text<MAX_HOST>,
    /// The type.
    #[n(1)]
    pub kind: Kind,
}

/// What the agent found.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Answer {
    /// Records of type SRV; none if the name has none.
    #[n(0)]
    Services {
        /// How long they may be kept, in seconds.
        #[n(0)]
        ttl: u32,
        /// The records.
        #[n(1)]
        #[cbor(decode_with = "array::<MAX_RECORDS, _, _>")]
        records: Vec<Service>,
    },
    /// Records of type TXT; none if the name has none.
    #[n(1)]
    Texts {
        /// How long they may be kept, in seconds.
        #[n(0)]
        ttl: u32,
        /// The records.
        #[n(1)]
        #[cbor(decode_with = "array::<MAX_RECORDS, _, _>")]
        records: Vec<Strings>,
    },
    /// There is no answer.
    #[n(2)]
    Refused {
        /// Why, for programs.
        #[n(0)]
        refusal: Refusal,
        /// Why, for people.
        #[n(1)]
        reason: Text<MAX_REASON>,
    },
}

/// Where a service is: a record of type SRV.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Service {
    /// The lowest is tried first.
    #[n(0)]
    pub priority: u16,
    /// The share among those of one priority.
    #[n(1)]
    pub weight: u16,
    /// The port.
    #[n(2)]
    pub port: u16,
    /// The host, without the root's dot.
    #[n(3)]
    pub target: Text<MAX_HOST>,
}

/// A record of type TXT.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Strings(
    #[n(0)]
    #[cbor(decode_with = "array::<MAX_STRINGS, _, _>")]
    pub Vec<Bytes<MAX_STRING>>,
);
