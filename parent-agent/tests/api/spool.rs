//! The spool as an operator meets it: `parent-agent logs`, files, full and
//! read-only disks, metrics.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use link::logs::LogStream;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::agent::{Agent, command, error_line, output};
use crate::image::Builder;
use crate::logs::{Connection, record};

fn directory(folder: &Path) -> PathBuf {
    folder.join("logs/enclaves/test/logs")
}

/// What `parent-agent logs` prints.
async fn logs(folder: &Path, arguments: &[&str]) -> Vec<String> {
    let mut logs = logs_command(folder);
    logs.args(arguments);
    let output = output(logs).await;
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn logs_command(folder: &Path) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_parent-agent"));
    command
        .arg("logs")
        .env("XDG_STATE_HOME", folder.join("logs"))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

async fn send(connection: &mut Connection, stream: LogStream, sequence: u64, text: &str) {
    connection
        .send(vec![record(stream, sequence, text.as_bytes())])
        .await;
}

#[tokio::test]
async fn logs_are_shown_while_the_enclave_runs_and_after_its_end() {
    use LogStream::{Application, System};
    let agent = Agent::start(&[]).await;
    let mut connection = Connection::open(&agent).await;
    send(&mut connection, Application, 1, "one").await;
    send(&mut connection, System, 1, "clock set").await;
    send(&mut connection, Application, 2, "two").await;
    let folder = agent.folder.path().to_owned();
    let text = logs(&folder, &[]).await;
    assert_eq!(text.len(), 3);
    assert_eq!(text[0], "2026-01-01T00:00:00.000001Z application | one");
    assert_eq!(logs(&folder, &["--stream", "system"]).await.len(), 1);
    let last = logs(&folder, &["--lines", "1", "--json"]).await;
    let last: Value = serde_json::from_str(&last[0]).unwrap();
    assert_eq!(last["text"], "two");
    assert_eq!(
        logs(&folder, &["--since", "2026-01-02T00:00:00Z"])
            .await
            .len(),
        0
    );
    assert_eq!(
        logs(&folder, &["--since", "2025-12-31T00:00:00Z"])
            .await
            .len(),
        3
    );

    let mut follow = logs_command(&folder);
    let mut follow = follow
        .args(["--follow", "--lines", "1", "--name", "test"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    let mut next = async || lines.next_line().await.unwrap().unwrap();
    assert!(next().await.ends_with("| two"));
    send(&mut connection, Application, 3, "three").await;
    assert!(next().await.ends_with("| three"));

    agent.end_init(3).await;
    drop(connection);
    let mut agent = agent;
    let ended = agent.event("ended").await;
    // The boot failed: the report carries what was logged last.
    assert_eq!(ended["logs"]["application"][2], "three");
    assert_eq!(ended["logs"]["system"][0], "clock set");
    assert_eq!(logs(&folder, &["--name", "test"]).await.len(), 4);
    let directory = directory(&folder).display().to_string();
    assert_eq!(logs(&folder, &["--log-dir", &directory]).await.len(), 4);
}

#[tokio::test]
async fn logs_say_what_to_do_where_there_are_none() {
    let folder = tempfile::tempdir().unwrap();
    let mut none = logs_command(folder.path());
    none.arg("--name").arg("payments");
    let output_none = output(none).await;
    assert_eq!(output_none.status.code(), Some(1));
    assert!(error_line(&output_none).contains("--log-dir"));
    let output_any = output(logs_command(folder.path())).await;
    assert!(error_line(&output_any).contains("no enclave has logs"));
}

#[tokio::test]
async fn spool_in_use_and_bad_options_are_refused_before_anything_starts() {
    let agent = Agent::start(&[]).await;
    let folder = tempfile::tempdir().unwrap();
    let image = Builder::new(&[], &[]).write(folder.path());
    let spool = directory(agent.folder.path());
    let mut second = command(folder.path(), "run");
    second
        .arg(&image)
        .args(["--hypervisor", "sim", "--log-dir"])
        .arg(&spool);
    let refused = output(second).await;
    assert_eq!(refused.status.code(), Some(4));
    assert!(error_line(&refused).contains("in use by another agent"));
    for arguments in [
        ["--sink", "kafka:x"],
        ["--sink", "file:/"],
        ["--log-max-size", "1MiB"],
        ["--log-max-age", "7"],
        ["--log-retention-days", "8"],
        ["--metrics", "0.0.0.0:9464"],
    ] {
        let mut run = command(folder.path(), "run");
        run.arg(&image)
            .args(["--hypervisor", "sim"])
            .args(arguments);
        let refused = output(run).await;
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}");
    }
    agent.end_init(0).await;
    agent.ended().await;
}

#[tokio::test]
async fn sink_file_and_standard_output_work_at_the_same_time() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("records.log");
    let sink = format!("file:{},size=1KiB,keep=100", file.display());
    let mut agent = Agent::spawn_in(
        folder,
        Builder::new(&[], &[]),
        &["--sink", &sink, "--sink", "stdout"],
    );
    agent.until_init_waits().await;
    let mut connection = Connection::open(&agent).await;
    for sequence in 1..=100 {
        let text = format!("line {sequence}");
        send(&mut connection, LogStream::Application, sequence, &text).await;
    }
    for sequence in 1..=100 {
        assert_eq!(agent.event("log").await["text"], format!("line {sequence}"));
    }
    agent.end_init(0).await;
    drop(connection);
    agent.event("ended").await;
    let mut files: Vec<_> = std::fs::read_dir(agent.folder.path())
        .unwrap()
        .filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let rest = name.strip_prefix("records.log")?;
            Some((rest.trim_start_matches('.').parse().unwrap_or(0_u32), name))
        })
        .collect();
    files.sort_unstable();
    let mut texts = Vec::new();
    for (_, name) in files.iter().rev() {
        let text = std::fs::read_to_string(agent.folder.path().join(name)).unwrap();
        texts.extend(text.lines().filter_map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            // The agent's own record of the end is there too.
            let text = line["text"].as_str().unwrap().to_owned();
            (line["stream"] == "application").then_some(text)
        }));
    }
    let expected: Vec<_> = (1..=100).map(|number| format!("line {number}")).collect();
    assert_eq!(texts, expected);
}

#[tokio::test]
async fn metrics_are_served_on_the_socket_and_on_loopback() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let agent = Agent::start(&["--metrics", &address.to_string()]).await;
    let mut connection = Connection::open(&agent).await;
    send(&mut connection, LogStream::Application, 1, "one").await;
    let (code, body) = agent.request("GET", "/metrics", "").await;
    assert_eq!(code, 200);
    let text = String::from_utf8(body).unwrap();
    assert!(text.contains("\nenclave_logs_records_total 1\n"), "{text}");
    assert!(text.contains("enclave_logs_sink_lag_seconds{sink=\"stdout\""));
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"));
    assert!(answer.contains("enclave_logs_spool_bytes "));
    agent.end_init(0).await;
    agent.ended().await;
}

/// Mounts a small file system at its first argument, and becomes the rest.
const ON_A_SMALL_DISK: &str = "mount -t tmpfs -o size=24m none \"$0\" && exec \"$@\"";

#[tokio::test]
async fn spool_on_a_full_disk_holds_records_up_until_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let run = command(folder.path(), "run");
    // A mount namespace of its own: the disk goes with the agent.
    let mut wrapped = tokio::process::Command::new("unshare");
    wrapped
        .args(["--user", "--map-root-user", "--mount"])
        .args(["sh", "-c", ON_A_SMALL_DISK])
        .arg(&disk)
        .arg(run.as_std().get_program())
        .args(run.as_std().get_args())
        .kill_on_drop(true);
    for (name, value) in run.as_std().get_envs() {
        wrapped.env(name, value.unwrap_or_default());
    }
    let path = disk.join("spool").display().to_string();
    let mut agent = Agent::spawn_command(
        folder,
        Builder::new(&[], &[]),
        wrapped,
        &["--log-dir", &path],
    );
    agent.until_init_waits().await;
    // The agent's own view of the disk.
    let disk = PathBuf::from(format!("/proc/{}/root{}", agent.pid(), disk.display()));
    let mut connection = Connection::open(&agent).await;
    send(&mut connection, LogStream::Application, 1, "before").await;
    let ballast = disk.join("ballast");
    let filled = std::fs::write(&ballast, vec![0; 32 << 20]).unwrap_err();
    assert_eq!(filled.kind(), std::io::ErrorKind::StorageFull);
    let data = vec![b'x'; 60_000];
    let records = vec![
        record(LogStream::Application, 2, &data),
        record(LogStream::Application, 3, b"after"),
    ];
    let sending = async {
        let stored = connection.send(records).await;
        assert_eq!(stored, [(LogStream::Application, 3)]);
    };
    let freeing = async {
        let mut status = agent.status().await;
        while status["logs"]["spool"]["error"].is_null() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            status = agent.status().await;
        }
        let error = status["logs"]["spool"]["error"].as_str().unwrap();
        assert!(error.contains("No space left"), "{error}");
        std::fs::remove_file(&ballast).unwrap();
    };
    tokio::join!(sending, freeing);
    let status = agent.status().await;
    assert!(status["logs"]["spool"]["error"].is_null());
    let spool = disk.join("spool").display().to_string();
    let kept = logs(agent.folder.path(), &["--log-dir", &spool]).await;
    let ends: Vec<_> = kept
        .iter()
        .filter(|line| line.contains(" application "))
        .map(String::len)
        .collect();
    assert_eq!(ends.len(), 3, "{ends:?}");
    for text in ["before", "after"] {
        while agent.event("log").await["text"] != text {}
    }
    agent.end_init(0).await;
    drop(connection);
    agent.event("ended").await;
}
