//! The service while one client does its worst: `cargo xtask bench service`.
//!
//! The server has one core and its usual limits, the clients another. A hostile client
//! holds 512 sockets of one address, and opens one anew as soon as it is closed. From
//! eight other addresses come requests for verification, 50 a second from each, whose
//! latencies count from when each was due. Meanwhile new connections ask `/healthz`,
//! from an address of their own and from the hostile one.
//!
//! Medians of several rounds count: a virtual machine loses its processors for some
//! milliseconds now and then.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark: it fails by panicking, and its threads may sleep"
)]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::net::TcpSocket;

use crate::support::{Enclave, NONCE, POLICY, Server, pin, post, two_cores};

/// Sockets of the hostile client.
const SOCKETS: usize = 512;
/// The last number of its address.
const HOSTILE: u8 = 2;
/// Other clients, and the time between the requests of each.
const OTHERS: u8 = 8;
const PACE: Duration = Duration::from_millis(20);
/// Between two probes of one address.
const PROBE_PACE: Duration = Duration::from_millis(50);
const ROUNDS: usize = 5;
const PERIOD: Duration = Duration::from_secs(3);
/// What the 99th percentile of the others may be, in milliseconds.
const LIMIT_MS: f64 = 10.0;

/// What the hostile client does on each socket.
#[derive(Clone, Copy, PartialEq)]
enum Attack {
    None,
    NeverReads,
    SlowBodies,
    SlowHeads,
}

fn main() {
    let [server_core, client_core] = two_cores();
    pin(client_core);
    let enclave = Enclave::new();
    let server = Server::start(&enclave, server_core, &[]);
    let body = json!({
        "document": STANDARD.encode(enclave.attest(NONCE)),
        "policy": POLICY,
        "nonce": hex::encode(NONCE),
    });
    let target = Target {
        address: server.address,
        request: post("/v1/verify", &body),
    };
    target.check();
    println!("{SOCKETS} sockets of one client, {OTHERS} others; medians of {ROUNDS} rounds");
    let mut broken = Vec::new();
    for (name, attack) in [
        ("nobody hostile", Attack::None),
        ("answers that are never read", Attack::NeverReads),
        ("slow bodies", Attack::SlowBodies),
        ("slow heads", Attack::SlowHeads),
    ] {
        let stop = AtomicBool::new(false);
        let (mut p50, mut p99, mut probes, mut unanswered) = (vec![], vec![], vec![], [0; 2]);
        thread::scope(|scope| {
            if attack != Attack::None {
                scope.spawn(|| besiege(target.address, attack, &stop));
                // Until all sockets are there and have done what they do.
                thread::sleep(Duration::from_secs(2));
            }
            for _ in 0..ROUNDS {
                let round = Round::run(&target);
                p50.push(percentile(round.others.clone(), 0.5));
                p99.push(percentile(round.others, 0.99));
                probes.push(percentile(round.probes, 1.0));
                for (sum, number) in unanswered.iter_mut().zip(round.unanswered) {
                    *sum += number;
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        let median = |values: Vec<f64>| percentile(values, 0.5);
        let (p50, p99, probes) = (median(p50), median(p99), median(probes));
        println!("\n{name}");
        println!("  {:<36} {p50:>9.3}", "others, median, ms");
        println!("  {:<36} {p99:>9.3}", "others, p99, ms");
        println!("  {:<36} {probes:>9.3}", "/healthz, slowest of a round, ms");
        let [of_others, of_hostile] = unanswered;
        println!("  {:<36} {of_others:>9}", "/healthz, not answered");
        println!(
            "  {:<36} {of_hostile:>9}",
            "the same, of the hostile address"
        );
        if p99 >= LIMIT_MS || of_others > 0 {
            broken.push(name);
        }
    }
    assert!(broken.is_empty(), "a limit is broken with {broken:?}");
}

/// Whom the clients ask, and what for.
struct Target {
    address: SocketAddr,
    /// A request for verification of a document that is accepted.
    request: Vec<u8>,
}

impl Target {
    fn check(&self) {
        let stream = connect(1, self.address).expect("the server is there");
        let body = exchange(&stream, &self.request).expect("it answers");
        let reply: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(reply["report"]["accepted"], true, "{reply}");
    }
}

/// What the others saw.
struct Round {
    /// In milliseconds.
    others: Vec<f64>,
    probes: Vec<f64>,
    /// Probes of another address, and of the hostile one.
    unanswered: [usize; 2],
}

impl Round {
    fn run(target: &Target) -> Self {
        let end = Instant::now() + PERIOD;
        thread::scope(|scope| {
            let others: Vec<_> = (0..OTHERS)
                .map(|number| scope.spawn(move || ask(target, 10 + number, end)))
                .collect();
            let probes = [100, HOSTILE].map(|last| scope.spawn(move || probe(target, last, end)));
            let mut round = Self {
                others: Vec::new(),
                probes: Vec::new(),
                unanswered: [0; 2],
            };
            for other in others {
                round.others.extend(other.join().unwrap());
            }
            for (probe, sum) in probes.into_iter().zip(&mut round.unanswered) {
                let (answered, unanswered) = probe.join().unwrap();
                round.probes.extend(answered);
                *sum += unanswered;
            }
            round
        })
    }
}

/// Requests of one client at its pace, over one connection.
fn ask(target: &Target, last: u8, end: Instant) -> Vec<f64> {
    let mut stream = connect(last, target.address).expect("a client has a place");
    let (mut latencies, mut due) = (
        Vec::new(),
        Instant::now() + PACE / u32::from(OTHERS) * u32::from(last % OTHERS),
    );
    while due < end {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let answered = exchange(&stream, &target.request).is_some();
        // A connection that was closed for another is opened again, within the time.
        if !answered {
            stream = connect(last, target.address).expect("a client has a place");
            assert!(
                exchange(&stream, &target.request).is_some(),
                "a client is answered"
            );
        }
        latencies.push(due.elapsed().as_secs_f64() * 1e3);
        due += PACE;
    }
    latencies
}

/// New connections that ask `/healthz`, and how many were not answered.
fn probe(target: &Target, last: u8, end: Instant) -> (Vec<f64>, usize) {
    let (mut latencies, mut unanswered) = (Vec::new(), 0);
    while Instant::now() < end {
        let start = Instant::now();
        let message = b"GET /healthz HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n";
        match connect(last, target.address) {
            Some(stream) if exchange(&stream, message).is_some() => {
                latencies.push(start.elapsed().as_secs_f64() * 1e3);
            }
            _ => unanswered += 1,
        }
        thread::sleep(PROBE_PACE);
    }
    (latencies, unanswered)
}

/// Sends a request, and gives the body of the answer if it is a success.
fn exchange(mut stream: &TcpStream, request: &[u8]) -> Option<Vec<u8>> {
    let mut received = Vec::new();
    let mut buffer = vec![0; 32 * 1024];
    stream.write_all(request).ok()?;
    loop {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(read) => received.extend_from_slice(&buffer[..read]),
        }
        let Some(head) = received.windows(4).position(|window| window == b"\r\n\r\n") else {
            continue;
        };
        let text = String::from_utf8_lossy(&received[..head]).into_owned();
        let length: usize = text
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse().unwrap());
        if received.len() >= head + 4 + length {
            let body = received[head + 4..].to_vec();
            return text.starts_with("HTTP/1.1 200 ").then_some(body);
        }
    }
}

/// Holds as many sockets as it can, until it is told to stop.
fn besiege(server: SocketAddr, attack: Attack, stop: &AtomicBool) {
    let mut sockets: Vec<Option<TcpStream>> = (0..SOCKETS).map(|_| None).collect();
    while !stop.load(Ordering::Relaxed) {
        for socket in &mut sockets {
            if socket.is_none() {
                *socket = connect(HOSTILE, server).filter(|stream| {
                    stream.set_nonblocking(true).unwrap();
                    begin(stream, attack)
                });
            }
            let open = socket.as_mut().is_some_and(|stream| go_on(stream, attack));
            if !open {
                *socket = None;
            }
        }
        // The other clients have this core too.
        thread::sleep(Duration::from_millis(20));
    }
}

fn begin(mut stream: &TcpStream, attack: Attack) -> bool {
    let bytes: &[u8] = match attack {
        Attack::SlowHeads => b"GET /v1/policies HTTP/1.1\r\nHost: ",
        Attack::SlowBodies => b"POST /v1/verify HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n{",
        Attack::NeverReads | Attack::None => b"",
    };
    stream.write_all(bytes).is_ok()
}

/// Whether the connection is still open.
fn go_on(stream: &mut TcpStream, attack: Attack) -> bool {
    let bytes: &[u8] = match attack {
        Attack::SlowHeads | Attack::SlowBodies => b" ",
        Attack::NeverReads => b"GET /openapi.json HTTP/1.1\r\nHost: bench\r\n\r\n",
        Attack::None => return true,
    };
    // Never read, but for whether anybody is there.
    let mut one = [0];
    let there = match stream.peek(&mut one) {
        Ok(read) => read > 0,
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    };
    let written = match stream.write(bytes) {
        Ok(_) => true,
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    };
    there && written
}

/// A connection from an address of this machine.
fn connect(last: u8, server: SocketAddr) -> Option<TcpStream> {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .unwrap();
    }
    let stream = RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let socket = TcpSocket::new_v4()?;
            socket.bind((Ipv4Addr::new(127, 0, 0, last), 0).into())?;
            socket.connect(server).await?.into_std()
        })
    });
    let stream = stream.ok()?;
    stream.set_nonblocking(false).ok()?;
    stream.set_nodelay(true).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    Some(stream)
}

fn percentile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let index = (values.len() as f64 * share) as usize;
    values[index.min(values.len() - 1)]
}
