//! The server behind the proxies, on TCP.

use std::io;
use std::net::SocketAddr;

use link::{Endpoint, Listener};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpSocket;

/// Connections that wait to be accepted, at most.
const BACKLOG: u32 = 4096;
/// Bytes of one read or write.
const CHUNK: usize = 256 * 1024;

/// What a connection asks for, in its first nine bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// To have everything sent back.
    Echo,
    /// To have this many bytes read, and then one byte sent.
    Take(u64),
    /// To be sent this many bytes.
    Give(u64),
}

impl Order {
    pub(crate) fn encode(self) -> [u8; 9] {
        let (kind, count) = match self {
            Self::Echo => (0, 0),
            Self::Take(count) => (1, count),
            Self::Give(count) => (2, count),
        };
        let mut bytes = [kind; 9];
        if let Some(rest) = bytes.last_chunk_mut() {
            *rest = u64::to_be_bytes(count);
        }
        bytes
    }

    fn decode(bytes: [u8; 9]) -> Self {
        let [kind, count @ ..] = bytes;
        let count = u64::from_be_bytes(count);
        match kind {
            1 => Self::Take(count),
            2 => Self::Give(count),
            _ => Self::Echo,
        }
    }
}

/// Serves until the process is killed: on TCP, and without a proxy between it and
/// its clients where they would find one.
pub(crate) async fn serve(address: SocketAddr, direct: Option<Endpoint>) -> anyhow::Result<()> {
    if let Some(endpoint) = direct {
        let listener = Listener::bind(&endpoint)?;
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream));
            }
        });
    }
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        // Who breaks a connection off notices that by itself.
        tokio::spawn(answer(stream));
    }
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let mut order = [0; 9];
    stream.read_exact(&mut order).await?;
    match Order::decode(order) {
        Order::Echo => {
            let mut buffer = [0; 1024];
            loop {
                let count = stream.read(&mut buffer).await?;
                let bytes = buffer.get(..count).unwrap_or_default();
                if bytes.is_empty() {
                    return Ok(());
                }
                stream.write_all(bytes).await?;
            }
        }
        Order::Take(count) => {
            read(&mut stream, count).await?;
            stream.write_all(&[1]).await?;
        }
        Order::Give(count) => write(&mut stream, count).await?,
    }
    // The other side closes first.
    while stream.read(&mut [0]).await? > 0 {}
    Ok(())
}

/// Reads this many bytes.
pub(crate) async fn read(stream: &mut (impl AsyncReadExt + Unpin), count: u64) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut left = count;
    while left > 0 {
        match stream.read(&mut buffer).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => left = left.saturating_sub(count as u64),
        }
    }
    Ok(())
}

/// Writes this many bytes.
pub(crate) async fn write(stream: &mut (impl AsyncWriteExt + Unpin), count: u64) -> io::Result<()> {
    let buffer = vec![0; CHUNK];
    let mut left = count;
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        let bytes = buffer.get(..part).unwrap_or_default();
        stream.write_all(bytes).await?;
        left -= part as u64;
    }
    Ok(())
}
