//! Datagrams from the workload to destinations outside, and records of names.

use link::datagrams::{self, MAX_DATAGRAM, Message};
use link::frame::{self, MAX_TARGET};
use link::records::{Answer, Kind, MAX_ANSWER, Question};
use link::target::{Refusal, Reply};
use link::{Channel, Stream, Text};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::agent::{Agent, LIMIT};
use crate::egress::{ask, ask_over, refusal};
use crate::image::Builder;

const RULES: [&str; 2] = ["ntp.example:123/udp", "web.example:443"];

/// An agent that finds `ntp.example:123` at this port of the machine.
async fn run(port: u16) -> Agent {
    let moved = format!("ntp.example:123=127.0.0.1:{port}");
    let rules = RULES.map(str::to_owned);
    Agent::run(Builder::new(&rules, &[]), &["--connect-to", &moved]).await
}

async fn open(agent: &Agent, host: &str, port: u16) -> (Stream, Reply) {
    ask_over(Channel::Datagrams, agent, host, port).await
}

async fn server() -> (UdpSocket, u16) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

async fn received(stream: &mut Stream) -> Message {
    let read = timeout(LIMIT, datagrams::read(stream)).await.unwrap();
    read.unwrap().unwrap()
}

#[tokio::test]
async fn datagrams_pass_both_ways_and_are_counted() {
    let (socket, port) = server().await;
    let agent = run(port).await;
    let (mut stream, reply) = open(&agent, "NTP.example.", 123).await;
    assert_eq!(reply, Reply::Connected);
    let mut buffer = vec![0; 1 << 16];
    for size in [0, 48, MAX_DATAGRAM] {
        let sent = Message::Datagram(vec![b'x'; size]);
        datagrams::write(&mut stream, &sent).await.unwrap();
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        assert_eq!(length, size);
        // Only the destination is heard, whoever else knows the socket.
        let (stranger, _) = server().await;
        stranger.send_to(b"stranger", from).await.unwrap();
        socket.send_to(&buffer[..length], from).await.unwrap();
        assert_eq!(received(&mut stream).await, sent);
    }
    let status = agent.status().await;
    let destination = &status["egress"][0];
    assert_eq!(destination["destination"], "ntp.example:123/udp");
    assert_eq!(destination["open"], 1);
    for bytes in ["bytes_out", "bytes_in"] {
        assert_eq!(destination[bytes], 48 + MAX_DATAGRAM);
    }
    drop(stream);
    let open = async { while agent.status().await["egress"][0]["open"] != 0 {} };
    timeout(LIMIT, open).await.unwrap();
}

#[tokio::test]
async fn datagrams_that_nobody_takes_are_told() {
    let (socket, port) = server().await;
    drop(socket);
    let agent = run(port).await;
    let (mut stream, reply) = open(&agent, "ntp.example", 123).await;
    assert_eq!(reply, Reply::Connected);
    for _ in 0..2 {
        let sent = Message::Datagram(b"x".to_vec());
        datagrams::write(&mut stream, &sent).await.unwrap();
        assert_eq!(received(&mut stream).await, Message::Unreachable);
    }
    // When somebody is there again, it is heard.
    let socket = UdpSocket::bind(("127.0.0.1", port)).await.unwrap();
    let sent = Message::Datagram(b"y".to_vec());
    datagrams::write(&mut stream, &sent).await.unwrap();
    let (_, from) = socket.recv_from(&mut [0; 8]).await.unwrap();
    socket.send_to(b"z", from).await.unwrap();
    assert_eq!(
        received(&mut stream).await,
        Message::Datagram(b"z".to_vec())
    );
}

#[tokio::test]
async fn datagrams_and_connections_go_only_where_their_own_rules_say() {
    let agent = run(1).await;
    for (host, port) in [
        ("web.example", 443),
        ("ntp.example", 124),
        ("127.0.0.1", 123),
    ] {
        let (mut stream, reply) = open(&agent, host, port).await;
        let (found, reason) = refusal(&reply);
        assert_eq!(found, Refusal::NotAllowed);
        assert!(
            reason.contains(&format!("allows {host}:{port}/udp")),
            "{reason}"
        );
        assert!(datagrams::read(&mut stream).await.unwrap().is_none());
    }
    let (_, reply) = ask(&agent, "ntp.example", 123).await;
    assert_eq!(refusal(&reply).0, Refusal::NotAllowed);
}

#[tokio::test]
async fn datagrams_that_are_none_end_the_flow() {
    use tokio::io::AsyncWriteExt;

    let (_socket, port) = server().await;
    let agent = run(port).await;
    for garbage in [&[0, 0xff, 0xff, 1][..], &[1, 0, 0], &[9, 0, 0]] {
        let (mut stream, _) = open(&agent, "ntp.example", 123).await;
        stream.write_all(garbage).await.unwrap();
        let end = timeout(LIMIT, datagrams::read(&mut stream)).await.unwrap();
        assert!(!matches!(end, Ok(Some(_))), "{end:?}");
    }
}

#[tokio::test]
async fn records_are_looked_up_of_allowed_names_only() {
    let agent = run(1).await;
    for name in [
        "other.example",
        "_ntp._udp.other.example",
        "_x.ntp.example",
        "example",
        "",
    ] {
        let mut stream = agent.open(Channel::Records).await;
        let question = Question {
            name: Text::new(name),
            kind: Kind::Srv,
        };
        frame::write(&mut stream, &question, MAX_TARGET)
            .await
            .unwrap();
        match frame::read(&mut stream, MAX_ANSWER).await.unwrap() {
            Answer::Refused { refusal, .. } => assert_eq!(refusal, Refusal::NotAllowed, "{name}"),
            answer => panic!("{answer:?}"),
        }
    }
}
