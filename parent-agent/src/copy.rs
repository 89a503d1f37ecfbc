//! Joining two connections: bytes are copied both ways, counted, and the end of
//! one direction is passed on without touching the other.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What a direction starts with, so that an idle connection costs little.
const FIRST_BUFFER: usize = 8 * 1024;
/// What it grows to while its reads fill the buffer.
const LARGEST_BUFFER: usize = 128 * 1024;

/// Copies until both directions have ended, or either has failed.
pub(crate) async fn join<A, B>(a: A, b: B, a_to_b: &AtomicU64, b_to_a: &AtomicU64) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut a_read, mut a_write) = tokio::io::split(a);
    let (mut b_read, mut b_write) = tokio::io::split(b);
    tokio::try_join!(
        pump(&mut a_read, &mut b_write, a_to_b),
        pump(&mut b_read, &mut a_write, b_to_a),
    )?;
    Ok(())
}

async fn pump<R, W>(from: &mut R, to: &mut W, counter: &AtomicU64) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; FIRST_BUFFER];
    loop {
        let count = from.read(&mut buffer).await?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
            return match to.shutdown().await {
                // The peer has closed both ways already.
                Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
                other => other,
            };
        };
        to.write_all(bytes).await?;
        counter.fetch_add(count as u64, Ordering::Relaxed);
        if count == buffer.len() && buffer.len() < LARGEST_BUFFER {
            buffer.resize(buffer.len() * 2, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::duplex;

    #[tokio::test]
    async fn directions_end_one_by_one() {
        let (mut client, a) = duplex(64);
        let (mut server, b) = duplex(64);
        let joined = tokio::spawn(async move {
            let (up, down) = (AtomicU64::new(0), AtomicU64::new(0));
            let result = join(a, b, &up, &down).await;
            (result, up.into_inner(), down.into_inner())
        });
        client.write_all(b"request").await.unwrap();
        client.shutdown().await.unwrap();
        let mut request = Vec::new();
        server.read_to_end(&mut request).await.unwrap();
        assert_eq!(request, b"request");
        // The other direction is still open.
        server.write_all(b"answer").await.unwrap();
        server.shutdown().await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"answer");
        let (result, up, down) = joined.await.unwrap();
        result.unwrap();
        assert_eq!((up, down), (7, 6));
    }

    #[tokio::test]
    async fn large_transfers_pass_a_slow_reader_unharmed() {
        let (mut client, a) = duplex(16 * 1024);
        let (mut server, b) = duplex(100);
        let joined =
            tokio::spawn(async move { join(a, b, &AtomicU64::new(0), &AtomicU64::new(0)).await });
        let data: Vec<u8> = (0..1_000_000_u32)
            .map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1])
            .collect();
        let sent = data.clone();
        let writer = tokio::spawn(async move {
            client.write_all(&sent).await.unwrap();
            client.shutdown().await.unwrap();
            client
        });
        let mut received = Vec::new();
        server.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, data);
        drop(server);
        drop(writer.await.unwrap());
        joined.await.unwrap().unwrap();
    }
}
