//! A container image's layer: any bytes are refused as such, or give an
//! image without problems whose ramdisks the agent can unpack, and the same
//! image again. The layer lies on top of one that has the workload's program,
//! and its checksums and digest are put right.

#![no_main]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::AtomicBool;

use aws_lc_rs::digest::{SHA256, digest};
use enclave_host::image::Image;
use enclave_host::ramdisk::Unpacker;
use fuzz::within;
use image_builder::{BuildTime, Inputs, build, describe_image};
use libfuzzer_sys::fuzz_target;

/// Most memory that one input takes, in KiB.
const MEMORY_KIB: usize = 4096;

const MANIFEST: &str = r#"
[enclave]
name = "fuzz"
image = "docker-archive:image.tar"

[workload]
command = ["/app"]
user = "1000"
"#;

/// What every image here is built from, but for its container image.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder").keep();
    let write = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).expect("a file");
    write("enclave.toml", MANIFEST.as_bytes());
    write("init", ELF);
    let mut kernel = vec![0; 1024];
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    write("kernel", &kernel);
    folder
});

/// The beginning of a static x86-64 program.
const ELF: &[u8] = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0";

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

/// Puts the checksums of what could be headers right, which no fuzzer guesses.
fn put_checksums_right(layer: &mut [u8]) {
    for block in layer.as_chunks_mut::<512>().0 {
        if block[257..].starts_with(b"ustar") {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
            block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        }
    }
}

fn check(layer: &[u8]) {
    let layer = &mut layer.to_vec();
    put_checksums_right(layer);
    // Compressed layers would need their digest before compression.
    if layer.starts_with(&[0x1f, 0x8b]) || layer.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        return;
    }
    let at = |name: &str| FOLDER.join(name);
    write_container(&at("image.tar"), layer);
    let build = |output: &Path| {
        let inputs = Inputs {
            manifest: &at("enclave.toml"),
            kernel: &at("kernel"),
            init: &at("init"),
            enclave_kms: &at("enclave-kms"),
            output,
            measurements: None,
platform: None,
            signing: None,
            build_time: BuildTime::default(),
        };
        build(&inputs, &mut |_| {})
    };
    let path = at("image.eif");
    let built = match build(&path) {
        Ok(built) => built,
        Err(error) => {
            assert!(matches!(error.exit_code(), 2 | 3), "{error}");
            return;
        }
    };
    let description = describe_image(&path).expect("an image that was built");
    assert!(
        description.image.problems.is_empty(),
        "{:?}",
        description.image.problems
    );
    assert_eq!(description.image.measurements, built.measurements);
    assert_eq!(
        build(&at("again.eif"))
            .expect("the same image")
            .measurements,
        built.measurements
    );
    let root = tempfile::tempdir().expect("a folder");
    let mut image = Image::open(&path).expect("an image that was built");
    let interrupted = AtomicBool::new(false);
    let mut unpacker = Unpacker::new(root.path(), image.host().memory_mib, &interrupted);
    for ramdisk in image.ramdisks() {
        let contents = image.contents(ramdisk).expect("a ramdisk");
        unpacker.unpack(contents).expect("a ramdisk that was built");
    }
    assert!(root.path().join("rootfs/app").symlink_metadata().is_ok());
}

fuzz_target!(|bytes: &[u8]| {
    LazyLock::force(&FOLDER);
    LazyLock::force(&BASE);
    within(MEMORY_KIB, || check(bytes));
});
