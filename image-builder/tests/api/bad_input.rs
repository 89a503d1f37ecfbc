//! Files and arguments that cannot be used: one line that says what to do, and
//! an exit code of its kind.

use std::fs;
use std::process::Command;

use crate::image::{Image, app};
use crate::project::{MANIFEST, Project, arm_kernel, program};

#[test]
fn manifests_with_mistakes() {
    let project = Project::new();
    for (text, words) in [
        ("[enclave\n", &["enclave.toml:1: "][..]),
        ("[enclave]\nname = \"a\"\n", &["enclave.toml:1: ", "image"]),
        (
            "[enclave]\nname = \"A B\"\nimage = \"oci:image\"\n",
            &["enclave.toml:2: ", "lower-case letters"],
        ),
        (
            &format!("{MANIFEST}cpu = 3\n"),
            &["enclave.toml:5: ", "unknown field `cpu`"],
        ),
    ] {
        project.write("enclave.toml", text);
        project.refused(2, words);
    }
    project.write("enclave.toml", [0xff, 0xfe]);
    project.refused(2, &["enclave.toml", "UTF-8"]);
    fs::remove_file(project.path("enclave.toml")).unwrap();
    project.refused(1, &["cannot read enclave.toml", "No such file"]);
}

#[test]
fn references_to_registries_say_what_is_supported() {
    let project = Project::new();
    for reference in [
        "docker.io/library/nginx@sha256:0123",
        "docker://nginx",
        "nginx:latest",
        "oci:",
        "docker-archive:image.tar:",
    ] {
        project.write("enclave.toml", MANIFEST.replace("oci:image", reference));
        let words = [
            "enclave.toml:3: ",
            reference,
            "`oci:FOLDER`, `oci-archive:FILE`, `docker-archive:FILE`",
        ];
        project.refused(2, &words);
    }
}

#[test]
fn kernels_that_are_none() {
    let project = Project::new();
    for bytes in [&b""[..], b"HdrS", &[0; 4096], b"#!/bin/sh\n"] {
        project.write("kernel", bytes);
        project.refused(3, &["kernel: ", "not a kernel image", "bzImage"]);
    }
    fs::remove_file(project.path("kernel")).unwrap();
    project.refused(1, &["cannot read kernel", "No such file", "--kernel"]);
    fs::create_dir(project.path("kernel")).unwrap();
    project.refused(1, &["cannot read kernel", "not a file"]);
}

#[test]
fn inits_that_are_none() {
    let project = Project::new();
    for (bytes, word) in [
        (b"#!/bin/sh\n".to_vec(), "not a 64-bit ELF"),
        (vec![], "not a 64-bit ELF"),
        (
            crate::layer::elf_for(183),
            "not built for the kernel's processor, x86_64",
        ),
        (crate::layer::dynamic_elf("/lib/ld.so"), "not static"),
    ] {
        project.write("enclave-init", bytes);
        project.refused(3, &["enclave-init: ", word, "--init"]);
    }
    fs::remove_file(project.path("enclave-init")).unwrap();
    project.refused(1, &["cannot read enclave-init", "--init"]);
}

#[test]
fn a_pipe_in_place_of_a_file_is_not_waited_for() {
    let project = Project::new();
    fs::remove_file(project.path("kernel")).unwrap();
    make_pipe(&project, "kernel");
    project.refused(1, &["cannot read kernel", "not a file"]);
}

fn make_pipe(project: &Project, name: &str) {
    let made = Command::new("mkfifo").arg(project.path(name)).status();
    assert!(made.unwrap().success());
}

#[test]
fn kernels_for_arm_need_everything_for_arm() {
    let mut image =
        Image::new(&[crate::layer::Layer::new().program("app", crate::layer::elf_for(183))]);
    image.config["architecture"] = "arm64".into();
    let project = Project::of(&image);
    project.write("kernel", arm_kernel());
    project.write("enclave-init", crate::layer::elf_for(183));
    let built = project.build();
    let image = eif::Eif::open(std::io::Cursor::new(built)).unwrap();
    assert_eq!(image.header().architecture, eif::Architecture::Aarch64);
}

#[test]
fn outputs_that_cannot_be_written() {
    let project = Project::new();
    fs::create_dir(project.path("folder")).unwrap();
    make_pipe(&project, "pipe");
    project.write("file", "");
    for (output, word) in [
        ("absent/out.eif", "No such file"),
        ("folder", "not a file"),
        ("pipe", "not a file"),
        ("file/out.eif", "Not a directory"),
        ("/proc/out.eif", ""),
    ] {
        for option in ["--output", "--measurements"] {
            let mut command = program();
            command
                .current_dir(project.folder())
                .env("TMPDIR", project.path("tmp"))
                .args(["build", "--kernel", "kernel", "--init", "enclave-init"])
                .args([option, output]);
            if option == "--measurements" {
                command.args(["--output", "out.eif"]);
            }
            let words = ["cannot write ", output, word, "that you may write to"];
            project.refuses(command, 1, &words);
        }
    }
}

#[test]
fn one_file_for_two_outputs() {
    let project = Project::new();
    let mut command = project.command();
    command.args(["--measurements", "out.eif"]);
    project.refuses(command, 2, &["out.eif", "give two files"]);
}

#[test]
fn what_was_there_stays_when_a_build_fails() {
    let project = Project::new();
    project.write("out.eif", "precious");
    project.manifest("[workload]\nentrypoint = [\"/none\"]\n");
    project.refused(2, &["/none"]);
    assert_eq!(fs::read(project.path("out.eif")).unwrap(), b"precious");
}

#[test]
fn temporary_folders_that_cannot_be_used() {
    let project = Project::new();
    let mut command = project.command();
    command.env("TMPDIR", "/absent");
    project.refuses(command, 1, &["cannot write /absent", "TMPDIR"]);
}

/// A limit on the size of files stands in for a disk that is full.
#[test]
fn a_full_temporary_folder_is_named() {
    let project = Project::of(&Image::new(&[app().file("large", vec![7; 1 << 20])]));
    let folder = project.path("tmp");
    let words = [
        "cannot write ",
        folder.to_str().unwrap(),
        "File too large",
        "TMPDIR",
    ];
    project.refuses(limited(&project), 1, &words);
}

#[test]
fn a_full_output_folder_is_named() {
    let project = Project::new();
    let mut kernel = crate::project::kernel();
    kernel.resize(1 << 20, 0);
    project.write("kernel", kernel);
    let words = ["cannot write out.eif", "File too large", "has space"];
    project.refuses(limited(&project), 1, &words);
}

/// The build, unable to write files of more than 50 KiB or so.
fn limited(project: &Project) -> Command {
    project.command_after("trap '' XFSZ; ulimit -f 100")
}

#[test]
fn command_lines_with_mistakes() {
    for arguments in [
        &["build"][..],
        &["bake"],
        &[],
        &["build", "--kernel", "k", "--output", "o", "--fast"],
    ] {
        let output = program().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty());
    }
    for arguments in [&["--help"][..], &["--version"], &["build", "--help"]] {
        let output = program().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
    }
}
