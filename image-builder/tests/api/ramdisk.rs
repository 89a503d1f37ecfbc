//! What is in a built image's ramdisks, as GNU cpio reads them.

use std::io::{Cursor, Read, Write};
use std::process::{Command, Stdio};

use eif::{Eif, SectionKind};
use flate2::read::GzDecoder;

/// The ramdisks' archives, decompressed.
pub(crate) fn ramdisks(image: &[u8]) -> Vec<Vec<u8>> {
    let mut image = Eif::open(Cursor::new(image)).unwrap();
    let sections = image.sections().to_vec().into_iter();
    sections
        .filter(|section| section.kind == SectionKind::Ramdisk)
        .map(|section| {
            let mut bytes = Vec::new();
            GzDecoder::new(image.contents(section).unwrap())
                .read_to_end(&mut bytes)
                .unwrap();
            bytes
        })
        .collect()
}

fn cpio(arguments: &[&str], archive: &[u8]) -> Vec<u8> {
    let mut cpio = Command::new("cpio")
        .args(arguments)
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("cpio is needed: apt-get install cpio");
    let mut input = cpio.stdin.take().unwrap();
    let archive = archive.to_vec();
    let feed = std::thread::spawn(move || input.write_all(&archive));
    let output = cpio.wait_with_output().unwrap();
    // It need not read what is after the last entry.
    let _ = feed.join().unwrap();
    assert!(output.status.success());
    output.stdout
}

/// One line for each entry: mode, links, owner, group, size or device, time,
/// name and target, single spaces between.
pub(crate) fn list(archive: &[u8]) -> Vec<String> {
    let lines = cpio(&["-itv", "--numeric-uid-gid", "--quiet"], archive);
    let lines = String::from_utf8(lines).unwrap();
    lines
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

/// The entries below `rootfs/`, without the time, which is that of 1970.
pub(crate) fn rootfs(image: &[u8]) -> Vec<String> {
    let application = ramdisks(image).pop().unwrap();
    let lines = list(&application).into_iter();
    lines
        .filter(|line| line.contains(" rootfs"))
        .map(|line| {
            assert!(line.contains(" Jan 1 1970 "), "{line}");
            line.replace(" Jan 1 1970 rootfs", " ")
        })
        .collect()
}

/// The contents of a file in an archive.
pub(crate) fn file(archive: &[u8], name: &str) -> Vec<u8> {
    cpio(&["-i", "--to-stdout", "--quiet", name], archive)
}
