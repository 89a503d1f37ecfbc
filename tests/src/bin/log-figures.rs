//! Measures the log pipeline from the workload's pipe on: how long one line takes,
//! lines a second into the spool, processor time a line, and the memory that
//! draining a backlog takes: `cargo xtask bench logs`.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "its purpose")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use enclave_tests::{Agent, Hypervisor, Programs, Workload, process};
use serde_json::Value;
use test_support::cloudwatch::CloudWatch;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

/// Lines for the rate: of 100 bytes.
const LINES: u64 = 3_000_000;
/// Lines for the backlog: 1 GiB of the spool.
const BACKLOG: u64 = 8_900_000;
const POLL: Duration = Duration::from_millis(50);
const MIB: u64 = 1024 * 1024;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let programs = Programs::from_environment()?;
    let folder = tempfile::tempdir()?;
    let image = Workload::build(&programs, folder.path())?;
    one_line(&programs, &image).await?;
    rate(&programs, &image).await?;
    backlog(&programs, &image).await
}

/// From the enclave's clock to CloudWatch Logs, which first has to make the
/// group and the stream.
async fn one_line(programs: &Programs, image: &Workload) -> anyhow::Result<()> {
    let (times, mut time) = watch::channel(None);
    let check = move |_: &str, time_ms: i64, message: &str| {
        if message == "done" {
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
            times.send_replace(Some(i64::try_from(now)? - time_ms));
        }
        Ok(())
    };
    let service = CloudWatch::start_checked(None, Box::new(check)).await?;
    let agent = start(programs, image, 0, service.url())?;
    let took = time.wait_for(Option::is_some).await?.unwrap_or_default();
    service.counts()?;
    show("one line under no load", format!("{took} ms"));
    agent.stopped().await?;
    Ok(())
}

/// From the workload to the spool, with a destination that is not there.
async fn rate(programs: &Programs, image: &Workload) -> anyhow::Result<()> {
    let mut agent = start(programs, image, LINES, "http://127.0.0.1:9")?;
    let (lines, elapsed, spent) = fill(&mut agent, LINES).await?;
    show("lines a second into the spool", per_second(lines, elapsed));
    let nanoseconds = spent.as_nanos() / u128::from(lines.max(1));
    show("agent: processor time a line", format!("{nanoseconds} ns"));
    show(
        "agent: peak memory",
        mib(process::memory(agent.pid()?, "VmHWM")?),
    );
    agent.stopped().await?;
    Ok(())
}

/// A backlog that builds up while the destination is away, and is then drained.
async fn backlog(programs: &Programs, image: &Workload) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    let (up, is_up) = watch::channel(false);
    let server = tokio::spawn(serve(listener, is_up));
    let mut agent = start(programs, image, BACKLOG, &endpoint)?;
    fill(&mut agent, BACKLOG).await?;
    let bytes = number(&agent.status().await?, "/logs/spool/bytes")?;
    show("backlog on disk", mib(bytes));
    let start = Instant::now();
    up.send_replace(true);
    let status = loop {
        let status = agent.status().await?;
        if number(&status, "/logs/sinks/0/records")? >= BACKLOG {
            break status;
        }
        sleep(POLL).await;
    };
    show(
        "drained at lines a second",
        per_second(BACKLOG, start.elapsed()),
    );
    let fill = status
        .pointer("/logs/sinks/0/mean_fill")
        .and_then(Value::as_f64);
    show(
        "mean fill of its batches",
        fill.context("the status has no fill")?,
    );
    show(
        "agent: peak memory",
        mib(process::memory(agent.pid()?, "VmHWM")?),
    );
    agent.stopped().await?;
    server.abort();
    Ok(())
}

fn start(
    programs: &Programs,
    image: &Workload,
    lines: u64,
    endpoint: &str,
) -> anyhow::Result<Agent> {
    let environment = [
        ("AWS_ENDPOINT_URL", endpoint.to_owned()),
        ("AWS_REGION", "us-west-2".to_owned()),
        ("AWS_ACCESS_KEY_ID", "test".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
    ];
    let arguments = ["--sink", "cloudwatch", "--log-max-size", "4GiB"];
    let role = format!("load {lines}");
    Agent::start_with(
        programs,
        image,
        Hypervisor::Sim,
        &role,
        &arguments,
        &environment,
    )
}

/// Waits until all lines are in the spool: how many came while it waited, how
/// long that took, and the agent's processor time meanwhile.
async fn fill(agent: &mut Agent, lines: u64) -> anyhow::Result<(u64, Duration, Duration)> {
    agent.ready().await?;
    let (start, spent) = (Instant::now(), process::processor_time(agent.pid()?)?);
    let before = number(&agent.status().await?, "/logs/records")?;
    while number(&agent.status().await?, "/logs/records")? < lines {
        sleep(POLL).await;
    }
    Ok((
        lines.saturating_sub(before),
        start.elapsed(),
        process::processor_time(agent.pid()?)?.saturating_sub(spent),
    ))
}

/// CloudWatch Logs that takes everything, once it is up. It reads nothing of what it
/// takes: it shares its processors with what is measured.
async fn serve(listener: TcpListener, is_up: watch::Receiver<bool>) {
    while let Ok((stream, _)) = listener.accept().await {
        let is_up = is_up.clone();
        tokio::spawn(async move {
            // A client that goes away ends its connection only.
            let _ = answer(stream, is_up).await;
        });
    }
}

async fn answer(stream: TcpStream, is_up: watch::Receiver<bool>) -> anyhow::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut body = Vec::new();
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            ensure!(stream.read_line(&mut line).await? > 0, "the end");
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
            if line.is_empty() {
                break;
            }
        }
        body.resize(length, 0);
        stream.read_exact(&mut body).await?;
        let answer: &[u8] = if *is_up.borrow() {
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
        } else {
            b"HTTP/1.1 503 Away\r\ncontent-length: 2\r\n\r\n{}"
        };
        stream.write_all(answer).await?;
    }
}

fn number(status: &Value, pointer: &str) -> anyhow::Result<u64> {
    let number = status.pointer(pointer).and_then(Value::as_u64);
    number.with_context(|| format!("the status has no {pointer}"))
}

fn per_second(lines: u64, elapsed: Duration) -> String {
    let milliseconds = u64::try_from(elapsed.as_millis())
        .unwrap_or(u64::MAX)
        .max(1);
    (lines.saturating_mul(1000) / milliseconds).to_string()
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes / MIB)
}

fn show(what: &str, value: impl std::fmt::Display) {
    println!("{what:<40} {value}");
}
