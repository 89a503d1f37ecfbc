//! An archive of container images or of a root file system, as the first byte says: any
//! bytes are refused as such, or give an image without problems whose ramdisks the agent can
//! unpack, and the same image again. Checksums of its headers are put right.

#![no_main]

use std::fs;
use std::sync::LazyLock;

use fuzz::builder::{MEMORY_KIB, Project, put_checksums_right};
use fuzz::within;
use libfuzzer_sys::fuzz_target;

const KINDS: [&str; 3] = ["docker-archive", "oci-archive", "rootfs-archive"];

/// A project for each kind.
static PROJECTS: LazyLock<Vec<Project>> = LazyLock::new(|| {
    let projects = KINDS.iter().map(|kind| {
        Project::new(&format!(
            "[enclave]\nname = \"fuzz\"\nimage = \"{kind}:image.tar\"\n\
             [workload]\nentrypoint = [\"/app\"]\nuser = \"1000\"\n"
        ))
    });
    projects.collect()
});

fn check(bytes: &[u8]) {
    let Some((kind, archive)) = bytes.split_first() else {
        return;
    };
    let project = &PROJECTS[usize::from(*kind) % KINDS.len()];
    let mut archive = archive.to_vec();
    put_checksums_right(&mut archive);
    fs::write(project.path("image.tar"), &archive).expect("the archive");
    let _ = project.check();
}

fuzz_target!(|bytes: &[u8]| {
    LazyLock::force(&PROJECTS);
    within(MEMORY_KIB, || check(bytes));
});
