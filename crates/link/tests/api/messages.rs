//! Every message reads back as it was, and nothing else reads as something that
//! breaks a limit.

use std::fmt::Debug;

use link::control::{self, MAX_CODE, MAX_DOCUMENT, MAX_LOSSES};
use link::credentials::MAX_SECRET_ACCESS_KEY;
use link::frame::{self, FrameError, MAX_CONTROL, MAX_LOGS, MAX_TARGET};
use link::logs::{self, MAX_BATCH_RECORDS, MAX_RECORD, Record};
use link::target::{Connect, Reply};
use link::{Bytes, MAX_NAME, Secret, Text};
use minicbor::{Decode, Encode};
use proptest::prelude::*;

use crate::samples;

/// The body of the frame that carries `message`.
fn encode<M: Encode<()>>(message: &M, limit: usize) -> Vec<u8> {
    let mut framed = Vec::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime
        .unwrap()
        .block_on(frame::write(&mut framed, message, limit))
        .unwrap();
    framed.split_off(4)
}

fn assert_reads_back<M>(message: &M, limit: usize)
where
    M: Encode<()> + for<'b> Decode<'b, ()> + PartialEq + Debug,
{
    let body = encode(message, limit);
    assert_eq!(&frame::decode::<M>(&body).unwrap(), message);
}

proptest! {
    #[test]
    fn control_messages_of_the_init_read_back(message in samples::control_from_init()) {
        assert_reads_back(&message, MAX_CONTROL);
    }

    #[test]
    fn control_messages_of_the_agent_read_back(message in samples::control_from_agent()) {
        assert_reads_back(&message, MAX_CONTROL);
    }

    #[test]
    fn log_records_read_back(fields in samples::records()) {
        let message = samples::batch(&fields);
        let body = encode(&message, MAX_LOGS);
        prop_assert_eq!(frame::decode::<logs::FromInit<'_>>(&body).unwrap(), message);
    }

    #[test]
    fn acknowledgements_read_back(message in samples::stored()) {
        assert_reads_back(&message, MAX_LOGS);
    }

    #[test]
    fn targets_read_back(message in samples::connect()) {
        assert_reads_back(&message, MAX_TARGET);
    }

    #[test]
    fn replies_read_back(message in samples::reply()) {
        assert_reads_back(&message, MAX_TARGET);
    }
}

#[test]
fn the_largest_messages_fit_into_their_channels_frames() {
    let (document, start, challenge, credentials, secret, connect) = samples::largest();
    assert_reads_back(&document, MAX_CONTROL);
    assert_reads_back(&start, MAX_CONTROL);
    assert_reads_back(&challenge, MAX_CONTROL);
    assert_reads_back(&credentials, MAX_CONTROL);
    assert_reads_back(&secret, MAX_CONTROL);
    assert_reads_back(&connect, MAX_TARGET);
    let health = control::FromInit::Health {
        state: control::HealthState::Unhealthy,
        detail: samples::long_text(),
    };
    assert_reads_back(&health, MAX_CONTROL);
    let check = control::FromInit::SelfCheck {
        outcome: control::CheckOutcome::Failed,
        rule: Text::new("x".repeat(MAX_CODE)),
        detail: samples::long_text(),
        document: Bytes::new(vec![0xa5; MAX_DOCUMENT]).unwrap(),
    };
    assert_reads_back(&check, MAX_CONTROL);
    let loss = control::Loss {
        stream: logs::LogStream::Errors,
        reason: control::LossReason::Ended,
        records: u64::MAX,
    };
    let ending = control::FromInit::Ending {
        cause: control::EndCause::WorkloadExited(control::ExitStatus::Code(i32::MIN)),
        detail: samples::long_text(),
        code: Text::new("x".repeat(MAX_CODE)),
        losses: control::Losses(vec![loss; MAX_LOSSES]),
        numbered: vec![(logs::LogStream::Errors, u64::MAX); 4],
        workload: None,
    };
    assert_reads_back(&ending, MAX_CONTROL);
    let name = "x".repeat(MAX_NAME);
    let assert_fits = |data: &[u8], count: usize, workload: Option<&str>| {
        let record = Record {
            stream: logs::LogStream::Application,
            sequence: u64::MAX,
            time_us: u64::MAX,
            source: logs::Source::Stderr,
            continues: true,
            data,
            workload,
        };
        let records = vec![record; count];
        let message = logs::FromInit::Batch { records };
        let body = encode(&message, MAX_LOGS);
        assert_eq!(frame::decode::<logs::FromInit<'_>>(&body).unwrap(), message);
    };
    assert_fits(&vec![0xff; MAX_RECORD], 15, Some(&name));
    assert_fits(&[0xff; 64], MAX_BATCH_RECORDS, None);
    assert_fits(&[0xff; 32], MAX_BATCH_RECORDS, Some(&name));
}

#[test]
fn workload_of_a_record_is_a_name() {
    fn of(workload: &str) -> Result<(), FrameError> {
        let record = Record {
            stream: logs::LogStream::Application,
            sequence: 1,
            time_us: 1,
            source: logs::Source::Stdout,
            continues: false,
            data: b"x",
            workload: Some(workload),
        };
        let records = vec![record];
        let body = encode(&logs::FromInit::Batch { records }, MAX_LOGS);
        frame::decode::<logs::FromInit<'_>>(&body).map(drop)
    }
    of("web-1").unwrap();
    of(&"x".repeat(MAX_NAME)).unwrap();
    for wrong in ["", "Web", "a b", "a\n", "\u{e9}", &"x".repeat(MAX_NAME + 1)] {
        let error = of(wrong).unwrap_err();
        assert!(matches!(error, FrameError::Decode(_)), "{wrong}: {error}");
    }
}

/// Tries every truncation of a message and every value of each of its bytes: a
/// panic fails the test, and so does a message that cannot be sent again.
macro_rules! assert_damage_is_survived {
    ($messages:expr, $kind:ty, $limit:expr) => {
        for message in $messages {
            let body = encode(&message, $limit);
            for length in 0..body.len() {
                let cut = frame::decode::<$kind>(&body[..length]);
                assert!(
                    matches!(cut, Err(FrameError::Decode(_))),
                    "{message:?} cut to {length} bytes: {cut:?}"
                );
            }
            let longer = [body.as_slice(), &[0]].concat();
            let longer = frame::decode::<$kind>(&longer);
            assert!(matches!(longer, Err(FrameError::Trailing(1))), "{longer:?}");
            let mut damaged = body.clone();
            for position in 0..body.len() {
                for value in 0..=u8::MAX {
                    damaged[position] = value;
                    if let Ok(other) = frame::decode::<$kind>(&damaged) {
                        let again = encode(&other, $limit);
                        assert_eq!(frame::decode::<$kind>(&again).unwrap(), other);
                        assert_eq!(other == message, again == body, "{other:?}");
                    }
                }
                damaged[position] = body[position];
            }
        }
    };
}

#[test]
fn damaged_control_messages_are_refused_or_valid() {
    assert_damage_is_survived!(
        samples::every_control_from_init(),
        control::FromInit,
        MAX_CONTROL
    );
    assert_damage_is_survived!(
        samples::every_control_from_agent(),
        control::FromAgent,
        MAX_CONTROL
    );
}

#[test]
fn damaged_log_messages_are_refused_or_valid() {
    assert_damage_is_survived!(
        samples::every_logs_from_init(),
        logs::FromInit<'_>,
        MAX_LOGS
    );
    assert_damage_is_survived!(samples::every_stored(), logs::FromAgent, MAX_LOGS);
}

#[test]
fn damaged_targets_and_replies_are_refused_or_valid() {
    assert_damage_is_survived!(samples::every_connect(), Connect, MAX_TARGET);
    assert_damage_is_survived!(samples::every_reply(), Reply, MAX_TARGET);
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_valid(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = frame::decode::<control::FromInit>(&body);
        let _ = frame::decode::<control::FromAgent>(&body);
        let _ = frame::decode::<logs::FromInit<'_>>(&body);
        let _ = frame::decode::<logs::FromAgent>(&body);
        let _ = frame::decode::<Connect>(&body);
        let _ = frame::decode::<Reply>(&body);
    }
}

fn refusal<M: for<'b> Decode<'b, ()> + Debug>(body: &[u8]) -> String {
    frame::decode::<M>(body).unwrap_err().to_string()
}

#[test]
fn what_is_longer_than_its_type_allows_is_refused_with_the_limit() {
    let longer = Bytes::<{ MAX_DOCUMENT + 1 }>::new(vec![0; MAX_DOCUMENT + 1]).unwrap();
    let body = encode(&(4, (1, longer)), MAX_CONTROL);
    let error = refusal::<control::FromInit>(&body);
    assert!(
        error.contains("12289 bytes where at most 12288 are allowed"),
        "{error}"
    );

    let host = Text::<300>::new("x".repeat(254));
    let error = refusal::<Connect>(&encode(&(host, 1), MAX_TARGET));
    assert!(
        error.contains("a text of 254 bytes where at most 253 are allowed"),
        "{error}"
    );

    let data = vec![0; MAX_RECORD + 1];
    let fields = (
        logs::LogStream::Health,
        1,
        2,
        logs::Source::Init,
        false,
        data,
    );
    let error = refusal_of_logs(&encode(&samples::batch(&[fields]), MAX_LOGS));
    assert!(
        error.contains("65537 bytes where at most 65536 are allowed"),
        "{error}"
    );

    let fields = (
        logs::LogStream::Health,
        1,
        2,
        logs::Source::Init,
        false,
        vec![],
    );
    let fields = vec![fields; MAX_BATCH_RECORDS + 1];
    let error = refusal_of_logs(&encode(&samples::batch(&fields), MAX_LOGS));
    assert!(error.contains("more than the 8192 items"), "{error}");
    let body = encode(&samples::batch(&fields[1..]), MAX_LOGS);
    assert!(frame::decode::<logs::FromInit<'_>>(&body).is_ok());

    let last = vec![(logs::LogStream::Health, 1); 5];
    let error = refusal::<logs::FromAgent>(&encode(&logs::FromAgent::Stored { last }, MAX_LOGS));
    assert!(error.contains("more than the 4 items"), "{error}");

    let losses = control::Losses(vec![samples::some_losses().0[0]; MAX_LOSSES + 1]);
    let error =
        refusal::<control::FromInit>(&encode(&control::FromInit::Lost { losses }, MAX_CONTROL));
    assert!(error.contains("more than the 32 items"), "{error}");
}

fn refusal_of_logs(body: &[u8]) -> String {
    let decoded = frame::decode::<logs::FromInit<'_>>(body);
    decoded.unwrap_err().to_string()
}

/// What the version's promise rests on: fields that a later release adds at the
/// end are passed over, and optional ones may be absent.
#[test]
fn further_fields_are_passed_over_and_optional_ones_may_be_absent() {
    let body = encode(&(2, (23, "new", [1, 2, 3])), MAX_CONTROL);
    assert_eq!(
        frame::decode::<control::FromInit>(&body).unwrap(),
        control::FromInit::Ready { at_us: 23 }
    );
    // `[2, []]`: a shutdown with the manifest's own grace.
    assert_eq!(
        frame::decode::<control::FromAgent>(&[0x82, 0x02, 0x80]).unwrap(),
        control::FromAgent::Shutdown { grace_ms: None }
    );
    let missing = refusal::<control::FromInit>(&[0x82, 0x02, 0x80]);
    assert!(missing.contains("at_us"), "{missing}");
    let unknown = refusal::<control::FromInit>(&[0x82, 0x17, 0x80]);
    assert!(unknown.contains("unknown"), "{unknown}");
}

/// A challenge's fields of protocol version 1, as [id, nonce, user data, public key].
#[test]
fn a_challenge_carries_a_nonce_and_nothing_else() {
    let bytes = |text: &str| Bytes::<9>::new(text.as_bytes()).unwrap();
    let body = encode(
        &(1, (7, bytes("nonce"), bytes("data"), bytes("key"))),
        MAX_CONTROL,
    );
    let challenge = control::FromAgent::Challenge {
        id: 7,
        nonce: Bytes::new(*b"nonce").unwrap(),
    };
    assert_eq!(
        frame::decode::<control::FromAgent>(&body).unwrap(),
        challenge
    );
    assert_eq!(
        encode(&challenge, MAX_CONTROL),
        encode(&(1, (7, bytes("nonce"))), MAX_CONTROL)
    );
    let missing = refusal::<control::FromAgent>(&[0x82, 0x01, 0x81, 0x07]);
    assert!(missing.contains("nonce"), "{missing}");
    let null = refusal::<control::FromAgent>(&[0x82, 0x01, 0x82, 0x07, 0xf6]);
    assert!(null.contains("expected bytes"), "{null}");
}

#[test]
fn credentials_are_refused_beyond_their_limits_and_without_being_shown() {
    let fields = |id: &str, secret: &str, token: &str, region: &str| {
        let text = |text: &str| Text::<70_000>::new(text);
        encode(
            &(3, [(text(id), text(secret), text(token), 1, text(region))]),
            MAX_CONTROL,
        )
    };
    let good = fields("id", "secret", "", "eu-west-1");
    let message = frame::decode::<control::FromAgent>(&good).unwrap();
    assert!(matches!(message, control::FromAgent::Credentials(_)));
    let long = "k".repeat(MAX_SECRET_ACCESS_KEY + 1);
    for secret in [long.as_str(), "hush hush", "hush\n", "hush\0", "hüsch"] {
        let error = refusal::<control::FromAgent>(&fields("id", secret, "", "eu-west-1"));
        let expected = "a secret that is not at most 256 visible ASCII characters";
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("hush") && !error.contains("kkk"), "{error}");
    }
    for body in [
        fields(&"k".repeat(129), "secret", "", ""),
        fields("id", "secret", &"k".repeat(16_385), ""),
        fields("id", "secret", "", &"k".repeat(65)),
    ] {
        let error = refusal::<control::FromAgent>(&body);
        assert!(error.contains("at most"), "{error}");
        assert!(!error.contains("kkk"), "{error}");
    }
}

#[test]
fn secrets_are_never_printed() {
    let credentials = control::FromAgent::Credentials(samples::some_credentials());
    let printed = format!("{credentials:?} {credentials:#?}");
    for secret in ["ASIA", "wJalr", "IQoJ"] {
        assert!(!printed.contains(secret), "{printed}");
    }
    assert!(printed.contains("Secret(20 of at most 128)"), "{printed}");
    assert_eq!(Secret::<3>::new("keys"), None);
    assert_eq!(&*Secret::<4>::new("keys").unwrap(), "keys");
}

#[test]
fn a_text_is_cut_between_characters() {
    assert_eq!(&*Text::<5>::new("abcdé"), "abcd");
    assert_eq!(&*Text::<6>::new("abcdé"), "abcdé");
    assert_eq!(&*Text::<0>::new("é"), "");
    assert_eq!(Text::<9>::new("abc").to_string(), "abc");
}

#[test]
fn bytes_are_refused_above_their_limit_and_never_printed() {
    assert_eq!(Bytes::<3>::new(*b"key").unwrap().into_vec(), b"key");
    assert_eq!(Bytes::<3>::new(*b"keys"), None);
    let secret = Bytes::<9>::new(*b"secret").unwrap();
    assert_eq!(format!("{secret:?}"), "Bytes(6 of at most 9)");
}
