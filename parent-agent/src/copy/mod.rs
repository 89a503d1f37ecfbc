//! Joining two connections: bytes are copied both ways, counted, and the end of
//! one direction is passed on without touching the other.
//!
//! A direction at rest holds 2 KiB. When more comes than that at a time, the kernel
//! moves the bytes through a [pipe] where it can, and this process copies them
//! through a large buffer where it cannot, until nothing comes for a while.

mod pipe;
mod pool;
mod socket;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::timeout;

use pipe::Pipe;
use pool::Pool;
use socket::{Done, Socket, end, passes_pages, read, when_readable, when_writable, write_all};

/// What a direction waits with: most connections are idle most of the time, and
/// then hold no more than this.
const SMALL: usize = 2 * 1024;
/// What a direction reads into while bytes keep coming.
const LARGE: usize = 256 * 1024;
/// The same when so many others do so that all their memory would be much.
const MIDDLE: usize = 16 * 1024;
/// Directions that have a large buffer at a time, 16 MiB together, and those that
/// have a pipe.
const MAX_LARGE: usize = 64;
/// How long a direction may wait for more with one of them: the next part of a
/// transfer comes sooner, and a pause longer than that is idleness.
const LINGER: Duration = Duration::from_millis(20);
/// Large buffers, and pipes, that are kept for the next burst.
const KEPT: usize = 16;

static BUFFERS: Pool<Box<[u8]>> = Pool::new(MAX_LARGE, KEPT);
static PIPES: Pool<Pipe> = Pool::new(MAX_LARGE, KEPT);

/// Copies until both directions have ended, or either has failed.
pub(crate) async fn join<A, B>(a: A, b: B, a_to_b: &AtomicU64, b_to_a: &AtomicU64) -> io::Result<()>
where
    A: Socket,
    B: Socket,
{
    tokio::try_join!(pump(&a, &b, a_to_b), pump(&b, &a, b_to_a))?;
    Ok(())
}

async fn pump(from: &impl Socket, to: &impl Socket, counter: &AtomicU64) -> io::Result<()> {
    let spliced = passes_pages(from) && passes_pages(to);
    let mut small = [0; SMALL];
    loop {
        let count = read(from, &mut small).await?;
        let bytes = small.get(..count).unwrap_or_default();
        write_all(to, bytes).await?;
        add(counter, count);
        let then = match count {
            0 => Then::End,
            1..SMALL => Then::Pause,
            _ => burst(from, to, spliced, counter).await?,
        };
        if then == Then::End {
            return end(to);
        }
    }
}

/// What comes after a burst.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Pause,
    End,
}

async fn burst(
    from: &impl Socket,
    to: &impl Socket,
    spliced: bool,
    counter: &AtomicU64,
) -> io::Result<Then> {
    if spliced && let Some((mut pipe, permit)) = PIPES.take(Pipe::new) {
        let then = splice(from, to, &mut pipe, counter).await?;
        permit.give_back(pipe);
        return Ok(then);
    }
    if let Some((mut buffer, permit)) = BUFFERS.take(|| Some(zeroed(LARGE))) {
        let then = copy(from, to, &mut buffer, counter).await?;
        permit.give_back(buffer);
        return Ok(then);
    }
    copy(from, to, &mut zeroed(MIDDLE), counter).await
}

async fn splice(
    from: &impl Socket,
    to: &impl Socket,
    pipe: &mut Pipe,
    counter: &AtomicU64,
) -> io::Result<Then> {
    loop {
        let filled = when_readable(from, || pipe.fill(&from).map(Done::with_more));
        let Ok(filled) = timeout(LINGER, filled).await else {
            return Ok(Then::Pause);
        };
        if filled? == 0 {
            return Ok(Then::End);
        }
        while pipe.held() > 0 {
            let drained = when_writable(to, || pipe.drain(&to).map(Done::with_more));
            add(counter, drained.await?);
        }
    }
}

async fn copy(
    from: &impl Socket,
    to: &impl Socket,
    buffer: &mut [u8],
    counter: &AtomicU64,
) -> io::Result<Then> {
    while let Ok(count) = timeout(LINGER, read(from, buffer)).await {
        let bytes = buffer.get(..count?).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(Then::End);
        }
        write_all(to, bytes).await?;
        add(counter, bytes.len());
    }
    Ok(Then::Pause)
}

fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Ordering::Relaxed);
}

fn zeroed(size: usize) -> Box<[u8]> {
    vec![0; size].into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream, UnixStream};
    use tokio::task::yield_now;

    use super::*;

    /// The enclave's connection and the agent's end of it.
    fn enclave() -> (UnixStream, link::Stream) {
        let (peer, own) = UnixStream::pair().unwrap();
        (peer, link::Stream::Unix(own))
    }

    /// The outside's connection and the agent's end of it.
    async fn outside() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap());
        let (peer, own) = tokio::join!(peer, listener.accept());
        (peer.unwrap(), own.unwrap().0)
    }

    fn data(count: u32) -> Vec<u8> {
        (0..count)
            .map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1])
            .collect()
    }

    #[tokio::test]
    async fn directions_end_one_by_one() {
        let ((mut client, a), (mut server, b)) = (enclave(), outside().await);
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

    /// Sends 8 MB to a reader that is slower than the writer.
    async fn pass_slowly<W, R>(mut writer: W, mut reader: R)
    where
        W: AsyncWriteExt + Unpin + Send + 'static,
        R: AsyncReadExt + Unpin,
    {
        let data = data(8_000_000);
        let sent = data.clone();
        let writing = tokio::spawn(async move {
            writer.write_all(&sent).await.unwrap();
            writer.shutdown().await.unwrap();
            writer
        });
        let mut received = Vec::new();
        let mut part = vec![0; 10_000];
        loop {
            let count = reader.read(&mut part).await.unwrap();
            if count == 0 {
                break;
            }
            received.extend_from_slice(&part[..count]);
            yield_now().await;
        }
        assert!(received == data, "other bytes");
        drop(reader);
        drop(writing.await.unwrap());
    }

    #[tokio::test]
    async fn large_transfers_pass_a_slow_reader_unharmed() {
        for out in [true, false] {
            let ((client, a), (server, b)) = (enclave(), outside().await);
            let joined = tokio::spawn(async move {
                let (up, down) = (AtomicU64::new(0), AtomicU64::new(0));
                join(a, b, &up, &down).await.unwrap();
                up.into_inner() + down.into_inner()
            });
            if out {
                pass_slowly(client, server).await;
            } else {
                pass_slowly(server, client).await;
            }
            assert_eq!(joined.await.unwrap(), 8_000_000);
        }
    }

    #[tokio::test]
    async fn so_they_do_where_the_kernel_moves_nothing() {
        let ((client, a), (server, b)) = (enclave(), outside().await);
        let copied = tokio::spawn(async move {
            let counter = AtomicU64::new(0);
            while burst(&b, &a, false, &counter).await.unwrap() != Then::End {}
            end(&a).unwrap();
            counter.into_inner()
        });
        pass_slowly(server, client).await;
        assert_eq!(copied.await.unwrap(), 8_000_000);
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
        let ((mut client, a), (mut server, b)) = (enclave(), outside().await);
        let counter = Arc::new(AtomicU64::new(0));
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
                yield_now().await;
            }
        }
        drop((client, server));
        joined.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_peer_that_is_gone_ends_the_connection_with_an_error() {
        let ((mut client, a), (server, b)) = (enclave(), outside().await);
        let joined =
            tokio::spawn(async move { join(a, b, &AtomicU64::new(0), &AtomicU64::new(0)).await });
        server.set_zero_linger().unwrap();
        drop(server);
        let data = data(1_000_000);
        while client.write_all(&data).await.is_ok() {}
        assert!(joined.await.unwrap().is_err());
    }

    #[tokio::test]
    async fn an_idle_connection_holds_no_large_buffer() {
        let ((client, a), (server, b)) = (enclave(), outside().await);
        let counters = [AtomicU64::new(0), AtomicU64::new(0)];
        let future = join(a, b, &counters[0], &counters[1]);
        assert!(size_of_val(&future) < 8 * 1024, "{}", size_of_val(&future));
        drop((future, client, server));
    }
}
