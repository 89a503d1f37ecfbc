//! An enclave that lies and floods: what the agent prints and holds stays
//! bounded, and everything else is served meanwhile.

use link::BootId;
use link::control::{EndCause, FromInit, HealthState, Losses, MAX_DOCUMENT};
use link::frame::{MAX_LOGS, Writer};
use link::logs::{self, LogStream};
use link::target::Refusal;
use link::{Bytes, Channel, Text, hello};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::agent::{Agent, Init, LIMIT, command, output};
use crate::egress::{ask, refusal};
use crate::image::Builder;
use crate::logs::{Connection, record};

/// Events that one may cost, whatever is sent: some per second, for the seconds
/// that it may take on a busy machine.
const MAX_EVENTS: usize = 2_000;
/// What the agent may hold at most while it is flooded, in KiB.
const MEMORY_KIB: u64 = 64 * 1024;

fn ending(detail: &str) -> FromInit {
    FromInit::Ending {
        cause: EndCause::Shutdown,
        detail: Text::new(detail),
        code: Text::default(),
        losses: Losses::default(),
        numbered: Vec::new(),
        workload: None,
    }
}

fn boot(number: u8) -> BootId {
    BootId::new([number; 16]).unwrap()
}

/// The most memory that the agent has had, in KiB.
fn peak(agent: &Agent) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let words: Vec<_> = line.unwrap().split_whitespace().collect();
    words[1].parse().unwrap()
}

fn healthy() -> FromInit {
    FromInit::Health {
        state: HealthState::Healthy,
        detail: Text::default(),
    }
}

#[tokio::test]
async fn hostile_enclave_names_another_boot() {
    let mut agent = Agent::start(&[]).await;
    let mut init = agent.boot().await;
    for number in [0, 2, 3, 255] {
        let mut stranger = Init::say_boot(&agent, number).await;
        assert_eq!(stranger.receive().await, None);
    }
    assert_eq!(agent.status().await["boot"], "01".repeat(16));
    init.send(healthy()).await;
    agent.event("health").await;
    init.send(ending("")).await;
    agent.end_init(0).await;
    assert_eq!(agent.ended().await.0, 0);
}

/// A frame whose length is said to be this.
fn frame(length: u32, body: &[u8]) -> Vec<u8> {
    [&length.to_be_bytes()[..], body].concat()
}

#[tokio::test]
async fn hostile_enclave_sends_logs_of_bad_shape() {
    let mut agent = Agent::start(&[]).await;
    let mut init = agent.boot().await;
    // 256 MiB of zeros in a few KiB.
    let bomb = zstd_of_zeros(256 * 1024 * 1024);
    assert!(bomb.len() < MAX_LOGS);
    let bad = [
        ("claims 4 GiB", compressed(u32::MAX, &bomb)),
        (
            "claims a frame, holds 256 MiB",
            compressed(1024 * 1024, &bomb),
        ),
        ("claims nothing", compressed(0, &bomb)),
        ("no zstd", compressed(100, b"nonsense")),
    ];
    for (name, body) in &bad {
        for _ in 0..20 {
            let mut stream = opened(&agent).await;
            let length = u32::try_from(body.len()).unwrap();
            let _ = stream.write_all(&frame(length, body)).await;
            let closed = timeout(LIMIT, stream.read_to_end(&mut Vec::new())).await;
            assert!(closed.is_ok(), "{name}: the connection stays open");
        }
    }
    for bytes in [
        frame(u32::MAX, b""),
        frame(4, b"\xff\xff\xff\xff"),
        // An array of four thousand million records.
        frame(9, b"\x82\x01\x81\x9a\xff\xff\xff\xff\x80"),
    ] {
        let mut stream = opened(&agent).await;
        let _ = stream.write_all(&bytes).await;
        let closed = timeout(LIMIT, stream.read_to_end(&mut Vec::new())).await;
        assert!(closed.is_ok(), "{bytes:x?}: the connection stays open");
    }
    // Numbers and times that no enclave has.
    let mut connection = Connection::open(&agent).await;
    for sequence in [1, 5] {
        let mut wrong = record(LogStream::Application, sequence, b"text");
        wrong.time_us = u64::MAX;
        connection.send(vec![wrong]).await;
    }
    let of = |stream, numbers: [u64; 2]| numbers.map(|number| record(stream, number, b"text"));
    // More numbers left out than there are, all in one batch.
    let far = [
        of(LogStream::Application, [6, u64::MAX]),
        of(LogStream::Errors, [1, u64::MAX]),
    ];
    connection.send(far.concat()).await;
    let status = agent.status().await;
    assert_eq!(status["logs"]["missing"], u64::MAX);
    let mut other = Connection::open(&agent).await;
    let line = record(LogStream::System, 1, b"a line");
    assert!(
        other
            .send(vec![line])
            .await
            .contains(&(LogStream::System, 1))
    );
    assert_eq!(agent.status().await["state"], "ready");
    let peak = peak(&agent);
    assert!(peak < MEMORY_KIB, "{peak} KiB");
    init.send(ending("")).await;
    agent.end_init(0).await;
    assert_eq!(agent.ended().await.0, 0);
}

/// A log connection that has been opened, whose frames the test writes.
async fn opened(agent: &Agent) -> link::Stream {
    let mut writer = Writer::new(agent.open(Channel::Logs).await, MAX_LOGS);
    let open = logs::FromInit::Open { boot: boot(1) };
    writer.send(&open).await.unwrap();
    writer.into_inner()
}

/// The body of a compressed batch.
fn compressed(length: u32, bytes: &[u8]) -> Vec<u8> {
    let mut body = vec![0x82, 0x02, 0x82, 0x1a];
    body.extend(length.to_be_bytes());
    body.push(0x5a);
    body.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
    body.extend(bytes);
    body
}

/// Zeros as zstd's run-length blocks (RFC 8878, section 3.1.1.2), so that the
/// least is sent for the most.
fn zstd_of_zeros(count: u32) -> Vec<u8> {
    const BLOCK: u32 = 128 * 1024;
    // Magic; a window of 128 KiB, and no size of the content.
    let mut bytes = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 7 << 3];
    let blocks = count / BLOCK;
    for number in 1..=blocks {
        let is_last = u32::from(number == blocks);
        let header = BLOCK << 3 | 1 << 1 | is_last;
        bytes.extend(&header.to_le_bytes()[..3]);
        bytes.push(0);
    }
    bytes
}

#[tokio::test]
async fn hostile_enclave_asks_for_refused_destinations() {
    let mut agent = Agent::run(Builder::new(&["a.example:443".to_owned()], &[]), &[]).await;
    let mut init = agent.boot().await;
    for number in 0..1_000 {
        let (_, reply) = ask(&agent, &format!("n{number}.example"), 443).await;
        assert_eq!(refusal(&reply).0, Refusal::NotAllowed);
    }
    assert_eq!(agent.status().await["state"], "ready");
    init.send(ending("")).await;
    agent.end_init(0).await;
    let events = agent.events_until("ended").await;
    assert!(events.len() < MAX_EVENTS / 2, "{} events", events.len());
    agent.finished().await;
}

/// Escapes of a terminal, and marks that turn the direction of a text.
const UNSAFE: [char; 5] = ['\u{1b}', '\u{9b}', '\u{202e}', '\u{2066}', '\u{7}'];

#[tokio::test]
async fn hostile_enclave_sends_texts_for_a_terminal() {
    let text: String = UNSAFE.iter().collect();
    let text = format!("{text}[2J\r\n{text}end");
    let mut agent = Agent::start(&[]).await;
    let mut init = agent.boot().await;
    init.send(FromInit::Step {
        name: Text::new(&*text),
        at_us: 1,
        took_us: 1,
    })
    .await;
    init.send(FromInit::Health {
        state: HealthState::Unhealthy,
        detail: Text::new(&*text),
    })
    .await;
    agent.event("health").await;
    let table = output(command(agent.folder.path(), "status")).await;
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("end"), "{table}");
    for mark in UNSAFE {
        assert!(!table.contains(mark), "{mark:?} in {table:?}");
    }
    init.send(ending(&text)).await;
    agent.end_init(0).await;
    let (code, ended, stderr) = agent.ended().await;
    assert_eq!(code, 0);
    for mark in UNSAFE {
        assert!(!stderr.contains(mark), "{mark:?} in {stderr:?}");
    }
    drop(ended);
}

#[tokio::test]
async fn hostile_enclave_claims_more_than_it_sends() {
    let mut agent = Agent::start(&[]).await;
    let mut init = agent.boot().await;
    let mut held = Vec::new();
    for channel in [Channel::Control, Channel::Logs, Channel::Egress] {
        for length in [u32::MAX, 64 * 1024, 1024, 1] {
            for _ in 0..20 {
                let mut stream = agent.connect().await;
                // There may be too many of them already.
                if hello::open(&mut stream, channel).await.is_ok() {
                    let _ = stream.write_all(&length.to_be_bytes()).await;
                }
                held.push(stream);
            }
        }
    }
    let document = vec![0; MAX_DOCUMENT];
    init.send(FromInit::Document {
        id: 1,
        document: Bytes::new(document).unwrap(),
    })
    .await;
    let mut connection = Connection::open(&agent).await;
    let line = record(LogStream::Application, 1, b"a line");
    let held_records = timeout(LIMIT, connection.send(vec![line])).await.unwrap();
    assert_eq!(held_records, [(LogStream::Application, 1)]);
    assert_eq!(agent.status().await["state"], "ready");
    let peak = peak(&agent);
    assert!(peak < MEMORY_KIB, "{peak} KiB");
    drop(held);
    init.send(ending("")).await;
    agent.end_init(0).await;
    assert_eq!(agent.ended().await.0, 0);
}
