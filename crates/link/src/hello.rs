//! The first eight bytes each way, which settle the protocol's version.
//!
//! The opener sends magic, version and channel; the acceptor answers with
//! magic, its own version and a status. This layout is fixed for good: any
//! two releases understand each other at least this far, and can say why they
//! go no further. A peer that begins with anything else gets no answer: it does
//! not speak this protocol.

use std::fmt;
use std::io;
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// The protocol's version. It changes when a peer of the earlier version could
/// misunderstand; new optional fields do not change it.
pub const VERSION: u16 = 4;
/// The longest that either side waits for the other's hello.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

const MAGIC: [u8; 4] = *b"ENCL";

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// Configuration, readiness, health, challenges, shutdown.
    Control,
    /// Log records and their acknowledgements.
    Logs,
    /// One TCP connection from the workload to a destination outside.
    Egress,
    /// One TCP connection from outside to the workload.
    Ingress,
    /// One question about a name's records.
    Records,
    /// Datagrams between one socket of the workload's and one destination outside.
    Datagrams,
}

impl Channel {
    const fn code(self) -> u8 {
        match self {
            Self::Control => 1,
            Self::Logs => 2,
            Self::Egress => 3,
            Self::Ingress => 4,
            Self::Records => 5,
            Self::Datagrams => 6,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Control),
            2 => Some(Self::Logs),
            3 => Some(Self::Egress),
            4 => Some(Self::Ingress),
            5 => Some(Self::Records),
            6 => Some(Self::Datagrams),
            _ => None,
        }
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Control => "control",
            Self::Logs => "logs",
            Self::Egress => "egress",
            Self::Ingress => "ingress",
            Self::Records => "records",
            Self::Datagrams => "datagrams",
        })
    }
}

/// The acceptor's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Accepted,
    UnknownVersion,
    UnknownChannel,
    Busy,
}

impl Status {
    const fn code(self) -> u8 {
        match self {
            Self::Accepted => 0,
            Self::UnknownVersion => 1,
            Self::UnknownChannel => 2,
            Self::Busy => 3,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Accepted),
            1 => Some(Self::UnknownVersion),
            2 => Some(Self::UnknownChannel),
            3 => Some(Self::Busy),
            _ => None,
        }
    }
}

/// Why two sides could not agree to talk.
#[derive(Debug, Error)]
pub enum HelloError {
    /// The connection failed.
    #[error("the connection failed during the hello: {0}")]
    Io(io::Error),
    /// The peer closed the connection before its hello was whole.
    #[error("the peer closed the connection during the hello")]
    Closed,
    /// Nothing came for [`HELLO_TIMEOUT`].
    #[error("the peer sent no hello within {} s", HELLO_TIMEOUT.as_secs())]
    TimedOut,
    /// The peer does not speak this protocol.
    #[error("the peer does not speak this protocol: it began with {0:02x?}")]
    Magic([u8; 4]),
    /// The peer speaks another version.
    #[error(
        "the peer speaks protocol version {peer}, this side version {VERSION}: use an enclave image and a parent-agent of the same release"
    )]
    Version {
        /// The peer's version.
        peer: u16,
    },
    /// At the acceptor: the opener's channel is not known, or not served here.
    #[error("the peer asked for channel {0}, which is not served here")]
    NotServed(u8),
    /// At the opener: the acceptor does not serve the channel.
    #[error("the peer does not serve the {0} channel")]
    Refused(Channel),
    /// The acceptor has as many connections as it allows.
    #[error("the peer has too many connections open")]
    Busy,
    /// The answer's status is not known, or contradicts its version.
    #[error("the peer answered the hello with the invalid status {0}")]
    Status(u8),
}

impl From<io::Error> for HelloError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Io(error),
        }
    }
}

/// Opens a channel on a fresh connection and waits for the peer's consent.
pub async fn open<S>(stream: &mut S, channel: Channel) -> Result<(), HelloError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    timeout(HELLO_TIMEOUT, async {
        stream.write_all(&encode(channel.code())).await?;
        stream.flush().await?;
        let (version, code) = read(stream).await?;
        match Status::from_code(code) {
            Some(Status::Busy) => Err(HelloError::Busy),
            _ if version != VERSION => Err(HelloError::Version { peer: version }),
            Some(Status::Accepted) => Ok(()),
            Some(Status::UnknownChannel) => Err(HelloError::Refused(channel)),
            Some(Status::UnknownVersion) | None => Err(HelloError::Status(code)),
        }
    })
    .await
    .map_err(|_| HelloError::TimedOut)?
}

/// Reads the opener's hello and answers it: accepted if the version is ours and
/// `serves` says yes to the channel.
pub async fn accept<S>(
    stream: &mut S,
    serves: impl FnOnce(Channel) -> bool,
) -> Result<Channel, HelloError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    timeout(HELLO_TIMEOUT, async {
        let (version, code) = read(stream).await?;
        let (status, result) = match Channel::from_code(code) {
            _ if version != VERSION => (
                Status::UnknownVersion,
                Err(HelloError::Version { peer: version }),
            ),
            Some(channel) if serves(channel) => (Status::Accepted, Ok(channel)),
            _ => (Status::UnknownChannel, Err(HelloError::NotServed(code))),
        };
        answer(stream, status).await?;
        result
    })
    .await
    .map_err(|_| HelloError::TimedOut)?
}

/// Turns an opener away because too many connections are open.
pub async fn refuse_busy<S>(stream: &mut S) -> Result<(), HelloError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    timeout(HELLO_TIMEOUT, async {
        read(stream).await?;
        answer(stream, Status::Busy).await
    })
    .await
    .map_err(|_| HelloError::TimedOut)?
}

fn encode(code: u8) -> [u8; 8] {
    let [m0, m1, m2, m3] = MAGIC;
    let [v0, v1] = VERSION.to_be_bytes();
    [m0, m1, m2, m3, v0, v1, code, 0]
}

async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Result<(u16, u8), HelloError> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes).await?;
    let [m0, m1, m2, m3, v0, v1, code, _] = bytes;
    let magic = [m0, m1, m2, m3];
    if magic != MAGIC {
        return Err(HelloError::Magic(magic));
    }
    Ok((u16::from_be_bytes([v0, v1]), code))
}

async fn answer<S: AsyncWrite + Unpin>(stream: &mut S, status: Status) -> Result<(), HelloError> {
    stream.write_all(&encode(status.code())).await?;
    stream.flush().await?;
    Ok(())
}
