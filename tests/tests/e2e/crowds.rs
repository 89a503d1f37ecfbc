//! Many connections at once: up to the limits they live, and beyond them they are refused.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use enclave_tests::Hypervisor;
use enclave_tests::agent::LIMIT;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::{start, under_both};

under_both!(
    ingress_bursts_live_up_to_the_limit_and_are_reset_beyond_it,
    egress_bursts_live_up_to_the_limit_and_are_reset_beyond_it,
);

/// More than libraries have wait by default, and fewer than there are places.
const BURST: usize = 130;
/// More than any enclave has places for.
const CROWD: usize = 1500;
/// Of the places of an enclave of 256 MiB, 146, those that one destination may have.
const SHARE: usize = 109;

/// This process holds both a crowd and its peers.
fn raise_descriptors() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
}

/// What became of a new connection.
#[derive(Debug)]
enum Became {
    Live(TcpStream),
    Reset,
}

/// Connects as this client, says something, and waits for its echo.
async fn connect(client: IpAddr, address: SocketAddr) -> Became {
    let connecting = async {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(client, 0))?;
        let mut stream = socket.connect(address).await?;
        echo(&mut stream).await?;
        Ok::<_, std::io::Error>(stream)
    };
    match timeout(LIMIT, connecting).await.expect("it hangs") {
        Ok(stream) => Became::Live(stream),
        Err(error) => {
            let is_reset = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
            assert!(is_reset.contains(&error.kind()), "{error}");
            Became::Reset
        }
    }
}

async fn echo(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"x").await?;
    assert_eq!(stream.read_u8().await?, b'x');
    Ok(())
}

/// So many at once, by four clients, since one does not get all places.
async fn burst(address: SocketAddr, count: usize) -> (Vec<TcpStream>, usize) {
    let mut connecting = JoinSet::new();
    for client in (2..6).cycle().take(count) {
        connecting.spawn(connect(Ipv4Addr::new(127, 0, 0, client).into(), address));
    }
    let (mut live, mut reset) = (Vec::new(), 0);
    for became in connecting.join_all().await {
        match became {
            Became::Live(stream) => live.push(stream),
            Became::Reset => reset += 1,
        }
    }
    (live, reset)
}

async fn ingress_bursts_live_up_to_the_limit_and_are_reset_beyond_it(hypervisor: Hypervisor) {
    raise_descriptors();
    let mut agent = start(hypervisor, "serve", &[]);
    let address = agent.ready().await.unwrap();
    agent.line("listening").await.unwrap();
    let (mut first, reset) = burst(address, BURST).await;
    assert_eq!((first.len(), reset), (BURST, 0));
    let (more, reset) = burst(address, CROWD).await;
    println!("{} more live, {reset} are reset", more.len());
    assert!(reset > 0 && !more.is_empty());
    for stream in &mut first {
        timeout(LIMIT, echo(stream)).await.unwrap().unwrap();
    }
    let status = agent.status().await.unwrap();
    let limited = status["ingress"][0]["limited"].as_u64().unwrap();
    assert!(limited > 0, "{status}");
    drop((first, more));
    let ended = agent.stopped().await.unwrap();
    assert_eq!(ended.code, Some(0));
    let said = "an ingress connection was closed";
    assert!(ended.stderr.contains(said), "{}", ended.stderr);
}

async fn egress_bursts_live_up_to_the_limit_and_are_reset_beyond_it(hypervisor: Hypervisor) {
    raise_descriptors();
    let peer = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connect_to = format!("peer.example:443={}", peer.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = peer.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.split();
                // A connection that is broken off needs no echo.
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
            });
        }
    });
    let arguments = ["--connect-to", &connect_to];
    let mut agent = start(hypervisor, &format!("crowd {CROWD}"), &arguments);
    let is_told = |event: &serde_json::Value| {
        let text = event["text"].as_str().unwrap_or_default();
        event["stream"] == "application" && text.starts_with("crowd: ")
    };
    let told = agent.event(is_told).await.unwrap();
    let text = told["text"].as_str().unwrap();
    let mut numbers = text
        .split(' ')
        .filter_map(|word| word.parse::<usize>().ok());
    let [live, reset, others] = [(); 3].map(|()| numbers.next().unwrap());
    // The first may have been idle for so long that they have given way.
    assert!(live >= SHARE / 2 && reset > 0 && others == 0, "{text}");
    let ended = agent.stopped().await.unwrap();
    assert_eq!(ended.code, Some(0));
    let mut errors = ended.records("errors").map(ToString::to_string);
    assert!(errors.any(|line| line.contains("refused as busy")));
}
