//! From end to end: the built programs and one image, under `sim` and in QEMU.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

mod attach;
mod clock;
mod cloudwatch;
mod confinement;
mod crowds;
mod demo;
mod dispatch;
mod ends;
mod exit_codes;
mod files;
mod hand_over;
mod health;
mod kills;
mod logs;
mod memory;
mod reproducible;
mod sealed_secrets;
mod secrets_memory;
mod traffic;
mod users;
mod workloads;

use std::path::Path;
use std::sync::LazyLock;

use enclave_tests::{Agent, Hypervisor, Programs, Workload};

static PROGRAMS: LazyLock<Programs> =
    LazyLock::new(|| Programs::from_environment().unwrap_or_else(|error| panic!("{error:#}")));

/// One file for every test, under both hypervisors.
static IMAGE: LazyLock<Workload> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("e2e");
    let build = || Workload::build(&PROGRAMS, &folder);
    Workload::shared(&PROGRAMS, &folder, "test-workload", build).unwrap()
});

/// An image of this manifest, in a folder of this name that all tests share.
fn image_of(name: &str, manifest: &str) -> Workload {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let build = || Workload::build_from(&PROGRAMS, &folder, "test-workload", &[], manifest);
    Workload::shared(&PROGRAMS, &folder, "test-workload", build).unwrap()
}

fn start(hypervisor: Hypervisor, role: &str, arguments: &[&str]) -> Agent {
    Agent::start(&PROGRAMS, &IMAGE, hypervisor, role, arguments).unwrap()
}

/// Runs an asynchronous test under each hypervisor.
macro_rules! under_both {
    ($($name:ident),+ $(,)?) => {
        mod sim {
            $(#[tokio::test]
            async fn $name() {
                super::$name(enclave_tests::Hypervisor::Sim).await;
            })+
        }
        mod qemu {
            $(#[tokio::test]
            async fn $name() {
                super::$name(enclave_tests::Hypervisor::Qemu).await;
            })+
        }
    };
}
use under_both;
