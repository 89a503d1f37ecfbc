//! The log channel's messages.
//!
//! Records are numbered per stream from 1 without gaps, and resent until they
//! are acknowledged. After the hello, init sends [`FromInit::Open`]; the agent
//! answers with [`FromAgent::Stored`], the last number that it holds of each
//! stream of that boot, and init goes on behind it. Every later
//! [`FromAgent::Stored`] acknowledges all records up to the numbers in it.
//! A batch may come compressed.

use std::{fmt, io};

use minicbor::{Decode, Encode};

use crate::boot_id::BootId;
use crate::bounded;
use crate::frame::{self, FrameError, MAX_LOGS};

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
    /// A compressed [`FromInit::Batch`]: [`Decompressor`] reads it.
    #[n(2)]
    Compressed {
        /// Bytes of the batch's message, at most a frame's.
        #[n(0)]
        length: u32,
        /// The message, as the body of a frame has it, compressed with zstd.
        #[b(1)]
        #[cbor(
            encode_with = "minicbor::bytes::encode",
            decode_with = "bounded::bytes::<MAX_LOGS, _>"
        )]
        bytes: &'a [u8],
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
    /// The workload that it is of, where there are several.
    #[b(6)]
    #[cbor(decode_with = "bounded::name")]
    pub workload: Option<&'a str>,
}

/// Compresses batches.
pub struct Compressor {
    zstd: zstd::bulk::Compressor<'static>,
    message: Vec<u8>,
    compressed: Vec<u8>,
}

impl Compressor {
    /// The one level that is used: the fastest, because what it gains is small
    /// beside what it costs the workload's processors.
    const LEVEL: i32 = 1;

    /// A compressor; it holds some hundred KiB of memory.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            zstd: zstd::bulk::Compressor::new(Self::LEVEL)?,
            message: Vec::new(),
            compressed: Vec::new(),
        })
    }

    /// The records as a [`FromInit::Compressed`].
    pub fn compress<'a>(
        &'a mut self,
        records: Vec<Record<'_>>,
    ) -> Result<FromInit<'a>, FrameError> {
        self.message.clear();
        let batch = FromInit::Batch { records };
        minicbor::encode(&batch, &mut self.message)
            .map_err(|error| FrameError::Encode(error.to_string()))?;
        let too_large = FrameError::TooLarge {
            length: self.message.len(),
            limit: MAX_LOGS,
        };
        let length = match u32::try_from(self.message.len()) {
            Ok(length) if self.message.len() <= MAX_LOGS => length,
            _ => return Err(too_large),
        };
        self.compressed.clear();
        self.compressed
            .reserve(zstd::zstd_safe::compress_bound(self.message.len()));
        self.zstd
            .compress_to_buffer(&self.message, &mut self.compressed)
            .map_err(|error| FrameError::Encode(error.to_string()))?;
        Ok(FromInit::Compressed {
            length,
            bytes: &self.compressed,
        })
    }
}

/// Reads batches, compressed or not.
pub struct Decompressor {
    zstd: zstd::bulk::Decompressor<'static>,
    message: Vec<u8>,
}

impl Decompressor {
    /// A decompressor; it holds what the largest batch took, at most a frame's
    /// limit, and some hundred KiB more.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            zstd: zstd::bulk::Decompressor::new()?,
            message: Vec::new(),
        })
    }

    /// The records of a batch; `None` for any other message. What a compressed
    /// one claims about its length is held against a frame's limit before memory
    /// is taken, and against what is in it.
    pub fn records<'a>(
        &'a mut self,
        message: FromInit<'a>,
    ) -> Result<Option<Vec<Record<'a>>>, FrameError> {
        let (length, bytes) = match message {
            FromInit::Batch { records } => return Ok(Some(records)),
            FromInit::Compressed { length, bytes } => (length, bytes),
            FromInit::Open { .. } => return Ok(None),
        };
        let length = usize::try_from(length).expect("usize has 64 bits");
        if length > MAX_LOGS {
            return Err(FrameError::TooLarge {
                length,
                limit: MAX_LOGS,
            });
        }
        self.message.clear();
        self.message.reserve(length);
        self.zstd
            .decompress_to_buffer(bytes, &mut self.message)
            .map_err(|error| FrameError::Compressed(error.to_string()))?;
        if self.message.len() != length {
            return Err(FrameError::Compressed(format!(
                "it has {} bytes and claims {length}",
                self.message.len()
            )));
        }
        match frame::decode(&self.message)? {
            FromInit::Batch { records } => Ok(Some(records)),
            FromInit::Open { .. } | FromInit::Compressed { .. } => Err(FrameError::Compressed(
                "it is not a batch of records".to_owned(),
            )),
        }
    }
}

/// Codecs have nothing to show.
macro_rules! opaque {
    ($($codec:ident),*) => {$(
        impl fmt::Debug for $codec {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($codec)).finish_non_exhaustive()
            }
        }
    )*};
}
opaque!(Compressor, Decompressor);

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
