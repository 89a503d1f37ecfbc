//! `cargo xtask test`: the stages of everything that CI checks.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context, bail, ensure};
use command_output::{out, outln};

use crate::cache::{CARGO_DENY, NEXTEST};
use crate::report::Report;
use crate::{
    bench, bindings, clients, cloud, fuzz, packages, programs, release, target, terraform, wasm,
};

/// Seconds that each fuzz target runs: enough to find a corpus that has become wrong.
const FUZZ_SECONDS: &str = "5";

/// A stage: its name, and what runs its steps.
type Stage = (&'static str, fn(&Path, &mut Report) -> anyhow::Result<()>);

/// Stages that mostly wait, or have one thread: they run beside the others where both are
/// wanted, one after the other. What several of them write to is written by no other stage.
const BESIDE: [&str; 3] = ["terraform", "cloud", "release"];
/// Followed by the file that a run leaves its report in for the run that started it.
const REPORT: &str = "--report";

/// The stages in the order of the whole run: the cheap ones first.
const STAGES: [Stage; 9] = [
    ("lint", lint),
    ("terraform", terraform),
    ("unit", unit),
    ("e2e", e2e),
    ("cloud", cloud),
    ("release", release),
    ("bindings", bindings),
    ("tutorials", tutorials),
    ("fuzz", fuzz),
];

/// One command of a stage: its name, what is run and what the environment adds.
struct Step<'a> {
    name: &'static str,
    command: &'a [&'a str],
    environment: &'a [(&'a str, &'a str)],
}

const LINTS: &[Step<'_>] = &[
    Step {
        name: "links",
        command: &[".ci/links"],
        environment: &[],
    },
    Step {
        name: "structure",
        command: &[".ci/structure"],
        environment: &[],
    },
    Step {
        name: "format",
        command: &["cargo", "fmt", "--all", "--check"],
        environment: &[],
    },
    Step {
        name: "format of the fuzz targets",
        command: &[
            "cargo",
            "fmt",
            "--manifest-path",
            "fuzz/Cargo.toml",
            "--check",
        ],
        environment: &[],
    },
    Step {
        name: "format of the benchmarks",
        command: &[
            "cargo",
            "fmt",
            "--manifest-path",
            "attestation/benches/verification/Cargo.toml",
            "--check",
        ],
        environment: &[],
    },
    Step {
        name: "format of the bindings",
        command: &[
            "cargo",
            "fmt",
            "--manifest-path",
            "bindings/Cargo.toml",
            "--all",
            "--check",
        ],
        environment: &[],
    },
    Step {
        name: "format of the reader of results",
        command: &[
            "cargo",
            "fmt",
            "--manifest-path",
            "tests/ear/Cargo.toml",
            "--check",
        ],
        environment: &[],
    },
    Step {
        name: "format of the program with AWS's SDK",
        command: &[
            "cargo",
            "fmt",
            "--manifest-path",
            "tests/sdks/rust/Cargo.toml",
            "--check",
        ],
        environment: &[],
    },
    Step {
        name: "scripts",
        command: &[
            "shellcheck",
            ".ci/run",
            "bindings/c/install",
            "crates/enveloped-data/tests/vectors/write",
            "crates/terraform-runner/fetch-release",
            "kernel/build",
            "kernel/prebuilt",
            "tests/ear/build",
            "tests/images/recipes/busybox/slow",
            "tests/images/recipes/ignores-sigterm/run.sh",
            "tests/images/recipes/postgres/entrypoint.sh",
            "tests/images/recipes/s6/init",
            "tests/images/recipes/s6/run",
            "tests/qemu/build",
            "tests/qemu/build-vsock-device",
            "tests/sdks/rust/build",
            "xtask/install-nextest",
            "xtask/install-program",
            "xtask/unpack-go",
        ],
        environment: &[],
    },
    Step {
        name: "lints",
        command: &[
            "cargo",
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--all-features",
            "--",
            "-D",
            "warnings",
        ],
        environment: &[],
    },
    Step {
        name: "documentation",
        command: &[
            "cargo",
            "doc",
            "--quiet",
            "--workspace",
            "--no-deps",
            "--all-features",
        ],
        environment: &[("RUSTDOCFLAGS", "-D warnings")],
    },
];

/// Examples in the documentation, which nextest does not run.
const EXAMPLES: Step<'_> = Step {
    name: "examples in the documentation",
    command: &["cargo", "test", "--workspace", "--all-features", "--doc"],
    environment: &[],
};

/// What the agent of the demo refuses: the other tests have all features.
const WITHOUT_AWS: Step<'_> = Step {
    name: "tests without clients of AWS",
    command: &[
        "cargo",
        "test",
        "--quiet",
        "--package",
        "image-fetch",
        "--package",
        "log-sinks",
        "--lib",
        "refused_by_a_build_without",
    ],
    environment: &[],
};

/// The package of the tests from end to end, which need a kernel and QEMU.
const E2E: &str = "enclave-tests";

/// Runs the stages that are named, or all; those beside the others end before a failure of
/// these is reported. At the end are the time of each step and the slowest tests.
pub(crate) fn test(workspace: &Path, arguments: &[String]) -> anyhow::Result<()> {
    let (saved, wanted) = match arguments {
        [option, file, wanted @ ..] if option == REPORT => (Some(Path::new(file)), wanted),
        wanted => (None, wanted),
    };
    let known = STAGES.map(|(name, _)| name);
    for name in wanted {
        ensure!(
            known.contains(&name.as_str()),
            "there is no stage `{name}`: {}",
            known.join(", ")
        );
    }
    packages::install_needed()?;
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|word| word == name);
    let (beside, mut own): (Vec<_>, Vec<_>) = STAGES
        .into_iter()
        .filter(|(name, _)| is_wanted(name))
        .partition(|(name, _)| BESIDE.contains(name));
    let beside = if own.is_empty() || beside.is_empty() {
        own.extend(beside);
        None
    } else {
        let names: Vec<_> = beside.iter().map(|(name, _)| *name).collect();
        Some(Beside::start(workspace, &names)?)
    };
    let mut report = Report::new();
    let mut result = own.into_iter().try_for_each(|(name, run)| {
        report.stage(name);
        run(workspace, &mut report)
    });
    if let Some(beside) = beside {
        result = result.and(beside.finish(&mut report));
    }
    match saved {
        Some(file) => report.save(file)?,
        None => report.print(),
    }
    result
}

/// A run of stages beside this one. Its output would mix with this one's, so it is shown at
/// the end.
struct Beside {
    run: Child,
    output: PathBuf,
    report: PathBuf,
}

impl Beside {
    fn start(workspace: &Path, stages: &[&str]) -> anyhow::Result<Self> {
        let folder = target::folder()?;
        let (output, report) = (folder.join("beside.log"), folder.join("beside.report"));
        outln!(
            "beside the stages below: {}; their output follows at the end",
            stages.join(", ")
        );
        // An earlier run's.
        let _ = fs::remove_file(&report);
        let file = File::create(&output).with_context(|| output.display().to_string())?;
        let errors = file
            .try_clone()
            .with_context(|| output.display().to_string())?;
        let program = std::env::current_exe().context("cannot find this program")?;
        let run = Command::new(&program)
            .args(["test", REPORT])
            .arg(&report)
            .args(stages)
            .current_dir(workspace)
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        Ok(Self {
            run,
            output,
            report,
        })
    }

    fn finish(mut self, report: &mut Report) -> anyhow::Result<()> {
        let status = self
            .run
            .wait()
            .context("cannot wait for the stages beside")?;
        let output = fs::read(&self.output).with_context(|| self.output.display().to_string())?;
        out!("\n{}", String::from_utf8_lossy(&output));
        let added = report.add(&self.report);
        ensure!(
            status.success(),
            "a stage that ran beside the others failed; its messages are above"
        );
        added
    }
}

/// What needs no run of our programs.
fn lint(workspace: &Path, report: &mut Report) -> anyhow::Result<()> {
    for step in LINTS {
        step.run(workspace, report)?;
    }
    let how = "cargo clippy in attestation/benches/verification";
    report.step("lints of the benchmarks", how, || bench::lint(workspace))?;
    let how = "cargo xtask clients --check";
    report.step("clients of the local API", how, || {
        clients::run(workspace, &["--check".to_owned()])
    })?;
    let how = "attestation, for wasm32-unknown-unknown";
    report.step("the verifier for WebAssembly", how, || {
        wasm::check(workspace)
    })?;
    dependencies(workspace, report)
}

/// Licences, sources and versions of what the workspace depends on. Advisories
/// are left to those who can reach their database: `cargo deny check`.
fn dependencies(workspace: &Path, report: &mut Report) -> anyhow::Result<()> {
    let program = report.step("cargo-deny", "from the cache, or built", || {
        Ok(CARGO_DENY.get(workspace)?.display().to_string())
    })?;
    let command = [
        &program,
        "--log-level",
        "error",
        "check",
        "bans",
        "licenses",
        "sources",
    ];
    let step = Step {
        name: "dependencies",
        command: &command,
        environment: &[],
    };
    step.run(workspace, report)
}

fn terraform(workspace: &Path, report: &mut Report) -> anyhow::Result<()> {
    let junit = target::folder()?.join("junit/terraform.xml");
    let argument = format!("--junit-xml={}", junit.display());
    report.tests("terraform", "cargo xtask terraform", &junit, || {
        terraform::check(workspace, &[argument])
    })
}

/// The tests of all members, but for those from end to end.
fn unit(workspace: &Path, report: &mut Report) -> anyhow::Result<()> {
    let how = "what the tests check with";
    let readers = report.step("readers", how, || {
        let mut environment = programs::readers(workspace)?;
        environment.extend(programs::languages(workspace)?);
        Ok(environment)
    })?;
    let filter = format!("not package({E2E})");
    nextest(workspace, "unit tests", &filter, readers, report)?;
    EXAMPLES.run(workspace, report)?;
    WITHOUT_AWS.run(workspace, report)
}

/// The tests from end to end: the programs as they are released.
fn e2e(workspace: &Path, report: &mut Report) -> anyhow::Result<()> {
    let how = "what the tests start, as it is released";
    let environment = report.step("programs", how, || {
        let mut environment = programs::machine(workspace)?;
        environment.extend(programs::readers(workspace)?);
        Ok(environment)
    })?;
    let filter = format!("package({E2E})");
    nextest(
        workspace,
        "tests from end to end",
        &filter,
        environment,
        report,
    )
}

/// Runs the tests that the filter chooses. All are compiled, whichever are chosen:
/// cargo compiles dependencies anew for another choice of packages.
fn nextest(
    workspace: &Path,
    name: &'static str,
    filter: &str,
    environment: Vec<(&'static str, PathBuf)>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let program = NEXTEST.get(workspace)?;
    let arguments = ["nextest", "run", "--workspace", "--all-features", "-E"];
    let how = format!("cargo {} '{filter}'", arguments.join(" "));
    // Slots, of which most tests take two: see the profile.
    let slots = thread::available_parallelism()?.get() * 3 + 2;
    // nextest's own folder is in the workspace, wherever cargo's is.
    let junit = workspace.join("target/nextest/suite/junit.xml");
    report.tests(name, &how, &junit, || {
        let status = Command::new(&program)
            .args(arguments)
            .arg(filter)
            .args(["--profile", "suite"])
            .arg(format!("--test-threads={slots}"))
            .envs(environment)
            .current_dir(workspace)
            .status()
            .with_context(|| format!("cannot run {}", program.display()))?;
        ensure!(status.success(), "{name} failed; their messages are above");
        Ok(())
    })
}

fn cloud(workspace: &Path, report: &mut Report) -> anyhow::Result<()> {
    let junit = target::folder()?.join("junit/control-plane.xml");
    let how = "the scenarios of tests/control-plane";
    report.tests("control plane", how, &junit, || {
        cloud::test(workspace, &junit)
    })
}

fn release(workspace: &Path, report: &mut Report) -> anyhow::Result<()> {
    let how = "cargo xtask release --dry-run";
    report.step("files of a release", how, || release::rehearse(workspace))
}

fn bindings(workspace: &Path, report: &mut Report) -> anyhow::Result<()> {
    report.step("bindings", "cargo xtask bindings", || {
        bindings::test(workspace)
    })
}

fn tutorials(workspace: &Path, report: &mut Report) -> anyhow::Result<()> {
    let junit = target::folder()?.join("junit/tutorials.xml");
    let how = ".ci/tutorial, with the pages of docs";
    report.tests("tutorials", how, &junit, || {
        cloud::tutorials(workspace, &junit)
    })
}

fn fuzz(workspace: &Path, report: &mut Report) -> anyhow::Result<()> {
    let command = format!("cargo xtask fuzz {FUZZ_SECONDS}");
    report.step("fuzz", &command, || {
        fuzz::run(workspace, &[FUZZ_SECONDS.to_owned()])
    })
}

impl Step<'_> {
    fn run(&self, workspace: &Path, report: &mut Report) -> anyhow::Result<()> {
        report.step(self.name, &self.command.join(" "), || {
            let (program, arguments) = self.command.split_first().context("an empty step")?;
            let status = Command::new(program)
                .args(arguments)
                .envs(self.environment.iter().copied())
                .current_dir(workspace)
                .status()
                .with_context(|| format!("cannot run {program}"))?;
            if !status.success() {
                bail!("`{}` failed; its messages are above", self.name);
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_beside_others_are_stages() {
        for name in BESIDE {
            assert!(STAGES.iter().any(|(stage, _)| *stage == name), "{name}");
        }
    }

    #[test]
    fn stages_are_the_jobs_of_the_workflow() {
        let text = fs::read_to_string("../.github/workflows/ci.yml").unwrap();
        let stages = STAGES.map(|(name, _)| name).join(", ");
        assert!(text.contains(&format!("stage: [{stages}]\n")), "{stages}");
    }
}
