//! One client with a loop, or a few, and everybody else.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use tokio::net::TcpSocket;

use crate::http::{Connection, message};
use crate::server::{Server, World, eventually};

const LIMIT: u64 = 64;
const SHARE: u64 = 24;
/// Sockets of a hostile client: more than there are connections.
const SOCKETS: usize = 96;

/// A connection from an address of this machine.
pub(crate) fn connect_from(last: u8, server: SocketAddr) -> TcpStream {
    connect_with(last, server, None)
}

/// The same, whose kernel keeps about this much of what has not been read, in bytes.
fn connect_with(last: u8, server: SocketAddr, unread: Option<u32>) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .unwrap();
    let stream = runtime.block_on(async {
        let socket = TcpSocket::new_v4().unwrap();
        let address = IpAddr::from(Ipv4Addr::new(127, 0, 0, last));
        socket.bind((address, 0).into()).unwrap();
        if let Some(unread) = unread {
            socket.set_recv_buffer_size(unread).unwrap();
        }
        socket.connect(server).await.unwrap()
    });
    let stream = stream.into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    stream
}

/// What a hostile client sends on each of its sockets before it falls silent.
#[derive(Debug, Clone, Copy)]
enum Attack {
    NothingAtAll,
    SlowHead,
    SlowBody,
    NeverReads,
}

impl Attack {
    fn begin(self, stream: &mut TcpStream) {
        let bytes = match self {
            Self::NothingAtAll => Vec::new(),
            Self::SlowHead => b"GET /v1/policies HTTP/1.1\r\nHost: te".to_vec(),
            Self::SlowBody => b"POST /v1/verify HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{".to_vec(),
            Self::NeverReads => message("GET", "/openapi.json", &[], &[]).repeat(200),
        };
        stream.set_nonblocking(true).unwrap();
        // The service may have closed it by now, or take no more.
        let _ = stream.write(&bytes);
    }
}

fn hold(attack: Attack, last: u8, server: &Server) -> Vec<TcpStream> {
    let sockets = (0..SOCKETS).map(|_| {
        let mut stream = connect_from(last, server.address);
        attack.begin(&mut stream);
        stream
    });
    sockets.collect()
}

fn answered(server: &Server, last: u8, path: &str) {
    let mut connection = Connection::of(connect_from(last, server.address));
    connection.send(message("GET", path, &[], &[]));
    assert_eq!(connection.receive().status, 200, "{path}");
}

fn evicted(server: &Server, limit: &str) -> u64 {
    server.metric(&format!(
        "attest_connections_evicted_total{{limit=\"{limit}\"}}"
    ))
}

fn withstands(attack: Attack) {
    let (limit, share) = (LIMIT.to_string(), SHARE.to_string());
    let world = World::new();
    let server = world.start(&[
        "--max-connections",
        &limit,
        "--max-connections-per-client",
        &share,
    ]);
    let one = hold(attack, 2, &server);
    eventually("the client has more than its share", || {
        let evictions = u64::try_from(SOCKETS).unwrap() - SHARE;
        (evicted(&server, "client") == evictions).then_some(())
    });
    eventually("closed connections stay", || {
        (server.metric("attest_connections_open") <= SHARE).then_some(())
    });
    assert_eq!(evicted(&server, "total"), 0);
    for path in ["/healthz", "/readyz", "/v1/policies"] {
        // Others, and a probe from the very same address.
        answered(&server, 9, path);
        answered(&server, 2, path);
    }

    let more: Vec<_> = (3..8).map(|last| hold(attack, last, &server)).collect();
    eventually("there are more connections than there may be", || {
        (evicted(&server, "total") > 0).then_some(())
    });
    for last in [9, 9, 3, 10] {
        answered(&server, last, "/healthz");
        answered(&server, last, "/v1/policies");
    }
    eventually("there are more connections than there may be", || {
        (server.metric("attest_connections_open") <= LIMIT).then_some(())
    });
    drop((one, more));
    eventually("their connections stay", || {
        (server.metric("attest_connections_open") == 0).then_some(())
    });
}

#[test]
fn a_client_whose_sockets_are_silent_keeps_nobody_out() {
    withstands(Attack::NothingAtAll);
}

#[test]
fn a_client_whose_heads_are_slow_keeps_nobody_out() {
    withstands(Attack::SlowHead);
}

#[test]
fn a_client_whose_bodies_are_slow_keeps_nobody_out() {
    withstands(Attack::SlowBody);
}

#[test]
fn a_client_that_never_reads_keeps_nobody_out() {
    withstands(Attack::NeverReads);
}

#[test]
fn answers_that_are_not_read_end_the_connection() {
    let world = World::new();
    let server = world.start(&[]);
    let mut stream = connect_from(2, server.address);
    stream.set_nonblocking(true).unwrap();
    let request = message("GET", "/openapi.json", &[], &[]);
    // Until neither side takes any more; the kernel's buffers hold a lot.
    let end = eventually("the connection stays", || {
        loop {
            match stream.write(&request) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) => return Some(error.kind()),
            }
        }
    });
    assert!(
        matches!(end, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
        "{end}"
    );
    assert_eq!(server.metric("attest_connections_open"), 0);
}

#[test]
fn answers_that_are_read_slowly_are_read_whole() {
    const ANSWERS: usize = 64;
    // Longer than an answer may take, of which each takes a small part.
    const TIME: Duration = Duration::from_secs(13);
    let world = World::new();
    let server = world.start(&[]);
    let whole = server.get("/openapi.json").body.len() * ANSWERS;
    // Many times what the buffers of both sides hold.
    let mut stream = connect_with(2, server.address, Some(16 * 1024));
    let request = message("GET", "/openapi.json", &[], &[]);
    stream.write_all(&request.repeat(ANSWERS)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let mut bytes = vec![0; 32 * 1024];
    let mut total = 0;
    while total < whole {
        let read = stream.read(&mut bytes).unwrap();
        assert_ne!(read, 0, "cut after {total} of {whole} bytes");
        total += read;
        std::thread::park_timeout(
            TIME * u32::try_from(read).unwrap() / u32::try_from(whole).unwrap(),
        );
    }
}

#[test]
fn behind_a_proxy_the_requests_of_a_client_are_counted_over_all_connections() {
    let world = World::new();
    let server = world.start(&[
        "--max-connections-per-client",
        "2",
        "--behind-proxy=forwarded",
    ]);
    let slow = |client: &str| {
        let mut connection = Connection::open(server.address);
        connection.send(format!(
            "POST /v1/verify HTTP/1.1\r\nHost: test\r\nForwarded: for=203.0.113.9, for={client}\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{{"
        ));
        connection
    };
    let get = |client: &str, path: &str| {
        let mut connection = Connection::open(server.address);
        let forwarded = [("Forwarded", client)];
        connection.send(message("GET", path, &forwarded, &[]));
        connection.receive()
    };
    let mut held = vec![slow("192.0.2.1:1000"), slow("\"192.0.2.1:1001\"")];
    // The proxy's connections are not one client's.
    held.extend((2..6).map(|last| slow(&format!("192.0.2.{last}"))));
    let refused = eventually("the bodies are not counted", || {
        let reply = get("for=192.0.2.1", "/v1/policies");
        if reply.status != 200 {
            return Some(reply);
        }
        // It came before one of the bodies, which was refused for it.
        held.push(slow("192.0.2.1"));
        None
    });
    assert_eq!(refused.problem(), "rate-limited");
    assert_eq!(get("for=192.0.2.1", "/healthz").status, 200);
    assert_eq!(get("for=192.0.2.99", "/v1/policies").status, 200);
    drop(held);
    eventually("the bodies are counted for ever", || {
        (get("for=192.0.2.1", "/v1/policies").status == 200).then_some(())
    });
    assert_eq!(
        server.metric("attest_connections_evicted_total{limit=\"client\"}"),
        0
    );
}
