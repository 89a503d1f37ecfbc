//! `parent-agent dispatch` on real vsock, in a machine of its own: no vsock of this
//! machine is touched.

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use eif::cpio::{Entry, Kind, Writer};
use tokio::process::Command;
use tokio::time::timeout;

use crate::PROGRAMS;

/// Longer than it takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(300);

/// A ramdisk with these files, each with its program.
fn ramdisk(path: &Path, files: &[(&str, &str)]) {
    let mut writer = Writer::new(File::create(path).unwrap());
    for (name, program) in files {
        let bytes = fs::read(PROGRAMS.path(program)).unwrap();
        let size = bytes.len().try_into().unwrap();
        let entry = Entry::new(*name, Kind::File, 0o755, size);
        writer.append(&entry, bytes.as_slice()).unwrap();
    }
    writer.finish().unwrap();
}

#[tokio::test]
async fn dispatch_passes_vsock_connections_on_and_they_outlive_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ramdisk");
    let (said, errors) = (folder.path().join("console"), folder.path().join("errors"));
    ramdisk(
        &path,
        &[("init", "dispatch-guest"), ("parent-agent", "parent-agent")],
    );
    let mut command = Command::new(&PROGRAMS.qemu);
    for firmware in ["/usr/share/seabios", "/usr/share/qemu"] {
        command.arg("-L").arg(firmware);
    }
    command
        .args(["-machine", "microvm", "-accel", "tcg", "-cpu", "max"])
        .args(["-m", "512", "-nodefaults", "-no-reboot"])
        .args(["-display", "none", "-serial", "stdio"])
        .args(["-append", "console=ttyS0 panic=-1 reboot=t"])
        .arg("-kernel")
        .arg(&PROGRAMS.kernel)
        .arg("-initrd")
        .arg(&path)
        .stdin(Stdio::null())
        .stdout(File::create(&said).unwrap())
        .stderr(File::create(&errors).unwrap())
        .kill_on_drop(true);
    let ended = timeout(LIMIT, command.status()).await;
    let read = |path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    let (console, errors) = (read(&said), read(&errors));
    let ended = ended.unwrap_or_else(|_| panic!("the guest does not end: {console}{errors}"));
    assert!(ended.unwrap().success(), "{console}{errors}");
    for words in [
        "guest: 1 MiB came over a connection that was passed on",
        "guest: a connection without an agent was closed",
        "guest: the connection outlived the dispatcher",
        "guest: the agent registered with the next dispatcher",
        "guest: done",
    ] {
        assert!(console.contains(words), "{words}: {console}{errors}");
    }
}
