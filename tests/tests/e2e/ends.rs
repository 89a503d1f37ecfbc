//! How connections end, and that they do not stall before.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use enclave_tests::Hypervisor;
use enclave_tests::agent::LIMIT;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::traffic::{MIB, pattern};
use crate::{start, under_both};

under_both!(
    ingress_resets_in_mid_transfer_are_passed_on,
    egress_resets_in_mid_transfer_are_passed_on,
    ingress_small_packets_to_readers_that_sleep_all_arrive,
    traffic_both_ways_at_once_does_not_stall,
);

/// More than a burst, and in the middle of a transfer.
const COUNT: usize = 100_000;
/// What a reader that sleeps has its kernel keep for it, at most.
const SMALL_BUFFER: u32 = 4096;

/// Sends so many bytes, waits until they have been read, and resets the connection.
async fn break_off(mut stream: TcpStream) {
    stream.write_all(&pattern(COUNT)).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'.');
    stream.set_zero_linger().unwrap();
}

/// Reads so many bytes and says that it has; the connection must end with a reset.
async fn hear_reset(mut stream: TcpStream) {
    let mut heard = vec![0; COUNT];
    stream.read_exact(&mut heard).await.unwrap();
    assert!(heard == pattern(COUNT), "other bytes have arrived");
    stream.write_all(b".").await.unwrap();
    let end = stream.read(&mut [0]).await;
    let error = end.expect_err("an answer that was cut off looks complete");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

async fn ingress_resets_in_mid_transfer_are_passed_on(hypervisor: Hypervisor) {
    let mut agent = start(hypervisor, &format!("serve-ends {COUNT}"), &[]);
    let address = agent.ready().await.unwrap();
    agent.line("listening").await.unwrap();
    let client = async || TcpStream::connect(address).await.unwrap();
    timeout(LIMIT, hear_reset(client().await)).await.unwrap();
    timeout(LIMIT, break_off(client().await)).await.unwrap();
    agent.line("served: ConnectionReset").await.unwrap();
    assert_eq!(agent.stopped().await.unwrap().code, Some(0));
}

async fn egress_resets_in_mid_transfer_are_passed_on(hypervisor: Hypervisor) {
    const WAYS: [&str; 3] = ["name", "proxy", "address"];
    let peer = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = peer.local_addr().unwrap();
    let to = ["peer.example:443", "192.0.2.7:443"].map(|host| format!("{host}={address}"));
    let role = format!("ends {COUNT}");
    let arguments = ["--connect-to", &to[0], "--connect-to", &to[1]];
    let mut agent = start(hypervisor, &role, &arguments);
    let serving = async {
        for _ in WAYS {
            break_off(peer.accept().await.unwrap().0).await;
            hear_reset(peer.accept().await.unwrap().0).await;
        }
    };
    timeout(LIMIT, serving).await.unwrap();
    for way in WAYS {
        let line = format!("{way}: ConnectionReset");
        agent.line(&line).await.unwrap();
    }
    agent.line("broken off").await.unwrap();
    assert_eq!(agent.stopped().await.unwrap().code, Some(0));
}

/// A connection whose kernel keeps little of what nobody reads.
async fn connect_small(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(SMALL_BUFFER).unwrap();
    socket.connect(address).await.unwrap()
}

async fn ingress_small_packets_to_readers_that_sleep_all_arrive(hypervisor: Hypervisor) {
    const PACKET: usize = 64;
    let count = match hypervisor {
        Hypervisor::Sim => 60_000,
        Hypervisor::Qemu => 20_000,
    };
    let mut agent = start(hypervisor, &format!("doze {count}"), &[]);
    let address = agent.ready().await.unwrap();
    agent.line("listening").await.unwrap();
    let stream = connect_small(address).await;
    stream.set_nodelay(true).unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let sent = pattern(count * PACKET);
    let mut received = vec![0; sent.len()];
    let sending = async {
        for packet in sent.chunks(PACKET) {
            writer.write_all(packet).await.unwrap();
        }
    };
    let reading = async {
        // As long as the workload: neither reads, and both send.
        sleep(Duration::from_secs(5)).await;
        reader.read_exact(&mut received).await.unwrap();
    };
    timeout(LIMIT, async { tokio::join!(sending, reading) })
        .await
        .unwrap();
    assert!(received == sent, "other bytes have arrived");
    agent.line("woken").await.unwrap();
    assert_eq!(agent.stopped().await.unwrap().code, Some(0));
}

/// Fills both directions at once, and checks what comes.
async fn fill(stream: TcpStream, count: usize) {
    let (mut reader, mut writer) = stream.into_split();
    let sent = pattern(count);
    let mut received = vec![0; count];
    let (written, read) = tokio::join!(writer.write_all(&sent), reader.read_exact(&mut received));
    written.unwrap();
    read.unwrap();
    assert!(received == sent, "other bytes have arrived");
}

async fn traffic_both_ways_at_once_does_not_stall(hypervisor: Hypervisor) {
    // Many times what all queues and buffers hold.
    let count = match hypervisor {
        Hypervisor::Sim => 64 * MIB,
        Hypervisor::Qemu => 4 * MIB,
    };
    let peer = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connect_to = format!("peer.example:443={}", peer.local_addr().unwrap());
    let arguments = ["--connect-to", &connect_to];
    let mut agent = start(hypervisor, &format!("full {count}"), &arguments);
    let address = agent.ready().await.unwrap();
    agent.line("listening").await.unwrap();
    let mut filling = JoinSet::new();
    for _ in 0..2 {
        filling.spawn(fill(TcpStream::connect(address).await.unwrap(), count));
        let (stream, _) = timeout(LIMIT, peer.accept()).await.unwrap().unwrap();
        filling.spawn(fill(stream, count));
    }
    timeout(LIMIT, filling.join_all()).await.unwrap();
    agent.line("filled").await.unwrap();
    assert_eq!(agent.stopped().await.unwrap().code, Some(0));
}
