//! What the service adds to a verification: `cargo xtask bench service`.
//!
//! The server has one core, the clients another. On the server's core the library
//! verifies the same document before and after each load, while the other core is as
//! busy as under the load, so that all see the same machine. Saturated rates come from
//! clients that wait only for their answers; latencies from clients that send at 80 %
//! of that rate and count from when each request was due, answered late or not.
//!
//! Each is measured in many short rounds, of which the median counts, and the worst
//! and the best are shown: a virtual machine loses its processors for some
//! milliseconds now and then, and no server answers meanwhile.
//!
//! `ATTEST_BENCH_REQUESTS` is the number of requests over which the server's memory
//! is watched; a million unless set.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unchecked_time_subtraction,
    reason = "a benchmark: it fails by panicking, and its threads may sleep"
)]

mod support;

use std::fs;
use std::hint::spin_loop;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use attestation::{Nonce, Policy, Profile, Roots, Verifier};
use attestation_results::{Appraisal, Issuer, NonceSource, SigningKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use crate::support::{Enclave, NONCE, POLICY, Server, pin, post, two_cores};

const CONNECTIONS: usize = 16;
/// Of each kind of load.
const ROUNDS: usize = 15;
/// Of each measurement of a round.
const PERIOD: Duration = Duration::from_millis(800);
/// Share of the saturated rate at which latencies are measured.
const LOAD: f64 = 0.8;
/// Documents that are each accepted for a challenge of their own.
const CHALLENGES: usize = 8_000;
/// Requests after which a server has all the memory that it is going to need.
const WARM_UP: usize = 50_000;

fn main() {
    let [server_core, client_core] = two_cores();
    let enclave = Enclave::new();
    let library = Library::new(&enclave);
    let server = Server::start(&enclave, server_core, &["--rate-limit", "0"]);
    pin(client_core);

    let document = enclave.attest(NONCE);
    println!(
        "document of {} bytes; {CONNECTIONS} connections",
        document.len()
    );
    println!("medians of {ROUNDS} rounds, with the least and the most of them");
    for (name, ear) in [("report only", false), ("with a signed result", true)] {
        let body = json!({
            "document": STANDARD.encode(&document),
            "policy": POLICY,
            "nonce": hex::encode(NONCE),
            "ear": ear,
        });
        let bodies = vec![post("/v1/verify", &body)];
        let mut rounds = Rounds::default();
        let mut before = library.run(&document, ear, server_core);
        for _ in 0..ROUNDS {
            let cpu = cpu_time(&server);
            let load = Load::saturate(server.address, &bodies, usize::MAX, PERIOD);
            let cpu = cpu_time(&server) - cpu;
            let after = library.run(&document, ear, server_core);
            let paced = Load::paced(server.address, &bodies, load.rate * LOAD);
            rounds.add([before, after], &load, cpu);
            rounds.p50.push(paced.percentile(0.5));
            rounds.p99.push(paced.percentile(0.99));
            before = after;
        }
        rounds.print(name);
    }
    challenges(&enclave, &library, &server, server_core);
    memory(&server, &document);
}

/// Each document is accepted for a challenge, which is recorded on disk.
fn challenges(enclave: &Enclave, library: &Library, server: &Server, server_core: usize) {
    let mut client = Client::new(server.address);
    let message = post("/v1/challenges", &json!({}));
    let bodies: Vec<_> = (0..CHALLENGES)
        .map(|_| {
            let reply: Value = serde_json::from_slice(&client.exchange(&message)).unwrap();
            let challenge = reply["challenge"].as_str().unwrap();
            let document = enclave.attest(&hex::decode(challenge).unwrap());
            let body = json!({
                "document": STANDARD.encode(document),
                "policy": POLICY,
                "challenge": challenge,
                "ear": false,
            });
            post("/v1/verify", &body)
        })
        .collect();
    let document = enclave.attest(NONCE);
    let mut rounds = Rounds::default();
    let mut before = library.run(&document, false, server_core);
    for bodies in bodies.chunks(CHALLENGES / ROUNDS) {
        let cpu = cpu_time(server);
        let load = Load::saturate(server.address, bodies, bodies.len(), Duration::MAX);
        let cpu = cpu_time(server) - cpu;
        let after = library.run(&document, false, server_core);
        rounds.add([before, after], &load, cpu);
        before = after;
    }
    rounds.print("report only, challenges used up");
}

fn memory(server: &Server, document: &[u8]) {
    let total = match std::env::var("ATTEST_BENCH_REQUESTS") {
        Ok(text) => text.parse().expect("ATTEST_BENCH_REQUESTS is a number"),
        Err(_) => 1_000_000,
    };
    let body = json!({
        "document": STANDARD.encode(document),
        "policy": POLICY,
        "nonce": hex::encode(NONCE),
    });
    let bodies = vec![post("/v1/verify", &body)];
    Load::saturate(server.address, &bodies, WARM_UP.min(total), Duration::MAX);
    let first = resident_kib(server);
    println!("\nmemory of the server after the warm-up: {first} KiB");
    for part in 1..=10 {
        Load::saturate(server.address, &bodies, total / 10, Duration::MAX);
        let now = resident_kib(server);
        println!(
            "{:>9} requests later: {now} KiB, {:+.2} %",
            total / 10 * part,
            (now as f64 / first as f64 - 1.0) * 100.0
        );
    }
}

/// What was measured of one kind of load, a value for each round.
#[derive(Default)]
struct Rounds {
    library_rate: Vec<f64>,
    service_rate: Vec<f64>,
    ratio: Vec<f64>,
    library_us: Vec<f64>,
    service_us: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
}

impl Rounds {
    fn add(&mut self, library: [LibraryLoad; 2], load: &Load, cpu: Duration) {
        let [before, after] = library;
        let rate = f64::midpoint(before.rate, after.rate);
        self.library_rate.push(rate);
        self.service_rate.push(load.rate);
        self.ratio.push(load.rate / rate);
        self.library_us
            .push(f64::midpoint(before.cpu_us, after.cpu_us));
        self.service_us
            .push(cpu.as_secs_f64() * 1e6 / load.latencies.len() as f64);
    }

    fn print(self, name: &str) {
        println!("\n{name}");
        for (what, mut values) in [
            ("library, verifications/s", self.library_rate),
            ("service, verifications/s", self.service_rate),
            ("service, of the library's", self.ratio),
            ("library, processor time of one, us", self.library_us),
            ("service, processor time of one, us", self.service_us),
            ("median at 80 % load, ms", self.p50),
            ("p99 at 80 % load, ms", self.p99),
        ] {
            values.sort_by(f64::total_cmp);
            if let [least, .., most] = values[..] {
                let median = values[values.len() / 2];
                println!("  {what:<36} {median:>9.3}   ({least:.3} to {most:.3})");
            }
        }
    }
}

/// What the library does on the server's core.
#[derive(Clone, Copy)]
struct LibraryLoad {
    /// Verifications per second.
    rate: f64,
    /// Processor time of each, in microseconds.
    cpu_us: f64,
}

/// What the clients saw.
struct Load {
    /// Answers per second.
    rate: f64,
    /// In milliseconds, sorted.
    latencies: Vec<f64>,
}

impl Load {
    /// As many requests as the server answers, up to a number and a time.
    fn saturate(server: SocketAddr, bodies: &[Vec<u8>], limit: usize, period: Duration) -> Self {
        Self::run(server, bodies, |number, start| {
            let over = number >= limit || start.elapsed() >= period;
            (!over).then(Instant::now)
        })
    }

    /// Requests at this rate, whether or not those before have been answered.
    fn paced(server: SocketAddr, bodies: &[Vec<u8>], rate: f64) -> Self {
        Self::run(server, bodies, |number, start| {
            let due = Duration::from_secs_f64(number as f64 / rate);
            (due < PERIOD).then(|| start + due)
        })
    }

    /// Sends each request at the time that `due` has for its number, or as soon as a
    /// connection is free, until `due` has none for it. This core never sleeps, so
    /// that the server does not pay for waking it: clients elsewhere cost it nothing.
    fn run(
        server: SocketAddr,
        bodies: &[Vec<u8>],
        due: impl Fn(usize, Instant) -> Option<Instant>,
    ) -> Self {
        let mut clients: Vec<_> = (0..CONNECTIONS)
            .map(|_| (Client::new(server), None))
            .collect();
        let (mut latencies, mut number, mut over) = (Vec::new(), 0, false);
        let start = Instant::now();
        while !over || clients.iter().any(|(_, sent)| sent.is_some()) {
            for (client, sent) in &mut clients {
                if sent.is_none() && !over {
                    match due(number, start) {
                        Some(due) if due <= Instant::now() => {
                            client.send(&bodies[number % bodies.len()]);
                            *sent = Some(due);
                            number += 1;
                        }
                        Some(_) => {}
                        None => over = true,
                    }
                }
                if let Some(due) = *sent
                    && client.receive().is_some()
                {
                    latencies.push(due.elapsed().as_secs_f64() * 1e3);
                    *sent = None;
                }
            }
        }
        latencies.sort_by(f64::total_cmp);
        Self {
            rate: latencies.len() as f64 / start.elapsed().as_secs_f64(),
            latencies,
        }
    }

    fn percentile(&self, share: f64) -> f64 {
        self.latencies[(self.latencies.len() as f64 * share) as usize]
    }
}

/// A connection that is opened again when the server has closed it.
struct Client {
    address: SocketAddr,
    stream: TcpStream,
    buffer: Vec<u8>,
    length: usize,
}

impl Client {
    fn new(address: SocketAddr) -> Self {
        Self {
            address,
            stream: Self::connect(address),
            buffer: vec![0; 64 * 1024],
            length: 0,
        }
    }

    fn connect(address: SocketAddr) -> TcpStream {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_nonblocking(true).unwrap();
        stream
    }

    /// Sends a request, which fits the socket's buffer.
    fn send(&mut self, message: &[u8]) {
        self.length = 0;
        self.stream.write_all(message).unwrap();
    }

    /// The body of the answer, which must be a success, once it is there.
    fn receive(&mut self) -> Option<&[u8]> {
        let read = match self.stream.read(&mut self.buffer[self.length..]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
            read => read.unwrap(),
        };
        assert_ne!(read, 0, "the server closed the connection");
        self.length += read;
        let received = &self.buffer[..self.length];
        let head = received
            .windows(4)
            .position(|window| window == b"\r\n\r\n")?;
        let text = std::str::from_utf8(&received[..head]).unwrap();
        let body = text
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .unwrap();
        let end = head + 4 + body.parse::<usize>().unwrap();
        if self.length < end {
            return None;
        }
        assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
        if text.contains("\r\nconnection: close") {
            self.stream = Self::connect(self.address);
        }
        Some(&self.buffer[head + 4..end])
    }

    fn exchange(&mut self, message: &[u8]) -> Vec<u8> {
        self.send(message);
        loop {
            if let Some(body) = self.receive() {
                return body.to_vec();
            }
        }
    }
}

/// The verifier and the policy that the service has too.
struct Library {
    verifier: Verifier,
    policy: Policy,
}

impl Library {
    fn new(enclave: &Enclave) -> Self {
        let read = |name: &str| fs::read_to_string(enclave.folder.path().join(name)).unwrap();
        let policy = read("policies/payments.toml");
        Self {
            verifier: Verifier::new(Roots::from_pem(read("root.pem").as_bytes()).unwrap()),
            policy: Policy::from_toml(&policy).unwrap(),
        }
    }

    /// Verifies on a core for a while, with a signed result for each or without.
    fn run(&self, document: &[u8], ear: bool, core: usize) -> LibraryLoad {
        let (key, _) = SigningKey::generate().unwrap();
        let issuer = Issuer {
            developer: "bench".into(),
            url: None,
            lifetime: Duration::from_secs(300),
        };
        thread::scope(|scope| {
            let run = || {
                pin(core);
                let (start, cpu, mut runs) = (Instant::now(), thread_cpu_time(), 0);
                while start.elapsed() < PERIOD {
                    let nonce = Nonce::Fresh(NONCE);
                    let verification = self.verifier.verify(document, &self.policy, nonce);
                    assert!(verification.outcome.is_ok());
                    if ear {
                        let appraisal = Appraisal {
                            report: &verification.report,
                            document,
                            profile: Profile::Enclave,
                            policy_ids: &[POLICY],
                            nonce: NonceSource::Caller(NONCE),
                        };
                        issuer.token(&key, &appraisal, 1).unwrap();
                    }
                    runs += 1;
                }
                let (runs, cpu) = (f64::from(runs), thread_cpu_time() - cpu);
                LibraryLoad {
                    rate: runs / start.elapsed().as_secs_f64(),
                    cpu_us: cpu.as_secs_f64() * 1e6 / runs,
                }
            };
            let running = scope.spawn(run);
            // The other core is under a load as well, as when it makes requests.
            while !running.is_finished() {
                spin_loop();
            }
            running.join().unwrap()
        })
    }
}

/// Of all the server's threads, to a hundredth of a second.
fn cpu_time(server: &Server) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", server.child.id())).unwrap();
    // Behind the program's name: fields 3 and on; 14 and 15 are ticks.
    let fields: Vec<_> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks = |index: usize| fields[index].parse::<u64>().unwrap();
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

fn resident_kib(server: &Server) -> u64 {
    let status = Path::new("/proc")
        .join(server.child.id().to_string())
        .join("status");
    let status = fs::read_to_string(status).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Of this thread.
fn thread_cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .unwrap()
        .into()
}
