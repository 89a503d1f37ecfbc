//! The sinks `syslog` and `otlp` against small receivers.

use link::logs::LogStream;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, UdpSocket, UnixDatagram};
use tokio::time::timeout;

use crate::agent::{Agent, LIMIT};
use crate::image::Builder;
use crate::logs::{Connection, record};

async fn send(agent: &Agent, texts: &[&str]) -> Connection {
    let mut connection = Connection::open(agent).await;
    let records = texts
        .iter()
        .zip(1..)
        .map(|(text, sequence)| record(LogStream::Application, sequence, text.as_bytes()))
        .collect();
    connection.send(records).await;
    connection
}

async fn end(agent: Agent, connection: Connection) {
    agent.end_init(0).await;
    drop(connection);
    agent.ended().await;
}

#[tokio::test]
async fn syslog_datagrams_carry_one_message_each() {
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let unix = UnixDatagram::bind(&path).unwrap();
    let to_udp = format!("syslog:udp://{}", udp.local_addr().unwrap());
    let to_unix = format!("syslog:unix://{}", path.display());
    let arguments = ["--sink", &to_udp, "--sink", &to_unix];
    let agent = Agent::spawn_in(folder, Builder::new(&[], &[]), &arguments);
    agent.until_init_waits().await;
    let connection = send(&agent, &["one", "two"]).await;
    let mut buffer = [0; 4096];
    for (sequence, text) in [(1, "one"), (2, "two")] {
        let expected = format!(
            "<134>1 2026-01-01T00:00:00.000001Z test enclave - application [meta sequenceId=\"{sequence}\"] {text}"
        );
        let count = timeout(LIMIT, udp.recv(&mut buffer))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(std::str::from_utf8(&buffer[..count]), Ok(&*expected));
        let count = timeout(LIMIT, unix.recv(&mut buffer))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(std::str::from_utf8(&buffer[..count]), Ok(&*expected));
    }
    end(agent, connection).await;
}

#[tokio::test]
async fn syslog_stream_is_framed_and_made_again_when_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sink = format!("syslog:tcp://{}", listener.local_addr().unwrap());
    let agent = Agent::start(&["--sink", &sink]).await;
    let mut connection = send(&agent, &["one", "two"]).await;
    let (stream, _) = timeout(LIMIT, listener.accept()).await.unwrap().unwrap();
    let mut stream = BufReader::new(stream);
    assert!(message(&mut stream).await.ends_with("] one"));
    assert!(message(&mut stream).await.ends_with("] two"));
    drop(stream);
    // Once the agent has seen the end, it connects again.
    let mut sequence = 3;
    let accepted = loop {
        let text = format!("line {sequence}");
        let records = vec![record(LogStream::Application, sequence, text.as_bytes())];
        connection.send(records).await;
        sequence += 1;
        let accepted = listener.accept();
        if let Ok(accepted) = timeout(std::time::Duration::from_millis(300), accepted).await {
            break accepted.unwrap();
        }
    };
    let mut stream = BufReader::new(accepted.0);
    assert!(message(&mut stream).await.contains("] line "));
    end(agent, connection).await;
}

/// Reads one message behind its length.
async fn message(stream: &mut BufReader<tokio::net::TcpStream>) -> String {
    let reading = async {
        let mut length = Vec::new();
        stream.read_until(b' ', &mut length).await.unwrap();
        let length: usize = std::str::from_utf8(&length)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        let mut message = vec![0; length];
        stream.read_exact(&mut message).await.unwrap();
        String::from_utf8(message).unwrap()
    };
    timeout(LIMIT, reading).await.unwrap()
}

#[tokio::test]
async fn otlp_receiver_gets_json_and_may_be_busy() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sink = format!("otlp:http://{}", listener.local_addr().unwrap());
    let mut agent = Agent::start(&["--sink", &sink, "--sink", "stdout"]).await;
    let connection = send(&agent, &["one", "two"]).await;
    let mut bodies = Vec::new();
    for (status, answer) in [
        ("503 Busy", ""),
        ("200 OK", r#"{"partialSuccess":{"rejectedLogRecords":"1"}}"#),
    ] {
        let (stream, _) = timeout(LIMIT, listener.accept()).await.unwrap().unwrap();
        let length = answer.len();
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{answer}");
        bodies.push(request(stream, &answer).await);
    }
    assert_eq!(bodies[0], bodies[1]);
    let records = &bodies[1]["resourceLogs"][0]["scopeLogs"][0]["logRecords"];
    assert_eq!(records[0]["body"]["stringValue"], "one");
    assert_eq!(records[1]["body"]["stringValue"], "two");
    agent.event("log").await;
    let lost = async {
        loop {
            let status = agent.status().await;
            let sink = &status["logs"]["sinks"][0];
            if sink["lost"]["rejected"] == 1 {
                assert_eq!(sink["retries"], 1);
                return;
            }
        }
    };
    timeout(LIMIT, lost).await.unwrap();
    agent.end_init(0).await;
    drop(connection);
    agent.event("ended").await;
}

/// Reads a request's body and answers, once.
async fn request(stream: tokio::net::TcpStream, answer: &str) -> Value {
    let mut stream = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        let line = line.trim().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.starts_with("post ") {
            assert_eq!(line, "post /v1/logs http/1.1");
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    stream.write_all(answer.as_bytes()).await.unwrap();
    serde_json::from_slice(&body).unwrap()
}
