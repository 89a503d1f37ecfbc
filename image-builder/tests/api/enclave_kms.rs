//! `enclave-kms` in an image whose manifest asks for it.

use std::fs;

use crate::image::{Image, app};
use crate::layer::{Layer, dynamic_elf, elf, elf_for};
use crate::project::Project;
use crate::ramdisk::{file, ramdisks, rootfs};

const KMS: &str = "\n[workload]\naws_credentials = true\n[network]\naws_services = [\"kms\"]\n[kms]\nendpoint = \"https://kms.eu-west-1.amazonaws.com\"\n";
const COMMAND: &str = "command = true\n";
/// Where the line of the manifest is that asks for it.
const LINE: &str = "enclave.toml:12: ";

/// A project that asks for it, and has it.
fn asking(layers: &[Layer]) -> Project {
    let project = Project::of(&Image::new(layers));
    project.manifest(&format!("{KMS}{COMMAND}"));
    project.write("enclave-kms", program());
    project
}

fn program() -> Vec<u8> {
    [elf(), b"the program".to_vec()].concat()
}

/// Fails to build with the program in the folder.
#[track_caller]
fn refused(project: &Project, code: i32, words: &[&str]) {
    let mut command = project.command();
    command.args(["--enclave-kms", "enclave-kms"]);
    project.refuses(command, code, words);
}

/// Builds with the program in the folder.
#[track_caller]
fn built(project: &Project) -> Vec<u8> {
    let mut command = project.command();
    command.args(["--enclave-kms", "enclave-kms"]);
    let output = command.output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{message}");
    fs::read(project.path("out.eif")).unwrap()
}

#[test]
fn enclave_kms_is_put_into_the_image_on_request_and_changes_nothing_else() {
    let project = asking(&[app().directory("usr").file("usr/other", "x")]);
    let with = built(&project);
    let [_, application] = ramdisks(&with).try_into().unwrap();
    assert_eq!(file(&application, "rootfs/usr/bin/enclave-kms"), program());
    let place = " /usr/bin/enclave-kms";
    let entries = rootfs(&with);
    let entry = entries.iter().find(|line| line.ends_with(place)).unwrap();
    assert!(entry.starts_with("-rwxr-xr-x 1 0 0 "), "{entry}");
    assert_eq!(built(&project), with, "other bytes");

    // It is a program of the image as any other.
    let command = "entrypoint = [\"/usr/bin/enclave-kms\", \"genrandom\"]\n[network]";
    let as_workload = KMS.replace("[network]", command);
    project.manifest(&format!("{as_workload}{COMMAND}"));
    built(&project);
    project.manifest(&as_workload);
    project.refused(2, &["/usr/bin/enclave-kms"]);

    // Nobody asks for it.
    fs::remove_file(project.path("enclave-kms")).unwrap();
    project.manifest(KMS);
    let without = rootfs(&built(&project));
    let others = entries
        .into_iter()
        .filter(|line| !line.contains("/usr/bin"));
    assert_eq!(others.collect::<Vec<_>>(), without);
}

#[test]
fn enclave_kms_goes_where_links_of_the_image_lead() {
    let project = asking(&[app()
        .symlink("usr/bin", "../programs")
        .directory("programs")]);
    let [_, application] = ramdisks(&built(&project)).try_into().unwrap();
    assert_eq!(file(&application, "rootfs/programs/enclave-kms"), program());
}

#[test]
fn enclave_kms_takes_the_place_of_nothing() {
    let place = "usr/bin/enclave-kms";
    for layer in [
        app().program(place, elf()),
        app().symlink(place, "/nowhere"),
        app().directory(place),
    ] {
        let words = [
            LINE,
            "/usr/bin/enclave-kms",
            "something is there already: remove it",
        ];
        refused(&asking(&[layer]), 2, &words);
    }
    let words = [LINE, "goes through a file that is not a directory"];
    refused(&asking(&[app().file("usr", "x")]), 2, &words);
}

#[test]
fn enclave_kms_is_a_static_program_for_the_kernels_processor() {
    let project = asking(&[app()]);
    for (contents, reason) in [
        (b"#!/bin/sh\n".to_vec(), "not a 64-bit ELF program"),
        (elf_for(183), "not built for the kernel's processor, x86_64"),
        (dynamic_elf("/lib/ld.so"), "it is not static"),
    ] {
        project.write("enclave-kms", contents);
        let words = [
            "enclave-kms: ",
            reason,
            "of this release with --enclave-kms",
        ];
        refused(&project, 3, &words);
    }
    fs::remove_file(project.path("enclave-kms")).unwrap();
    let words = [
        "cannot read enclave-kms",
        "of this release with --enclave-kms",
    ];
    refused(&project, 1, &words);
}
