//! Connections from outside to the workload.

use link::control::FromInit;
use link::logs::LogStream;
use link::target::{Connect, Refusal, Reply};
use link::{Channel, Endpoint, Stream, Text, frame, hello};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::enclave::{Enclave, Image, LIMIT, message};

/// Those that the agent gives out, and some for connections that are just ending.
const PLACES: usize = 1024 + 64;

async fn connect(enclave: &Enclave) -> Stream {
    let path = enclave.folder().join("sockets/enclave_7001");
    link::connect(&Endpoint::Unix { path }, LIMIT)
        .await
        .unwrap()
}

pub(crate) async fn ask(enclave: &Enclave, port: u16) -> (Stream, Reply) {
    let mut stream = connect(enclave).await;
    hello::open(&mut stream, Channel::Ingress).await.unwrap();
    let host = Text::new("");
    frame::write(&mut stream, &Connect { host, port }, frame::MAX_TARGET)
        .await
        .unwrap();
    let reply = frame::read(&mut stream, frame::MAX_TARGET);
    let reply = timeout(LIMIT, reply).await.unwrap().unwrap();
    (stream, reply)
}

async fn serving() -> Enclave {
    let image = Image::new(&["serve 8080"]).with(
        "/network/ingress",
        json!([{"port": 80, "to": 8080}, {"port": 81, "to": 8081}]),
    );
    let (enclave, _control) = image.boot().await;
    enclave.said("serving").await;
    enclave
}

#[tokio::test]
async fn ingress_carries_bytes_both_ways_and_each_way_ends_by_itself() {
    let enclave = serving().await;
    let (mut stream, reply) = ask(&enclave, 8080).await;
    assert_eq!(reply, Reply::Connected);
    let mut sent: Vec<u8> = (0..1_000_000_u32)
        .map(|number| number.to_le_bytes()[1])
        .collect();
    // The workload answers only once this direction has ended.
    stream.write_all(&sent).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut received = Vec::new();
    timeout(LIMIT, stream.read_to_end(&mut received))
        .await
        .unwrap()
        .unwrap();
    sent.reverse();
    assert!(received == sent);
    enclave.said("read 1000000 bytes from 127.0.0.1").await;
}

#[tokio::test]
async fn ingress_refuses_ports_that_are_not_listed_or_not_served() {
    let enclave = serving().await;
    for (port, expected, text) in [
        (22, Refusal::NotAllowed, "not in the image's ingress list"),
        // The port outside is not the port inside.
        (80, Refusal::NotAllowed, "not in the image's ingress list"),
        (7070, Refusal::NotAllowed, "not in the image's ingress list"),
        (8081, Refusal::Unreachable, "does not answer on port 8081"),
    ] {
        let (mut stream, reply) = ask(&enclave, port).await;
        let Reply::Refused { refusal, reason } = reply else {
            panic!("{port} is connected");
        };
        assert_eq!(refusal, expected);
        assert!(reason.contains(text), "{reason}");
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn ingress_closes_what_is_no_ingress_connection() {
    let enclave = serving().await;
    for bytes in [
        b"GET / HTTP/1.1\r\n".as_slice(),
        // Another channel, and a frame larger than any request.
        b"ENCL\0\x02\x01\0",
        b"ENCL\0\x02\x04\0\xff\xff\xff\xff",
        b"ENCL\0\x02\x04\0\0\0\0\x01\xff",
    ] {
        let mut stream = connect(&enclave).await;
        stream.write_all(bytes).await.unwrap();
        let mut rest = Vec::new();
        // A reset is a way to close, too.
        let _ = timeout(LIMIT, stream.read_to_end(&mut rest)).await.unwrap();
        assert!(rest.len() <= 8, "{rest:?}");
    }
    let (_, reply) = ask(&enclave, 8080).await;
    assert_eq!(reply, Reply::Connected);
}

#[tokio::test]
async fn ingress_takes_their_place_from_silent_connections() {
    let enclave = serving().await;
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(connect(&enclave).await);
    }
    for stream in &mut silent {
        let read = timeout(LIMIT, stream.read(&mut [0])).await.unwrap();
        assert_eq!(read.unwrap_or(0), 0);
    }
}

#[tokio::test]
async fn ingress_turns_away_more_connections_than_places() {
    let enclave = serving().await;
    let mut open = Vec::new();
    let refused = loop {
        let mut stream = connect(&enclave).await;
        match hello::open(&mut stream, Channel::Ingress).await {
            Ok(()) => open.push(stream),
            Err(error) => break error,
        }
        assert!(open.len() <= PLACES, "no end of places");
    };
    assert!(matches!(refused, hello::HelloError::Busy), "{refused}");
    assert_eq!(open.len(), PLACES);
    enclave
        .line(
            LogStream::Errors,
            "ingress: a connection was refused as busy",
        )
        .await;
    drop(open);
    let again = async {
        loop {
            let mut stream = connect(&enclave).await;
            if hello::open(&mut stream, Channel::Ingress).await.is_ok() {
                break;
            }
        }
    };
    timeout(LIMIT, again).await.unwrap();
}

#[tokio::test]
async fn ingress_silent_clients_give_way_to_new_ones() {
    let image =
        Image::new(&["serve 8080"]).with("/network/ingress", json!([{"port": 80, "to": 8080}]));
    let (enclave, mut control) = image.boot().await;
    enclave.said("serving").await;
    let mut silent = Vec::new();
    for _ in 0..PLACES {
        let (stream, reply) = ask(&enclave, 8080).await;
        assert_eq!(reply, Reply::Connected);
        silent.push(stream);
    }
    let next = async {
        loop {
            let mut stream = connect(&enclave).await;
            if hello::open(&mut stream, Channel::Ingress).await.is_ok() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    timeout(LIMIT, next).await.unwrap();
    // Which of them was silent longest depends on when each task began.
    let mut ends = JoinSet::new();
    for mut stream in silent {
        ends.spawn(async move { stream.read(&mut [0]).await.unwrap_or(0) });
    }
    let evicted = timeout(LIMIT, ends.join_next()).await.unwrap();
    assert_eq!(evicted.unwrap().unwrap(), 0);
    enclave
        .line(
            LogStream::Errors,
            "ingress: a connection to port 8080 was closed: it was idle",
        )
        .await;
    let counts = message(&mut control, |message| match message {
        FromInit::Places { ingress, .. } if ingress.evicted > 0 => Some(*ingress),
        _ => None,
    });
    assert!(counts.await.evicted > 0);
}

#[tokio::test]
async fn ingress_idle_connections_cost_little_memory() {
    const CONNECTIONS: usize = 1000;
    let image =
        Image::new(&["serve 8080"]).with("/network/ingress", json!([{"port": 80, "to": 8080}]));
    let (enclave, _control) = image.boot().await;
    enclave.said("serving").await;
    let memory = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", enclave.pid1())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = line.unwrap().trim().strip_suffix(" kB").unwrap();
        kibibytes.parse::<usize>().unwrap()
    };
    let before = memory();
    let mut idle = Vec::new();
    for _ in 0..CONNECTIONS {
        let (mut stream, reply) = ask(&enclave, 8080).await;
        assert_eq!(reply, Reply::Connected);
        stream.write_all(b"GET").await.unwrap();
        idle.push(stream);
    }
    let each = memory().saturating_sub(before) / CONNECTIONS;
    assert!(each <= 20, "{each} KiB each");
}
