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

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use nsm::{Request, Response};
use serde_bytes::ByteBuf;
use serde_json::{Value, json};
use software_nsm::{Identity, SoftwareNsm, TestRoot};
use tokio::net::TcpSocket;

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
const NONCE: &[u8] = b"a nonce of 32 bytes: 0123456789a";

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
    let server = Server::start(server_core);
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
                scope.spawn(|| besiege(server.address, attack, &stop));
                // Until all sockets are there and have done what they do.
                thread::sleep(Duration::from_secs(2));
            }
            for _ in 0..ROUNDS {
                let round = Round::run(&server);
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

/// What the others saw.
struct Round {
    /// In milliseconds.
    others: Vec<f64>,
    probes: Vec<f64>,
    /// Probes of another address, and of the hostile one.
    unanswered: [usize; 2],
}

impl Round {
    fn run(server: &Server) -> Self {
        let end = Instant::now() + PERIOD;
        thread::scope(|scope| {
            let others: Vec<_> = (0..OTHERS)
                .map(|number| scope.spawn(move || ask(server, 10 + number, end)))
                .collect();
            let probes = [100, HOSTILE].map(|last| scope.spawn(move || probe(server, last, end)));
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
fn ask(server: &Server, last: u8, end: Instant) -> Vec<f64> {
    let mut stream = connect(last, server.address).expect("a client has a place");
    let (mut latencies, mut due) = (
        Vec::new(),
        Instant::now() + PACE / u32::from(OTHERS) * u32::from(last % OTHERS),
    );
    while due < end {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let answered = exchange(&stream, &server.request);
        // A connection that was closed for another is opened again, within the time.
        if !answered {
            stream = connect(last, server.address).expect("a client has a place");
            assert!(exchange(&stream, &server.request), "a client is answered");
        }
        latencies.push(due.elapsed().as_secs_f64() * 1e3);
        due += PACE;
    }
    latencies
}

/// New connections that ask `/healthz`, and how many were not answered.
fn probe(server: &Server, last: u8, end: Instant) -> (Vec<f64>, usize) {
    let (mut latencies, mut unanswered) = (Vec::new(), 0);
    while Instant::now() < end {
        let start = Instant::now();
        let message = b"GET /healthz HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n";
        match connect(last, server.address) {
            Some(stream) if exchange(&stream, message) => {
                latencies.push(start.elapsed().as_secs_f64() * 1e3);
            }
            _ => unanswered += 1,
        }
        thread::sleep(PROBE_PACE);
    }
    (latencies, unanswered)
}

/// Sends a request and reads the answer; whether it is a success.
fn exchange(mut stream: &TcpStream, request: &[u8]) -> bool {
    let mut received = Vec::new();
    let mut buffer = vec![0; 32 * 1024];
    if stream.write_all(request).is_err() {
        return false;
    }
    loop {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return false,
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
            return text.starts_with("HTTP/1.1 200 ");
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

struct Server {
    child: Child,
    address: SocketAddr,
    /// A request for verification that is accepted.
    request: Vec<u8>,
    _folder: tempfile::TempDir,
}

impl Server {
    /// On one core, with the limits that it has unless told otherwise.
    fn start(core: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let root = TestRoot::generate().unwrap();
        fs::write(path("root.pem"), root.certificate_pem()).unwrap();
        fs::create_dir(path("policies")).unwrap();
        fs::write(
            path("policies/any.toml"),
            "allow_any_image = true\nmax_age = \"2h\"\n",
        )
        .unwrap();
        let identity = Identity {
            instance_id: "i-0123456789abcdef0".into(),
            enclave_id: "enc0123456789abcdef".into(),
            measurements: None,
        };
        let mut module = SoftwareNsm::new(identity, root).unwrap();
        let attest = Request::Attestation {
            user_data: None,
            nonce: Some(ByteBuf::from(NONCE.to_vec())),
            public_key: None,
        };
        let Response::Attestation { document } = module.answer(attest) else {
            panic!("the module gives no document");
        };
        let body: Value = json!({
            "document": STANDARD.encode(document),
            "policy": "any",
            "nonce": hex::encode(NONCE),
        });
        let body = body.to_string();
        let mut child = Command::new("taskset")
            .args(["--cpu-list", &core.to_string()])
            .arg(env!("CARGO_BIN_EXE_attest"))
            .args(["serve", "--listen", "127.0.0.1:0", "--threads", "1"])
            .arg("--policies")
            .arg(path("policies"))
            .arg("--data")
            .arg(path("data"))
            .arg("--root")
            .arg(path("root.pem"))
            .env_remove("RUST_LOG")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("taskset, of util-linux");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line.split("http://").nth(1).unwrap();
        let address = address.split(',').next().unwrap().parse().unwrap();
        Self {
            child,
            address,
            request: format!(
                "POST /v1/verify HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
            .into_bytes(),
            _folder: folder,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first two cores that this process may use.
fn two_cores() -> [usize; 2] {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let mut cores = (0..CpuSet::count()).filter(|core| allowed.is_set(*core).unwrap());
    let mut next = || cores.next().expect("the benchmark needs two cores");
    [next(), next()]
}

/// Keeps this thread, and those that it starts, on one core.
fn pin(core: usize) {
    let mut set = CpuSet::new();
    set.set(core).unwrap();
    sched_setaffinity(Pid::from_raw(0), &set).unwrap();
}
