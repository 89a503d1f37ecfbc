//! Joining two connections: bytes are copied both ways, counted, and the end of
//! one direction is passed on without touching the other.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// What a direction waits with: most connections are idle most of the time, and
/// then hold no more than this.
const SMALL: usize = 2 * 1024;
/// What a direction reads into while bytes keep coming.
const LARGE: usize = 256 * 1024;
/// The same when so many others do so that all their memory would be much.
const MIDDLE: usize = 16 * 1024;
/// Directions that have a large buffer at a time: 16 MiB together.
const MAX_LARGE: usize = 64;
/// How long a direction may wait for more with a buffer of that size: the next
/// part of a transfer comes sooner, and a pause longer than that is idleness.
const LINGER: Duration = Duration::from_millis(20);
/// Large buffers that are kept for the next burst.
const KEPT: usize = 16;

static POOL: Pool = Pool::new();

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
    let mut small = [0; SMALL];
    loop {
        let count = from.read(&mut small).await?;
        let bytes = small.get(..count).unwrap_or_default();
        if bytes.is_empty() {
            return end(to).await;
        }
        pass(bytes, to, counter).await?;
        if count < SMALL {
            continue;
        }
        // More than a little: until nothing comes for a while.
        let mut buffer = POOL.take();
        while let Ok(count) = timeout(LINGER, from.read(&mut buffer.bytes)).await {
            let bytes = buffer.bytes.get(..count?).unwrap_or_default();
            if bytes.is_empty() {
                return end(to).await;
            }
            pass(bytes, to, counter).await?;
        }
    }
}

async fn pass<W>(bytes: &[u8], to: &mut W, counter: &AtomicU64) -> io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    to.write_all(bytes).await?;
    counter.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    Ok(())
}

async fn end<W>(to: &mut W) -> io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    match to.shutdown().await {
        // The peer has closed both ways already.
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        other => other,
    }
}

/// The large buffers.
#[derive(Debug)]
struct Pool(Mutex<Large>);

#[derive(Debug)]
struct Large {
    taken: usize,
    spare: Vec<Box<[u8]>>,
}

/// A buffer for a burst; it goes back when it is dropped.
#[derive(Debug)]
struct Buffer<'p> {
    bytes: Box<[u8]>,
    pool: &'p Pool,
}

impl Pool {
    const fn new() -> Self {
        Self(Mutex::new(Large {
            taken: 0,
            spare: Vec::new(),
        }))
    }

    /// A large buffer, or a middle one if enough others have one.
    fn take(&self) -> Buffer<'_> {
        let mut large = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = if large.taken < MAX_LARGE {
            large.taken += 1;
            large.spare.pop().unwrap_or_else(|| zeroed(LARGE))
        } else {
            zeroed(MIDDLE)
        };
        Buffer { bytes, pool: self }
    }
}

impl Drop for Buffer<'_> {
    fn drop(&mut self) {
        if self.bytes.len() < LARGE {
            return;
        }
        let mut large = self.pool.0.lock().unwrap_or_else(PoisonError::into_inner);
        large.taken -= 1;
        if large.spare.len() < KEPT {
            large.spare.push(std::mem::take(&mut self.bytes));
        }
    }
}

fn zeroed(size: usize) -> Box<[u8]> {
    vec![0; size].into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::duplex;

    #[test]
    fn so_many_transfers_at_once_have_large_buffers_and_no_more() {
        let pool = Pool::new();
        let mut taken: Vec<_> = (0..=MAX_LARGE).map(|_| pool.take()).collect();
        let sizes: Vec<_> = taken.iter().map(|buffer| buffer.bytes.len()).collect();
        assert_eq!(sizes[..MAX_LARGE], [LARGE; MAX_LARGE]);
        assert_eq!(sizes[MAX_LARGE], MIDDLE);
        // One that ends makes room for another, the smaller one does not.
        taken.pop();
        assert_eq!(pool.take().bytes.len(), MIDDLE);
        taken.pop();
        assert_eq!(pool.take().bytes.len(), LARGE);
        drop(taken);
        let large = pool.0.lock().unwrap();
        assert_eq!((large.taken, large.spare.len()), (0, KEPT));
    }

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

    #[tokio::test]
    async fn every_size_arrives_whole_whatever_the_pauses() {
        let sizes = [
            1,
            SMALL - 1,
            SMALL,
            SMALL + 1,
            LARGE,
            LARGE + SMALL,
            3 * LARGE + 7,
        ];
        let (mut client, a) = duplex(LARGE);
        let (mut server, b) = duplex(LARGE);
        let counter = std::sync::Arc::new(AtomicU64::new(0));
        let shared = counter.clone();
        let joined = tokio::spawn(async move { join(a, b, &shared, &AtomicU64::new(0)).await });
        let mut total = 0;
        for (number, size) in sizes.into_iter().enumerate() {
            let data = vec![number.to_le_bytes()[0]; size];
            let mut received = vec![0xff; size];
            let (sent, read) =
                tokio::join!(client.write_all(&data), server.read_exact(&mut received));
            sent.unwrap();
            read.unwrap();
            assert_eq!(received, data);
            total += size as u64;
            // The next one finds both directions waiting.
            while counter.load(Ordering::Relaxed) < total {
                tokio::task::yield_now().await;
            }
        }
        drop((client, server));
        joined.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn an_idle_connection_holds_no_large_buffer() {
        let (client, a) = duplex(64);
        let (server, b) = duplex(64);
        let counters = [AtomicU64::new(0), AtomicU64::new(0)];
        let future = join(a, b, &counters[0], &counters[1]);
        assert!(size_of_val(&future) < 12 * 1024, "{}", size_of_val(&future));
        drop((future, client, server));
    }
}
