//! How the agent carries bytes: what [`link::copy`] does, and in bursts the kernel moves
//! the bytes through a [pipe] where it can, and this process copies them through a large
//! buffer where it cannot.

mod pipe;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use link::copy::{
    Buffers, Burst, Done, JoinError, LINGER, Pool, Socket, Then, when_readable, when_writable,
};
use link::places::Activity;
use rustix::net::{AddressFamily, sockopt};
use tokio::time::timeout;

use pipe::Pipe;

/// What a direction reads into while bytes keep coming.
const LARGE: usize = 256 * 1024;
/// The same when so many others do so that all their memory would be much.
const MIDDLE: usize = 16 * 1024;
/// Directions that have a large buffer at a time, 16 MiB together, and those that
/// have a pipe.
const MAX_LARGE: usize = 64;
/// Large buffers, and pipes, that are kept for the next burst.
const KEPT: usize = 16;

static BUFFERS: Buffers = Buffers::new(LARGE, MIDDLE, MAX_LARGE, KEPT);
static PIPES: Pool<Pipe> = Pool::new(MAX_LARGE, KEPT);

/// Copies until both directions have ended, either has failed, or the connection has
/// lost its place.
pub(crate) async fn join<A, B>(
    a: A,
    b: B,
    activity: &Activity,
    a_to_b: &AtomicU64,
    b_to_a: &AtomicU64,
) -> Result<(), JoinError>
where
    A: Socket,
    B: Socket,
{
    let spliced = Spliced {
        possible: passes_pages(&a) && passes_pages(&b),
    };
    link::copy::join(
        a,
        b,
        activity,
        &spliced,
        |count| add(a_to_b, count),
        |count| add(b_to_a, count),
    )
    .await
}

/// Bursts through pipes, between sockets where that is possible.
struct Spliced {
    possible: bool,
}

impl Burst for Spliced {
    async fn burst(
        &self,
        from: &impl Socket,
        to: &impl Socket,
        note: &(impl Fn(usize) + Sync),
    ) -> io::Result<Then> {
        if self.possible
            && let Some((mut pipe, permit)) = PIPES.take(Pipe::new)
        {
            let then = splice(from, to, &mut pipe, note).await?;
            permit.give_back(pipe);
            return Ok(then);
        }
        BUFFERS.burst(from, to, note).await
    }
}

async fn splice(
    from: &impl Socket,
    to: &impl Socket,
    pipe: &mut Pipe,
    note: &(impl Fn(usize) + Sync),
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
            note(drained.await?);
        }
    }
}

fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Ordering::Relaxed);
}

/// Whether it is one of those that the kernel passes pages on from and to: over vsock
/// it copies them.
fn passes_pages(socket: &impl Socket) -> bool {
    sockopt::socket_domain(socket.as_fd()).is_ok_and(|family| family != AddressFamily::VSOCK)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use link::copy::{SMALL, Side};
    use link::places::{Place, Places};
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

    fn place() -> Place<()> {
        Places::new(1, 1).take(()).unwrap()
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
            let result = join(a, b, place().activity(), &up, &down).await;
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
                join(a, b, place().activity(), &up, &down).await.unwrap();
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
            let copied = Spliced { possible: false };
            let note = |count| add(&counter, count);
            while copied.burst(&b, &a, &note).await.unwrap() != Then::End {}
            Side::new(a).end().unwrap();
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
        let joined = tokio::spawn(async move {
            join(a, b, place().activity(), &shared, &AtomicU64::new(0)).await
        });
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
        let joined = tokio::spawn(async move {
            let counters = [AtomicU64::new(0), AtomicU64::new(0)];
            join(a, b, place().activity(), &counters[0], &counters[1]).await
        });
        server.set_zero_linger().unwrap();
        drop(server);
        let data = data(1_000_000);
        while client.write_all(&data).await.is_ok() {}
        assert!(joined.await.unwrap().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_lost_its_place_is_reset() {
        let ((client, a), (mut server, b)) = (enclave(), outside().await);
        let places = Places::new(1, 1);
        let place = places.take("one").unwrap();
        let joined = tokio::spawn(async move {
            let counters = [AtomicU64::new(0), AtomicU64::new(0)];
            join(a, b, place.activity(), &counters[0], &counters[1]).await
        });
        tokio::time::sleep(link::places::MIN_IDLE).await;
        let _other = places.take("other").unwrap();
        let error = joined.await.unwrap().unwrap_err();
        assert!(error.to_string().contains("idle"), "{error}");
        let error = server.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        drop(client);
    }

    #[tokio::test]
    async fn an_idle_connection_holds_no_large_buffer() {
        let ((client, a), (server, b)) = (enclave(), outside().await);
        let counters = [AtomicU64::new(0), AtomicU64::new(0)];
        let place = place();
        let future = join(a, b, place.activity(), &counters[0], &counters[1]);
        assert!(size_of_val(&future) < 8 * 1024, "{}", size_of_val(&future));
        drop((future, client, server));
    }
}
