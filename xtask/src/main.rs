//! Developer commands: `cargo xtask help` lists them.

#![forbid(unsafe_code)]

mod bench;
mod bindings;
mod cache;
mod clients;
mod cloud;
mod cold_start;
mod demo;
mod functions;
mod fuzz;
mod images;
mod init;
mod junit;
mod outside;
mod packages;
mod programs;
mod python;
mod release;
mod report;
mod reproducible;
mod sdks;
mod stages;
mod target;
mod terraform;
mod wasm;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use command_output::{errln, out, outln};

use crate::cache::{EAR_VERIFIER, GO, KERNEL, QEMU, VSOCK_DEVICE};

const HELP: &str = "\
usage: cargo xtask COMMAND

  demo [sim|qemu]  build everything, and an enclave image; start it, use it, attest it, stop it
  cloud [up] [--scale N]
                   the control plane on this machine: an item becomes an attested enclave
                   (up: until Ctrl-C; --scale: N enclaves at once)
  test [STAGE…]    everything that CI checks, or some of its stages: lint, terraform, unit,
                   e2e, cloud, release, bindings, tutorials, fuzz; installs what is
                   missing, and ends with the time of each step and the slowest tests
  figures          measure what SPECIFICATION.md promises
  endurance [--qemu] [--lines N] [--kills N] …
                   kill agents and enclaves and fail CloudWatch Logs while lines
                   flow, and check each line (--help lists the options)
  systemd          run the unit of docs/agent-restarts.md under a systemd in namespaces
                   (needs root, systemd and cgroup v2)
  sdks             boto3, the aws command and AWS's SDKs for JavaScript and Rust, unmodified,
                   and enclave-kms decrypt a secret in an enclave under sim (needs the
                   registries of npm, Python and Rust)
  images [--hypervisor sim|qemu] [--json FILE] [NAME…]
                   container images as they are (nginx, PostgreSQL, Node.js, s6, …), assembled
                   here, run as enclaves under sim and in QEMU; or those that are named
                   (needs root, and Debian 12's packages in apt's sources)
  fuzz [SECONDS] [TARGET]
                   run the fuzz targets, or one, for some seconds each (10)
  bench attestation
                   time verification beside bare signatures and beside another crate
  bench service    the verification service beside the library: rate, latency, memory
  bench proxy      the agent's proxy beside vsock-proxy's loop and socat: rate, latency, memory
  bench kms [--seconds N]
                   a decrypt from the workload beside the same call without Recipient;
                   then 500 a second while credentials expire: rate, memory
  bench bootstrap  from bootstrap to the first attested response under QEMU, step by step
  bench logs       lines a second into the spool and out of it, and the memory for that
  bench functions  the functions' packages: size, and time from start to first answer
  bench instructions [--record]
                   count the instructions of verification, and compare with those that
                   are recorded
  init             build PID 1 as it is released, and print its path
  reproducible     build PID 1 twice, the second time elsewhere, and compare (minutes)
  clients [--check]
                   generate the clients of the local API in examples/clients from
                   docs/local-api.json (--check: fail if they are not what it describes)
  release VERSION  build the files of a release into the folder `release`, and check
                   which they are (--dry-run: with the programs of the tests)
  functions        build the packages of the control plane's Lambda functions
  bindings         build the verifier's bindings for C and Python, and test them
  terraform [-k WORDS]
                   check Terraform's files without AWS: plans, policies, workflows,
                   user data, alarms against the manual (arguments are pytest's)
  setup            install what is missing, build the kernel, QEMU, the vsock device
                   and what the tests check with
  kernel           print the path of the enclave's kernel, building it if need be
                   (5 minutes, once)
  qemu             print the path of QEMU with the nitro-enclave machine, building it
                   if need be (5 minutes, once)
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (command, arguments) = match arguments.split_first() {
        Some((command, arguments)) => (command.as_str(), arguments),
        None => ("help", arguments.as_slice()),
    };
    let code = match run(command, arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            errln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    };
    command_output::end("xtask", code, 1)
}

fn run(command: &str, arguments: &[String]) -> anyhow::Result<()> {
    let root = workspace()?;
    if !arguments.is_empty()
        && !matches!(
            command,
            "bench"
                | "clients"
                | "cloud"
                | "demo"
                | "endurance"
                | "fuzz"
                | "images"
                | "release"
                | "terraform"
                | "test"
        )
    {
        bail!("`{command}` takes no arguments\n\n{HELP}");
    }
    match command {
        "bindings" => bindings::test(&root)?,
        "functions" => functions::run(&root)?,
        "init" => {
            let folder = init::build(&root, &init::PROGRAMS)?;
            outln!("{}", folder.join(init::PACKAGE).display());
        }
        "release" => release::run(&root, arguments)?,
        "reproducible" => reproducible::run(&root)?,
        "bench" => bench::run(&root, arguments)?,
        "clients" => clients::run(&root, arguments)?,
        "cloud" => cloud::run(&root, arguments)?,
        "demo" => demo::run(&root, arguments)?,
        "setup" => {
            packages::install_needed()?;
            for artefact in [KERNEL, QEMU, VSOCK_DEVICE, EAR_VERIFIER, GO] {
                outln!("{:<20} {}", artefact.name, artefact.get(&root)?.display());
            }
            outln!("{:<20} {}", "python", python::get(&root)?.display());
        }
        "kernel" => outln!("{}", KERNEL.get(&root)?.display()),
        "qemu" => outln!("{}", QEMU.get(&root)?.display()),
        "figures" => programs::run(&root, "figures", &[])?,
        "endurance" => programs::run(&root, "log-endurance", arguments)?,
        "images" => images::run(&root, arguments)?,
        "sdks" => sdks::run(&root)?,
        "systemd" => programs::run(&root, "service-manager", &[])?,
        "fuzz" => fuzz::run(&root, arguments)?,
        "terraform" => terraform::check(&root, arguments)?,
        "test" => stages::test(&root, arguments)?,
        "help" | "--help" | "-h" => out!("{HELP}"),
        other => bail!("there is no command `{other}`\n\n{HELP}"),
    }
    Ok(())
}

/// The workspace's root: the folder above this crate's, where cargo runs it from;
/// where it was compiled may be another, if a target folder is shared.
fn workspace() -> anyhow::Result<PathBuf> {
    let own = std::env::var_os("CARGO_MANIFEST_DIR")
        .context("run it through cargo, as in `cargo xtask help`")?;
    Path::new(&own)
        .parent()
        .map(Path::to_owned)
        .context("this crate has no parent folder")
}
