//! Datagrams on a stream: a byte that says what follows, a big-endian `u16` length, and so
//! many bytes. A datagram may be empty, and its limits are kept.

use std::io;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Largest datagram in bytes: what UDP can carry over IPv4.
pub const MAX_DATAGRAM: usize = 65_507;
/// How long a flow may carry nothing before it is closed (RFC 4787, section 4.3).
pub const MAX_IDLE: std::time::Duration = std::time::Duration::from_secs(120);

const HEADER_BYTES: usize = 3;
const DATAGRAM: u8 = 0;
const UNREACHABLE: u8 = 1;

/// What goes over a channel of datagrams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A datagram of at most [`MAX_DATAGRAM`] bytes.
    Datagram(Vec<u8>),
    /// From the agent: nobody listens at the destination's port, as it has said itself.
    Unreachable,
}

/// Why a message could not be read.
#[derive(Debug, Error)]
pub enum DatagramError {
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The peer closed the connection inside a message.
    #[error("the peer closed the connection inside a message")]
    Ended,
    /// What follows is of no known kind.
    #[error("the peer sent a message of the unknown kind {0}")]
    Kind(u8),
    /// It is longer than a datagram can be, or not empty where it must be.
    #[error("the peer sent a message of {0} bytes, which its kind does not allow")]
    Length(usize),
}

/// Reads the next message; none if the peer has closed the connection. What it takes of
/// memory grows with what has come. Not cancellation safe.
pub async fn read<R: AsyncRead + Unpin>(stream: &mut R) -> Result<Option<Message>, DatagramError> {
    let mut header = [0; HEADER_BYTES];
    match stream.read(&mut header).await? {
        0 => return Ok(None),
        HEADER_BYTES => {}
        read => {
            let rest = header.get_mut(read..).ok_or(DatagramError::Ended)?;
            stream.read_exact(rest).await.map_err(ended)?;
        }
    }
    let [kind, length @ ..] = header;
    let length = usize::from(u16::from_be_bytes(length));
    match kind {
        DATAGRAM if length <= MAX_DATAGRAM => {
            let mut bytes = Vec::new();
            // No peer can name more than 64 KiB.
            let mut body = stream.take(length as u64);
            if body.read_to_end(&mut bytes).await? < length {
                return Err(DatagramError::Ended);
            }
            Ok(Some(Message::Datagram(bytes)))
        }
        UNREACHABLE if length == 0 => Ok(Some(Message::Unreachable)),
        DATAGRAM | UNREACHABLE => Err(DatagramError::Length(length)),
        unknown => Err(DatagramError::Kind(unknown)),
    }
}

/// Writes a datagram, or [`Message::Unreachable`]. A write that is cancelled leaves the
/// stream inside a message: close it then.
pub async fn write<W: AsyncWrite + Unpin>(stream: &mut W, message: &Message) -> io::Result<()> {
    let (kind, bytes): (_, &[u8]) = match message {
        Message::Datagram(bytes) => (DATAGRAM, bytes),
        Message::Unreachable => (UNREACHABLE, &[]),
    };
    let length = u16::try_from(bytes.len()).ok();
    let length = length.filter(|length| usize::from(*length) <= MAX_DATAGRAM);
    let [high, low] = length
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?
        .to_be_bytes();
    let whole = [&[kind, high, low], bytes].concat();
    stream.write_all(&whole).await?;
    stream.flush().await
}

fn ended(error: io::Error) -> DatagramError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => DatagramError::Ended,
        _ => DatagramError::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    async fn read_all(mut bytes: &[u8]) -> (Vec<Message>, Option<DatagramError>) {
        let mut messages = Vec::new();
        loop {
            match read(&mut bytes).await {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => return (messages, None),
                Err(error) => return (messages, Some(error)),
            }
        }
    }

    #[tokio::test]
    async fn datagrams_keep_their_limits_on_a_stream() {
        let sent = [
            Message::Datagram(Vec::new()),
            Message::Datagram(vec![7; MAX_DATAGRAM]),
            Message::Unreachable,
            Message::Datagram(b"x".into()),
        ];
        let mut bytes = Vec::new();
        for message in &sent {
            write(&mut bytes, message).await.unwrap();
        }
        let (received, error) = read_all(&bytes).await;
        assert_eq!(received, sent);
        assert!(error.is_none());
        let long = Message::Datagram(vec![0; MAX_DATAGRAM + 1]);
        write(&mut Vec::new(), &long).await.unwrap_err();
    }

    #[tokio::test]
    async fn datagrams_that_are_none_end_the_channel() {
        for (bytes, expected) in [
            (&[2, 0, 0][..], "unknown kind 2"),
            (&[0, 0xff, 0xe4], "65508 bytes"),
            (&[1, 0, 1, 9], "1 bytes"),
            (&[0, 0, 2, 9], "inside a message"),
            (&[0, 0], "inside a message"),
        ] {
            let (messages, error) = read_all(bytes).await;
            assert_eq!(messages, []);
            let error = error.unwrap().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    proptest! {
        #[test]
        fn datagrams_read_back_from_any_bytes(bytes: Vec<u8>) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let (messages, _) = read_all(&bytes).await;
                let mut written = Vec::new();
                for message in &messages {
                    write(&mut written, message).await.unwrap();
                }
                assert!(bytes.starts_with(&written));
            });
        }
    }
}
