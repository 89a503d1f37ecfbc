//! Log records on standard output.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use link::BootId;
use link::frame::{MAX_LOGS, Reader, Writer};
use link::logs::{FromAgent, FromInit, LogStream, Record, Source};
use link::{Channel, Stream};

use tokio::io::{ReadHalf, WriteHalf};

use crate::agent::{Agent, command, output};
use crate::image::Builder;

pub(crate) fn record(stream: LogStream, sequence: u64, data: &[u8]) -> Record<'_> {
    Record {
        stream,
        sequence,
        time_us: 1_767_225_600_000_001,
        source: Source::Stdout,
        continues: false,
        data,
        workload: None,
    }
}

/// A log connection that has said which boot it is of.
pub(crate) struct Connection {
    reader: Reader<ReadHalf<Stream>>,
    writer: Writer<WriteHalf<Stream>>,
}

impl Connection {
    pub(crate) async fn open(agent: &Agent) -> Self {
        Self::open_with(agent).await.0
    }

    /// Also says what the agent holds already.
    pub(crate) async fn open_with(agent: &Agent) -> (Self, Vec<(LogStream, u64)>) {
        Self::of_with(agent.open(Channel::Logs).await).await
    }

    pub(crate) async fn of(stream: Stream) -> Self {
        Self::of_with(stream).await.0
    }

    async fn of_with(stream: Stream) -> (Self, Vec<(LogStream, u64)>) {
        let (read, write) = tokio::io::split(stream);
        let mut connection = Self {
            reader: Reader::new(read, MAX_LOGS),
            writer: Writer::new(write, MAX_LOGS),
        };
        let boot = BootId::new(vec![1; 16]).unwrap();
        connection
            .writer
            .send(&FromInit::Open { boot })
            .await
            .unwrap();
        let stored = connection.stored().await;
        (connection, stored)
    }

    /// Sends records and returns what is then held.
    pub(crate) async fn send(&mut self, records: Vec<Record<'_>>) -> Vec<(LogStream, u64)> {
        self.writer
            .send(&FromInit::Batch { records })
            .await
            .unwrap();
        self.stored().await
    }

    async fn stored(&mut self) -> Vec<(LogStream, u64)> {
        let FromAgent::Stored { last } = self.reader.receive().await.unwrap().unwrap();
        last
    }
}

#[tokio::test]
async fn logs_are_printed_once_across_connections() {
    use LogStream::{Application, System};
    let mut agent = Agent::start(&[]).await;
    let first = vec![record(Application, 1, b"one"), record(System, 1, b"booted")];
    let mut connection = Connection::open(&agent).await;
    assert_eq!(
        connection.send(first).await,
        [(Application, 1), (System, 1)]
    );
    let mut connection = Connection::open(&agent).await;
    let again = vec![
        record(Application, 1, b"one"),
        record(Application, 2, b"\xff\0"),
    ];
    assert_eq!(
        connection.send(again).await,
        [(Application, 2), (System, 1)]
    );
    let one = agent.event("log").await;
    assert_eq!(one["text"], "one");
    assert_eq!(one["time"], "2026-01-01T00:00:00.000001Z");
    assert_eq!(one["source"], "stdout");
    assert_eq!(agent.event("log").await["stream"], "system");
    let bytes = agent.event("log").await;
    assert_eq!(bytes["sequence"], 2);
    assert_eq!(
        STANDARD.decode(bytes["base64"].as_str().unwrap()).unwrap(),
        b"\xff\0"
    );
    assert_eq!(agent.status().await["logs"]["records"], 3);
    agent.end_init(0).await;
    agent.ended().await;
}

#[tokio::test]
async fn logs_sent_before_the_end_are_printed() {
    let mut agent = Agent::start(&[]).await;
    let lines: Vec<_> = (1..=5000).map(|number| format!("line {number}")).collect();
    let records: Vec<_> = lines
        .iter()
        .zip(1..)
        .map(|(line, sequence)| record(LogStream::Application, sequence, line.as_bytes()))
        .collect();
    let mut connection = Connection::open(&agent).await;
    // Records are acknowledged once they are printed, and more than a pipe
    // holds is printed only as it is read.
    let printed = async {
        agent.end_init(0).await;
        for line in &lines {
            assert_eq!(agent.event("log").await["text"], *line);
        }
    };
    let (last, ()) = tokio::join!(connection.send(records), printed);
    assert_eq!(last, [(LogStream::Application, 5000)]);
    drop(connection);
    agent.ended().await;
}

#[tokio::test]
async fn logs_for_people_are_lines_on_standard_output() {
    let folder = tempfile::tempdir().unwrap();
    let image = Builder::new(&[], &[])
        .init(Some("#!/bin/sh\necho hello\nexit 5\n"))
        .write(folder.path());
    let mut run = command(folder.path(), "run");
    run.arg(image).args(["--hypervisor", "sim", "--console"]);
    let ended = output(run).await;
    assert_eq!(ended.status.code(), Some(11));
    assert_eq!(ended.stdout, b"");
    let text = String::from_utf8(ended.stderr).unwrap();
    for part in [
        "enclave     test (sim)\n",
        "\nPCR0        ",
        "console | hello\n",
        "the console's last lines:\n  hello\n",
        "ended       boot failed: enclave-init ended with code 5 before it was ready",
        "(exit code 11)\n",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

#[tokio::test]
async fn logs_to_a_closed_standard_output_do_not_end_the_enclave() {
    let folder = tempfile::tempdir().unwrap();
    let image = Builder::new(&[], &[]).write(folder.path());
    let mut run = command(folder.path(), "run");
    run.arg(image)
        .args(["--hypervisor", "sim", "--json"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null());
    let mut child = run.spawn().unwrap();
    drop(child.stdout.take());
    let end = folder.path().join("s/test/vsock/end");
    crate::agent::until(|| end.exists()).await;
    std::fs::write(end, "3\n").unwrap();
    assert_eq!(child.wait().await.unwrap().code(), Some(11));
    crate::agent::nothing_is_left(&folder).await;
}
