//! `docs/wire-protocol.md` has the bytes that this crate sends.

use std::fmt::Write;

use link::control::{
    self, CheckOutcome, ClockState, EndCause, ExitStatus, HEALTH_INTERVAL_MS, HealthState,
    LossReason, MAX_CODE, MAX_DOCUMENT, MAX_HAND_OVER, MAX_LOSSES, MAX_NONCE, MAX_RUNTIME_CONFIG,
    MAX_SEALED_SECRET, MAX_TEXT,
};
use link::credentials::{MAX_ACCESS_KEY_ID, MAX_REGION, MAX_SECRET_ACCESS_KEY, MAX_SESSION_TOKEN};
use link::datagrams::{self, MAX_DATAGRAM, Message};
use link::frame::{self, MAX_CONTROL, MAX_LOGS, MAX_TARGET};
use link::hello::{self, HELLO_TIMEOUT, VERSION};
use link::logs::{self, LogStream, MAX_BATCH_RECORDS, MAX_RECORD, Record, Source};
use link::records::{
    Answer, Kind, MAX_ANSWER, MAX_RECORDS, MAX_STRING, MAX_STRINGS, Question, Service,
};
use link::target::{Connect, MAX_HOST, MAX_REASON, Refusal, Reply};
use link::{Bytes, Channel, Credentials, EndCode, MAX_NAME, Secret, Text, port};
use minicbor::Encode;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use crate::samples::{some_kms_calls, some_secret_counts};

const PAGE: &str = include_str!("../../../../docs/wire-protocol.md");

/// Who sends a line of the example.
#[derive(Clone, Copy)]
enum Side {
    Init,
    Agent,
}
use Side::{Agent, Init};

/// A listing of what is sent, as the page has it.
#[derive(Default)]
struct Listing(String);

impl Listing {
    fn line(&mut self, side: Side, bytes: &[u8], what: &str) {
        let side = match side {
            Init => "init ",
            Agent => "agent",
        };
        for (index, bytes) in bytes.chunks(16).enumerate() {
            let side = if index == 0 { side } else { "     " };
            let hex: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let line = format!("{side}  {}", hex.join(" "));
            writeln!(self.0, "{line}").unwrap();
        }
        writeln!(self.0, "       ; {what}").unwrap();
    }

    async fn message<M: Encode<()>>(&mut self, side: Side, message: &M, what: &str) {
        let mut bytes = Vec::new();
        frame::write(&mut bytes, message, MAX_LOGS).await.unwrap();
        self.line(side, &bytes, what);
    }

    /// The hello of `channel`, as both sides send it.
    async fn hello(&mut self, channel: Channel, from: Side, to: Side) {
        let (mut near, mut wire) = duplex(64);
        let (mut relay, mut far) = duplex(64);
        let relaying = async {
            let (mut request, mut answer) = ([0; 8], [0; 8]);
            wire.read_exact(&mut request).await.unwrap();
            relay.write_all(&request).await.unwrap();
            relay.read_exact(&mut answer).await.unwrap();
            wire.write_all(&answer).await.unwrap();
            (request, answer)
        };
        let (opened, accepted, (request, answer)) = tokio::join!(
            hello::open(&mut near, channel),
            hello::accept(&mut far, |_| true),
            relaying
        );
        opened.unwrap();
        assert_eq!(accepted.unwrap(), channel);
        let code = request[6];
        let what = format!("hello: version {VERSION}, channel {code} ({channel})");
        self.line(from, &request, &what);
        let what = format!("hello: version {VERSION}, status 0 (accepted)");
        self.line(to, &answer, &what);
    }

    fn assert_is_on_the_page(&self) {
        let block = format!("```text\n{}```\n", self.0);
        assert!(PAGE.contains(&block), "the page lacks this:\n{block}");
    }
}

fn bytes<const MAX: usize>(bytes: &[u8]) -> Bytes<MAX> {
    Bytes::new(bytes).unwrap()
}

#[tokio::test]
#[expect(
    clippy::too_many_lines,
    reason = "one connection from its hello to its end, in the page's order"
)]
async fn the_control_example_is_what_is_sent() {
    use control::{FromAgent, FromInit};
    let mut listing = Listing::default();
    listing.hello(Channel::Control, Init, Agent).await;
    let boot = bytes(&(0..16).collect::<Vec<u8>>());
    let version = Text::new("0.1.0");
    let message = FromInit::Boot { boot, version };
    listing
        .message(Init, &message, "Boot: boot, version \"0.1.0\"")
        .await;
    let runtime_config = bytes(b"{}");
    let message = FromAgent::Start { runtime_config };
    listing
        .message(Agent, &message, "Start: runtime configuration \"{}\"")
        .await;
    let message = FromInit::WantsCredentials;
    listing.message(Init, &message, "WantsCredentials").await;
    let reason = Text::new("no role");
    let message = FromAgent::CredentialsUnavailable { reason };
    let what = "CredentialsUnavailable, as it would be: \"no role\"";
    listing.message(Agent, &message, what).await;
    let message = FromAgent::Credentials(Credentials {
        access_key_id: Secret::new("ASIAEXAMPLE").unwrap(),
        secret_access_key: Secret::new("secret").unwrap(),
        session_token: Secret::new("token").unwrap(),
        expires_ms: 1_760_000_000_000,
        region: Text::new("eu-west-1"),
    });
    let what = "Credentials: id, key, token, when they expire, region \"eu-west-1\"";
    listing.message(Agent, &message, what).await;
    let message = FromInit::Step {
        name: Text::new("root"),
        at_us: 1_000_000,
        took_us: 2_500,
    };
    listing
        .message(Init, &message, "Step: \"root\", at 1 s, took 2.5 ms")
        .await;
    let message = FromInit::SelfCheck {
        outcome: CheckOutcome::Failed,
        rule: Text::new("debug"),
        detail: Text::default(),
        document: bytes(&[0x84, 0x44]),
    };
    listing
        .message(
            Init,
            &message,
            "SelfCheck: 1 (failed), rule \"debug\", nothing to say, the document",
        )
        .await;
    let message = FromInit::Clock {
        state: ClockState::Synchronised,
        source: Text::new("ptp-kvm"),
        error_us: Some(300),
        pauses: 0,
        detail: Text::default(),
    };
    listing
        .message(
            Init,
            &message,
            "Clock: 0 (synchronised) by \"ptp-kvm\", within 300 µs, no pauses",
        )
        .await;
    let message = FromInit::Ready { at_us: 1_250_000 };
    listing.message(Init, &message, "Ready: at 1.25 s").await;
    let message = FromInit::Health {
        state: HealthState::Healthy,
        detail: Text::default(),
    };
    listing
        .message(Init, &message, "Health: 1 (healthy), nothing to say")
        .await;
    let message = FromAgent::Challenge {
        id: 1,
        nonce: bytes(b"nonce"),
    };
    listing
        .message(Agent, &message, "Challenge 1: nonce \"nonce\"")
        .await;
    let document = bytes(&[0x84, 0x44]);
    let message = FromInit::Document { id: 1, document };
    listing
        .message(
            Init,
            &message,
            "Document 1: the NSM's answer (here its first two bytes)",
        )
        .await;
    let reason = Text::new("no NSM");
    let message = FromInit::ChallengeFailed { id: 1, reason };
    listing
        .message(
            Init,
            &message,
            "ChallengeFailed 1, had it failed: \"no NSM\"",
        )
        .await;
    let nonce = bytes(b"nonce");
    let message = FromAgent::SealingChallenge { id: 2, nonce };
    let what = "SealingChallenge 2: nonce \"nonce\"";
    listing.message(Agent, &message, what).await;
    let sealed = bytes(&[0x82, 0x58]);
    let message = FromAgent::SealedSecret { id: 3, sealed };
    let what = "SealedSecret 3: what was sealed (here its first two bytes)";
    listing.message(Agent, &message, what).await;
    let message = FromInit::SecretOpened { id: 3 };
    listing.message(Init, &message, "SecretOpened 3").await;
    let reason = Text::new("not here");
    let message = FromInit::SecretRefused { id: 3, reason };
    let what = "SecretRefused 3, had it been refused: \"not here\"";
    listing.message(Init, &message, what).await;
    let step = control::KeyStep::Challenge;
    let message = FromAgent::Keys { id: 4, step };
    listing.message(Agent, &message, "Keys 4: Challenge").await;
    let answer = bytes(b"nonce");
    let message = FromInit::KeysDone { id: 4, answer };
    let what = "KeysDone 4: a nonce (of 32 bytes)";
    listing.message(Init, &message, what).await;
    let request = bytes(&[0x84, 0x01]);
    let step = control::KeyStep::Give { request };
    let message = FromAgent::Keys { id: 5, step };
    let what = "Keys 5: Give to this request (here its first two bytes)";
    listing.message(Agent, &message, what).await;
    let reason = Text::new("no seed");
    let message = FromInit::KeysRefused { id: 5, reason };
    let what = "KeysRefused 5, had it been refused: \"no seed\"";
    listing.message(Init, &message, what).await;
    let status = ExitStatus::Code(3);
    let message = FromInit::WorkloadExited {
        status,
        restart_in_ms: Some(1000),
        code: EndCode::text(Some(EndCode::WorkloadExitCode)),
        workload: None,
    };
    listing
        .message(Init, &message, "WorkloadExited: code 3, again in 1 s")
        .await;
    let message = FromInit::Limits {
        oom_kills: 1,
        pids_refused: 0,
    };
    listing
        .message(Init, &message, "Limits: 1 process killed, none refused")
        .await;
    let losses = control::Losses(vec![control::Loss {
        stream: LogStream::Application,
        reason: LossReason::QueueFull,
        records: 40,
    }]);
    let message = FromInit::Lost {
        losses: losses.clone(),
    };
    listing
        .message(
            Init,
            &message,
            "Lost: 40 records of application, 0 (queue full)",
        )
        .await;
    let what = "Kms: Decrypt 70000 times answered, 2 denied; 33 are being made, 1 waits";
    listing.message(Init, &some_kms_calls(), what).await;
    let message = FromInit::Secrets(some_secret_counts());
    let what = "Secrets: 3 declared, 2 delivered, 4 refreshes failed";
    listing.message(Init, &message, what).await;
    let grace_ms = Some(10_000);
    let message = FromAgent::Shutdown { grace_ms };
    listing
        .message(Agent, &message, "Shutdown: 10 s of grace")
        .await;
    let message = FromInit::WorkloadExited {
        status: ExitStatus::Signal(15),
        restart_in_ms: None,
        code: EndCode::text(Some(EndCode::WorkloadSignal)),
        workload: None,
    };
    listing
        .message(Init, &message, "WorkloadExited: signal 15, not again")
        .await;
    let message = FromInit::Ending {
        cause: EndCause::WorkloadExited(status),
        detail: Text::new("ended"),
        code: EndCode::text(Some(EndCode::WorkloadExitCode)),
        losses,
        numbered: vec![(LogStream::Application, 1000), (LogStream::System, 20)],
        workload: None,
    };
    listing
        .message(
            Init,
            &message,
            "Ending: 1 (workload exited) with code 3; the same losses",
        )
        .await;
    let message = FromInit::Ending {
        cause: EndCause::Shutdown,
        detail: Text::default(),
        code: Text::default(),
        losses: control::Losses::default(),
        numbered: Vec::new(),
        workload: None,
    };
    listing
        .message(Init, &message, "Ending: 0 (shutdown), as it would be here")
        .await;
    listing.assert_is_on_the_page();
}

#[tokio::test]
async fn the_log_example_is_what_is_sent() {
    use logs::{FromAgent, FromInit};
    let mut listing = Listing::default();
    listing.hello(Channel::Logs, Init, Agent).await;
    let boot = bytes(&(0..16).collect::<Vec<u8>>());
    let message = FromInit::Open { boot };
    listing.message(Init, &message, "Open: the same boot").await;
    let last = vec![(LogStream::System, 7)];
    let message = FromAgent::Stored { last };
    listing
        .message(Agent, &message, "Stored: system up to 7")
        .await;
    let record = |sequence, source, continues, data| Record {
        stream: LogStream::Application,
        sequence,
        time_us: 1_760_000_000_000_000,
        source,
        continues,
        data,
        workload: None,
    };
    let message = FromInit::Batch {
        records: vec![
            record(1, Source::Stdout, false, b"hello"),
            record(2, Source::Stderr, true, b"\xff"),
        ],
    };
    listing
        .message(
            Init,
            &message,
            "Batch: application 1 and 2; the second's line goes on",
        )
        .await;
    let last = vec![(LogStream::Application, 2), (LogStream::System, 7)];
    let message = FromAgent::Stored { last };
    listing
        .message(
            Agent,
            &message,
            "Stored: application up to 2, system up to 7",
        )
        .await;
    let records = vec![record(3, Source::Stdout, false, &[b'x'; 100])];
    let mut compressor = logs::Compressor::new().unwrap();
    let message = compressor.compress(records).unwrap();
    let FromInit::Compressed { length, .. } = message else {
        panic!("{message:?}");
    };
    let what = format!("Compressed: a Batch of {length} bytes, application 3, 100 times \"x\"");
    listing.message(Init, &message, &what).await;
    listing.assert_is_on_the_page();
}

#[tokio::test]
async fn the_examples_of_connections_are_what_is_sent() {
    let mut listing = Listing::default();
    listing.hello(Channel::Egress, Init, Agent).await;
    let host = Text::new("kms.example");
    let message = Connect { host, port: 443 };
    listing
        .message(Init, &message, "Connect: kms.example, port 443")
        .await;
    let message = Reply::Connected;
    listing
        .message(
            Agent,
            &message,
            "Connected; the connection's own bytes follow, both ways",
        )
        .await;
    listing.assert_is_on_the_page();

    let mut listing = Listing::default();
    listing.hello(Channel::Records, Init, Agent).await;
    let message = Question {
        name: Text::new("_sip._tcp.example"),
        kind: Kind::Srv,
    };
    listing
        .message(Init, &message, "Question: _sip._tcp.example, SRV")
        .await;
    let message = Answer::Services {
        ttl: 60,
        records: vec![Service {
            priority: 1,
            weight: 2,
            port: 5060,
            target: Text::new("sip.example"),
        }],
    };
    let what = "Services: for 60 s, priority 1, weight 2, port 5060, sip.example";
    listing.message(Agent, &message, what).await;
    listing.assert_is_on_the_page();

    let mut listing = Listing::default();
    listing.hello(Channel::Datagrams, Init, Agent).await;
    let host = Text::new("ntp.example");
    let message = Connect { host, port: 123 };
    listing
        .message(Init, &message, "Connect: ntp.example, port 123")
        .await;
    listing.message(Agent, &Reply::Connected, "Connected").await;
    for (side, message, what) in [
        (Init, Message::Datagram(b"hi".into()), "a datagram: \"hi\""),
        (Agent, Message::Unreachable, "Unreachable"),
    ] {
        let mut bytes = Vec::new();
        datagrams::write(&mut bytes, &message).await.unwrap();
        listing.line(side, &bytes, what);
    }
    listing.assert_is_on_the_page();

    let mut listing = Listing::default();
    listing.hello(Channel::Ingress, Agent, Init).await;
    let host = Text::default();
    let message = Connect { host, port: 8080 };
    listing
        .message(Agent, &message, "Connect: no host, port 8080")
        .await;
    let message = Reply::Refused {
        refusal: Refusal::Unreachable,
        reason: Text::new("down"),
    };
    listing
        .message(
            Init,
            &message,
            "Refused: 2 (unreachable), \"down\"; then it closes",
        )
        .await;
    listing.assert_is_on_the_page();
}

/// A table's row on the page.
fn assert_row(cells: &[&str]) {
    let row = format!("| {} |\n", cells.join(" | "));
    assert!(PAGE.contains(&row), "the page lacks the row {row}");
}

#[test]
fn the_numbers_are_the_codes_own() {
    let port = |number: u32| number.to_string();
    assert_row(&["heartbeat", &port(port::HEARTBEAT), "parent"]);
    assert_row(&["agent", &port(port::AGENT), "parent"]);
    assert_row(&["init", &port(port::INIT), "enclave"]);
    assert!(PAGE.contains(&format!("`{:#04x}`", port::HEARTBEAT_BYTE).replace("0xb7", "0xB7")));
    for (what, limit) in [
        ("frame of the control channel", MAX_CONTROL),
        ("frame of the log channel", MAX_LOGS),
        ("frame of an egress or ingress channel", MAX_TARGET),
        ("frame of a records channel", MAX_ANSWER),
        ("records of one answer", MAX_RECORDS),
        ("strings of one record", MAX_STRINGS),
        ("bytes of one such string", MAX_STRING),
        ("bytes of one datagram", MAX_DATAGRAM),
        ("runtime configuration", MAX_RUNTIME_CONFIG),
        ("attestation document", MAX_DOCUMENT),
        ("nonce", MAX_NONCE),
        ("sealed secret", MAX_SEALED_SECRET),
        ("request and gift of a seed", MAX_HAND_OVER),
        (
            "text for people (detail, reason of a failed challenge)",
            MAX_TEXT,
        ),
        ("code or name for programs", MAX_CODE),
        ("name of a workload", MAX_NAME),
        ("access key id", MAX_ACCESS_KEY_ID),
        ("secret access key", MAX_SECRET_ACCESS_KEY),
        ("session token", MAX_SESSION_TOKEN),
        ("name of a region", MAX_REGION),
        ("counts of lost records in one message", MAX_LOSSES),
        ("reason of a refused connection", MAX_REASON),
        ("host name", MAX_HOST),
        ("bytes of one log record", MAX_RECORD),
        ("records of one batch", MAX_BATCH_RECORDS),
        ("a compressed Batch, decompressed", MAX_LOGS),
        ("streams of one acknowledgement", LogStream::ALL.len()),
    ] {
        assert_row(&[what, &limit.to_string()]);
    }
    assert!(PAGE.contains(&format!("\nversion {VERSION}. The crate")));
    let hello = format!("{} s", HELLO_TIMEOUT.as_secs());
    assert_row(&["hello", "both", &hello, "the connection is closed"]);
    assert!(PAGE.contains(&format!("every {} s", HEALTH_INTERVAL_MS / 1000)));
    for stream in LogStream::ALL {
        assert!(PAGE.contains(&format!("{} `{}`", stream as u8, stream.name())));
    }
}
