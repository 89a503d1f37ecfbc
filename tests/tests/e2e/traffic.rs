//! Connections in both directions.

use std::net::SocketAddr;

use enclave_tests::Hypervisor;
use enclave_tests::agent::LIMIT;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::{start, under_both};

under_both!(
    ingress_carries_bytes_both_ways,
    ingress_carries_many_connections_at_a_time,
    ingress_answers_that_end_by_closing_arrive_whole,
    ingress_questions_that_end_first_are_answered,
    egress_carries_bytes_both_ways,
    egress_addresses_are_connected_to_without_the_proxy,
    egress_reports_destinations_that_do_not_answer,
    egress_carries_datagrams,
);

const MIB: usize = 1024 * 1024;

fn bulk(hypervisor: Hypervisor) -> usize {
    match hypervisor {
        Hypervisor::Sim => 64 * MIB,
        Hypervisor::Qemu => 4 * MIB,
    }
}

fn pattern(count: usize) -> Vec<u8> {
    (0..count)
        .map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1])
        .collect()
}

/// Sends everything, ends its own direction, and gives what comes back.
async fn exchange(address: SocketAddr, data: Vec<u8>) -> Vec<u8> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let sending = tokio::spawn(async move {
        writer.write_all(&data).await.unwrap();
        writer.shutdown().await.unwrap();
        writer
    });
    let mut received = Vec::new();
    reader.read_to_end(&mut received).await.unwrap();
    sending.await.unwrap();
    received
}

async fn ingress_carries_bytes_both_ways(hypervisor: Hypervisor) {
    let mut agent = start(hypervisor, "serve", &[]);
    let address = agent.ready().await.unwrap();
    agent.line("listening").await.unwrap();
    let data = pattern(bulk(hypervisor));
    let received = timeout(LIMIT, exchange(address, data.clone()))
        .await
        .unwrap();
    assert!(
        received == data,
        "{} of {} bytes",
        received.len(),
        data.len()
    );
    let status = agent.status().await.unwrap();
    assert_eq!(status["ingress"][0]["connections"], 1);
    assert_eq!(status["ingress"][0]["bytes_in"], data.len());
    assert_eq!(status["ingress"][0]["bytes_out"], data.len());
    assert_eq!(agent.stopped().await.unwrap().code, Some(0));
}

async fn ingress_carries_many_connections_at_a_time(hypervisor: Hypervisor) {
    let mut agent = start(hypervisor, "serve", &[]);
    let address = agent.ready().await.unwrap();
    agent.line("listening").await.unwrap();
    let mut exchanges = JoinSet::new();
    for number in 0..100_usize {
        exchanges.spawn(async move {
            let data = pattern(1000 + number * 100);
            assert!(
                exchange(address, data.clone()).await == data,
                "connection {number}"
            );
        });
    }
    timeout(LIMIT, exchanges.join_all()).await.unwrap();
    assert_eq!(agent.stopped().await.unwrap().code, Some(0));
}

async fn ingress_answers_that_end_by_closing_arrive_whole(hypervisor: Hypervisor) {
    let mut agent = start(hypervisor, &format!("answer {MIB}"), &[]);
    let address = agent.ready().await.unwrap();
    agent.line("listening").await.unwrap();
    let asking = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"question\n").await.unwrap();
        // Our own direction stays open until the answer has ended.
        let mut received = Vec::new();
        stream.read_to_end(&mut received).await.unwrap();
        received
    };
    let received = timeout(LIMIT, asking).await.unwrap();
    assert!(received == pattern(MIB), "{} bytes", received.len());
    assert_eq!(agent.stopped().await.unwrap().code, Some(0));
}

async fn ingress_questions_that_end_first_are_answered(hypervisor: Hypervisor) {
    let mut agent = start(hypervisor, "collect", &[]);
    let address = agent.ready().await.unwrap();
    agent.line("listening").await.unwrap();
    let data = pattern(MIB);
    let received = timeout(LIMIT, exchange(address, data.clone()))
        .await
        .unwrap();
    assert!(received == data, "{} bytes", received.len());
    assert_eq!(agent.stopped().await.unwrap().code, Some(0));
}

async fn egress_carries_bytes_both_ways(hypervisor: Hypervisor) {
    fetches(hypervisor, "fetch", "peer.example:443").await;
}

async fn egress_addresses_are_connected_to_without_the_proxy(hypervisor: Hypervisor) {
    fetches(hypervisor, "fetch-at", "192.0.2.7:443").await;
}

async fn fetches(hypervisor: Hypervisor, role: &str, destination: &str) {
    let peer = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = peer.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = peer.accept().await.unwrap();
        let (mut reader, mut writer) = stream.into_split();
        tokio::io::copy(&mut reader, &mut writer).await.unwrap();
        writer.shutdown().await.unwrap();
    });
    let count = bulk(hypervisor);
    let connect_to = format!("{destination}={address}");
    let role = format!("{role} {count}");
    let mut agent = start(hypervisor, &role, &["--connect-to", &connect_to]);
    agent.line(&format!("fetched {count}")).await.unwrap();
    let status = agent.status().await.unwrap();
    assert_eq!(status["egress"][0]["destination"], destination);
    assert_eq!(status["egress"][0]["bytes_out"], count);
    assert_eq!(status["egress"][0]["bytes_in"], count);
    assert_eq!(agent.stopped().await.unwrap().code, Some(0));
}

async fn egress_carries_datagrams(hypervisor: Hypervisor) {
    const COUNT: usize = 20;
    let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = peer.local_addr().unwrap();
    let echo = tokio::spawn(async move {
        let mut buffer = vec![0; 1 << 16];
        for _ in 0..COUNT {
            let (length, from) = peer.recv_from(&mut buffer).await.unwrap();
            peer.send_to(&buffer[..length], from).await.unwrap();
        }
    });
    let connect_to = format!("192.0.2.7:123={address}");
    let role = format!("datagrams {COUNT}");
    let mut agent = start(hypervisor, &role, &["--connect-to", &connect_to]);
    agent.line(&format!("echoed {COUNT}")).await.unwrap();
    echo.await.unwrap();
    // Nobody listens there any more.
    agent.line("then ConnectionRefused").await.unwrap();
    let status = agent.status().await.unwrap();
    assert_eq!(status["egress"][0]["destination"], "192.0.2.7:123/udp");
    assert_eq!(status["egress"][0]["connections"], 1);
    assert_eq!(agent.stopped().await.unwrap().code, Some(0));
}

async fn egress_reports_destinations_that_do_not_answer(hypervisor: Hypervisor) {
    // A port that was free a moment ago, and is closed again.
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    let connect_to = format!("peer.example:443={address}");
    let agent = start(hypervisor, "fetch 1", &["--connect-to", &connect_to]);
    let ended = agent.ended().await.unwrap();
    assert_eq!(ended.code, Some(10), "{}\n{}", ended.end(), ended.stderr);
    let errors: Vec<_> = ended.records("errors").map(ToString::to_string).collect();
    let reported = errors
        .iter()
        .any(|line| line.contains("peer.example:443 failed") && line.contains("refused"));
    assert!(reported, "{errors:?}");
}
