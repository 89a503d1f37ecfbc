//! Shows that no log line is lost: `cargo xtask endurance`.
//!
//! A workload under `sim`, or in QEMU, prints numbered lines as fast as they are taken. They
//! go to CloudWatch Logs, simulated by a server that checks every call, while the
//! agent is killed again and again and the service fails in every way. Then
//! enclaves are killed, and all that their agents had acknowledged must arrive.

#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command's output"
)]

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use enclave_tests::{Agent, Hypervisor, Programs, Workload};
use nix::sys::signal::{Signal, kill};
use test_support::cloudwatch::{Check, CloudWatch, Fault};
use tokio::time::sleep;

/// What the agent gets between two kills at least.
const SHORTEST_LIFE: Duration = Duration::from_millis(50);
/// How the service fails, for a while each.
const FAULTS: [Fault; 5] = [
    Fault::Down,
    Fault::Throttled,
    Fault::ServerError,
    Fault::Hang,
    Fault::TakenButNotAnswered,
];
/// Longest and shortest time of one fault, and of the calm after it.
const FAULT_MS: std::ops::Range<u64> = 100..3_000;
const CALM_MS: std::ops::Range<u64> = 500..4_000;
/// Longest and shortest life of an enclave that is killed.
const ENCLAVE_MS: std::ops::Range<u64> = 300..3_000;
/// How long nothing may arrive, beyond the first outage.
const STUCK: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(100);
/// Lines that an enclave does not get to print before it is killed.
const ENDLESS: u64 = 1_000_000_000;
/// The agent's exit code when the enclave has died.
const DIED: i32 = 12;

/// Kills agents and enclaves and fails the service while lines flow, and checks
/// each line.
#[derive(Parser)]
struct Args {
    /// Lines that the workload prints, 100 bytes each.
    #[arg(long, default_value_t = 1_000_000)]
    lines: u64,
    /// How often the agent is killed.
    #[arg(long, default_value_t = 10)]
    kills: u32,
    /// How many enclaves are killed.
    #[arg(long, default_value_t = 5)]
    enclaves: u32,
    /// Seconds for which the service is down at first.
    #[arg(long, default_value_t = 10)]
    outage: u64,
    /// In QEMU instead of under sim.
    #[arg(long)]
    qemu: bool,
    /// An emulator of CloudWatch Logs that is to take the events.
    #[arg(long, value_name = "ADDR:PORT")]
    emulator: Option<SocketAddr>,
}

impl Args {
    fn hypervisor(&self) -> Hypervisor {
        if self.qemu {
            Hypervisor::Qemu
        } else {
            Hypervisor::Sim
        }
    }

    /// What the command line of the process that is the enclave holds.
    fn machine(&self) -> &'static str {
        match self.hypervisor() {
            Hypervisor::Sim => "sim-pid1",
            Hypervisor::Qemu => "nitro-enclave",
        }
    }
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
async fn main() -> ExitCode {
    match run(&Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("log-endurance: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> anyhow::Result<()> {
    let programs = Programs::from_environment()?;
    let folder = tempfile::tempdir()?;
    let tables = "\n[logs]\nwhen_full = \"block\"\n";
    let image = Workload::build_with(&programs, &folder.path().join("image"), tables)?;
    agents_killed(args, &programs, &image).await?;
    for _ in 0..args.enclaves {
        enclave_killed(args, &programs, &image).await?;
    }
    Ok(())
}

async fn agents_killed(args: &Args, programs: &Programs, image: &Workload) -> anyhow::Result<()> {
    let arrived = Arc::new(Arrived::default());
    let service = CloudWatch::start_checked(args.emulator, check(&arrived)).await?;
    let outage = Duration::from_secs(args.outage);
    service.fail(Fault::Down);
    let start = Instant::now();
    let mut agent = start_agent(args, programs, image, args.lines, &service)?;
    let mut faults = Faults::new(outage);
    let mut kills = 0;
    let mut next_kill = Instant::now() + life(args, &faults)?;
    let (mut last, mut moved) = (0, Instant::now());
    while arrived.done.get().is_none() {
        sleep(POLL).await;
        service.counts()?;
        faults.step(&service)?;
        if kills < args.kills && Instant::now() >= next_kill {
            agent.kill().await?;
            agent.run_again()?;
            kills += 1;
            next_kill = Instant::now() + life(args, &faults)?;
        }
        let now = arrived.next.load(Ordering::Relaxed);
        if now > last {
            (last, moved) = (now, Instant::now());
        }
        ensure!(
            moved.elapsed() < STUCK + outage,
            "nothing arrives any more, after {now} of {} lines",
            args.lines
        );
    }
    let seconds = start.elapsed().as_secs_f64();
    service.fail(Fault::None);
    let ended = agent.stopped().await?;
    ensure!(ended.code == Some(0), "the agent ended: {}", ended.end());

    let counts = service.counts()?;
    let lines = arrived.next.load(Ordering::Relaxed);
    ensure!(
        lines == args.lines,
        "{lines} of {} lines arrived",
        args.lines
    );
    ensure!(
        kills == args.kills,
        "the lines were through before the last kill: give more --lines"
    );
    let fill = counts.fill / counts.batches.max(1);
    println!("{lines} lines of 100 bytes in {seconds:.0} s: each arrived, in order, byte for byte");
    println!(
        "  the agent was killed {kills} times; the service failed {} times, down for {} s at first",
        faults.count, args.outage
    );
    println!(
        "  {} calls, {} failed; {} % full on average; {} events came again",
        counts.batches + counts.failed,
        counts.failed,
        fill / 10,
        arrived.repeated.load(Ordering::Relaxed)
    );
    Ok(())
}

/// Kills an enclave that prints, and compares what the spool holds with what has
/// arrived when its agent has ended.
async fn enclave_killed(args: &Args, programs: &Programs, image: &Workload) -> anyhow::Result<()> {
    let arrived = Arc::new(Arrived::default());
    let service = CloudWatch::start_checked(args.emulator, check(&arrived)).await?;
    let mut agent = start_agent(args, programs, image, ENDLESS, &service)?;
    agent.ready().await?;
    let life = random(ENCLAVE_MS)?;
    sleep(Duration::from_millis(life)).await;
    for process in agent.processes(args.machine())? {
        kill(process, Signal::SIGKILL)?;
    }
    agent.event(|event| event["event"] == "ended").await?;
    let kept = agent
        .logs(&["--stream", "application", "--lines", "1"])
        .await?;
    let ended = agent.ended().await?;
    ensure!(ended.code == Some(DIED), "the agent ended: {}", ended.end());
    service.counts()?;
    let kept = String::from_utf8_lossy(&kept);
    let last = kept
        .split_ascii_whitespace()
        .find_map(|word| (word.len() == 10).then(|| word.parse::<u64>().ok())?)
        .with_context(|| format!("no line of the workload in {kept:?}"))?;
    let lines = arrived.next.load(Ordering::Relaxed);
    ensure!(
        lines == last + 1,
        "the spool holds {} lines, and {lines} arrived",
        last + 1
    );
    println!("an enclave killed after {life} ms: all {lines} lines that the spool held arrived");
    Ok(())
}

fn start_agent(
    args: &Args,
    programs: &Programs,
    image: &Workload,
    lines: u64,
    service: &CloudWatch,
) -> anyhow::Result<Agent> {
    let environment = [
        ("AWS_ENDPOINT_URL", service.url().to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_ACCESS_KEY_ID", "test".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
    ];
    let arguments = [
        "--keep-for",
        "1m",
        "--sink",
        "cloudwatch",
        "--log-max-size",
        "8GiB",
    ];
    let role = format!("load {lines}");
    Agent::start_with(
        programs,
        image,
        args.hypervisor(),
        &role,
        &arguments,
        &environment,
    )
}

/// Every line is the next one, or one that has been there before; nothing else
/// may differ in a byte.
fn check(arrived: &Arc<Arrived>) -> Check {
    let arrived = Arc::clone(arrived);
    let rest = "x".repeat(88);
    Box::new(move |stream, _, message| {
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
            let index = usize::try_from(random(0..FAULTS.len() as u64)?)?;
            FAULTS.get(index).copied().context("no fault")?
        } else {
            Fault::None
        };
        service.fail(fault);
        Ok(())
    }
}

/// How long the agent lives until it is killed: half of the kills fall into the
/// first outage, the others come fast while the service takes lines.
fn life(args: &Args, faults: &Faults) -> anyhow::Result<Duration> {
    let longest = if faults.count == 1 {
        args.outage * 4000 / u64::from(args.kills.max(1))
    } else {
        1000
    };
    Ok(SHORTEST_LIFE + Duration::from_millis(random(0..longest)?))
}

fn random(range: std::ops::Range<u64>) -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes)
        .ok()
        .context("no randomness")?;
    let width = range.end.saturating_sub(range.start).max(1);
    Ok(range.start + u64::from_le_bytes(bytes) % width)
}
