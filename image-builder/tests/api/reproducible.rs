//! The same inputs give the same bytes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::image::{Compression, Image, app};
use crate::layer::{Layer, elf};
use crate::project::{Project, program};

/// A layer whose entries can be in any order.
fn entries() -> Layer {
    Layer::new()
        .directory("etc")
        .file("etc/hosts", "127.0.0.1 localhost\n")
        .file("etc/passwd", "root:x:0:0::/:/bin/sh\n")
        .directory("srv")
        .with(|entry| (entry.uid, entry.mode) = (7, 0o700))
        .symlink("srv/hosts", "../etc/hosts")
        .program("app", elf())
}

/// Whiteouts, and what takes the place of what they hide.
fn changes() -> Layer {
    Layer::new()
        .directory("etc")
        .file("etc/.wh.passwd", "")
        .directory("srv")
        .file("srv/.wh..wh..opq", "")
        .file("srv/new", "new")
        .file("etc/group", "root:x:0:\n")
}

#[test]
fn order_times_and_compression_of_layers_do_not_matter() {
    let expected = Project::of(&Image::new(&[entries(), changes()])).build();
    let reversed = |mut layer: Layer| {
        layer.entries.reverse();
        layer
    };
    let images = [
        Image::compressed(&[entries(), changes()], Compression::None),
        Image::compressed(&[entries(), changes()], Compression::Gzip(1)),
        Image::compressed(&[entries(), changes()], Compression::Zstd),
    ];
    for image in images {
        assert!(Project::of(&image).build() == expected);
    }
    // A configuration has the archives' digests, and the metadata its digest:
    // only what is measured can be the same.
    let measured = |image: &[u8]| crate::ramdisk::ramdisks(image);
    let mut later = entries();
    for entry in &mut later.entries {
        entry.mtime = 1_800_000_000;
    }
    for layers in [
        [reversed(entries()), changes()],
        [entries(), reversed(changes())],
        [later, changes()],
    ] {
        let image = Project::of(&Image::new(&layers)).build();
        assert!(measured(&image) == measured(&expected));
    }
}

#[test]
fn docker_archives_and_layouts_give_the_same_bytes() {
    let image = Image::new(&[entries(), changes()]);
    let expected = Project::of(&image).build();
    let project = Project::new();
    project.write("image.tar", image.docker_archive(&[]).tar());
    project.write(
        "enclave.toml",
        crate::project::MANIFEST.replace("oci:image", "docker-archive:image.tar"),
    );
    assert!(project.build() == expected);
}

#[test]
fn folder_umask_time_locale_and_temporary_folder_do_not_matter() {
    let image = Image::new(&[entries(), changes()])
        .with("Env", json!(["PATH=/bin", "B=2", "A=1"]))
        .with("User", json!("7:8"));
    let expected = Project::of(&image).build();
    let project = Project::of(&image);
    fs::create_dir(project.path("elsewhere")).unwrap();
    let output = project
        .command_after("umask 077")
        .env("TMPDIR", project.path("elsewhere"))
        .env("LC_ALL", "tr_TR.UTF-8")
        .env("TZ", "Pacific/Auckland")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let built = project.path("out.eif");
    assert!(fs::read(&built).unwrap() == expected);
    let mode = fs::metadata(&built).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
}

/// As another user, if this test may become one.
#[test]
fn the_user_does_not_matter() {
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| {
        use std::os::unix::fs::MetadataExt;
        own.uid() == 0
    });
    if !is_root {
        println!("not built as another user: only root can become one");
        return;
    }
    let image = Image::new(&[entries(), changes()]);
    let expected = Project::of(&image).build();
    let project = Project::of(&image);
    let open = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    // The other user may not be able to reach the program where it is.
    let own_program = project.path("image-builder");
    fs::copy(env!("CARGO_BIN_EXE_image-builder"), &own_program).unwrap();
    open(project.folder(), 0o755);
    open(&project.path("tmp"), 0o777);
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(own_program)
        .args(["build", "--kernel", "kernel", "--init", "enclave-init"])
        .args(["--output", "tmp/out.eif"])
        .current_dir(project.folder())
        .env("TMPDIR", project.path("tmp"))
        .env_remove("SOURCE_DATE_EPOCH")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(fs::read(project.path("tmp/out.eif")).unwrap() == expected);
}

#[test]
fn the_build_time_is_the_one_that_was_given() {
    let project = Project::new();
    let build_time = || {
        let output = program()
            .args(["describe", "--json"])
            .arg(project.path("out.eif"))
            .output()
            .unwrap();
        let image: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        image["Metadata"]["BuildTime"].as_str().unwrap().to_owned()
    };
    let first = project.build();
    assert_eq!(build_time(), "1970-01-01T00:00:00Z");
    let mut command = project.command();
    command.env("SOURCE_DATE_EPOCH", "1700000000");
    assert!(command.output().unwrap().status.success());
    assert_eq!(build_time(), "2023-11-14T22:13:20Z");
    let second = fs::read(project.path("out.eif")).unwrap();
    assert!(crate::ramdisk::ramdisks(&first) == crate::ramdisk::ramdisks(&second));

    for text in ["yesterday", "", "1.5", "-1"] {
        let mut command = project.command();
        command.env("SOURCE_DATE_EPOCH", text);
        project.refuses(command, 2, &["SOURCE_DATE_EPOCH", "whole seconds"]);
    }
}

#[test]
fn what_differs_is_measured() {
    let plain = Project::of(&Image::new(&[app()])).build();
    for layer in [
        app().file("more", ""),
        app().with(|entry| entry.mode = 0o711),
        app().with(|entry| entry.uid = 1),
        app().with(|entry| entry.contents.push(0)),
    ] {
        let other = Project::of(&Image::new(&[layer])).build();
        assert!(crate::ramdisk::ramdisks(&other)[1] != crate::ramdisk::ramdisks(&plain)[1]);
    }
    for more in ["[workload]\nuser = \"9\"", "[logs]\nrelease = \"never\""] {
        let project = Project::new();
        project.manifest(more);
        let other = project.build();
        assert!(crate::ramdisk::ramdisks(&other)[1] != crate::ramdisk::ramdisks(&plain)[1]);
    }
}
