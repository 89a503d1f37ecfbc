//! The memory that the builder calls enough is enough, in QEMU.

use std::fs;
use std::path::{Path, PathBuf};

use enclave_tests::{Agent, Hypervisor, Workload};

use crate::PROGRAMS;

const MIB: usize = 1024 * 1024;

/// An empty folder for a test's files.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("memory-{name}"));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// The same with one file.
async fn starts_with_file(name: &str, contents: Vec<u8>) {
    let folder = folder(name);
    let file = folder.join("file");
    fs::write(&file, contents).unwrap();
    starts_with_what_it_needs(name, &folder, &[file]).await;
}

/// An image that has these files, and just the memory that it needs, starts.
async fn starts_with_what_it_needs(name: &str, folder: &Path, files: &[PathBuf]) {
    let build = |memory: &str| {
        let manifest = format!(
            "[enclave]\nname = \"{name}\"\nimage = \"oci:image\"\nmemory_mib = {memory}\n\n\
             [network]\ningress = [{{ port = 8080, to = 8080 }}]\n"
        );
        Workload::build_from(&PROGRAMS, folder, "test-workload", files, &manifest)
    };
    let refused = build("64").unwrap_err().to_string();
    let (_, needed) = refused.split_once("memory_mib to at least ").unwrap();
    // What is known before the image is built is less than what is known after it.
    let image = build(needed.split(' ').next().unwrap()).or_else(|error| {
        let refused = error.to_string();
        let (_, needed) = refused.split_once("memory_mib to at least ").unwrap();
        build(needed.split(' ').next().unwrap())
    });
    let mut agent =
        Agent::start(&PROGRAMS, &image.unwrap(), Hypervisor::Qemu, "serve", &[]).unwrap();
    agent.line("listening").await.unwrap();
    agent.stopped().await.unwrap();
}

#[tokio::test]
async fn memory_mib_that_is_needed_holds_files_that_compress_well() {
    starts_with_file("zeros", vec![0; 100 * MIB]).await;
}

#[tokio::test]
async fn memory_mib_that_is_needed_holds_files_that_do_not_compress() {
    let mut state: u64 = 1;
    let noise = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state.to_be_bytes()[0]
    });
    starts_with_file("noise", noise.take(30 * MIB).collect()).await;
}

/// Each takes the more beside its contents: two pages, their index, a long name.
#[tokio::test]
async fn memory_mib_that_is_needed_holds_many_small_files_with_long_names() {
    let folder = folder("small");
    let files: Vec<_> = (0..12_000)
        .map(|number| folder.join(format!("{number:0>200}")))
        .collect();
    for file in &files {
        fs::write(file, [0; 4097]).unwrap();
    }
    starts_with_what_it_needs("small", &folder, &files).await;
}
