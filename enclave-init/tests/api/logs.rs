//! The workload's output, byte for byte, whatever the agent does.

use std::fs;
use std::io::Write;

use link::control::FromInit;
use link::logs::{LogStream, MAX_RECORD, Source};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::agent::{Agent, Behaviour, Received};
use crate::enclave::{Enclave, Image, LIMIT, message, until};

/// Bytes of one source as they were written, but for the last line's end.
fn joined(records: &[Received], source: Source) -> Vec<u8> {
    let mut bytes = Vec::new();
    for record in records.iter().filter(|record| record.source == source) {
        assert!(record.data.len() <= MAX_RECORD);
        bytes.extend(&record.data);
        if !record.continues {
            bytes.push(b'\n');
        }
    }
    bytes
}

fn assert_numbered(enclave: &Enclave) {
    for stream in LogStream::ALL {
        for (expected, record) in (1..).zip(enclave.records(stream)) {
            assert_eq!(record.sequence, expected, "{}", stream.name());
        }
    }
}

/// Every byte value, empty lines, lines around the limit, no end at the end.
fn output() -> Vec<u8> {
    let mut bytes = b"first\n\n\n".to_vec();
    bytes.extend(0..=255_u8);
    for length in [MAX_RECORD - 1, MAX_RECORD, MAX_RECORD + 1, 3 * MAX_RECORD] {
        bytes.push(b'\n');
        bytes.extend((0..length).map(|index| b'a' + u8::try_from(index % 25).unwrap()));
    }
    bytes.extend(b"\nlast");
    bytes
}

#[tokio::test]
async fn logs_arrive_byte_for_byte() {
    let (out, err) = (output(), b"\xff\0error\nunfinished".to_vec());
    let mut enclave = Image::new(&["print /out /err", "exit 0"])
        .file("out", out.clone())
        .file("err", err.clone())
        .start();
    let _control = enclave.control().await;
    let (code, _) = enclave.ended().await;
    assert_eq!(code, 0);
    let records = enclave.records(LogStream::Application);
    assert_eq!(
        joined(&records, Source::Stdout),
        [out.as_slice(), b"\n"].concat()
    );
    assert_eq!(
        joined(&records, Source::Stderr),
        [err.as_slice(), b"\n"].concat()
    );
    assert_numbered(&enclave);
    assert_eq!(*enclave.prepared.agent.shared.repeated.lock().unwrap(), 0);
}

fn assert_flood(enclave: &Enclave, lines: usize) {
    let records = enclave.records(LogStream::Application);
    assert_eq!(records.len(), lines);
    for (number, record) in records.iter().enumerate() {
        assert_eq!(record.data, format!("{number:0>99}").as_bytes());
    }
    assert_numbered(enclave);
}

#[tokio::test]
async fn logs_are_neither_lost_nor_twice_when_connections_break_anywhere() {
    // In the opening, in a frame's length, in a batch, between batches.
    let mut cuts = vec![0, 3, 21, 25, 100];
    let mut random = 12_345_u64;
    cuts.extend((0..15).map(|_| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        random >> 45
    }));
    let count = cuts.len();
    let mut enclave = Image::new(&["flood 12000", "say done", "until /end"])
        .agent(|agent| agent.cuts = cuts)
        .start();
    let _control = enclave.control().await;
    enclave.said("done").await;
    fs::write(enclave.path("end"), "").unwrap();
    let (code, _) = enclave.ended().await;
    assert_eq!(code, 0);
    let mut records = enclave.records(LogStream::Application);
    records.pop();
    for (number, record) in records.iter().enumerate() {
        assert_eq!(record.data, format!("{number:0>99}").as_bytes());
    }
    assert_eq!(records.len(), 12_000);
    assert_numbered(&enclave);
    let seen = enclave.prepared.agent.shared.seen.lock().unwrap().clone();
    let connections = seen
        .iter()
        .filter(|seen| **seen == crate::agent::Seen::Logs);
    assert!(connections.count() > count / 2, "{seen:?}");
}

#[tokio::test]
async fn logs_that_nobody_takes_hold_a_workload_back_that_may_block() {
    // Four times what the init keeps.
    let lines = 160_000;
    let flood = format!("flood {lines}");
    let mut enclave = Image::new(&[&flood, "exit 0"])
        .with("/logs/when_full", json!("block"))
        .agent(|agent| agent.takes_logs = false)
        .start();
    let _control = enclave.control().await;
    enclave.blocks().await;
    enclave.prepared.agent.shared.batches.add_permits(1_000_000);
    let (code, _) = enclave.ended().await;
    assert_eq!(code, 0);
    assert_flood(&enclave, lines);
    assert_eq!(enclave.lines(LogStream::Errors), [""; 0]);
}

#[tokio::test]
async fn logs_that_nobody_takes_hold_no_other_workload_back() {
    let flood = ["until /go", "flood 160000", "mark /end", "wait"];
    let mut enclave = Image::new(&flood)
        .agent(|agent| agent.takes_logs = false)
        .start();
    let _control = enclave.control().await;
    fs::write(enclave.path("go"), "").unwrap();
    let end = enclave.path("end");
    until(|| end.exists()).await;
    enclave.prepared.agent.shared.batches.add_permits(1_000_000);
    let line = enclave.line(LogStream::Errors, "were dropped").await;
    assert!(line.contains("dropped from application, numbers"), "{line}");
    enclave.signal(Signal::SIGTERM);
    let (code, _) = enclave.ended().await;
    assert_eq!(code, 0);
    let records = enclave.records(LogStream::Application);
    assert_eq!(records.last().unwrap().sequence, 160_000);
}

#[tokio::test]
async fn logs_in_compressed_batches_are_the_same_bytes() {
    let out = output();
    let mut enclave = Image::new(&["print /out", "flood 20000", "exit 0"])
        .with("/logs/compression", json!("zstd"))
        .file("out", [out.as_slice(), b"\n"].concat())
        .start();
    let _control = enclave.control().await;
    let (code, _) = enclave.ended().await;
    assert_eq!(code, 0);
    let records = enclave.records(LogStream::Application);
    let mut expected = [out.as_slice(), b"\n"].concat();
    for number in 0..20_000 {
        writeln!(expected, "{number:0>99}").unwrap();
    }
    assert!(joined(&records, Source::Stdout) == expected);
    assert_numbered(&enclave);
    assert!(*enclave.prepared.agent.shared.compressed.lock().unwrap() > 0);
}

#[tokio::test]
async fn redact_takes_secrets_out_and_lines_that_belong_together_are_joined() {
    let out = "Error: token=abc123\n\tat main\nError: {\n{\"password\":\"x\",\"a\":1}\n";
    let mut enclave = Image::new(&["print /out /err", "exit 0"])
        .with("/logs/multiline", json!({"start": "^Error"}))
        .with(
            "/logs/redact",
            json!([
                {"pattern": "token=[a-z0-9]+", "with": "token=?"},
                {"json_fields": ["password"]},
            ]),
        )
        .file("out", out)
        .file("err", "token=abc123")
        .start();
    let _control = enclave.control().await;
    let (code, _) = enclave.ended().await;
    assert_eq!(code, 0);
    let records = enclave.records(LogStream::Application);
    let texts = |source| -> Vec<_> {
        let records = records.iter().filter(|record| record.source == source);
        records.map(Received::text).collect()
    };
    assert_eq!(
        texts(Source::Stdout),
        [
            "Error: token=?\n\tat main",
            "Error: {\n{\"password\":\"***\",\"a\":1}"
        ]
    );
    assert_eq!(texts(Source::Stderr), ["token=?"]);
}

#[tokio::test]
async fn logs_release_never_keeps_names_of_refused_destinations_inside() {
    for (release, leaves) in [("always", true), ("never", false)] {
        let mut enclave = Image::new(&["name secret.test 1", "exit 0"])
            .with("/logs/release", json!(release))
            .start();
        let _control = enclave.control().await;
        let (code, _) = enclave.ended().await;
        assert_eq!(code, 0);
        let text = enclave.lines(LogStream::System).join("\n");
        assert!(text.contains("is not in the image's egress list"), "{text}");
        assert_eq!(text.contains("secret.test"), leaves, "{text}");
    }
}

#[tokio::test]
async fn logs_without_an_agent_drop_and_count_the_oldest() {
    let image = Image::new(&["until /go", "flood 160000", "say done", "mark /end", "wait"]);
    let (mut enclave, mut control) = image.boot().await;
    message(&mut control, |message| match message {
        FromInit::Ready { .. } => Some(()),
        _ => None,
    })
    .await;
    enclave.line(LogStream::Health, "healthy").await;
    drop(control);
    enclave.prepared.agent.stop().await;
    fs::write(enclave.path("go"), "").unwrap();
    // The workload waits for nobody: it comes to its end.
    let end = enclave.path("end");
    until(|| end.exists()).await;
    enclave.prepared.agent = Agent::start(&enclave.folder().join("sockets"), Behaviour::default());
    enclave.said("done").await;
    let line = enclave
        .line(LogStream::Errors, "log records were dropped")
        .await;
    let dropped: u64 = line.split(' ').next().unwrap().parse().unwrap();
    let records = enclave.records(LogStream::Application);
    let first = records.first().unwrap();
    let lost = first.sequence - 1;
    assert!(
        lost > 0 && dropped >= lost,
        "{line}, first is {}",
        first.sequence
    );
    for (expected, record) in (first.sequence..).zip(&records) {
        assert_eq!(record.sequence, expected);
    }
    assert_eq!(records.last().unwrap().sequence, 160_001);
}

#[tokio::test]
async fn logs_release_keeps_lines_inside() {
    let flood = ["say secret", "flood 100000", "exit 7"];
    for (release, is_debug, leaves) in [
        ("never", false, false),
        ("never", true, false),
        ("debug-only", false, false),
        ("debug-only", true, true),
    ] {
        let image = Image::new(&flood).with("/logs/release", json!(release));
        let image = if is_debug { image.debug() } else { image };
        let mut enclave = image.start();
        let _control = enclave.control().await;
        let (code, console) = enclave.ended().await;
        assert_eq!(code, 1);
        assert!(console.contains("exit code 7"), "{console}");
        let records = enclave.records(LogStream::Application);
        assert_eq!(!records.is_empty(), leaves, "{release} {is_debug}");
        if !leaves {
            enclave
                .line(LogStream::System, "keeps the workload's lines inside")
                .await;
        }
    }
}

#[tokio::test]
async fn logs_for_a_dead_agent_do_not_hold_up_the_end() {
    let (mut enclave, mut control) = Image::new(&["flood 1000", "wait"]).boot().await;
    message(&mut control, |message| match message {
        FromInit::Ready { .. } => Some(()),
        _ => None,
    })
    .await;
    drop(control);
    enclave.prepared.agent.stop().await;
    enclave.signal(Signal::SIGTERM);
    let (code, console) = tokio::time::timeout(LIMIT, enclave.ended()).await.unwrap();
    assert_eq!(code, 0);
    assert!(
        console.contains("did not take the last log records"),
        "{console}"
    );
}

#[tokio::test]
async fn acknowledgements_of_what_was_never_sent_lose_nothing() {
    use link::frame::{MAX_LOGS, Reader, Writer};
    use link::logs::{FromAgent, FromInit};

    let mut prepared = Image::new(&["until /go", "say kept", "wait"]).prepare();
    let sockets = prepared.folder.path().join("sockets");
    // An agent that claims everything, until it is replaced.
    prepared.agent.stop().await;
    prepared.agent = Agent::start(&sockets, Behaviour::default());
    let (mut enclave, taken) = (prepared.start(), sockets.join("host_7000"));
    let _control = enclave.control().await;
    enclave.line(LogStream::System, "workload started").await;
    enclave.prepared.agent.stop().await;
    let listener = link::Listener::bind(&link::Endpoint::Unix { path: taken }).unwrap();
    let stream = loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        if let Ok(link::Channel::Logs) =
            link::hello::accept(&mut stream, |channel| channel == link::Channel::Logs).await
        {
            break stream;
        }
    };
    let (read, write) = tokio::io::split(stream);
    let (mut reader, mut writer) = (Reader::new(read, MAX_LOGS), Writer::new(write, MAX_LOGS));
    let Some(FromInit::Open { .. }) = reader.receive().await.unwrap() else {
        panic!("no opening");
    };
    let last: Vec<_> = LogStream::ALL
        .into_iter()
        .map(|stream| (stream, u64::MAX))
        .collect();
    writer.send(&FromAgent::Stored { last }).await.unwrap();
    fs::write(enclave.path("go"), "").unwrap();
    let found = async {
        while let Some(FromInit::Batch { records }) = reader.receive().await.unwrap() {
            if records.iter().any(|record| record.data == b"kept") {
                return true;
            }
        }
        false
    };
    assert!(tokio::time::timeout(LIMIT, found).await.unwrap());
}
