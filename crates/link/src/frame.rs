//! Bounded messages on a stream: a big-endian `u32` length, then that many
//! bytes of CBOR.

use std::io;

use minicbor::{Decode, Encode};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Largest frame of the control channel, in bytes.
pub const MAX_CONTROL: usize = 64 * 1024;
/// Largest frame of the log channel, in bytes.
pub const MAX_LOGS: usize = 1024 * 1024;
/// Largest frame that carries a connection's target or the reply to it, in bytes.
pub const MAX_TARGET: usize = 1024;

/// How much room is made at once for a frame that is still arriving, so that a
/// peer pays in bytes for the memory it makes us hold.
const READ_STEP: usize = 64 * 1024;
const LENGTH_BYTES: usize = 4;

/// Why a frame could not be read or written.
#[derive(Debug, Error)]
pub enum FrameError {
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Io(io::Error),
    /// The peer closed the connection inside a frame, or where one was due.
    #[error("the peer closed the connection before its message was complete")]
    Ended,
    /// The frame is larger than the channel allows.
    #[error("a frame of {length} bytes exceeds the channel's limit of {limit}")]
    TooLarge {
        /// The frame's length in bytes.
        length: usize,
        /// The channel's limit in bytes.
        limit: usize,
    },
    /// The bytes are not a message of this channel.
    #[error("the peer sent a message that cannot be understood: {0}")]
    Decode(#[from] minicbor::decode::Error),
    /// A message of this side cannot be written as CBOR.
    #[error("a message cannot be encoded: {0}")]
    Encode(String),
    /// A compressed batch is not what it claims to be.
    #[error("a compressed batch cannot be used: {0}")]
    Compressed(String),
    /// Bytes follow the message within its frame.
    #[error("{0} bytes follow the message within its frame")]
    Trailing(usize),
}

impl From<io::Error> for FrameError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Ended,
            _ => Self::Io(error),
        }
    }
}

/// Writes messages to one side of a channel.
#[derive(Debug)]
pub struct Writer<W> {
    stream: W,
    limit: usize,
    buffer: Vec<u8>,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    /// A writer of frames of at most `limit` bytes.
    pub fn new(stream: W, limit: usize) -> Self {
        Self {
            stream,
            limit,
            buffer: Vec::new(),
        }
    }

    /// Writes and flushes one message. A write that is cancelled leaves the
    /// stream inside a frame: close it then.
    pub async fn send<M: Encode<()>>(&mut self, message: &M) -> Result<(), FrameError> {
        encode_into(message, self.limit, &mut self.buffer)?;
        self.stream.write_all(&self.buffer).await?;
        self.stream.flush().await?;
        Ok(())
    }

    /// The stream alone.
    pub fn into_inner(self) -> W {
        self.stream
    }
}

/// Reads messages from one side of a channel.
#[derive(Debug)]
pub struct Reader<R> {
    stream: R,
    limit: usize,
    /// Bytes received so far: at most one frame that is not whole, behind those
    /// that are. `start` is where the next frame begins.
    buffer: Vec<u8>,
    start: usize,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// A reader of frames of at most `limit` bytes.
    pub fn new(stream: R, limit: usize) -> Self {
        Self {
            stream,
            limit,
            buffer: Vec::new(),
            start: 0,
        }
    }

    /// The next message, borrowed from the reader's buffer, or `None` when the
    /// peer has closed the connection between two frames. Cancellation safe: a
    /// frame that has arrived in part is kept.
    pub async fn receive<'a, M: Decode<'a, ()>>(&'a mut self) -> Result<Option<M>, FrameError> {
        let Some(length) = self.fill().await? else {
            return Ok(None);
        };
        let body = self.start + LENGTH_BYTES;
        let end = body + length;
        self.start = end;
        let bytes = self.buffer.get(body..end).expect("`fill` has read it");
        decode(bytes).map(Some)
    }

    /// Reads until a whole frame is at `start`, and gives its body's length.
    async fn fill(&mut self) -> Result<Option<usize>, FrameError> {
        loop {
            let unread = self
                .buffer
                .get(self.start..)
                .expect("no more is taken than was read");
            if let Some((prefix, body)) = unread.split_first_chunk() {
                let length = body_length(*prefix, self.limit)?;
                if body.len() >= length {
                    return Ok(Some(length));
                }
            }
            let is_empty = unread.is_empty();
            // Only now, so that many small frames cost no copying.
            self.buffer.drain(..self.start);
            self.start = 0;
            self.buffer
                .reserve(READ_STEP.min(LENGTH_BYTES + self.limit));
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return if is_empty {
                    Ok(None)
                } else {
                    Err(FrameError::Ended)
                };
            }
        }
    }
}

/// Writes one message of at most `limit` bytes, nothing buffered.
pub async fn write<W, M>(stream: &mut W, message: &M, limit: usize) -> Result<(), FrameError>
where
    W: AsyncWrite + Unpin,
    M: Encode<()>,
{
    Writer::new(stream, limit).send(message).await
}

/// Reads exactly one message of at most `limit` bytes and not a byte more, so
/// that the stream can be handed on. Not cancellation safe, and it holds as much
/// memory as the peer claims: for small limits.
pub async fn read<R, M>(stream: &mut R, limit: usize) -> Result<M, FrameError>
where
    R: AsyncRead + Unpin,
    M: for<'b> Decode<'b, ()>,
{
    let mut prefix = [0; LENGTH_BYTES];
    stream.read_exact(&mut prefix).await?;
    let mut bytes = vec![0; body_length(prefix, limit)?];
    stream.read_exact(&mut bytes).await?;
    decode(&bytes)
}

/// Decodes the body of a frame: one message and nothing after it.
pub fn decode<'b, M: Decode<'b, ()>>(bytes: &'b [u8]) -> Result<M, FrameError> {
    let mut decoder = minicbor::Decoder::new(bytes);
    let message = decoder.decode()?;
    match bytes.len() - decoder.position() {
        0 => Ok(message),
        left => Err(FrameError::Trailing(left)),
    }
}

fn body_length(prefix: [u8; LENGTH_BYTES], limit: usize) -> Result<usize, FrameError> {
    let length = usize::try_from(u32::from_be_bytes(prefix)).expect("usize has 64 bits");
    if length > limit {
        return Err(FrameError::TooLarge { length, limit });
    }
    Ok(length)
}

/// One message of at most `limit` bytes as a frame, for those who write it
/// themselves.
pub fn encode<M: Encode<()>>(message: &M, limit: usize) -> Result<Vec<u8>, FrameError> {
    let mut bytes = Vec::new();
    encode_into(message, limit, &mut bytes)?;
    Ok(bytes)
}

fn encode_into<M: Encode<()>>(
    message: &M,
    limit: usize,
    buffer: &mut Vec<u8>,
) -> Result<(), FrameError> {
    buffer.clear();
    buffer.extend_from_slice(&[0; LENGTH_BYTES]);
    minicbor::encode(message, &mut *buffer)
        .map_err(|error| FrameError::Encode(error.to_string()))?;
    let length = buffer.len() - LENGTH_BYTES;
    match u32::try_from(length) {
        Ok(prefix) if length <= limit => {
            if let Some(start) = buffer.first_chunk_mut() {
                *start = prefix.to_be_bytes();
            }
            Ok(())
        }
        _ => Err(FrameError::TooLarge { length, limit }),
    }
}
