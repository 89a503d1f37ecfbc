//! How a connection ends that two programs carry, with a link between them.

use std::io::ErrorKind;
use std::time::Duration;

use link::Stream;
use link::copy::{self, Buffers, JoinError, Socket};
use link::places::Places;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(20);
/// More than a burst of either program, and less than the sockets hold.
const COUNT: usize = 100_000;
static DATA: [u8; COUNT] = [7; COUNT];

static BUFFERS: Buffers = Buffers::new(32 * 1024, 4 * 1024, 4, 4);

type Carried = JoinHandle<Result<(), JoinError>>;

async fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap());
    let (peer, own) = tokio::join!(peer, listener.accept());
    (peer.unwrap(), own.unwrap().0)
}

fn carry(a: impl Socket + 'static, b: impl Socket + 'static) -> Carried {
    tokio::spawn(async move {
        let place = Places::new(1, 1).take(()).unwrap();
        copy::join(a, b, place.activity(), &BUFFERS, |_| {}, |_| {}).await
    })
}

/// Both ends of a connection that goes over a link, and the two that carry it.
async fn carried() -> ((TcpStream, TcpStream), [Carried; 2]) {
    let (client, outside) = tcp().await;
    let (server, inside) = tcp().await;
    let (agent, init) = UnixStream::pair().unwrap();
    let carried = [
        carry(outside, Stream::Unix(agent)),
        carry(Stream::Unix(init), inside),
    ];
    ((client, server), carried)
}

/// Reads to an end, or to the error that comes instead.
async fn read(stream: &mut TcpStream) -> (usize, Option<ErrorKind>) {
    let mut received = Vec::new();
    let read = timeout(LIMIT, stream.read_to_end(&mut received));
    let error = read.await.unwrap().err();
    (received.len(), error.map(|error| error.kind()))
}

#[tokio::test]
async fn ends_pass_one_by_one_and_leave_what_was_sent() {
    let ((mut client, mut server), carried) = carried().await;
    client.write_all(&DATA).await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read(&mut server).await, (COUNT, None));
    server.write_all(&DATA).await.unwrap();
    // It closes both ways, and the client has not read yet.
    drop(server);
    for carried in carried {
        timeout(LIMIT, carried).await.unwrap().unwrap().unwrap();
    }
    assert_eq!(read(&mut client).await, (COUNT, None));
}

#[tokio::test]
async fn ends_of_the_other_direction_first_are_no_cut() {
    let ((mut client, mut server), carried) = carried().await;
    server.write_all(&DATA).await.unwrap();
    server.shutdown().await.unwrap();
    assert_eq!(read(&mut client).await, (COUNT, None));
    client.write_all(&DATA).await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read(&mut server).await, (COUNT, None));
    for carried in carried {
        timeout(LIMIT, carried).await.unwrap().unwrap().unwrap();
    }
}

#[tokio::test]
async fn ends_at_the_same_moment_are_no_cut() {
    for _ in 0..200 {
        let ((mut client, mut server), carried) = carried().await;
        client.write_all(b"x").await.unwrap();
        server.write_all(b"y").await.unwrap();
        let (first, second) = tokio::join!(client.shutdown(), server.shutdown());
        first.unwrap();
        second.unwrap();
        assert_eq!(read(&mut client).await, (1, None));
        assert_eq!(read(&mut server).await, (1, None));
        for carried in carried {
            timeout(LIMIT, carried).await.unwrap().unwrap().unwrap();
        }
    }
}

#[tokio::test]
async fn ends_by_a_reset_in_mid_transfer_are_resets_both_ways() {
    for from_server in [true, false] {
        let ((client, server), carried) = carried().await;
        let (mut breaks, mut other) = if from_server {
            (server, client)
        } else {
            (client, server)
        };
        breaks.write_all(&DATA).await.unwrap();
        // As soon as it is sent, and once more when all has arrived.
        if from_server {
            other.read_exact(&mut vec![0; COUNT]).await.unwrap();
        }
        breaks.set_zero_linger().unwrap();
        drop(breaks);
        let (count, error) = read(&mut other).await;
        assert!(count <= COUNT, "{count}");
        assert_eq!(error, Some(ErrorKind::ConnectionReset), "{from_server}");
        for carried in carried {
            timeout(LIMIT, carried).await.unwrap().unwrap().unwrap_err();
        }
    }
}

#[tokio::test]
async fn ends_of_either_program_are_resets_at_both_ends() {
    for gone in [0, 1] {
        let ((mut client, mut server), carried) = carried().await;
        server.write_all(&DATA).await.unwrap();
        client.read_exact(&mut vec![0; COUNT]).await.unwrap();
        carried[gone].abort();
        for end in [&mut client, &mut server] {
            let (_, error) = read(end).await;
            assert_eq!(error, Some(ErrorKind::ConnectionReset), "{gone}");
        }
    }
}

#[tokio::test]
async fn ends_of_a_program_leave_an_answer_that_was_complete() {
    for gone in [0, 1] {
        let ((mut client, mut server), carried) = carried().await;
        client.write_all(b"request").await.unwrap();
        server.read_exact(&mut [0; 7]).await.unwrap();
        server.write_all(&DATA).await.unwrap();
        server.shutdown().await.unwrap();
        // The end has arrived, and nobody has read what was before it.
        while client.peek(&mut vec![0; COUNT]).await.unwrap() < COUNT {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        carried[gone].abort();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(read(&mut client).await, (COUNT, None), "{gone}");
    }
}
