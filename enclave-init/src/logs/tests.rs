//! The log channel as a whole, against parents that come and go.

use std::collections::BTreeMap;

use link::logs::{Decompressor, Record};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

use super::*;

fn logs(config: Value) -> Logs {
    Logs::new(serde_json::from_value(config).unwrap(), false)
}

#[test]
fn redaction_of_a_commands_output_is_by_all_of_it() {
    let rules = json!([
        {"pattern": "(?s)BEGIN.*END", "with": "[key]"},
        {"json_fields": ["password"]},
    ]);
    let redacting = logs(json!({"release": "always", "redact": rules}));
    let told = |logs: &Logs, text: &[u8], is_whole| {
        logs.with_output("it says".to_owned(), Excerpt { text, is_whole })
    };
    for (text, is_whole, line) in [
        (&b"\n \nrefused\nmore"[..], true, "it says: refused"),
        (b"a BEGIN\nsecret\nEND\n", true, "it says: a [key]"),
        (
            b"{\"password\":\"x\"}\nmore",
            true,
            "it says: {\"password\":\"***\"}",
        ),
        // Its end would have made it a secret.
        (b"BEGIN secret", false, "it says"),
        (b"refused\nBEGIN secret", false, "it says: refused"),
        (b"refused\n", false, "it says: refused"),
        (b"", true, "it says"),
    ] {
        assert_eq!(told(&redacting, text, is_whole), line);
    }
    let plain = logs(json!({"release": "always"}));
    assert_eq!(
        told(&plain, b"BEGIN secret", false),
        "it says: BEGIN secret"
    );
    let kept = logs(json!({"release": "never"}));
    assert_eq!(told(&kept, b"refused\n", true), "it says");
}

/// One whose time passes when nothing else is left to do.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
}

/// What the parent holds.
#[derive(Debug, Default)]
struct Parent {
    last: BTreeMap<LogStream, u64>,
    /// Whether it names the streams the other way round.
    reverses: bool,
    /// Every record that came and was new, by stream.
    received: BTreeMap<LogStream, Vec<(u64, Vec<u8>)>>,
}

impl Parent {
    /// Takes records until so many bytes have come, wherever that is.
    async fn take(&mut self, connection: DuplexStream, bytes: u64) -> Result<(), FrameError> {
        let (reader, writer) = tokio::io::split(connection);
        let mut reader = Reader::new(reader.take(bytes), MAX_LOGS);
        let mut writer = Writer::new(writer, MAX_LOGS);
        let Some(FromInit::Open { .. }) = reader.receive().await? else {
            return Ok(());
        };
        let mut decompressor = Decompressor::new()?;
        loop {
            let mut last: Vec<_> = self.last.clone().into_iter().collect();
            if self.reverses {
                last.reverse();
            }
            writer.send(&FromAgent::Stored { last }).await?;
            let Some(message) = reader.receive().await? else {
                return Ok(());
            };
            for record in decompressor.records(message)?.unwrap() {
                self.store(&record);
            }
        }
    }

    fn store(&mut self, record: &Record<'_>) {
        let last = self.last.entry(record.stream).or_default();
        if record.sequence > *last {
            *last = record.sequence;
            let received = self.received.entry(record.stream).or_default();
            received.push((record.sequence, record.data.to_vec()));
        }
    }

    /// One connection, from its opening until one side ends it or the parent
    /// holds everything.
    async fn connect(&mut self, logs: &Logs, bytes: u64, ends_when_held: bool) {
        let (near, far) = duplex(16 * 1024);
        let held = async {
            if !ends_when_held {
                std::future::pending::<()>().await;
            }
            logs.drain().await;
        };
        tokio::select! {
            _ = logs.serve(near, BootId::new([7; 16]).unwrap()) => {}
            _ = self.take(far, bytes) => {}
            () = held => {}
        }
    }

    fn texts(&self, stream: LogStream) -> Vec<String> {
        let received = self.received.get(&stream).into_iter().flatten();
        received
            .map(|(_, data)| String::from_utf8_lossy(data).into_owned())
            .collect()
    }
}

/// Writes lines and closes.
fn write(lines: Vec<Vec<u8>>) -> DuplexStream {
    let (mut near, far) = duplex(64 * 1024);
    tokio::spawn(async move {
        for line in lines {
            near.write_all(&line).await.unwrap();
            near.write_all(b"\n").await.unwrap();
        }
    });
    far
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever connections break, and wherever: every line arrives, once and in
    /// order, but for what a parent has forgotten itself.
    #[test]
    fn every_line_arrives_across_connections_that_break_anywhere(
        lengths in prop::collection::vec(prop_oneof![9 => 0_usize..300, 1 => 0_usize..140_000], 1..150),
        connections in prop::collection::vec(
            (prop_oneof![0_u64..200, 0_u64..400_000], prop_oneof![2 => Just(0), 1 => 0_u64..20]), 0..10),
        reverses: bool,
        zstd: bool,
    ) {
        let lines: Vec<Vec<u8>> = lengths
            .iter()
            .enumerate()
            .map(|(number, &length)| format!("{number}:{}", "x".repeat(length)).into_bytes())
            .collect();
        let compression = if zstd { "zstd" } else { "none" };
        let mut parent = Parent { reverses, ..Parent::default() };
        let mut forgotten = 0;
        runtime().block_on(async {
            let logs = logs(json!({"when_full": "block", "buffer": "1MiB", "compression": compression}));
            let carrying = tokio::spawn(logs.clone().carry(write(lines.clone()), Source::Stdout));
            for (bytes, forgets) in connections {
                logs.system("connecting");
                parent.connect(&logs, bytes, true).await;
                for last in parent.last.values_mut() {
                    forgotten += forgets.min(*last);
                    *last = last.saturating_sub(forgets);
                }
            }
            // The last one goes on until all is written and held.
            let parent = &mut parent;
            tokio::select! {
                () = parent.connect(&logs, u64::MAX, false) => panic!("the connection ended"),
                () = async {
                    carrying.await.unwrap();
                    logs.drain().await;
                } => {}
            }
        });
        let mut received = parent.received.remove(&LogStream::Application).unwrap_or_default();
        if forgotten == 0 {
            prop_assert!(received.is_sorted_by_key(|(number, _)| *number));
        }
        // A forgetful parent gets some again.
        received.sort();
        received.dedup();
        let numbers = received.iter().map(|(number, _)| *number);
        prop_assert!(numbers.eq(1..=received.len() as u64), "a record is missing or differs");
        let pieces = received.iter().flat_map(|(_, data)| data.clone()).collect::<Vec<_>>();
        prop_assert_eq!(pieces, lines.concat());
    }
}

/// Lines of 1000 bytes.
fn long_lines(count: usize) -> Vec<Vec<u8>> {
    (0..count)
        .map(|number| format!("{number:0>1000}").into_bytes())
        .collect()
}

#[test]
fn without_a_parent_the_oldest_give_way_after_a_second() {
    runtime().block_on(async {
        let logs = logs(json!({"buffer": "1MiB"}));
        let begun = Instant::now();
        let lines = long_lines(3000);
        logs.clone().carry(write(lines.clone()), Source::Stdout).await;
        assert_eq!(begun.elapsed(), queue::PATIENCE, "it waits once");
        let mut parent = Parent::default();
        parent.connect(&logs, u64::MAX, true).await;
        let received = &parent.received[&LogStream::Application];
        let first = received.first().unwrap().0;
        assert!(received.iter().map(|(number, _)| *number).eq(first..=3000));
        assert_eq!(received.last().unwrap().1, lines[2999]);
        assert_eq!(
            parent.texts(LogStream::Errors),
            [format!(
                "{0} log records were dropped from application, numbers 1 to {0}: the parent did not take them and the buffer was full",
                first - 1
            )]
        );
    });
}

#[test]
fn a_parent_that_takes_a_little_at_a_time_loses_nothing() {
    runtime().block_on(async {
        let logs = logs(json!({"buffer": "1MiB"}));
        let carrying = tokio::spawn(logs.clone().carry(write(long_lines(5000)), Source::Stdout));
        let mut parent = Parent::default();
        // Longer than the patience in total, never at once.
        while !(carrying.is_finished() && logs.queue().is_empty()) {
            sleep(queue::PATIENCE / 2).await;
            parent.connect(&logs, 600_000, true).await;
        }
        assert_eq!(parent.received[&LogStream::Application].len(), 5000);
        assert_eq!(parent.texts(LogStream::Errors), [""; 0]);
    });
}

#[test]
fn a_writer_that_is_to_block_waits_for_as_long_as_it_takes() {
    runtime().block_on(async {
        let logs = logs(json!({"buffer": "1MiB", "when_full": "block"}));
        let mut carrying =
            tokio::spawn(logs.clone().carry(write(long_lines(3000)), Source::Stdout));
        assert!(
            timeout(Duration::from_secs(86_400), &mut carrying)
                .await
                .is_err()
        );
        let mut parent = Parent::default();
        tokio::select! {
            () = parent.connect(&logs, u64::MAX, false) => panic!("the connection ended"),
            carried = carrying => carried.unwrap(),
        }
        parent.connect(&logs, u64::MAX, true).await;
        assert_eq!(parent.received[&LogStream::Application].len(), 3000);
    });
}

#[test]
fn lines_that_are_joined_leave_when_none_follows() {
    runtime().block_on(async {
        let logs = logs(json!({"multiline": {"start": "^S"}}));
        let (mut output, far) = duplex(1024);
        tokio::spawn(logs.clone().carry(far, Source::Stderr));
        let mut parent = Parent::default();
        for (text, expected) in [
            ("S1\n a\n", "S1\n a"),
            (" b\nS2", " b"),
            ("\n c\n d\n", "S2\n c\n d"),
        ] {
            output.write_all(text.as_bytes()).await.unwrap();
            sleep(JOIN_TIMEOUT * 2).await;
            parent.connect(&logs, u64::MAX, true).await;
            assert_eq!(
                parent.texts(LogStream::Application).last().unwrap(),
                expected
            );
        }
    });
}

#[test]
fn secrets_are_taken_out_of_the_inits_own_records_too() {
    runtime().block_on(async {
        let logs = logs(json!({"redact": [{"pattern": "key-[0-9]+"}]}));
        logs.error("egress: key-123.example.com:443 is not in the image's egress list");
        let mut parent = Parent::default();
        parent.connect(&logs, u64::MAX, true).await;
        let expected = ["egress: ***.example.com:443 is not in the image's egress list"];
        assert_eq!(parent.texts(LogStream::Errors), expected);
        assert_eq!(parent.texts(LogStream::System), expected);
    });
}

#[test]
fn what_may_not_leave_is_read_and_forgotten() {
    for (release, is_debug, leaves) in [
        ("always", false, true),
        ("debug-only", false, false),
        ("debug-only", true, true),
        ("never", true, false),
    ] {
        runtime().block_on(async {
            let config = json!({"release": release, "when_full": "block", "buffer": "1MiB"});
            let logs = Logs::new(serde_json::from_value(config).unwrap(), is_debug);
            assert_eq!(logs.is_released(), leaves);
            let count = if leaves { 10 } else { 5000 };
            logs.clone()
                .carry(write(long_lines(count)), Source::Stdout)
                .await;
            assert_eq!(logs.queue().is_empty(), !leaves);
        });
    }
}

#[test]
fn a_stall_is_told_from_slowness() {
    runtime().block_on(async {
        let (logs, limit) = (logs(json!({})), Duration::from_secs(5));
        // Nothing to take is no stall, however long ago that was.
        assert!(timeout(limit * 10, logs.stalled(limit)).await.is_err());
        logs.system("one");
        sleep(limit * 10).await;
        let begun = Instant::now();
        logs.stalled(limit).await;
        assert_eq!(begun.elapsed(), limit, "the parent gets its time");
        let slow = async {
            for _ in 0..5 {
                sleep(limit * 4 / 5).await;
                Parent::default().connect(&logs, u64::MAX, true).await;
                logs.system("another");
            }
        };
        tokio::select! {
            () = logs.stalled(limit) => panic!("it was only slow"),
            () = slow => {}
        }
    });
}
