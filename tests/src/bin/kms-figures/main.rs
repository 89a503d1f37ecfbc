//! Measures what it costs to call KMS from an enclave: `cargo xtask bench kms`.
//!
//! One run compares the same `Decrypt` without a recipient, with a recipient whose document
//! and key this program has itself, and from a workload through the init. Then the workload
//! decrypts at a steady rate while its credentials expire and are renewed. The programs are
//! those of a release, the enclave is one under `sim`; KMS, the metadata service and the
//! security module are in software, and all share this machine's processors.
//!
//! Times depend on the machine and on what else it does, so none of them is a limit. The
//! exit code says whether the limits hold: rate, failures, memory, descriptors.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a command's output")]

mod call;
mod cloud;
mod endure;
mod latency;
mod order;
mod workload;
mod world;

use std::fmt::Display;
use std::time::Duration;

use anyhow::ensure;
use clap::Parser;
use enclave_tests::Programs;
use tokio::runtime;

use world::World;

/// Measures decrypts with KMS.
#[derive(Debug, Parser)]
struct Cli {
    /// How long the workload decrypts at the rate: a minute to an hour.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(60..=3600))]
    seconds: u64,
    /// Decrypts a second.
    #[arg(long, value_name = "NUMBER", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
}

fn main() -> anyhow::Result<()> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    if workload::is_here() {
        return runtime.block_on(workload::serve());
    }
    let cli = Cli::parse();
    runtime.block_on(measure(&cli))
}

async fn measure(cli: &Cli) -> anyhow::Result<()> {
    let programs = Programs::from_environment()?;
    let folder = tempfile::Builder::new().prefix("kms-").tempdir()?;
    let mut world = World::start(&programs, folder.path()).await?;
    latency::compare(&mut world).await?;
    let lasting = Duration::from_secs(cli.seconds);
    let held = endure::decrypt(&mut world, cli.rate, lasting).await?;
    world.stop().await?;
    ensure!(held, "a limit is broken; see above");
    Ok(())
}

/// One figure.
fn show(what: &str, measured: impl Display) {
    println!("{what:<62} {:>14}", measured.to_string());
}

/// One figure, and whether it is within its limit.
fn verdict(what: &str, measured: impl Display, limit: impl Display, held: bool) -> bool {
    let verdict = if held { "ok" } else { "NOT HELD" };
    println!(
        "{what:<62} {:>14}  {:>10}  {verdict}",
        measured.to_string(),
        limit.to_string()
    );
    held
}
