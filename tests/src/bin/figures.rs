//! Measures what `SPECIFICATION.md` promises, and says whether it holds:
//! `cargo xtask figures`.
//!
//! Times depend on the machine and on what else it does. Nothing here is a test:
//! the exit code says only whether everything could be measured.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a command's output")]

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use enclave_tests::agent::Ended;
use enclave_tests::{Agent, Hypervisor, Programs, Workload, process};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::net::TcpSocket;
use tokio::time::sleep;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
/// How often what varies is measured.
const ROUNDS: usize = 5;
/// Lines that the log measurements print.
const LINES: usize = 200_000;
/// Connections that do nothing.
const IDLE_CONNECTIONS: u64 = 1000;
/// What the agent gets to open them.
const OPENING_LIMIT: Duration = Duration::from_secs(60);
/// What the enclave gets to come to rest.
const REST: Duration = Duration::from_secs(1);

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let programs = Programs::from_environment()?;
    let folder = tempfile::tempdir()?;
    println!("{:<52} {:>12}  {:>12}", "", "measured", "promised");

    sizes(&programs)?;
    let image = reproducibility(&programs, folder.path()).await?;
    memory(&programs, &image).await?;
    for hypervisor in Hypervisor::ALL {
        boots(&programs, &image, hypervisor).await?;
    }
    logs(&programs, &image).await?;
    second_demo(&programs)?;
    Ok(())
}

/// One line: the figure, and the limit that it must not exceed, if there is one.
fn show(what: &str, measured: &str, promised: Option<(&str, bool)>) {
    match promised {
        Some((limit, held)) => {
            let verdict = if held { "ok" } else { "NOT HELD" };
            println!("{what:<52} {measured:>12}  {limit:>12}  {verdict}");
        }
        None => println!("{what:<52} {measured:>12}"),
    }
}

fn bytes(count: u64) -> String {
    let tenths = count.saturating_mul(10) / MIB;
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

fn time(duration: Duration) -> String {
    format!("{} ms", duration.as_millis())
}

fn sizes(programs: &Programs) -> anyhow::Result<()> {
    for (name, limit) in [("enclave-init", 6 * MIB), ("parent-agent", 24 * MIB)] {
        let path = programs.path(name);
        let size = fs::metadata(&path)?.len();
        let limit_text = bytes(limit);
        show(
            &format!("{name}: size of the program"),
            &bytes(size),
            Some((&limit_text, size <= limit)),
        );
        // The kernel loads an interpreter for a program that names one.
        let is_static = !has_interpreter(&fs::read(&path)?).context("not an ELF program")?;
        show(
            &format!("{name}: statically linked"),
            if is_static { "yes" } else { "no" },
            Some(("yes", is_static)),
        );
    }
    Ok(())
}

/// Whether an ELF program has a `PT_INTERP` header (System V ABI, chapter 5).
fn has_interpreter(elf: &[u8]) -> Option<bool> {
    let number = |offset: usize, size: usize| -> Option<usize> {
        let mut number = [0; 8];
        let field = elf.get(offset..offset.checked_add(size)?)?;
        number.get_mut(..size)?.copy_from_slice(field);
        usize::try_from(u64::from_le_bytes(number)).ok()
    };
    let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for index in 0..count {
        if number(table.checked_add(index.checked_mul(size)?)?, 4)? == 3 {
            return Some(true);
        }
    }
    Some(false)
}

/// Builds the image twice, in other folders and some time apart.
async fn reproducibility(programs: &Programs, folder: &Path) -> anyhow::Result<Workload> {
    let start = Instant::now();
    let first = Workload::build(programs, &folder.join("first"))?;
    let took = start.elapsed();
    sleep(REST).await;
    let second = Workload::build(programs, &folder.join("another folder"))?;
    let same = fs::read(&first.path)? == fs::read(&second.path)?;
    show(
        "image-builder: two builds give the same bytes",
        if same { "yes" } else { "no" },
        Some(("yes", same)),
    );
    let size = fs::metadata(&first.path)?.len();
    show(
        &format!("image-builder: time for an image of {}", bytes(size)),
        &time(took),
        None,
    );
    Ok(first)
}

async fn memory(programs: &Programs, image: &Workload) -> anyhow::Result<()> {
    let mut agent = Agent::start(programs, image, Hypervisor::Sim, "serve", &[])?;
    agent.ready().await?;
    sleep(REST).await;
    let idle = [agent.pid()?, init(&agent)?].map(|pid| process::memory(pid, "VmRSS"));
    agent.stopped().await?;
    for ((name, limit), idle) in [("parent-agent", 25 * MIB), ("enclave-init", 8 * MIB)]
        .into_iter()
        .zip(idle)
    {
        let idle = idle?;
        let limit_text = bytes(limit);
        show(
            &format!("{name}: resident memory, idle"),
            &bytes(idle),
            Some((&limit_text, idle <= limit)),
        );
    }

    idle_connections(programs, image).await?;

    let role = format!("lines {LINES}");
    let mut agent = Agent::start(programs, image, Hypervisor::Sim, &role, &[])?;
    agent.line("done").await?;
    let peak = process::memory(init(&agent)?, "VmHWM")?;
    agent.stopped().await?;
    let limit = 8 * MIB;
    let limit_text = bytes(limit);
    show(
        &format!("enclave-init: peak memory, {LINES} log lines"),
        &bytes(peak),
        Some((&limit_text, peak <= limit)),
    );
    Ok(())
}

/// What connections from outside cost while nothing goes over them. One client may not
/// have so many, so they are of two.
async fn idle_connections(programs: &Programs, image: &Workload) -> anyhow::Result<()> {
    let mut agent = Agent::start(programs, image, Hypervisor::Sim, "serve", &[])?;
    let address = agent.ready().await?;
    let mut idle = Vec::new();
    for number in 0..IDLE_CONNECTIONS {
        let socket = TcpSocket::new_v4()?;
        let client = Ipv4Addr::new(127, 0, 0, 2 + u8::from(number % 2 == 0));
        socket.bind((client, 0).into())?;
        idle.push(socket.connect(address).await?);
    }
    let start = Instant::now();
    loop {
        let status = agent.status().await?;
        let open = status
            .pointer("/ingress/0/open")
            .context("the status does not count open connections")?;
        if *open == IDLE_CONNECTIONS {
            break;
        }
        ensure!(
            start.elapsed() < OPENING_LIMIT,
            "of {IDLE_CONNECTIONS} connections only {open} are open"
        );
        sleep(REST).await;
    }
    sleep(REST).await;
    let memory = process::memory(init(&agent)?, "VmRSS")?;
    drop(idle);
    agent.stopped().await?;
    let limit = 8 * MIB + IDLE_CONNECTIONS * 20 * KIB;
    let limit_text = bytes(limit);
    show(
        &format!("enclave-init: memory, {IDLE_CONNECTIONS} idle connections"),
        &bytes(memory),
        Some((&limit_text, memory <= limit)),
    );
    Ok(())
}

/// PID 1 of a simulated enclave.
fn init(agent: &Agent) -> anyhow::Result<Pid> {
    let found = agent.processes("sim-pid1")?;
    found.first().copied().context("no init")
}

async fn boots(
    programs: &Programs,
    image: &Workload,
    hypervisor: Hypervisor,
) -> anyhow::Result<()> {
    let (mut first_lines, mut readies, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    let mut execs = Vec::new();
    let mut steps = Vec::new();
    for _ in 0..ROUNDS {
        let mut agent = Agent::start(programs, image, hypervisor, "serve", &[])?;
        agent.line("listening").await?;
        let ready = agent.event(|event| event["event"] == "ready").await?;
        readies.push(Duration::from_millis(milliseconds(&ready, "elapsed_ms")?));
        let start = Instant::now();
        let ended = agent.stopped().await?;
        ends.push(start.elapsed());
        first_lines.push(first_line(&ended)?);
        steps = step_times(&ended);
        execs.push(own_time_to_exec(&ended, &steps)?);
    }
    let name = hypervisor.name();
    let promise = (hypervisor == Hypervisor::Qemu).then_some(Duration::from_millis(1500));
    let limit = promise.map(time);
    let median = median(&mut first_lines);
    show(
        &format!("{name}: PID 1 to the workload's first log line"),
        &time(median),
        promise
            .zip(limit.as_deref())
            .map(|(most, text)| (text, median <= most)),
    );
    let promise = (hypervisor == Hypervisor::Qemu).then_some(Duration::from_millis(150));
    let limit = promise.map(time);
    let median = self::median(&mut execs);
    show(
        &format!("{name}: PID 1 to the workload's exec, waiting left out"),
        &time(median),
        promise
            .zip(limit.as_deref())
            .map(|(most, text)| (text, median <= most)),
    );
    for (step, took) in steps {
        let took = format!("{}.{:01} ms", took / 1000, took % 1000 / 100);
        show(&format!("{name}:   boot step {step}"), &took, None);
    }
    show(
        &format!("{name}: agent's start to ready"),
        &time(self::median(&mut readies)),
        None,
    );
    show(
        &format!("{name}: `parent-agent stop`"),
        &time(self::median(&mut ends)),
        None,
    );
    Ok(())
}

/// The time of the record of the workload's start, and the microseconds from the
/// init's start that it tells.
fn workload_start(ended: &Ended) -> anyhow::Result<(u64, u64)> {
    let started = ended.records("system").find_map(|record| {
        let text = record["text"].as_str()?;
        let at_us = text
            .strip_prefix("workload started ")?
            .split("at_us=")
            .nth(1)?;
        Some((micros(record)?, at_us.parse::<u64>().ok()?))
    });
    started.context("no record of the workload's start")
}

/// From the init's start to the workload's, without the steps that wait for the agent.
fn own_time_to_exec(ended: &Ended, steps: &[(String, u64)]) -> anyhow::Result<Duration> {
    let (_, at_us) = workload_start(ended)?;
    let waits = steps
        .iter()
        .filter(|(name, _)| ["heartbeat", "control"].contains(&name.as_str()));
    let waited: u64 = waits.map(|(_, took)| took).sum();
    Ok(Duration::from_micros(at_us.saturating_sub(waited)))
}

/// From the init's start to the first line of the workload, by the enclave's clock.
fn first_line(ended: &Ended) -> anyhow::Result<Duration> {
    let started = workload_start(ended)?;
    let first = ended.records("application").find_map(micros);
    let first = first.context("no line of the workload")?;
    let init = started.0.saturating_sub(started.1);
    Ok(Duration::from_micros(first.saturating_sub(init)))
}

/// The microseconds of the hour in a record's time: enough for differences.
fn micros(record: &Value) -> Option<u64> {
    // YYYY-MM-DDTHH:MM:SS.mmmmmmZ
    let text = record["time"].as_str()?;
    let minutes: u64 = text.get(14..16)?.parse().ok()?;
    let seconds: u64 = text.get(17..19)?.parse().ok()?;
    let fraction: u64 = text.get(20..26)?.parse().ok()?;
    Some((minutes * 60 + seconds) * 1_000_000 + fraction)
}

fn step_times(ended: &Ended) -> Vec<(String, u64)> {
    let steps = ended.events.iter().filter(|event| event["event"] == "step");
    steps
        .filter_map(|step| Some((step["name"].as_str()?.to_owned(), step["took_us"].as_u64()?)))
        .collect()
}

async fn logs(programs: &Programs, image: &Workload) -> anyhow::Result<()> {
    let role = format!("lines {LINES}");
    let mut agent = Agent::start(programs, image, Hypervisor::Sim, &role, &[])?;
    agent.line("done").await?;
    let ended = agent.stopped().await?;
    let times: Vec<_> = ended.records("application").filter_map(micros).collect();
    ensure!(times.len() > LINES, "lines are missing");
    let (first, last) = (times.first(), times.last());
    let took = last
        .zip(first)
        .map_or(0, |(last, first)| last.saturating_sub(*first));
    let rate = (LINES as u64).saturating_mul(1_000_000) / took.max(1);
    show(
        "sim: log lines per second, workload to agent",
        &rate.to_string(),
        None,
    );
    Ok(())
}

/// The demo, everything built already.
fn second_demo(programs: &Programs) -> anyhow::Result<()> {
    let start = Instant::now();
    let output = programs.demo(Hypervisor::Sim).output()?;
    ensure!(
        output.status.success(),
        "the demo: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let took = start.elapsed();
    let held = took <= Duration::from_secs(20);
    show(
        "the demo, everything built",
        &time(took),
        Some(("20000 ms", held)),
    );
    Ok(())
}

fn milliseconds(event: &Value, field: &str) -> anyhow::Result<u64> {
    let value = event.get(field).and_then(Value::as_u64);
    value.with_context(|| format!("no {field} in {event}"))
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
