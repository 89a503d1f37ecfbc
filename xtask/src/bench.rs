//! `cargo xtask bench`: how long things take, and how many instructions.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use command_output::{out, outln};

use crate::cold_start;
use crate::{outside, packages, programs};

const USAGE: &str = "cargo xtask bench attestation | service | proxy | kms | bootstrap | logs | functions | instructions [--record]";
/// The crate of the benchmarks, which is not in the workspace.
const CRATE: &str = "attestation/benches/verification";

/// The time of the document that is verified: the other crate looks at no clock
/// but the system's.
const DOCUMENT_TIME: &str = "2024-02-26 07:02:02";

/// The calls whose instructions are counted.
const CALLS: [&str; 3] = ["parse", "leaf_known", "cold"];
const COUNTS: &str = "attestation/benches/verification/instructions.toml";
/// How much more instructions a call may take than was recorded, in percent.
const TOLERANCE: u64 = 5;

/// Runs one of the benchmarks.
pub(crate) fn run(workspace: &Path, arguments: &[String]) -> anyhow::Result<()> {
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["attestation"] => attestation(workspace),
        ["service"] => service(workspace),
        ["bootstrap"] => programs::run(workspace, "bootstrap-figures", &[]),
        ["logs"] => programs::run(workspace, "log-figures", &[]),
        ["proxy"] => proxy(workspace),
        ["kms", options @ ..] => {
            let options: Vec<_> = options.iter().map(|&text| text.to_owned()).collect();
            programs::run(workspace, "kms-figures", &options)
        }
        ["functions"] => cold_start::run(workspace),
        ["instructions"] => compare(workspace),
        ["instructions", "--record"] => record(workspace),
        _ => bail!("say which benchmark: {USAGE}"),
    }
}

/// Measures the agent's proxy beside others.
fn proxy(workspace: &Path) -> anyhow::Result<()> {
    packages::install(&["socat"])?;
    programs::run(workspace, "proxy-figures", &[])
}

/// Times verification beside bare signatures and beside another crate.
fn attestation(workspace: &Path) -> anyhow::Result<()> {
    packages::install(&["libfaketime"])?;
    let program = build(workspace, "timing")?;
    let status = Command::new(program)
        .env("LD_PRELOAD", libfaketime()?)
        .env("FAKETIME", DOCUMENT_TIME)
        .env("TZ", "UTC")
        // What the benchmark measures with.
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .status()
        .context("cannot run the benchmark")?;
    ensure!(
        status.success(),
        "a limit is broken, or nothing could be measured; see above"
    );
    Ok(())
}

/// Puts the verification service under load, and among hostile clients.
fn service(workspace: &Path) -> anyhow::Result<()> {
    let status = Command::new("cargo")
        .args(["bench", "--package", "attest"])
        .args(["--bench", "service", "--bench", "crowd"])
        .current_dir(workspace)
        .status()
        .context("cannot run cargo")?;
    ensure!(
        status.success(),
        "a limit is broken, or nothing could be measured; see above"
    );
    Ok(())
}

/// Whether the benchmarks outside of the workspace compile, and what Clippy says of them.
pub(crate) fn lint(workspace: &Path) -> anyhow::Result<()> {
    // In the profile that they run in: they need the same dependencies.
    let arguments = [
        "clippy",
        "--quiet",
        "--release",
        "--locked",
        "--all-targets",
    ];
    let arguments = [arguments.as_slice(), &["--", "-D", "warnings"]].concat();
    outside::cargo(workspace, CRATE, &arguments)
}

fn build(workspace: &Path, program: &str) -> anyhow::Result<PathBuf> {
    let arguments = [
        "build",
        "--quiet",
        "--release",
        "--locked",
        "--bin",
        program,
    ];
    outside::cargo(workspace, CRATE, &arguments)?;
    Ok(outside::programs(workspace)?.join(program))
}

/// The library that stands before the system's clock, where Debian puts it.
fn libfaketime() -> anyhow::Result<PathBuf> {
    let library = "faketime/libfaketime.so.1";
    fs::read_dir("/usr/lib")?
        .filter_map(|entry| Some(entry.ok()?.path().join(library)))
        .find(|path| path.exists())
        .with_context(|| format!("there is no /usr/lib/*/{library}: install libfaketime"))
}

/// Counts, and compares with what was recorded.
fn compare(workspace: &Path) -> anyhow::Result<()> {
    let path = workspace.join(COUNTS);
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let mut exceeded = Vec::new();
    outln!("{:<12} {:>12} {:>12}", "call", "instructions", "recorded");
    for (call, count) in count(workspace)? {
        let recorded =
            recorded(&text, call).with_context(|| format!("{COUNTS} has no number for {call}"))?;
        outln!("{call:<12} {count:>12} {recorded:>12}");
        if count > recorded + recorded * TOLERANCE / 100 {
            exceeded.push(call);
        }
    }
    ensure!(
        exceeded.is_empty(),
        "{} took over {TOLERANCE} % more instructions than recorded: find out why, or record them with `cargo xtask bench instructions --record`",
        exceeded.join(" and ")
    );
    Ok(())
}

/// The number in a line `call = number`.
fn recorded(text: &str, call: &str) -> Option<u64> {
    text.lines()
        .filter_map(|line| line.split_once(" = "))
        .find(|(name, _)| *name == call)?
        .1
        .parse()
        .ok()
}

fn record(workspace: &Path) -> anyhow::Result<()> {
    let mut text = "\
# Instructions of one call, in the release profile on x86_64, as callgrind counts
# them. They hardly vary between runs, unlike times; they exclude what caches,
# memory and the operating system cost, and are of the code that aws-lc chooses
# for valgrind's processor: the host's, but for AVX-512.
# `cargo xtask bench instructions` compares, and with `--record` writes this file.
"
    .to_owned();
    for (call, count) in count(workspace)? {
        writeln!(text, "{call} = {count}")?;
    }
    out!("{text}");
    let path = workspace.join(COUNTS);
    fs::write(&path, text).with_context(|| path.display().to_string())
}

fn count(workspace: &Path) -> anyhow::Result<Vec<(&'static str, u64)>> {
    packages::install(&["valgrind"])?;
    let program = build(workspace, "instructions")?;
    CALLS
        .into_iter()
        .map(|call| Ok((call, callgrind(&program, call)?)))
        .collect()
}

/// Counts the instructions of the function of this name, and what it calls.
fn callgrind(program: &Path, call: &str) -> anyhow::Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(format!("--toggle-collect=instructions::{call}"))
        .arg(program)
        .arg(call)
        .output()
        .context("cannot run valgrind")?;
    let log = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{call} failed under valgrind:\n{log}"
    );
    collected(&log)
        .filter(|count| *count > 0)
        .with_context(|| format!("callgrind counted nothing of {call}:\n{log}"))
}

/// The total in callgrind's log.
fn collected(log: &str) -> Option<u64> {
    log.lines()
        .find_map(|line| line.split_once("Collected : "))?
        .1
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_from_the_log_and_from_the_record() {
        let log = "==7== \n==7== Events    : Ir\n==7== Collected : 1234567\n";
        assert_eq!(collected(log), Some(1_234_567));
        assert_eq!(collected("==7== Events    : Ir\n"), None);
        let text = "# cold = 1\ncold = 20\nparse = 3\n";
        assert_eq!(recorded(text, "cold"), Some(20));
        assert_eq!(recorded(text, "leaf_known"), None);
    }
}
