//! What init and agent say to each other.

use fleet_key::hand_over::{CHALLENGE_BYTES, Generation, Gift, Request};
use fuzz::encode;
use link::control::{
    self, CheckOutcome, ClockState, EndCause, ExitStatus, HealthState, Loss, LossReason, Losses,
};
use link::frame::{MAX_CONTROL, MAX_LOGS, MAX_TARGET};
use link::kms;
use link::logs::{self, LogStream, Record, Source};
use link::records::{Answer, Kind, MAX_ANSWER, Question, Service, Strings};
use link::target::{Connect, Refusal, Reply};
use link::{Bytes, Credentials, Secret, Text};

use crate::write;

pub(crate) fn write_all() {
    link_control();
    link_logs();
    link_target();
    link_records();
    link_datagrams();
    link_frames();
    write("link_hello", "opener", b"ENCL\0\x04\x01\0");
    write("link_hello", "older", b"ENCL\0\x01\x02\0");
    write("link_hello", "newer", b"ENCL\0\x05\x02\0");
    write("link_hello", "http", b"GET / HTTP/1.1\r\n");
    hand_over();
}

fn hand_over() {
    let request = Request {
        challenge: [7; CHALLENGE_BYTES],
        generation: Generation::MIN.saturating_add(1),
        document: vec![0x84, 0x43, 0xa1, 0x01],
    };
    let gift = Gift {
        generation: Generation::MIN,
        sealed: vec![9; 80],
        document: vec![0x84, 0x43, 0xa1, 0x01],
    };
    write("hand_over", "request", &request.to_bytes());
    write("hand_over", "gift", &gift.to_bytes());
    let mut newer = request.to_bytes();
    if let Some(version) = newer.get_mut(1) {
        *version = 2;
    }
    write("hand_over", "version", &newer);
}

fn link_control() {
    use control::{FromAgent, FromInit};
    let status = ExitStatus::Code(1);
    let losses = Losses(vec![Loss {
        stream: LogStream::Application,
        reason: LossReason::QueueFull,
        records: 40,
    }]);
    let from_init = [
        (
            "boot",
            FromInit::Boot {
                boot: bytes(&[7; 16]),
                version: Text::new("0.1.0"),
            },
        ),
        (
            "step",
            FromInit::Step {
                name: Text::new("mounts"),
                at_us: 70_000,
                took_us: 1,
            },
        ),
        ("ready", FromInit::Ready { at_us: 1 << 40 }),
        (
            "health",
            FromInit::Health {
                state: HealthState::Unhealthy,
                detail: Text::new("HTTP 500"),
            },
        ),
        (
            "document",
            FromInit::Document {
                id: 1,
                document: bytes(&[0x84; 24]),
            },
        ),
        (
            "challenge-failed",
            FromInit::ChallengeFailed {
                id: 2,
                reason: Text::new("no NSM"),
            },
        ),
        (
            "workload-exited",
            FromInit::WorkloadExited {
                status,
                restart_in_ms: Some(1000),
                code: Text::default(),
                workload: None,
            },
        ),
        (
            "ending",
            FromInit::Ending {
                cause: EndCause::WorkloadExited(status),
                detail: Text::new("it ended"),
                code: Text::new("workload.out-of-memory"),
                losses: losses.clone(),
                numbered: vec![(LogStream::Application, 1000)],
                workload: None,
            },
        ),
        (
            "self-check",
            FromInit::SelfCheck {
                outcome: CheckOutcome::Failed,
                rule: Text::new("debug"),
                detail: Text::new("why"),
                document: bytes(&[0x84; 24]),
            },
        ),
        (
            "clock",
            FromInit::Clock {
                state: ClockState::Synchronised,
                source: Text::new("ptp-kvm"),
                error_us: Some(300),
                pauses: 1,
                detail: Text::default(),
            },
        ),
        (
            "limits",
            FromInit::Limits {
                oom_kills: 1,
                pids_refused: 70_000,
            },
        ),
        ("lost", FromInit::Lost { losses }),
        ("wants-credentials", FromInit::WantsCredentials),
        ("secret-opened", FromInit::SecretOpened { id: 5 }),
        (
            "secret-refused",
            FromInit::SecretRefused {
                id: 6,
                reason: Text::new("no such name"),
            },
        ),
        (
            "keys-done",
            FromInit::KeysDone {
                id: 7,
                answer: bytes(&[7; 24]),
            },
        ),
        (
            "keys-refused",
            FromInit::KeysRefused {
                id: 8,
                reason: Text::new("no seed"),
            },
        ),
        (
            "kms",
            FromInit::Kms {
                calls: vec![kms::Calls {
                    operation: kms::Operation::Decrypt,
                    outcome: kms::Outcome::AccessDenied,
                    count: 3,
                }],
                open: 2,
                waiting: 1,
            },
        ),
        (
            "secrets",
            FromInit::Secrets(control::SecretCounts {
                declared: 3,
                delivered: 2,
                failed_refreshes: 4,
            }),
        ),
    ];
    messages("link_control", 0, MAX_CONTROL, &from_init);
    let from_agent = [
        (
            "start",
            FromAgent::Start {
                runtime_config: bytes(b"{}"),
            },
        ),
        (
            "challenge",
            FromAgent::Challenge {
                id: 3,
                nonce: bytes(b"nonce"),
            },
        ),
        (
            "shutdown",
            FromAgent::Shutdown {
                grace_ms: Some(10_000),
            },
        ),
        (
            "credentials",
            FromAgent::Credentials(Credentials {
                access_key_id: secret("ASIAIOSFODNN7EXAMPLE"),
                secret_access_key: secret("wJalrXUtnFEMI"),
                session_token: secret("IQoJ"),
                expires_ms: 1 << 40,
                region: Text::new("eu-west-1"),
            }),
        ),
        (
            "credentials-unavailable",
            FromAgent::CredentialsUnavailable {
                reason: Text::new("no role"),
            },
        ),
        (
            "sealing-challenge",
            FromAgent::SealingChallenge {
                id: 4,
                nonce: bytes(b"nonce"),
            },
        ),
        (
            "sealed-secret",
            FromAgent::SealedSecret {
                id: 5,
                sealed: bytes(&[0x82; 24]),
            },
        ),
        (
            "key-create",
            FromAgent::Keys {
                id: 6,
                step: control::KeyStep::Create,
            },
        ),
        (
            "key-give",
            FromAgent::Keys {
                id: 7,
                step: control::KeyStep::Give {
                    request: bytes(&[0x84; 24]),
                },
            },
        ),
    ];
    messages("link_control", 1, MAX_CONTROL, &from_agent);
}

fn link_logs() {
    use logs::{FromAgent, FromInit};
    let record = |sequence, source, data| Record {
        stream: LogStream::Application,
        sequence,
        time_us: 1_760_000_000_000_000,
        source,
        continues: false,
        data,
        workload: None,
    };
    let boot = bytes(&[7; 16]);
    let records = vec![
        record(1, Source::Stdout, b"one"),
        record(300, Source::Stderr, b"\xff"),
    ];
    let mut compressor = logs::Compressor::new().expect("memory");
    let compressed = compressor.compress(records.clone()).expect("a small batch");
    let from_init = [
        ("open", FromInit::Open { boot }),
        ("compressed", compressed),
        ("batch", FromInit::Batch { records }),
    ];
    messages("link_logs", 0, MAX_LOGS, &from_init);
    let last = LogStream::ALL.map(|stream| (stream, 70_000)).to_vec();
    messages(
        "link_logs",
        1,
        MAX_LOGS,
        &[("stored", FromAgent::Stored { last })],
    );
}

fn link_target() {
    messages("link_target", 0, MAX_TARGET, &[("connect", connect())]);
    let refused = Reply::Refused {
        refusal: Refusal::Busy,
        reason: Text::new("too many"),
    };
    let replies = [("connected", Reply::Connected), ("refused", refused)];
    messages("link_target", 1, MAX_TARGET, &replies);
}

fn link_records() {
    let question = Question {
        name: Text::new("_sip._tcp.example"),
        kind: Kind::Srv,
    };
    messages("link_records", 0, MAX_TARGET, &[("question", question)]);
    let services = Answer::Services {
        ttl: 60,
        records: vec![Service {
            priority: 1,
            weight: 2,
            port: 5060,
            target: Text::new("sip.example"),
        }],
    };
    let text = Bytes::new(&b"authSource=admin"[..]).expect("a short text");
    let texts = Answer::Texts {
        ttl: 5,
        records: vec![Strings(vec![text]), Strings::default()],
    };
    let refused = Answer::Refused {
        refusal: Refusal::NameNotFound,
        reason: Text::new("nobody"),
    };
    let answers = [
        ("services", services),
        ("texts", texts),
        ("refused", refused),
    ];
    messages("link_records", 1, MAX_ANSWER, &answers);
}

fn link_datagrams() {
    let messages = [&b"\0\0\x02hi"[..], b"\x01\0\0", b"\0\0\0"];
    write("link_datagrams", "messages", &messages.concat());
    write("link_datagrams", "unknown", b"\x02\0\0");
    write("link_datagrams", "too-long", b"\0\xff\xe4");
    write("link_datagrams", "cut", b"\0\0\x09x");
}

fn link_frames() {
    let mut stream = vec![1, 2];
    for text in ["", "one", &"x".repeat(150)] {
        let body = encode(&Text::<200>::new(text), MAX_TARGET);
        stream.extend((body.len() as u32).to_be_bytes());
        stream.extend(body);
    }
    write("link_frames", "three", &stream);
    stream.extend(301_u32.to_be_bytes());
    write("link_frames", "too-large", &stream);
}

/// Messages of one side, each behind the byte that says which side it is.
fn messages<M: minicbor::Encode<()>>(target: &str, side: u8, limit: usize, all: &[(&str, M)]) {
    for (name, message) in all {
        let seed = [&[side], encode(message, limit).as_slice()].concat();
        write(target, name, &seed);
    }
}

fn connect() -> Connect {
    Connect {
        host: Text::new("kms.example"),
        port: 443,
    }
}

fn secret<const MAX: usize>(text: &str) -> Secret<MAX> {
    Secret::new(text).expect("short and visible")
}

fn bytes<const MAX: usize>(bytes: &[u8]) -> Bytes<MAX> {
    Bytes::new(bytes).expect("a short string")
}
