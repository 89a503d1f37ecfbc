//! Bad input: one line that says what to do, and an exit code of its kind.

use std::path::Path;

use crate::agent::{command, error_line, output};
use crate::image::Builder;

/// Runs `image` and expects it to fail with this code and these words.
async fn refused(folder: &Path, image: &Path, arguments: &[&str], code: i32, words: &[&str]) {
    let mut run = command(folder, "run");
    run.arg(image);
    if !arguments.contains(&"--hypervisor") {
        run.args(["--hypervisor", "sim"]);
    }
    // For people: the summary must not come before the error.
    let ended = output({
        run.args(arguments);
        run
    })
    .await;
    assert_eq!(ended.status.code(), Some(code), "{ended:?}");
    let line = error_line(&ended);
    for word in words {
        assert_eq!(line.matches(word).count(), 1, "`{word}` in: {line}");
    }
    let state = folder.join("s");
    assert!(!state.exists() || std::fs::read_dir(state).unwrap().count() == 0);
}

fn builder() -> Builder {
    Builder::new(&[], &[])
}

/// Neither QEMU nor a device is looked for before.
#[tokio::test]
async fn memory_that_is_too_little_is_refused_before_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let large = builder().padding(30 << 20).write(folder);
    let by_size = [
        "64 MiB of memory",
        "has 31 MiB",
        "at least 121 MiB",
        "--memory-mib",
    ];
    refused(folder, &large, &["--hypervisor", "qemu"], 2, &by_size).await;
    let unpacked = builder().padding(1 << 20).unpacked(100 << 20).write(folder);
    for hypervisor in ["qemu", "nitro"] {
        let arguments = ["--hypervisor", hypervisor, "--memory-mib", "145"];
        let words = ["145 MiB of memory", "take 100 MiB", "at least 146 MiB"];
        refused(folder, &unpacked, &arguments, 2, &words).await;
    }
    let enough = ["--hypervisor", "qemu", "--memory-mib", "146"];
    let arguments = [&enough[..], &["--qemu-binary", "no-such-qemu"]].concat();
    refused(folder, &unpacked, &arguments, 4, &["no-such-qemu"]).await;
    // What the configuration says is no other thing.
    let document = serde_json::json!({ "enclaves": [{
        "name": "test",
        "image": { "source": format!("file:{}", unpacked.display()) },
        "memory_mib": 100,
    }] });
    let source = crate::fetching::write(folder, &document);
    let mut run = command(folder, "run");
    run.args(["--hypervisor", "qemu", "--config", &source]);
    let ended = output(run).await;
    assert_eq!(ended.status.code(), Some(2), "{ended:?}");
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(said.contains("does not start with 100 MiB"), "{said}");
}

#[tokio::test]
async fn image_that_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let image = builder().write(folder);
    let sound = std::fs::read(&image).unwrap();
    let damaged = |bytes: &[u8]| {
        let path = folder.join("damaged.eif");
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let absent = folder.join("absent.eif");
    refused(folder, &absent, &[], 3, &["absent.eif", "No such file"]).await;
    refused(folder, folder, &[], 3, &["cannot be used"]).await;
    let cut = damaged(&sound[..sound.len() - 10]);
    refused(folder, &cut, &[], 3, &["damaged.eif", "truncated"]).await;
    let mut flipped = sound.clone();
    *flipped.last_mut().unwrap() ^= 1;
    refused(folder, &damaged(&flipped), &[], 3, &["CRC"]).await;
    let mut lying = sound.clone();
    lying[28 + 256 + 7] ^= 1;
    refused(folder, &damaged(&lying), &[], 3, &["section"]).await;
    refused(folder, &damaged(b"#!/bin/sh"), &[], 3, &["not an EIF"]).await;
    refused(folder, &damaged(b""), &[], 3, &[]).await;
}

#[tokio::test]
async fn image_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let image = builder().without_host_config().write(folder);
    refused(
        folder,
        &image,
        &[],
        3,
        &["host configuration", "image-builder build"],
    )
    .await;
}

#[tokio::test]
async fn image_that_cannot_be_started() {
    for (init, padding, code, part) in [
        (None, 0, 3, "no executable `init`"),
        (
            Some("#!/bin/sh\n"),
            70 << 20,
            3,
            "more than the enclave's memory of 64 MiB",
        ),
        // The kernel has a part of it in a machine.
        (
            Some("#!/bin/sh\n"),
            40 << 20,
            3,
            "more than the enclave's memory of 64 MiB has room for",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let image = builder().init(init).padding(padding).write(folder.path());
        let mut run = command(folder.path(), "run");
        run.arg(image).args(["--hypervisor", "sim"]);
        let ended = output(run).await;
        assert_eq!(ended.status.code(), Some(code));
        let text = String::from_utf8(ended.stderr).unwrap();
        let last = text.lines().last().unwrap();
        assert!(last.starts_with("error: ") && last.contains(part), "{text}");
        crate::agent::nothing_is_left(&folder).await;
    }
}

#[tokio::test]
async fn host_that_lacks_something() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let image = Builder::new(&[], &[(port, 80)]).write(folder);
    let in_use = format!("port {port} of 127.0.0.1 is in use");
    refused(folder, &image, &[], 4, &[&in_use, "--publish"]).await;
    let qemu = [
        "--hypervisor",
        "qemu",
        "--qemu-binary",
        "/absent/qemu",
        "--publish",
        "0:8080",
    ];
    let image = Builder::new(&[], &[(8080, 80)]).write(folder);
    refused(folder, &image, &qemu, 4, &["/absent/qemu", "--qemu-binary"]).await;
    let mut run = command(&folder.join("x".repeat(100)), "run");
    run.arg(&image).args(["--hypervisor", "sim"]);
    let ended = output(run).await;
    assert_eq!(ended.status.code(), Some(4));
    assert!(error_line(&ended).contains("choose a shorter --state-dir"));
}

/// The option moves connections that the manifest allows, and allows none.
#[tokio::test]
async fn connect_to_moves_no_destination_that_the_image_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let image = Builder::new(&["api.example.com:443".to_owned()], &[]).write(folder);
    for moved in ["absent.example:443", "api.example.com:444"] {
        let arguments = ["--connect-to", &format!("{moved}=127.0.0.1:8443")];
        refused(folder, &image, &arguments, 2, &[moved, "[network] egress"]).await;
    }
}

#[tokio::test]
async fn arguments_that_do_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let image = builder().write(folder);
    refused(
        folder,
        &image,
        &["--publish", "80:81"],
        2,
        &["port 81", "it has none"],
    )
    .await;
    let qemu_debug = ["--hypervisor", "qemu", "--debug"];
    refused(folder, &image, &qemu_debug, 2, &["--debug"]).await;
    let large = folder.join("large");
    std::fs::write(&large, vec![0; 32 * 1024 + 1]).unwrap();
    let large = ["--runtime-config", large.to_str().unwrap()];
    refused(folder, &image, &large, 3, &["32768 bytes", "shorten it"]).await;
    let absent = ["--runtime-config", "/absent"];
    refused(folder, &image, &absent, 3, &["/absent"]).await;
    for arguments in [
        ["--name", "Bad Name"],
        ["--connect-to", "x"],
        ["--memory-mib", "1"],
        ["--boot-timeout", "soon"],
    ] {
        let mut run = command(folder, "run");
        run.arg(&image)
            .args(["--hypervisor", "sim"])
            .args(arguments);
        assert_eq!(output(run).await.status.code(), Some(2), "{arguments:?}");
    }
}
