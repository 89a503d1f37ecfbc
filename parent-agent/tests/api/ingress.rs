//! Connections from outside to the workload.

use std::io;

use link::frame::{self, MAX_TARGET};
use link::target::{Connect, Refusal, Reply};
use link::{Channel, Listener, Stream, Text, hello};
use proxy_header::{ParseConfig, ProxyHeader};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::agent::Agent;
use crate::image::Builder;

async fn run() -> (Agent, Listener, String) {
    run_with(Builder::new(&[], &[(8080, 80)]), &[]).await
}

async fn run_with(image: Builder, arguments: &[&str]) -> (Agent, Listener, String) {
    let arguments = [&["--publish", "0:8080"], arguments].concat();
    let mut agent = Agent::run(image, &arguments).await;
    let starting = agent.event("starting").await;
    let port = &starting["ports"][0];
    assert_eq!(
        (port["port"].as_u64(), port["to"].as_u64()),
        (Some(8080), Some(80))
    );
    let address = port["listen"].as_str().unwrap().to_owned();
    assert!(address.starts_with("127.0.0.1:"));
    let listener = agent.listen();
    (agent, listener, address)
}

pub(crate) async fn accept(listener: &Listener, reply: &Reply) -> Stream {
    let (mut stream, _) = listener.accept().await.unwrap();
    let channel = hello::accept(&mut stream, |_| true).await.unwrap();
    assert_eq!(channel, Channel::Ingress);
    let connect: Connect = frame::read(&mut stream, MAX_TARGET).await.unwrap();
    assert_eq!((&*connect.host, connect.port), ("", 80));
    frame::write(&mut stream, reply, MAX_TARGET).await.unwrap();
    stream
}

/// A client that has sent `GET` and no more will, its connection in the enclave, and
/// what came over that.
async fn get(listener: &Listener, address: &str) -> (TcpStream, Stream, Vec<u8>) {
    let (client, mut stream) = tokio::join!(
        TcpStream::connect(address),
        accept(listener, &Reply::Connected)
    );
    let mut client = client.unwrap();
    client.write_all(b"GET").await.unwrap();
    client.shutdown().await.unwrap();
    let mut request = Vec::new();
    stream.read_to_end(&mut request).await.unwrap();
    (client, stream, request)
}

#[tokio::test]
async fn ingress_carries_connections_with_their_ends() {
    let (agent, listener, address) = run().await;
    let (mut client, mut stream, request) = get(&listener, &address).await;
    assert_eq!(request, b"GET");
    stream.write_all(b"answer").await.unwrap();
    drop(stream);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"answer");
    let counts = agent.status().await["ingress"][0].clone();
    assert_eq!(
        (counts["bytes_in"].as_u64(), counts["bytes_out"].as_u64()),
        (Some(3), Some(6))
    );
}

#[tokio::test]
async fn ingress_proxy_protocol_names_the_client() {
    let image = Builder::new(&[], &[(8080, 80)]).proxy_protocol();
    let (_agent, listener, address) = run_with(image, &[]).await;
    let (client, _stream, request) = get(&listener, &address).await;
    let (header, length) = ProxyHeader::parse(&request, ParseConfig::default()).unwrap();
    let found = header.proxied_address().unwrap();
    assert_eq!(found.source, client.local_addr().unwrap());
    assert_eq!(found.destination, client.peer_addr().unwrap());
    assert_eq!(&request[length..], b"GET");
}

#[tokio::test]
async fn ingress_rate_closes_and_counts_what_comes_too_fast() {
    let image = Builder::new(&[], &[(8080, 80)]);
    // The next token is due in a second, at the earliest.
    let (agent, listener, address) = run_with(image, &["--ingress-rate", "1:2"]).await;
    let mut carried = Vec::new();
    for _ in 0..2 {
        let (client, stream) = tokio::join!(
            TcpStream::connect(&address),
            accept(&listener, &Reply::Connected)
        );
        carried.push((client.unwrap(), stream));
    }
    let mut limited = 0;
    // A slow machine may have earned a token or two meanwhile.
    while limited == 0 {
        let mut clients = Vec::new();
        for _ in 0..20 {
            // A reset may come before the connection is looked at.
            clients.extend(TcpStream::connect(&address).await);
        }
        let counts = agent.status().await["ingress"][0].clone();
        limited = counts["limited"].as_u64().unwrap();
        assert!(counts["refused"].as_u64().unwrap() >= limited);
    }
    let (_, page) = agent.request("GET", "/metrics", "").await;
    let page = String::from_utf8(page).unwrap();
    assert!(
        page.contains("enclave_connections_limited_total{direction=\"ingress\"}"),
        "{page}"
    );
    // Those that were carried go on.
    let (client, stream) = &mut carried[0];
    client.write_all(b"x").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'x');
}

/// Whether a client finds a reset, and not the end of an answer.
async fn is_reset(client: io::Result<TcpStream>) -> bool {
    let error = match client {
        Ok(mut client) => client.read(&mut [0]).await.unwrap_err(),
        Err(error) => error,
    };
    error.kind() == io::ErrorKind::ConnectionReset
}

#[tokio::test]
async fn ingress_resets_what_the_enclave_refuses() {
    let (agent, listener, address) = run().await;
    let refused = Reply::Refused {
        refusal: Refusal::Unreachable,
        reason: Text::new("nobody listens"),
    };
    let (client, _stream) = tokio::join!(TcpStream::connect(&address), accept(&listener, &refused));
    assert!(is_reset(client).await);
    drop(listener);
    // Nobody listens at all.
    assert!(is_reset(TcpStream::connect(&address).await).await);
    assert_eq!(agent.status().await["ingress"][0]["refused"], 2);
}

#[tokio::test]
async fn ingress_connections_end_with_the_enclave() {
    let (agent, listener, address) = run().await;
    let (client, stream) = tokio::join!(
        TcpStream::connect(&address),
        accept(&listener, &Reply::Connected)
    );
    agent.end_init(0).await;
    agent.ended().await;
    // Nobody takes it for an answer that is complete.
    assert!(is_reset(client).await);
    assert!(TcpStream::connect(&address).await.is_err());
    drop(stream);
}
