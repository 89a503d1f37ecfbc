//! The stages of `cargo xtask test`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, bail};

use crate::cache::CARGO_DENY;
use crate::{bindings, cloud, fuzz, programs, terraform};

/// Debian packages that builds and tests need.
const PACKAGES: &[&str] = &[
    "bc",
    "bison",
    "bzip2",
    "cpio",
    "dpkg-dev",
    "flex",
    "g++",
    "libcbor-dev",
    "libelf-dev",
    "libfdt-dev",
    "libglib2.0-dev",
    "libgnutls28-dev",
    "libpixman-1-dev",
    "libssl-dev",
    "ninja-build",
    "openssl",
    "patch",
    "pkg-config",
    "python3-venv",
    "qemu-system-data",
    "seabios",
    "shellcheck",
    "xz-utils",
];

/// One stage: its name, its command and what the environment adds.
struct Stage<'a> {
    name: &'a str,
    command: &'a [&'a str],
    environment: &'a [(&'a str, &'a str)],
}

const STAGES: &[Stage<'_>] = &[
    Stage {
        name: "format",
        command: &["cargo", "fmt", "--all", "--check"],
        environment: &[],
    },
    Stage {
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
    Stage {
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
    Stage {
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
    Stage {
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
    Stage {
        name: "scripts",
        command: &[
            "shellcheck",
            ".ci/run",
            "crates/terraform-runner/fetch-release",
            "kernel/build",
            "kernel/prebuilt",
            "tests/ear/build",
            "tests/qemu/build",
            "tests/qemu/build-vsock-device",
            "xtask/install-program",
        ],
        environment: &[],
    },
    Stage {
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
    Stage {
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

/// Of all members, those from end to end among them: one command, so that
/// dependencies are compiled once.
const TESTS: Stage<'_> = Stage {
    name: "tests",
    command: &["cargo", "test", "--workspace", "--all-features"],
    environment: &[],
};

/// Runs every stage, the cheap ones first, and stops at the first that fails.
pub(crate) fn test(workspace: &Path) -> anyhow::Result<()> {
    install_packages()?;
    for stage in STAGES {
        stage.run(workspace, &[])?;
    }
    dependencies(workspace)?;
    println!("--- terraform: cargo xtask terraform");
    terraform::check(workspace, &[])?;
    println!("ok   terraform");
    TESTS.run(workspace, &programs::environment(workspace)?)?;
    println!("--- control plane: the scenarios of tests/control-plane");
    cloud::test(workspace)?;
    println!("ok   control plane");
    println!("--- bindings: cargo xtask bindings");
    bindings::test(workspace)?;
    println!("ok   bindings");
    println!("--- fuzz: cargo xtask fuzz");
    fuzz::run(workspace, &[])?;
    println!("ok   fuzz");
    Ok(())
}

/// Licences, sources and versions of what the workspace depends on. Advisories
/// are left to those who can reach their database: `cargo deny check`.
fn dependencies(workspace: &Path) -> anyhow::Result<()> {
    let program = CARGO_DENY.get(workspace)?.display().to_string();
    let command = [
        &program,
        "--log-level",
        "error",
        "check",
        "bans",
        "licenses",
        "sources",
    ];
    let stage = Stage {
        name: "dependencies",
        command: &command,
        environment: &[],
    };
    stage.run(workspace, &[])
}

impl Stage<'_> {
    fn run(&self, workspace: &Path, paths: &[(&str, PathBuf)]) -> anyhow::Result<()> {
        println!("--- {}: {}", self.name, self.command.join(" "));
        let start = Instant::now();
        let (program, arguments) = self.command.split_first().context("an empty stage")?;
        let status = Command::new(program)
            .args(arguments)
            .envs(self.environment.iter().copied())
            .envs(paths.iter().map(|(name, path)| (name, path)))
            .current_dir(workspace)
            .status()
            .with_context(|| format!("cannot run {program}"))?;
        let seconds = start.elapsed().as_secs();
        if !status.success() {
            println!("FAIL {} after {seconds} s", self.name);
            bail!("the stage `{}` failed; its messages are above", self.name);
        }
        println!("ok   {} in {seconds} s", self.name);
        Ok(())
    }
}

/// Installs what builds and tests need.
pub(crate) fn install_packages() -> anyhow::Result<()> {
    install(PACKAGES)
}

/// Installs the packages that are missing; needs root only then.
pub(crate) fn install(packages: &[&str]) -> anyhow::Result<()> {
    let missing: Vec<_> = packages
        .iter()
        .copied()
        .filter(|package| !is_installed(package))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("installing {}", missing.join(" "));
    let root = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.stdout == b"0\n");
    let apt = |arguments: &[&str]| -> anyhow::Result<bool> {
        let mut command = if root {
            Command::new("apt-get")
        } else {
            Command::new("sudo")
        };
        if !root {
            command.args(["-n", "apt-get"]);
        }
        let output = command
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .output()?;
        if !output.status.success() {
            eprint!("{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(output.status.success())
    };
    let install = [
        &["install", "-y", "--no-install-recommends"],
        missing.as_slice(),
    ]
    .concat();
    if apt(&["update"])? && apt(&install)? {
        return Ok(());
    }
    bail!(
        "packages are missing; run: sudo apt-get install --no-install-recommends {}",
        missing.join(" ")
    )
}

fn is_installed(package: &str) -> bool {
    Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status}", package])
        .output()
        .is_ok_and(|output| output.stdout == b"installed")
}
