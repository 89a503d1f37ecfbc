//! The comparison over vsock, inside an enclave under QEMU.

use std::cell::Cell;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, bail, ensure};
use enclave_tests::{Agent, Hypervisor, Programs, Workload};
use link::Endpoint;
use serde_json::Value;

use crate::Target;
use crate::compare::{Comparison, GUEST, Scale};

/// This machine's own context identifier (vsock(7), `VMADDR_CID_LOCAL`): a
/// connection to it never leaves the kernel.
const LOOPBACK: u32 = 1;
/// The port of the first proxy.
const PORT: u32 = 5000;
const PROGRAM: &str = "proxy-figures";
/// The runtime configuration.
const ROLE: &str = "compare";
const DONE: &str = "everything was measured";

/// Whether this process is the enclave's workload.
pub(crate) fn is_here() -> bool {
    std::env::var("ENCLAVE_RUNTIME_CONFIG")
        .and_then(|file| fs::read_to_string(file).map_err(|_| std::env::VarError::NotPresent))
        .is_ok_and(|role| role == ROLE)
}

/// Boots an enclave with this program, and prints what it prints.
pub(crate) async fn run(programs: &Programs) -> anyhow::Result<()> {
    println!("\nvsock loopback to TCP, in a machine that QEMU emulates: only ratios count");
    let folder = tempfile::tempdir()?;
    let image = Workload::build_of(programs, folder.path(), PROGRAM, &socat()?)?;
    let arguments = ["--memory-mib", "1536", "--cpus", "2"];
    let mut agent = Agent::start_with(programs, &image, Hypervisor::Qemu, ROLE, &arguments, &[])?;
    for number in 0.. {
        let line = line(&mut agent, number).await?;
        if line == DONE {
            break;
        }
        println!("{line}");
        // What its `main` returns; the init would start it again.
        ensure!(!line.starts_with("Error: "), "the enclave measured nothing");
    }
    agent.stopped().await?;
    Ok(())
}

/// `socat` and the libraries that it loads, as `ldd` names them.
fn socat() -> anyhow::Result<Vec<PathBuf>> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let program = std::env::split_paths(&path)
        .map(|folder| folder.join("socat"))
        .find(|program| program.exists())
        .context("there is no socat: install the package of that name")?;
    let output = Command::new("ldd").arg(&program).output()?;
    let text = String::from_utf8(output.stdout)?;
    let libraries = text
        .split_ascii_whitespace()
        .filter(|word| word.starts_with('/'));
    let mut files: Vec<_> = libraries.map(PathBuf::from).collect();
    files.push(program);
    Ok(files)
}

/// A line of the workload.
async fn line(agent: &mut Agent, number: usize) -> anyhow::Result<String> {
    let seen = Cell::new(0);
    let is_it = |event: &Value| {
        if event["event"] == "ended" {
            return true;
        }
        if event["event"] != "log" || event["stream"] != "application" {
            return false;
        }
        seen.set(seen.get() + 1);
        seen.get() > number
    };
    let event = agent.event(is_it).await?;
    let text = event.get("text").and_then(Value::as_str);
    let Some(text) = text else {
        bail!("the enclave ended: {event}");
    };
    Ok(text.to_owned())
}

/// What the workload does.
pub(crate) async fn measure() -> anyhow::Result<()> {
    let target = Target::start()?;
    let mut comparison = Comparison::default();
    for (port, kind) in (PORT..).zip(GUEST) {
        let endpoint = Endpoint::Vsock {
            cid: LOOPBACK,
            port,
        };
        let started = comparison.start(kind, endpoint, target.address).await;
        started.with_context(|| kind.name())?;
    }
    comparison.measure(&Scale::GUEST).await?;
    println!("{DONE}");
    // The host ends the enclave.
    std::future::pending().await
}
