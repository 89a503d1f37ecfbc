//! The log channel's messages.
//!
//! Records are numbered per stream from 1 without gaps, and resent until they
//! are acknowledged. After the hello, init sends [`FromInit::Open`]; the agent
//! answers with [`FromAgent::Stored`], the last number that it holds of each
//! stream of that boot, and init goes on behind it. Every later
//! [`FromAgent::Stored`] acknowledges all records up to the numbers in it.

use minicbor::{Decode, Encode};

use crate::bounded;
use crate::control::BootId;

/// Most bytes of text in one record; longer lines are split.
pub const MAX_RECORD: usize = 64 * 1024;
/// Most records in one batch.
pub const MAX_BATCH_RECORDS: usize = 8192;
/// Most streams that an acknowledgement names.
const MAX_STREAMS: usize = LogStream::ALL.len();

/// What `enclave-init` sends.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum FromInit<'a> {
    /// First on every log connection.
    #[n(0)]
    Open {
        /// The boot that the records' numbers belong to.
        #[n(0)]
        boot: BootId,
    },
    /// Records in the order of their numbers within each stream.
    #[n(1)]
    Batch {
        /// At most [`MAX_BATCH_RECORDS`].
        #[b(0)]
        #[cbor(decode_with = "bounded::array::<MAX_BATCH_RECORDS, _, _>")]
        records: Vec<Record<'a>>,
    },
}

/// What the agent answers.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum FromAgent {
    /// The records that the agent holds.
    #[n(0)]
    Stored {
        /// The last number held, for each stream that has any.
        #[n(0)]
        #[cbor(decode_with = "bounded::array::<MAX_STREAMS, _, _>")]
        last: Vec<(LogStream, u64)>,
    },
}

/// One line, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Record<'a> {
    /// The stream it belongs to.
    #[n(0)]
    pub stream: LogStream,
    /// Its number in the stream, from 1.
    #[n(1)]
    pub sequence: u64,
    /// When it was read, by the enclave's clock: microseconds since 1970-01-01T00:00:00Z.
    #[n(2)]
    pub time_us: u64,
    /// Where it was read.
    #[n(3)]
    pub source: Source,
    /// Whether the line goes on in the next record of the same source.
    #[n(4)]
    pub continues: bool,
    /// The bytes as they were written, without the line's end. At most [`MAX_RECORD`].
    #[b(5)]
    #[cbor(
        encode_with = "minicbor::bytes::encode",
        decode_with = "bounded::bytes::<MAX_RECORD, _>"
    )]
    pub data: &'a [u8],
}

/// The streams that an enclave's log group has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum LogStream {
    /// The workload's standard output and error.
    #[n(0)]
    Application,
    /// The init's own records.
    #[n(1)]
    System,
    /// Changes of health.
    #[n(2)]
    Health,
    /// What went wrong, from any of the others.
    #[n(3)]
    Errors,
}

/// Where a record was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Source {
    /// The workload's standard output.
    #[n(0)]
    Stdout,
    /// The workload's standard error.
    #[n(1)]
    Stderr,
    /// The init itself.
    #[n(2)]
    Init,
}

impl LogStream {
    /// Every stream, in the order of their codes.
    pub const ALL: [Self; 4] = [Self::Application, Self::System, Self::Health, Self::Errors];

    /// The stream's name in CloudWatch Logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::System => "system",
            Self::Health => "health",
            Self::Errors => "errors",
        }
    }
}
