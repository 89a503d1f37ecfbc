//! Shows that no log line is lost: `cargo xtask logs`.
//!
//! A workload under `sim` prints numbered lines as fast as they are taken. They
//! go to CloudWatch Logs, played by a server that checks every call, while the
//! agent is killed again and again and the service fails in every way.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a command's output")]

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Parser;
use enclave_tests::cloudwatch::{Check, CloudWatch, Fault};
use enclave_tests::{Hypervisor, Programs, Workload};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// What the agent gets between two kills at least.
const SHORTEST_LIFE: Duration = Duration::from_millis(50);
/// Longest and shortest time of one fault, and of the calm after it.
const FAULT_MS: std::ops::Range<u64> = 100..3_000;
const CALM_MS: std::ops::Range<u64> = 500..4_000;
/// How long nothing may arrive, while nothing is made to fail.
const STUCK: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(100);
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// Bytes of a line with its end.
const LINE_BYTES: u64 = 100;

/// Kills the agent and fails the service while lines flow, and checks each line.
#[derive(Parser)]
struct Args {
    /// Lines that the workload prints, 100 bytes each.
    #[arg(long, default_value_t = 1_000_000)]
    lines: u64,
    /// How often the agent is killed.
    #[arg(long, default_value_t = 50)]
    kills: u32,
    /// Seconds for which the service is down at first.
    #[arg(long, default_value_t = 10)]
    outage: u64,
    /// An emulator of CloudWatch Logs that is to take the events.
    #[arg(long, value_name = "ADDR:PORT")]
    emulator: Option<SocketAddr>,
}

/// How far the lines have come at the service.
#[derive(Default)]
struct Arrived {
    /// The number of the next line; also how many have arrived.
    next: AtomicU64,
    repeated: AtomicU64,
    done: OnceLock<()>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let programs = Programs::from_environment()?;
    let folder = tempfile::tempdir()?;
    let tables = "\n[logs]\nwhen_full = \"block\"\n";
    let image = Workload::build_with(&programs, &folder.path().join("image"), tables)?;

    let arrived = Arc::new(Arrived::default());
    let service = CloudWatch::start(args.emulator, check(&arrived)).await?;
    let agent = Agent {
        programs,
        image: image.path,
        folder: folder.path().to_owned(),
        url: service.url(),
    };
    fs::write(folder.path().join("role"), format!("load {}", args.lines))?;

    let start = Instant::now();
    service.fail(Fault::Down);
    let mut child = agent.run()?;
    let mut faults = Faults::new(Duration::from_secs(args.outage));
    let mut kills = 0;
    let mut next_kill = Instant::now() + life()?;
    let (mut last, mut moved) = (0, Instant::now());
    while arrived.done.get().is_none() {
        sleep(POLL).await;
        service.counts()?;
        faults.step(&service)?;
        if kills < args.kills && Instant::now() >= next_kill {
            child.start_kill()?;
            child.wait().await?;
            kills += 1;
            child = agent.run()?;
            next_kill = Instant::now() + life()?;
        }
        if let Some(status) = child.try_wait()? {
            bail!("the agent ended: {status}; {}", agent.last_words());
        }
        let now = arrived.next.load(Ordering::Relaxed);
        if now > last {
            (last, moved) = (now, Instant::now());
        }
        let quiet = moved.elapsed();
        ensure!(
            quiet < STUCK + Duration::from_secs(args.outage),
            "nothing has arrived for {} s, after {now} of {} lines; {}",
            quiet.as_secs(),
            args.lines,
            agent.last_words()
        );
    }
    let took = start.elapsed();
    service.fail(Fault::None);
    let status = agent.command("status", &["--json"]).await?;
    agent.command("stop", &[]).await?;
    let ended = timeout(STOP_LIMIT, child.wait()).await??;
    ensure!(ended.success(), "the agent ended: {ended}");

    let counts = service.counts()?;
    let lines = arrived.next.load(Ordering::Relaxed);
    ensure!(
        lines == args.lines,
        "{lines} of {} lines arrived",
        args.lines
    );
    let seconds = took.as_secs_f64();
    println!("{lines} lines of {LINE_BYTES} bytes: each arrived, in order, byte for byte");
    println!(
        "  agent killed {kills} times, {} faults, {} calls failed",
        faults.count, counts.failed
    );
    println!(
        "  {} PutLogEvents calls, on average {}.{} % full, {} events repeated",
        counts.batches,
        counts.fill / counts.batches.max(1) / 10,
        counts.fill / counts.batches.max(1) % 10,
        arrived.repeated.load(Ordering::Relaxed)
    );
    println!("  took {seconds:.1} s");
    ensure!(
        kills == args.kills,
        "the lines were through before the last kill: give --lines more"
    );
    drop(status);
    Ok(())
}

/// Every line is the next one, or one that has been there before; nothing else
/// may differ in a byte.
fn check(arrived: &Arc<Arrived>) -> Check {
    let arrived = Arc::clone(arrived);
    let rest = "x".repeat(88);
    Box::new(move |stream, message| {
        if stream != "application" {
            return Ok(());
        }
        if message == "done" {
            let _ = arrived.done.set(());
            return Ok(());
        }
        let number = message
            .strip_suffix(&rest)
            .and_then(|number| number.strip_suffix(' '))
            .filter(|number| number.len() == 10)
            .and_then(|number| number.parse::<u64>().ok())
            .with_context(|| format!("no line of the workload: {message:?}"))?;
        let next = arrived.next.load(Ordering::Relaxed);
        ensure!(
            number <= next,
            "after line {next} comes {number}: lines are lost"
        );
        if number == next {
            arrived.next.store(next + 1, Ordering::Relaxed);
        } else {
            arrived.repeated.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    })
}

/// The faults of the service, one after the other.
struct Faults {
    failing: bool,
    until: Instant,
    count: u32,
}

impl Faults {
    fn new(outage: Duration) -> Self {
        Self {
            failing: true,
            until: Instant::now() + outage,
            count: 1,
        }
    }

    fn step(&mut self, service: &CloudWatch) -> anyhow::Result<()> {
        if Instant::now() < self.until {
            return Ok(());
        }
        self.failing = !self.failing;
        let range = if self.failing { FAULT_MS } else { CALM_MS };
        self.until = Instant::now() + Duration::from_millis(random(range)?);
        let fault = if self.failing {
            self.count += 1;
            let index = usize::try_from(random(0..Fault::ALL.len() as u64)?)?;
            Fault::ALL.get(index).copied().context("no fault")?
        } else {
            Fault::None
        };
        service.fail(fault);
        Ok(())
    }
}

/// How long the agent lives until it is killed.
fn life() -> anyhow::Result<Duration> {
    Ok(SHORTEST_LIFE + Duration::from_millis(random(0..2_000)?))
}

fn random(range: std::ops::Range<u64>) -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes)
        .ok()
        .context("no randomness")?;
    let width = range.end.saturating_sub(range.start).max(1);
    Ok(range.start + u64::from_le_bytes(bytes) % width)
}

/// How the agent is started, time and again.
struct Agent {
    programs: Programs,
    image: PathBuf,
    folder: PathBuf,
    url: String,
}

impl Agent {
    fn run(&self) -> anyhow::Result<Child> {
        let path = |name: &str| self.folder.join(name);
        let stderr = fs::File::options()
            .create(true)
            .append(true)
            .open(path("stderr"))?;
        Command::new(self.programs.path("parent-agent"))
            .arg("run")
            .arg(&self.image)
            .args(self.programs.hypervisor(Hypervisor::Sim))
            .args(["--json", "--keep-for", "1m", "--sink", "cloudwatch"])
            .args(["--publish", "127.0.0.1:0:8080", "--log-max-size", "8GiB"])
            .arg("--log-dir")
            .arg(path("logs"))
            .arg("--state-dir")
            .arg(path("state"))
            .arg("--runtime-config")
            .arg(path("role"))
            .env("AWS_ENDPOINT_URL", &self.url)
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start parent-agent")
    }

    async fn command(&self, command: &str, arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
        let output = Command::new(self.programs.path("parent-agent"))
            .arg(command)
            .arg("--state-dir")
            .arg(self.folder.join("state"))
            .args(arguments)
            .kill_on_drop(true)
            .output();
        let output = timeout(STOP_LIMIT, output).await??;
        ensure!(
            output.status.success(),
            "parent-agent {command}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(output.stdout)
    }

    fn last_words(&self) -> String {
        last_lines(&self.folder.join("stderr"))
    }
}

fn last_lines(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(5);
    lines.get(from..).unwrap_or_default().join("\n")
}
