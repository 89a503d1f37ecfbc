//! The agent on the kernel's own driver of Nitro Enclaves: see
//! [`enclave_tests::nitro`]. `cargo xtask test nitro` runs these.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "a test fails by panicking"
)]

mod agents;
mod bootstrap;
mod lifecycle;
mod refusals;
mod several;

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use enclave_tests::nitro::{Ended, IMAGE, Layout, Parent};
use enclave_tests::{Programs, Workload};
use serde_json::{Value, json};

static PROGRAMS: LazyLock<Programs> =
    LazyLock::new(|| Programs::from_environment().unwrap_or_else(|error| panic!("{error:#}")));

static KERNEL: LazyLock<PathBuf> = LazyLock::new(|| {
    let kernel = std::env::var_os("ENCLAVE_TEST_PARENT_KERNEL");
    kernel
        .expect("ENCLAVE_TEST_PARENT_KERNEL is not set: run `cargo xtask test nitro`")
        .into()
});

/// It has no ports, which need the instance's loopback device, and QEMU's security module
/// signs nothing.
const MANIFEST: &str = r#"
[enclave]
name = "workload"
image = "oci:image"
memory_mib = 256

[workload]
user = "app"

[attestation]
self_check = "report"
"#;

/// One image for all enclaves.
static WORKLOAD: LazyLock<Workload> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("nitro");
    let program = "test-workload";
    let build = || Workload::build_from(&PROGRAMS, &folder, program, &[], MANIFEST);
    Workload::shared(&PROGRAMS, &folder, program, build).unwrap()
});

const CONFIG: &str = "/etc/enclaves/config.json";
const POOL: &str = "/sys/module/nitro_enclaves/parameters/ne_cpus";

/// Boots an instance with enclaves of these names.
fn boot(layout: &Layout, names: &[&str]) -> Parent {
    Parent::boot(&PROGRAMS, &KERNEL, layout, names, &WORKLOAD.path)
        .unwrap_or_else(|error| panic!("{error:#}"))
}

/// A configuration of enclaves with these CPUs and this memory in MiB.
fn configuration(enclaves: &[(&str, u32, u32)]) -> String {
    let enclaves: Vec<Value> = enclaves
        .iter()
        .map(|(name, cpus, memory)| {
            json!({
                "name": name,
                "image": { "source": format!("file:{IMAGE}") },
                "cpus": cpus,
                "memory_mib": memory,
                "boot_timeout": "120s",
                "runtime_configuration": "lines 20",
            })
        })
        .collect();
    json!({ "enclaves": enclaves }).to_string()
}

/// A node's reserved, or free, pages of 2 MiB.
fn pages(parent: &mut Parent, node: u32, which: &str) -> u64 {
    let folder = format!("/sys/devices/system/node/node{node}/hugepages/hugepages-2048kB");
    let text = parent.text(&format!("{folder}/{which}_hugepages")).unwrap();
    text.parse().unwrap()
}

/// What a command that reports findings said: the state and words of each.
fn findings(ended: &Ended) -> Vec<(String, String, String)> {
    let findings: Value =
        serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    let findings = findings.as_array().unwrap().iter().map(|finding| {
        let field = |name: &str| finding[name].as_str().unwrap().to_owned();
        (field("name"), field("state"), field("detail"))
    });
    findings.collect()
}
