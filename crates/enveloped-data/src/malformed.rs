//! Why bytes are not a message.

use thiserror::Error;

use crate::size::{MAX_FRAGMENTS, MAX_MESSAGE_BYTES};

/// Why bytes are not a message of the form that KMS sends. Offsets count bytes from the
/// message's start.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Malformed {
    /// More bytes than any answer of KMS has.
    #[error("it has {0} bytes, {MAX_MESSAGE_BYTES} are the most")]
    TooLong(usize),
    /// The bytes end within an element.
    #[error("it ends within {what}, which begins at byte {offset}: it is truncated")]
    Truncated {
        /// Where the element begins.
        offset: usize,
        /// The element, by its name in the standard.
        what: &'static str,
    },
    /// Another element than the form has there.
    #[error("byte {offset} does not begin {what}")]
    Unexpected {
        /// Where the element should begin.
        offset: usize,
        /// The element, by its name in the standard.
        what: &'static str,
    },
    /// A length in more than four octets, or an indefinite one of a primitive element.
    #[error("the length of {what}, at byte {offset}, is not one that BER has")]
    Length {
        /// Where the element begins.
        offset: usize,
        /// The element, by its name in the standard.
        what: &'static str,
    },
    /// An element whose value is not the one that the form has there.
    #[error("{what}, at byte {offset}, has a value that is not supported: {expected} is")]
    Value {
        /// Where the element begins.
        offset: usize,
        /// The element, by its name in the standard.
        what: &'static str,
        /// What it has to be.
        expected: &'static str,
    },
    /// Bytes after the last element of another one, or of the message.
    #[error("byte {0} belongs to nothing: the element around it should end there")]
    Trailing(usize),
    /// The content is in more pieces than any answer of KMS.
    #[error("its content is in more than {MAX_FRAGMENTS} fragments")]
    Fragments,
}
