//! The memory that the builder calls enough is enough, in QEMU.

use std::fs;
use std::os::unix::fs::symlink;
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

/// An image that has a file with these contents, and just the memory that it needs, starts.
async fn starts_with_file(name: &str, contents: Vec<u8>) {
    let folder = folder(name);
    let file = folder.join("file");
    fs::write(&file, contents).unwrap();
    starts_with_what_it_needs(name, &folder, "oci:image", "", &[file]).await;
}

/// An image, and just the memory that it needs, starts.
async fn starts_with_what_it_needs(
    name: &str,
    folder: &Path,
    image: &str,
    workload: &str,
    files: &[PathBuf],
) {
    let build = |memory: &str| {
        let manifest = format!(
            "[enclave]\nname = \"{name}\"\nimage = \"{image}\"\nmemory_mib = {memory}\n\n{workload}\n\
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

/// Of these, the memory is for other things than contents: targets of links, which take a page
/// each, long names, the index of the pages.
#[tokio::test]
async fn memory_mib_that_is_needed_holds_links_and_small_files_with_long_names() {
    let folder = folder("small");
    let many = folder.join("root/many");
    fs::create_dir_all(&many).unwrap();
    fs::copy(PROGRAMS.path("test-workload"), folder.join("root/app")).unwrap();
    let target = "t".repeat(200);
    for number in 0..30_000 {
        symlink(&target, many.join(format!("{number}"))).unwrap();
    }
    for number in 0..6_000 {
        fs::write(many.join(format!("{number:0>200}")), [0; 4097]).unwrap();
    }
    let workload = "[workload]\nentrypoint = [\"/app\"]\n";
    starts_with_what_it_needs("small", &folder, "rootfs:root", workload, &[]).await;
}
