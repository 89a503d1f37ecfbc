//! `cargo xtask fuzz`: every fuzz target for a while, from its committed corpus.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, bail, ensure};
use command_output::outln;

use crate::cache::CARGO_FUZZ;

/// Seconds that each target runs, unless told otherwise.
const SECONDS: u64 = 10;
/// A run that takes longer is a finding, in seconds.
const RUN_TIMEOUT: u64 = 20;
/// A process that holds more is a finding, in MiB: the targets themselves assert
/// far lower limits.
const MEMORY_LIMIT: u64 = 512;
/// Lines of a failed target's output that are shown.
const SHOWN_LINES: usize = 40;

/// Runs all targets or the one that is named; two arguments, both optional:
/// the seconds for each target, and the target.
pub(crate) fn run(workspace: &Path, arguments: &[String]) -> anyhow::Result<()> {
    let (seconds, wanted) = match arguments {
        [] => (SECONDS, None),
        [seconds, rest @ ..] => {
            let number = seconds.parse().with_context(|| {
                format!(
                    "`{seconds}` is not a number of seconds: cargo xtask fuzz [SECONDS] [TARGET]"
                )
            })?;
            ensure!(rest.len() < 2, "one target at a time, or all of them");
            (number, rest.first())
        }
    };
    let mut targets = targets(workspace)?;
    if let Some(wanted) = wanted {
        if !targets.contains(wanted) {
            bail!("there is no target `{wanted}`: {}", targets.join(", "));
        }
        targets.retain(|target| target == wanted);
    }
    let programs = build(workspace, wanted)?;
    let scratch = Scratch::new()?;
    // A core for each: a target has one thread.
    let width = thread::available_parallelism().map_or(1, usize::from);
    let queue = Mutex::new(targets.into_iter());
    let next = || queue.lock().ok().and_then(|mut queue| queue.next());
    let failures: Vec<_> = thread::scope(|scope| {
        let worker = || {
            let mut failures = Vec::new();
            while let Some(target) = next() {
                let program = programs.join(&target);
                match fuzz(workspace, &scratch, &target, &program, seconds) {
                    Ok(line) => outln!("{line}"),
                    Err(error) => failures.push(format!("{error:#}")),
                }
            }
            failures
        };
        let workers: Vec<_> = (0..width).map(|_| scope.spawn(worker)).collect();
        let joined = workers.into_iter().map(thread::ScopedJoinHandle::join);
        joined.filter_map(Result::ok).flatten().collect()
    });
    ensure!(failures.is_empty(), "{}", failures.join("\n\n"));
    Ok(())
}

/// The targets' names, in alphabetical order.
fn targets(workspace: &Path) -> anyhow::Result<Vec<String>> {
    let folder = workspace.join("fuzz/fuzz_targets");
    let mut targets = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if let Some(name) = path.file_stem().and_then(|name| name.to_str()) {
            targets.push(name.to_owned());
        }
    }
    targets.sort();
    Ok(targets)
}

/// Builds one target, or all at once, and gives the folder of their programs.
///
/// `RUSTC_BOOTSTRAP` makes the stable compiler take the flags for coverage
/// counters, so that nobody needs a second toolchain. There is no address
/// sanitizer: what is fuzzed is safe Rust, where it finds nothing at twice the
/// time, and memory is measured by the targets' own allocator.
fn build(workspace: &Path, target: Option<&String>) -> anyhow::Result<PathBuf> {
    let triple = host_triple()?;
    let folder = match std::env::var_os("CARGO_TARGET_DIR").filter(|folder| !folder.is_empty()) {
        // Not the workspace's own files, which have other flags.
        Some(folder) => workspace.join(folder).join("fuzz"),
        None => workspace.join("fuzz/target"),
    };
    let mut command = Command::new(CARGO_FUZZ.get(workspace)?);
    command
        .args(["fuzz", "build", "--sanitizer", "none", "--target", &triple])
        .arg("--target-dir")
        .arg(&folder)
        .args(target)
        .env("RUSTC_BOOTSTRAP", "1")
        .current_dir(workspace);
    let status = command.status().context("cannot run cargo-fuzz")?;
    ensure!(
        status.success(),
        "the fuzz targets cannot be built ({status}); the messages are above, and a C++ compiler (g++) is needed"
    );
    Ok(folder.join(triple).join("release"))
}

pub(crate) fn host_triple() -> anyhow::Result<String> {
    let output = Command::new("rustc").arg("-vV").output()?;
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .map(str::to_owned)
        .context("rustc does not say what it compiles for")
}

/// Runs one target, and gives a line about it.
fn fuzz(
    workspace: &Path,
    scratch: &Scratch,
    target: &str,
    program: &Path,
    seconds: u64,
) -> anyhow::Result<String> {
    // Inputs that are found go to a copy: the work tree stays as it is.
    let corpus = scratch.folder(&format!("{target}-corpus"))?;
    let temporary = scratch.folder(&format!("{target}-tmp"))?;
    let seeds = workspace.join("fuzz/corpus").join(target);
    let entries = fs::read_dir(&seeds)
        .with_context(|| format!("the target {target} has no corpus in {}", seeds.display()))?;
    for entry in entries {
        let entry = entry?;
        fs::copy(entry.path(), corpus.join(entry.file_name()))?;
    }
    let artifacts = workspace.join("fuzz/artifacts").join(target);
    fs::create_dir_all(&artifacts)?;
    let log = scratch.0.join(format!("{target}.log"));
    let mut prefix = OsString::from("-artifact_prefix=");
    // With a separator at its end: libFuzzer only puts the two together.
    prefix.push(artifacts.join(""));
    let status = Command::new(program)
        .arg(&corpus)
        .arg(prefix)
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-timeout={RUN_TIMEOUT}"))
        .arg(format!("-rss_limit_mb={MEMORY_LIMIT}"))
        .arg("-print_final_stats=1")
        .env("TMPDIR", &temporary)
        .env("RUST_BACKTRACE", "1")
        .stdout(File::create(scratch.0.join(format!("{target}.out")))?)
        .stderr(File::create(&log)?)
        .status()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let log = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    if !status.success() {
        bail!("{}", failure(target, program, &log));
    }
    summary(target, &log).with_context(|| format!("{target} ended without its statistics:\n{log}"))
}

/// What a target did, from libFuzzer's own output.
fn summary(target: &str, log: &str) -> Option<String> {
    let statistic = |name: &str| {
        let line = log.lines().rfind(|line| line.contains(name))?;
        line.rsplit(' ').next()
    };
    let progress = log.lines().rfind(|line| line.contains(" cov: "))?;
    let field = |name: &str| {
        let mut words = progress.split_whitespace();
        words.find(|word| *word == name)?;
        words.next()
    };
    Some(format!(
        "{target:<22} {:>9} runs {:>7}/s  coverage {:>5}  corpus {:>5}  peak {:>3} MiB",
        statistic("stat::number_of_executed_units:")?,
        statistic("stat::average_exec_per_sec:")?,
        field("cov:")?,
        field("corp:")?.split('/').next()?,
        statistic("stat::peak_rss_mb:")?,
    ))
}

fn failure(target: &str, program: &Path, log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    let shown = lines.get(lines.len().saturating_sub(SHOWN_LINES)..);
    let shown = shown.unwrap_or_default().join("\n");
    let input = lines.iter().find_map(|line| {
        line.split_once("Test unit written to ")
            .map(|(_, path)| path)
    });
    match input {
        Some(path) => format!(
            "{shown}\nthe target {target} fails on {path}; to see it again: {} {path}",
            program.display()
        ),
        None => format!("{shown}\nthe target {target} failed without naming an input"),
    }
}

/// A folder for one invocation, in memory where there is such a place.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> anyhow::Result<Self> {
        let memory = PathBuf::from("/dev/shm");
        let parent = if memory.is_dir() {
            memory
        } else {
            std::env::temp_dir()
        };
        let folder = parent.join(format!("xtask-fuzz-{}", std::process::id()));
        fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
        Ok(Self(folder))
    }

    fn folder(&self, name: &str) -> anyhow::Result<PathBuf> {
        let folder = self.0.join(name);
        fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
        Ok(folder)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is in the way of nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
INFO: Loaded 1 modules   (16061 inline 8-bit counters): 16061 [0x1, 0x2),
#2	INITED cov: 15 ft: 16 corp: 1/1b exec/s: 0 rss: 27Mb
#1702001	REDUCE cov: 371 ft: 1204 corp: 203/14Kb lim: 4096 exec/s: 154727 rss: 27Mb L: 8/8 MS: 1 -
Done 1702001 runs in 11 second(s)
stat::number_of_executed_units: 1702001
stat::average_exec_per_sec:     154727
stat::peak_rss_mb:              27
";

    #[test]
    fn a_run_is_summed_up_in_a_line() {
        assert_eq!(
            summary("cpio_read", LOG).unwrap_or_default(),
            "cpio_read                1702001 runs  154727/s  coverage   371  corpus   203  peak  27 MiB"
        );
        assert_eq!(summary("cpio_read", "INFO: Seed: 1"), None);
    }

    #[test]
    fn a_finding_is_named_with_what_shows_it_again() {
        let log = format!(
            "{LOG}artifact_prefix='/w/fuzz/artifacts/t/'; Test unit written to /w/fuzz/artifacts/t/crash-1\n"
        );
        let text = failure("t", Path::new("/w/t"), &log);
        assert!(
            text.ends_with(
                "the target t fails on /w/fuzz/artifacts/t/crash-1; to see it again: /w/t /w/fuzz/artifacts/t/crash-1"
            ),
            "{text}"
        );
    }
}
