//! Unpacking a ramdisk, as `sim` does where it has one user: any bytes are refused in one line or
//! unpacked; nothing outside of the folder is touched, no file is set-user-id,
//! and the folder can be removed afterwards. Files that hostile links may aim at
//! lie beside the folder: `../victim`, `../outside/`.

#![no_main]

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use enclave_host::ramdisk::{Owners, Unpacker};
use fuzz::{assert_readable, within};
use libfuzzer_sys::fuzz_target;

/// Most memory that one input takes, in KiB.
const MEMORY_KIB: usize = 256;

fn check_modes(folder: &Path) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        let metadata = entry.metadata().expect("its metadata");
        if metadata.is_dir() {
            check_modes(&entry.path());
        } else if !metadata.is_symlink() {
            let kind = metadata.file_type();
            assert!(kind.is_file() || kind.is_fifo() || kind.is_socket());
            assert_eq!(metadata.permissions().mode() & 0o7000, 0);
        }
    }
}

fn check(bytes: &[u8]) {
    let parent = tempfile::tempdir().expect("a folder");
    let at = |name: &str| parent.path().join(name);
    let root = at("root");
    fs::create_dir(&root).expect("the root");
    fs::create_dir(at("outside")).expect("a folder beside it");
    fs::write(at("victim"), "intact").expect("a file beside it");
    let mode = |name: &str| fs::metadata(at(name)).expect("it is there").permissions();
    let before = [mode("victim"), mode("outside")];
    let memory = "64".parse().expect("a size");
    if let Err(error) = Unpacker::new(&root, memory, Owners::Caller).unpack(bytes) {
        assert_readable(&error);
    }
    check_modes(&root);
    assert_eq!(fs::read(at("victim")).expect("it is there"), b"intact");
    assert_eq!(fs::read_dir(at("outside")).expect("it is there").count(), 0);
    assert_eq!(fs::read_dir(parent.path()).expect("it is there").count(), 3);
    assert_eq!([mode("victim"), mode("outside")], before);
    parent.close().expect("everything can be removed");
}

fuzz_target!(|bytes: &[u8]| within(MEMORY_KIB, || check(bytes)));
