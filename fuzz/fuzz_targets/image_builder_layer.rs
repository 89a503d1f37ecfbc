//! A container image's layer: any bytes are refused as such, or give an
//! image without problems whose ramdisks the agent can unpack, and the same
//! image again. The layer lies on top of one that has the workload's program,
//! and its checksums and digest are put right.

#![no_main]

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use fuzz::builder::{ELF, MEMORY_KIB, Project, put_checksums_right};
use fuzz::within;
use libfuzzer_sys::fuzz_target;

const MANIFEST: &str = r#"
[enclave]
name = "fuzz"
image = "docker-archive:image.tar"

[workload]
command = ["/app"]
user = "1000"
"#;

static PROJECT: LazyLock<Project> = LazyLock::new(|| Project::new(MANIFEST));

/// The layer below: the workload's program.
static BASE: LazyLock<Vec<u8>> = LazyLock::new(|| tar(&[("app", ELF)]));

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, contents) in files {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(contents.len() as u64);
        archive
            .append_data(&mut header, name, *contents)
            .expect("an entry");
    }
    archive.into_inner().expect("an archive")
}

fn write_container(path: &Path, layer: &[u8]) {
    let diff_id = |layer: &[u8]| format!("sha256:{}", hex::encode(digest(&SHA256, layer)));
    let config = serde_json::json!({
        "architecture": "amd64",
        "os": "linux",
        "rootfs": { "diff_ids": [diff_id(&BASE), diff_id(layer)] },
    });
    let manifest = serde_json::json!([{ "Config": "config.json", "Layers": ["0.tar", "1.tar"] }]);
    let archive = tar(&[
        ("manifest.json", manifest.to_string().as_bytes()),
        ("config.json", config.to_string().as_bytes()),
        ("0.tar", &BASE),
        ("1.tar", layer),
    ]);
    File::create(path)
        .and_then(|mut file| file.write_all(&archive))
        .expect("the container image");
}

fn check(layer: &[u8]) {
    let layer = &mut layer.to_vec();
    put_checksums_right(layer);
    // Compressed layers would need their digest before compression.
    if layer.starts_with(&[0x1f, 0x8b]) || layer.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        return;
    }
    write_container(&PROJECT.path("image.tar"), layer);
    if let Some(root) = PROJECT.check() {
        assert!(root.path().join("rootfs/app").symlink_metadata().is_ok());
    }
}

fuzz_target!(|bytes: &[u8]| {
    LazyLock::force(&PROJECT);
    LazyLock::force(&BASE);
    within(MEMORY_KIB, || check(bytes));
});
