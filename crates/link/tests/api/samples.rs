//! Messages: at least one of each kind, and strategies for all of them.

use link::control::{
    self, CheckOutcome, ClockState, EndCause, ExitStatus, HealthState, MAX_DOCUMENT, MAX_NONCE,
    MAX_RUNTIME_CONFIG, MAX_SEALED_SECRET, MAX_TEXT, WorkloadState,
};
use link::credentials::{MAX_ACCESS_KEY_ID, MAX_REGION, MAX_SECRET_ACCESS_KEY, MAX_SESSION_TOKEN};
use link::kms;
use link::logs::{self, LogStream, Record, Source};
use link::target::{Connect, MAX_HOST, Refusal, Reply};
use link::{Bytes, Credentials, Secret, Text};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

pub(crate) const HEALTH: [HealthState; 3] = [
    HealthState::Starting,
    HealthState::Healthy,
    HealthState::Unhealthy,
];
pub(crate) const CHECKS: [CheckOutcome; 3] = [
    CheckOutcome::Passed,
    CheckOutcome::Failed,
    CheckOutcome::Unsigned,
];
pub(crate) const CLOCKS: [ClockState; 4] = [
    ClockState::Synchronised,
    ClockState::NoSource,
    ClockState::Disagreement,
    ClockState::Holdover,
];
pub(crate) const SOURCES: [Source; 3] = [Source::Stdout, Source::Stderr, Source::Init];
pub(crate) const REFUSALS: [Refusal; 5] = [
    Refusal::NotAllowed,
    Refusal::NameNotFound,
    Refusal::Unreachable,
    Refusal::TimedOut,
    Refusal::Busy,
];

fn bytes<const MAX: usize>() -> impl Strategy<Value = Bytes<MAX>> {
    let short = vec(any::<u8>(), 0..=MAX.min(40));
    let full = any::<u8>().prop_map(|byte| vec![byte; MAX]);
    prop_oneof![9 => short, 1 => full].prop_map(|bytes| Bytes::new(bytes).unwrap())
}

fn text<const MAX: usize>() -> impl Strategy<Value = Text<MAX>> {
    // Longer ones are cut.
    prop_oneof![9 => ".{0,30}", 1 => ".{1100}"].prop_map(|text: String| Text::new(text))
}

fn exit_status() -> impl Strategy<Value = ExitStatus> {
    (any::<bool>(), any::<i32>()).prop_map(|(code, number)| {
        if code {
            ExitStatus::Code(number)
        } else {
            ExitStatus::Signal(number)
        }
    })
}

fn numbered() -> impl Strategy<Value = Vec<(LogStream, u64)>> {
    let number = (select(&LogStream::ALL[..]), any::<u64>());
    vec(number, 0..=LogStream::ALL.len())
}

fn losses() -> impl Strategy<Value = control::Losses> {
    let reason = select(&control::LossReason::ALL[..]);
    let loss = (select(&LogStream::ALL[..]), reason, any::<u64>()).prop_map(
        |(stream, reason, records)| control::Loss {
            stream,
            reason,
            records,
        },
    );
    vec(loss, 0..=control::MAX_LOSSES).prop_map(control::Losses)
}

/// How workloads are, and how they and enclaves end.
fn of_workloads() -> impl Strategy<Value = control::FromInit> {
    use control::FromInit;
    let cause = prop_oneof![
        Just(EndCause::Shutdown),
        exit_status().prop_map(EndCause::WorkloadExited),
        Just(EndCause::BootFailed),
        Just(EndCause::InitFailed),
    ];
    prop_oneof![
        (
            exit_status(),
            option::of(any::<u64>()),
            text(),
            option::of(text())
        )
            .prop_map(
                |(status, restart_in_ms, code, workload)| FromInit::WorkloadExited {
                    status,
                    restart_in_ms,
                    code,
                    workload,
                }
            ),
        (
            cause,
            text(),
            text(),
            losses(),
            numbered(),
            option::of(text())
        )
            .prop_map(|(cause, detail, code, losses, numbered, workload)| {
                FromInit::Ending {
                    cause,
                    detail,
                    code,
                    losses,
                    numbered,
                    workload,
                }
            }),
        (text(), select(&WorkloadState::ALL[..]), text()).prop_map(|(name, state, detail)| {
            FromInit::Workload {
                name,
                state,
                detail,
            }
        }),
    ]
}

pub(crate) fn control_from_init() -> impl Strategy<Value = control::FromInit> {
    use control::FromInit;
    prop_oneof![
        (bytes(), text()).prop_map(|(boot, version)| FromInit::Boot { boot, version }),
        (text(), any::<u64>(), any::<u64>()).prop_map(|(name, at_us, took_us)| FromInit::Step {
            name,
            at_us,
            took_us
        }),
        any::<u64>().prop_map(|at_us| FromInit::Ready { at_us }),
        (select(&HEALTH[..]), text())
            .prop_map(|(state, detail)| FromInit::Health { state, detail }),
        (any::<u64>(), bytes()).prop_map(|(id, document)| FromInit::Document { id, document }),
        (any::<u64>(), text()).prop_map(|(id, reason)| FromInit::ChallengeFailed { id, reason }),
        of_workloads(),
        (select(&CHECKS[..]), text(), text(), bytes()).prop_map(
            |(outcome, rule, detail, document)| FromInit::SelfCheck {
                outcome,
                rule,
                detail,
                document,
            }
        ),
        (
            select(&CLOCKS[..]),
            text(),
            option::of(any::<u64>()),
            any::<u64>(),
            text()
        )
            .prop_map(
                |(state, source, error_us, pauses, detail)| FromInit::Clock {
                    state,
                    source,
                    error_us,
                    pauses,
                    detail,
                }
            ),
        (any::<u64>(), any::<u64>()).prop_map(|(oom_kills, pids_refused)| FromInit::Limits {
            oom_kills,
            pids_refused,
        }),
        losses().prop_map(|losses| FromInit::Lost { losses }),
        (place_counts(), place_counts(), any::<u64>()).prop_map(
            |(egress, ingress, dropped_datagrams)| FromInit::Places {
                egress,
                ingress,
                dropped_datagrams
            }
        ),
        Just(FromInit::WantsCredentials),
        any::<u64>().prop_map(|id| FromInit::SecretOpened { id }),
        (any::<u64>(), text()).prop_map(|(id, reason)| FromInit::SecretRefused { id, reason }),
        (
            vec(kms_calls(), 0..kms::MAX_CALLS),
            any::<u32>(),
            any::<u32>()
        )
            .prop_map(|(calls, open, waiting)| FromInit::Kms {
                calls,
                open,
                waiting,
            }),
        secret_counts().prop_map(FromInit::Secrets),
        (any::<u64>(), bytes()).prop_map(|(id, answer)| FromInit::KeysDone { id, answer }),
        (any::<u64>(), text()).prop_map(|(id, reason)| FromInit::KeysRefused { id, reason }),
    ]
}

fn kms_calls() -> impl Strategy<Value = kms::Calls> {
    let operation = select(&kms::Operation::ALL[..]);
    let outcome = select(&kms::Outcome::ALL[..]);
    (operation, outcome, any::<u64>()).prop_map(|(operation, outcome, count)| kms::Calls {
        operation,
        outcome,
        count,
    })
}

fn secret_counts() -> impl Strategy<Value = control::SecretCounts> {
    (any::<u32>(), any::<u32>(), any::<u64>()).prop_map(|(declared, delivered, failed)| {
        control::SecretCounts {
            declared,
            delivered,
            failed_refreshes: failed,
        }
    })
}

fn place_counts() -> impl Strategy<Value = control::PlaceCounts> {
    (any::<u64>(), any::<u64>())
        .prop_map(|(refused, evicted)| control::PlaceCounts { refused, evicted })
}

pub(crate) fn control_from_agent() -> impl Strategy<Value = control::FromAgent> {
    use control::FromAgent;
    prop_oneof![
        bytes().prop_map(|runtime_config| FromAgent::Start { runtime_config }),
        (any::<u64>(), bytes()).prop_map(|(id, nonce)| FromAgent::Challenge { id, nonce }),
        option::of(any::<u64>()).prop_map(|grace_ms| FromAgent::Shutdown { grace_ms }),
        credentials().prop_map(FromAgent::Credentials),
        text().prop_map(|reason| FromAgent::CredentialsUnavailable { reason }),
        (any::<u64>(), bytes()).prop_map(|(id, nonce)| FromAgent::SealingChallenge { id, nonce }),
        (any::<u64>(), bytes()).prop_map(|(id, sealed)| FromAgent::SealedSecret { id, sealed }),
        (any::<u64>(), key_step()).prop_map(|(id, step)| FromAgent::Keys { id, step }),
    ]
}

fn key_step() -> impl Strategy<Value = control::KeyStep> {
    use control::KeyStep;
    prop_oneof![
        Just(KeyStep::Create),
        Just(KeyStep::Challenge),
        bytes().prop_map(|challenge| KeyStep::Request { challenge }),
        bytes().prop_map(|request| KeyStep::Give { request }),
        bytes().prop_map(|gift| KeyStep::Take { gift }),
    ]
}

fn secret<const MAX: usize>() -> impl Strategy<Value = Secret<MAX>> {
    let full = Just("~".repeat(MAX));
    prop_oneof![9 => "[!-~]{0,60}", 1 => full].prop_map(|text| Secret::new(&text).unwrap())
}

fn credentials() -> impl Strategy<Value = Credentials> {
    (secret(), secret(), secret(), any::<u64>(), text()).prop_map(
        |(access_key_id, secret_access_key, session_token, expires_ms, region)| Credentials {
            access_key_id,
            secret_access_key,
            session_token,
            expires_ms,
            region,
        },
    )
}

/// The fields of a record; its data is borrowed from there.
pub(crate) type Fields = (LogStream, u64, u64, Source, bool, Vec<u8>);

pub(crate) fn records() -> impl Strategy<Value = Vec<Fields>> {
    let data = vec(any::<u8>(), 0..60);
    let record = (
        select(&LogStream::ALL[..]),
        any::<u64>(),
        any::<u64>(),
        select(&SOURCES[..]),
        any::<bool>(),
        data,
    );
    vec(record, 0..20)
}

pub(crate) fn batch(fields: &[Fields]) -> logs::FromInit<'_> {
    logs::FromInit::Batch {
        records: fields
            .iter()
            .map(
                |(stream, sequence, time_us, source, continues, data)| Record {
                    stream: *stream,
                    sequence: *sequence,
                    time_us: *time_us,
                    source: *source,
                    continues: *continues,
                    data,
                    workload: continues.then_some("web"),
                },
            )
            .collect(),
    }
}

pub(crate) fn stored() -> impl Strategy<Value = logs::FromAgent> {
    vec(
        (select(&LogStream::ALL[..]), any::<u64>()),
        0..=LogStream::ALL.len(),
    )
    .prop_map(|last| logs::FromAgent::Stored { last })
}

pub(crate) fn connect() -> impl Strategy<Value = Connect> {
    (text(), any::<u16>()).prop_map(|(host, port)| Connect { host, port })
}

pub(crate) fn reply() -> impl Strategy<Value = Reply> {
    prop_oneof![
        Just(Reply::Connected),
        (select(&REFUSALS[..]), text())
            .prop_map(|(refusal, reason)| Reply::Refused { refusal, reason }),
    ]
}

fn filled<const MAX: usize>(length: usize) -> Bytes<MAX> {
    Bytes::new(vec![0xa5; length]).unwrap()
}

/// Workloads that are, and that have ended.
fn every_end() -> [control::FromInit; 5] {
    use control::FromInit;
    [
        FromInit::Workload {
            name: Text::new("web"),
            state: WorkloadState::Waiting,
            detail: Text::new("it waits for database"),
        },
        FromInit::WorkloadExited {
            status: ExitStatus::Signal(9),
            restart_in_ms: Some(1000),
            code: Text::default(),
            workload: None,
        },
        FromInit::WorkloadExited {
            status: ExitStatus::Code(-1),
            restart_in_ms: None,
            code: Text::default(),
            workload: Some(Text::new("web")),
        },
        FromInit::Ending {
            cause: EndCause::WorkloadExited(ExitStatus::Code(3)),
            detail: Text::new(""),
            code: Text::default(),
            losses: control::Losses::default(),
            numbered: Vec::new(),
            workload: None,
        },
        FromInit::Ending {
            cause: EndCause::Shutdown,
            detail: Text::new("asked"),
            code: Text::new("workload.out-of-memory"),
            losses: some_losses(),
            numbered: vec![(LogStream::System, 7)],
            workload: Some(Text::new("web")),
        },
    ]
}

/// One of each kind, small enough that every byte of it can be changed.
pub(crate) fn every_control_from_init() -> Vec<control::FromInit> {
    use control::FromInit;
    let mut messages = vec![
        FromInit::Boot {
            boot: filled(16),
            version: Text::new("0.1.0"),
        },
        FromInit::Step {
            name: Text::new("mounts"),
            at_us: 1_000_000,
            took_us: 70_000,
        },
        FromInit::Ready { at_us: 23 },
        FromInit::Health {
            state: HealthState::Unhealthy,
            detail: Text::new("HTTP 500"),
        },
        FromInit::Document {
            id: 7,
            document: filled(30),
        },
        FromInit::ChallengeFailed {
            id: u64::MAX,
            reason: Text::new("no"),
        },
        FromInit::SelfCheck {
            outcome: CheckOutcome::Failed,
            rule: Text::new("policy.pcrs"),
            detail: Text::new("PCR0 is another"),
            document: filled(30),
        },
        FromInit::Clock {
            state: ClockState::Synchronised,
            source: Text::new("ptp-kvm"),
            error_us: Some(300),
            pauses: 1,
            detail: Text::default(),
        },
        FromInit::Clock {
            state: ClockState::NoSource,
            source: Text::default(),
            error_us: None,
            pauses: 0,
            detail: Text::new("no /dev/ptp0"),
        },
        FromInit::Limits {
            oom_kills: 1,
            pids_refused: 70_000,
        },
        FromInit::Lost {
            losses: some_losses(),
        },
        FromInit::Lost {
            losses: control::Losses::default(),
        },
        FromInit::WantsCredentials,
        FromInit::SecretOpened { id: 3 },
        FromInit::SecretRefused {
            id: 4,
            reason: Text::new("no secret of that name is declared"),
        },
        some_kms_calls(),
        FromInit::Secrets(some_secret_counts()),
        FromInit::KeysDone {
            id: 5,
            answer: filled(200),
        },
        FromInit::KeysRefused {
            id: 6,
            reason: Text::new("this enclave has a seed already"),
        },
    ];
    messages.extend(every_end());
    messages
}

/// Calls that were answered, calls that were refused, and one that waits.
pub(crate) fn some_kms_calls() -> control::FromInit {
    let calls = |outcome, count| kms::Calls {
        operation: kms::Operation::Decrypt,
        outcome,
        count,
    };
    control::FromInit::Kms {
        calls: vec![
            calls(kms::Outcome::Answered, 70_000),
            calls(kms::Outcome::AccessDenied, 2),
        ],
        open: 33,
        waiting: 1,
    }
}

/// Not all of them delivered.
pub(crate) fn some_secret_counts() -> control::SecretCounts {
    control::SecretCounts {
        declared: 3,
        delivered: 2,
        failed_refreshes: 4,
    }
}

/// Losses of two streams.
pub(crate) fn some_losses() -> control::Losses {
    control::Losses(vec![
        control::Loss {
            stream: LogStream::Application,
            reason: control::LossReason::QueueFull,
            records: 13_800_000,
        },
        control::Loss {
            stream: LogStream::Errors,
            reason: control::LossReason::Ended,
            records: 1,
        },
    ])
}

pub(crate) fn every_control_from_agent() -> Vec<control::FromAgent> {
    use control::FromAgent;
    vec![
        FromAgent::Start {
            runtime_config: filled(25),
        },
        FromAgent::Challenge {
            id: 1,
            nonce: filled(32),
        },
        FromAgent::Shutdown {
            grace_ms: Some(10_000),
        },
        FromAgent::Shutdown { grace_ms: None },
        FromAgent::Credentials(some_credentials()),
        FromAgent::CredentialsUnavailable {
            reason: Text::new("no role"),
        },
        FromAgent::SealingChallenge {
            id: 2,
            nonce: filled(32),
        },
        FromAgent::SealedSecret {
            id: 3,
            sealed: filled(200),
        },
        FromAgent::Keys {
            id: 4,
            step: control::KeyStep::Create,
        },
        FromAgent::Keys {
            id: 5,
            step: control::KeyStep::Challenge,
        },
        FromAgent::Keys {
            id: 6,
            step: control::KeyStep::Request {
                challenge: filled(32),
            },
        },
        FromAgent::Keys {
            id: 7,
            step: control::KeyStep::Give {
                request: filled(200),
            },
        },
        FromAgent::Keys {
            id: 8,
            step: control::KeyStep::Take { gift: filled(200) },
        },
    ]
}

/// Credentials as an instance's role has them.
pub(crate) fn some_credentials() -> Credentials {
    Credentials {
        access_key_id: Secret::new("ASIAIOSFODNN7EXAMPLE").unwrap(),
        secret_access_key: Secret::new("wJalrXUtnFEMI/K7MDENG").unwrap(),
        session_token: Secret::new("IQoJb3JpZ2luX2Vj").unwrap(),
        expires_ms: 1_760_000_000_000,
        region: Text::new("eu-west-1"),
    }
}

pub(crate) fn every_logs_from_init() -> Vec<logs::FromInit<'static>> {
    use logs::FromInit;
    let record = |stream, source, continues, data| Record {
        stream,
        sequence: 300,
        time_us: 1_760_000_000_000_000,
        source,
        continues,
        data,
        workload: None,
    };
    vec![
        FromInit::Open { boot: filled(16) },
        FromInit::Batch { records: vec![] },
        FromInit::Compressed {
            length: 300,
            bytes: b"\x28\xb5",
        },
        FromInit::Batch {
            records: vec![
                record(LogStream::Application, Source::Stdout, true, b"listening"),
                record(LogStream::Errors, Source::Init, false, b"\xff"),
            ],
        },
    ]
}

pub(crate) fn every_stored() -> Vec<logs::FromAgent> {
    let last = LogStream::ALL.map(|stream| (stream, 1 << (stream as u32 * 20)));
    vec![
        logs::FromAgent::Stored { last: vec![] },
        logs::FromAgent::Stored {
            last: last.to_vec(),
        },
    ]
}

pub(crate) fn every_connect() -> Vec<Connect> {
    vec![
        Connect {
            host: Text::default(),
            port: 80,
        },
        Connect {
            host: Text::new("kms.us-west-2.amazonaws.com"),
            port: 443,
        },
    ]
}

pub(crate) fn every_reply() -> Vec<Reply> {
    let refused = REFUSALS.map(|refusal| Reply::Refused {
        refusal,
        reason: Text::new("why"),
    });
    [vec![Reply::Connected], refused.to_vec()].concat()
}

/// The largest message of each channel.
pub(crate) fn largest() -> (
    control::FromInit,
    control::FromAgent,
    control::FromAgent,
    control::FromAgent,
    control::FromAgent,
    Connect,
) {
    (
        control::FromInit::Document {
            id: u64::MAX,
            document: filled(MAX_DOCUMENT),
        },
        control::FromAgent::Start {
            runtime_config: filled(MAX_RUNTIME_CONFIG),
        },
        control::FromAgent::Challenge {
            id: u64::MAX,
            nonce: filled(MAX_NONCE),
        },
        control::FromAgent::Credentials(Credentials {
            access_key_id: Secret::new(&"x".repeat(MAX_ACCESS_KEY_ID)).unwrap(),
            secret_access_key: Secret::new(&"x".repeat(MAX_SECRET_ACCESS_KEY)).unwrap(),
            session_token: Secret::new(&"x".repeat(MAX_SESSION_TOKEN)).unwrap(),
            expires_ms: u64::MAX,
            region: Text::new("x".repeat(MAX_REGION)),
        }),
        control::FromAgent::SealedSecret {
            id: u64::MAX,
            sealed: filled(MAX_SEALED_SECRET),
        },
        Connect {
            host: Text::new("x".repeat(MAX_HOST)),
            port: u16::MAX,
        },
    )
}

/// A text of the greatest length.
pub(crate) fn long_text() -> Text<MAX_TEXT> {
    Text::new("é".repeat(MAX_TEXT))
}
