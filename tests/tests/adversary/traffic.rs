//! Connections and names, taken by others and by the workload itself.

use std::net::Ipv4Addr;
use std::time::Duration;

use enclave_tests::Hypervisor;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use crate::hostile::{Hostile, User};

/// As many as any list of this kind has places, and more.
const CLIENTS: usize = 1_100;
/// The address of those that say nothing, and its share of the places: of 1,024 in a
/// simulated enclave, and of those that there are in 256 MiB.
const SILENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const SHARE: usize = 768;
const SHARE_OF_256_MIB: usize = 109;
/// Clients that flood, the size of their pieces, and what each sends if it is taken.
const FLOODING: usize = 100;
const PIECE: usize = 200;
const FLOOD: usize = 1024 * 1024;
const LEAST_FLOOD: usize = 30_000_000;
const FLOOD_LIMIT: Duration = Duration::from_secs(60);
/// So that pieces do not become larger ones on their way.
const BETWEEN_PIECES: Duration = Duration::from_millis(10);
/// Longer than a name is kept for a program that may still use it.
const NAMES_LIMIT: Duration = Duration::from_secs(200);

/// What the agent or the enclave has said, in a line of its own, about a limit.
fn said(events: &[Value], words: &[&str]) -> bool {
    events.iter().any(|event| {
        let text = event.to_string();
        words.iter().all(|word| text.contains(word))
    })
}

async fn silent_clients_leave_the_port_open(hypervisor: Hypervisor) {
    let mut enclave = Hostile::start(hypervisor, User::Ordinary).await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((SILENT, 0).into()).unwrap();
        // Beyond their address's share they are reset, some before they notice that
        // they were connected.
        clients.extend(socket.connect(enclave.address()).await);
    }
    let share = match hypervisor {
        Hypervisor::Sim => SHARE,
        Hypervisor::Qemu => SHARE_OF_256_MIB,
    };
    assert!(clients.len() >= share, "{} are connected", clients.len());
    // Another address's command is taken all the same.
    enclave.until_it_listens().await;
    enclave.answers("1,100 silent clients").await;
    drop(clients);
    let ended = enclave.agent.stopped().await.unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.end());
}

#[tokio::test]
async fn sim_silent_clients() {
    silent_clients_leave_the_port_open(Hypervisor::Sim).await;
}

#[tokio::test]
async fn qemu_silent_clients() {
    silent_clients_leave_the_port_open(Hypervisor::Qemu).await;
}

/// Over many connections to a workload that reads none of it, in pieces each of which
/// would keep a buffer of its own in the kernel.
#[tokio::test]
async fn qemu_flood_of_small_pieces() {
    let mut enclave = Hostile::start(Hypervisor::Qemu, User::Ordinary).await;
    let mut clients = Vec::new();
    for _ in 0..FLOODING {
        let mut client = TcpStream::connect(enclave.address()).await.unwrap();
        client.set_nodelay(true).unwrap();
        client.write_all(b"unread\n").await.unwrap();
        // What comes with the command would be taken for a part of it.
        client.read_exact(&mut [0; "done\n".len()]).await.unwrap();
        clients.push(client);
    }
    let mut sent = vec![0; clients.len()];
    let flooding = async {
        loop {
            for (client, sent) in clients.iter().zip(&mut sent) {
                if *sent < FLOOD {
                    *sent += client.try_write(&[b'x'; PIECE]).unwrap_or_default();
                }
            }
            sleep(BETWEEN_PIECES).await;
        }
    };
    let flooded: Result<(), _> = timeout(FLOOD_LIMIT, flooding).await;
    assert!(flooded.is_err());
    let sent: usize = sent.iter().sum();
    println!("sent {sent} bytes");
    // As many as a buffer for each piece would have been too many of.
    assert!(sent > LEAST_FLOOD, "only {sent} bytes were taken");
    enclave.answers_challenges("a flood of small pieces").await;
    // There are places left for others.
    enclave.answers("a flood of small pieces").await;
    drop(clients);
    enclave.until_it_listens().await;
    let ended = enclave.agent.stopped().await.unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.end());
}

/// More names under a wildcard than there are places for, each asked for once: a
/// name that the manifest spells out is known all the same, and others are again once
/// these have been unused for two minutes.
#[tokio::test]
async fn sim_names_that_were_asked_for_once() {
    let mut enclave = Hostile::start(Hypervisor::Sim, User::Ordinary).await;
    let asked = enclave.ask("names 1100 wild.example").await;
    let expected = "unknown 76 of 1100, the first is 1024 with code 2";
    assert_eq!(asked, expected);
    assert_eq!(enclave.ask("names 1 peer.example").await, "known 1");
    enclave.answers("1,100 names").await;
    let known = async {
        while enclave.ask("names 1 new.wild.example").await != "known 1" {
            sleep(Duration::from_secs(5)).await;
        }
    };
    timeout(NAMES_LIMIT, known)
        .await
        .expect("no name is given up");
    let ended = enclave.agent.stopped().await.unwrap();
    assert!(said(&ended.events, &["names", "1024"]), "no line says it");
}

#[tokio::test]
async fn sim_idle_tunnels() {
    let peer = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = peer.local_addr().unwrap();
    let holding = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = peer.accept().await {
            held.push(stream);
        }
    });
    let arguments = [
        "--connect-to",
        &format!("peer.example:443={address}"),
        "--connect-to",
        &format!("one.wild.example:443={address}"),
    ];
    let mut enclave = Hostile::start_with(Hypervisor::Sim, User::Ordinary, &arguments).await;
    let mut tunnels = enclave.begin("tunnels 1100 peer.example:443").await;
    // Three quarters of the places, and then an answer that says so.
    let opened = tunnels.line().await;
    assert_eq!(
        opened,
        "refused after 768: HTTP/1.1 503 Service Unavailable"
    );
    // Another destination's connections have places of their own.
    let mut other = enclave.begin("tunnels 1 one.wild.example:443").await;
    assert_eq!(other.line().await, "open 1");
    enclave.answers("1,100 idle tunnels").await;
    drop((tunnels, other));
    let ended = enclave.agent.stopped().await.unwrap();
    holding.abort();
    assert_eq!(ended.code, Some(0), "{}", ended.end());
}

/// A client that sends one byte now and then for a command without an end.
#[tokio::test]
async fn sim_clients_that_never_end_their_command() {
    let mut enclave = Hostile::start(Hypervisor::Sim, User::Ordinary).await;
    let mut clients = Vec::new();
    for _ in 0..64 {
        let mut client = TcpStream::connect(enclave.address()).await.unwrap();
        client.write_all(b"s").await.unwrap();
        clients.push(client);
    }
    enclave.answers_challenges("64 slow clients").await;
    drop(clients);
    enclave.until_it_listens().await;
    enclave.agent.stopped().await.unwrap();
}
