//! `describe`, of images that are sound and of others.

use std::fs::File;
use std::path::Path;
use std::process::Output;

use eif::{Architecture, BuildMetadata, Image, Metadata, Signer};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384, date_time_ymd};
use serde_json::Value;

use crate::project::{Project, error_line, program};

fn describe(project: &Project, name: &str, json: bool) -> Output {
    let mut command = program();
    command.arg("describe").current_dir(project.folder());
    if json {
        command.arg("--json");
    }
    command.arg(name).output().unwrap()
}

#[test]
fn a_sound_image() {
    let project = Project::new();
    let built = project.command().arg("--json").output().unwrap();
    let built: Value = serde_json::from_slice(&built.stdout).unwrap();

    let output = describe(&project, "out.eif", true);
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty());
    let image: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(image["Measurements"], built["Measurements"]);
    assert_eq!(image["ImageName"], "test");
    assert_eq!(image["CheckCRC"], true);
    assert_eq!(image["IsSigned"], false);
    assert_eq!(image["Metadata"]["KernelVersion"], "6.12.9");
    assert_eq!(image["Problems"], serde_json::json!([]));

    let output = describe(&project, "out.eif", false);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    for line in text.lines() {
        let (label, value) = line.split_at(16);
        assert!(label.ends_with(' ') && !value.starts_with("  "), "{line}");
    }
    for line in [
        "file            out.eif",
        "format          EIF version 4, x86_64",
        "image           test, version 1",
        "kernel version  6.12.9",
        "started with    64 MiB, 2 CPUs",
        "signed by       nobody",
        "kernel          4096 bytes",
    ] {
        assert!(text.lines().any(|own| own == line), "{line} in\n{text}");
    }
    let pcr0 = built["Measurements"]["PCR0"].as_str().unwrap();
    assert!(text.contains(&format!("PCR0            {pcr0}\n")));
    assert!(!text.contains("problem"));
}

#[test]
fn an_image_that_gets_credentials_says_so() {
    let project = Project::new();
    let says = |manifest: &str| {
        project.manifest(manifest);
        assert!(project.command().output().unwrap().status.success());
        let output = describe(&project, "out.eif", false);
        let text = String::from_utf8(output.stdout).unwrap();
        text.contains("AWS credentials the workload gets the instance's\n")
    };
    assert!(says("[workload]\naws_credentials = true\n"));
    assert!(!says("[workload]\naws_credentials = false\n"));
}

/// A change that damages an image.
type Change = fn(&mut Vec<u8>);

#[test]
fn damaged_images() {
    let project = Project::new();
    let sound = project.build();
    let write = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut image = sound.clone();
        change(&mut image);
        project.write("damaged.eif", image);
    };
    // The contents can still be described.
    write(&|image| *image.last_mut().unwrap() ^= 1);
    let output = describe(&project, "damaged.eif", false);
    assert_eq!(output.status.code(), Some(3));
    assert!(error_line(&output).contains("damaged.eif: the image's CRC-32 is"));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("\nproblem         the image's CRC-32 is"),
        "{text}"
    );
    let output = describe(&project, "damaged.eif", true);
    assert_eq!(output.status.code(), Some(3));
    let image: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(image["CheckCRC"], false);
    assert_eq!(image["Problems"].as_array().unwrap().len(), 1);

    // These cannot.
    let changes: [(Change, &str); 6] = [
        (|image| image.truncate(image.len() / 2), "truncated"),
        (|image| image.truncate(3), "truncated"),
        (|image| image.clear(), "truncated"),
        (|image| image[0] = b'#', "not an EIF"),
        (|image| image.push(0), "follow the last section"),
        (
            |image| image[5] = 9,
            "EIF version 9 (byte 4) is not supported",
        ),
    ];
    for (change, word) in changes {
        write(&change);
        let output = describe(&project, "damaged.eif", false);
        let line = error_line(&output);
        assert_eq!(output.status.code(), Some(3), "{line}");
        assert!(
            line.contains(word) && line.contains("damaged.eif"),
            "{line}"
        );
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn images_that_cannot_be_read() {
    let project = Project::new();
    for (name, word) in [("absent.eif", "No such file"), ("image", "not a file")] {
        let output = describe(&project, name, false);
        assert_eq!(output.status.code(), Some(1));
        let line = error_line(&output);
        assert!(line.contains(name) && line.contains(word), "{line}");
    }
    let output = program().arg("describe").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn metadata_of_strangers_cannot_reach_the_terminal() {
    let project = Project::new();
    let manifest = crate::project::MANIFEST.replace("\"test\"", "\"abcdef\"");
    project.write("enclave.toml", manifest);
    let mut image = project.build();
    let name = b"\"ImageName\":\"abcdef\"";
    let at = image.windows(name.len()).position(|part| part == name);
    let end = at.unwrap() + name.len() - 1;
    image[end - 6..end].copy_from_slice(b"\\u001b");
    project.write("out.eif", image);
    let output = describe(&project, "out.eif", false);
    assert!(!output.stdout.contains(&0x1b));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(text.contains("\\u{1b}, version 1"), "{text}");
    assert_eq!(output.status.code(), Some(3));
    error_line(&output);
}

#[test]
fn a_reader_that_has_gone_is_an_error_and_no_panic() {
    let project = Project::new();
    project.build();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = program()
        .arg("describe")
        .arg(project.path("out.eif"))
        .stdout(full)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(error_line(&output).contains("standard output"));
}

/// An image that says little, signed with a certificate of those years.
fn write_signed(path: &Path, years: (i32, i32)) {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let mut certificate = CertificateParams::default();
    certificate.not_before = date_time_ymd(years.0, 1, 1);
    certificate.not_after = date_time_ymd(years.1, 1, 1);
    let certificate = certificate.self_signed(&key).unwrap();
    let key = key.serialize_pem();
    let signer = Signer::from_pem(key.as_bytes(), certificate.pem().as_bytes()).unwrap();
    let metadata = Metadata {
        image_name: "test".to_owned(),
        image_version: "1".to_owned(),
        build_metadata: BuildMetadata {
            build_time: "1970-01-01T00:00:00Z".to_owned(),
            build_tool: "test".to_owned(),
            build_tool_version: "0".to_owned(),
            operating_system: "Linux".to_owned(),
            kernel_version: "0".to_owned(),
        },
        docker_info: Value::Null.into(),
        custom_metadata: Value::Null.into(),
    };
    let (mut kernel, mut ramdisk) = (&b"not a kernel"[..], &b"not a ramdisk"[..]);
    let image = Image {
        architecture: Architecture::X86_64,
        default_memory: 64 << 20,
        default_cpus: 1,
        kernel: &mut kernel,
        command_line: "",
        metadata: &metadata,
        ramdisks: vec![&mut ramdisk],
        signer: Some(&signer),
    };
    eif::write(image, &mut File::create(path).unwrap()).unwrap();
}

#[test]
fn describe_names_a_certificate_that_is_not_valid_now() {
    let project = Project::new();
    for (years, state) in [
        ((2020, 2021), ", which is over"),
        ((4000, 4001), ", which has not begun"),
        ((2020, 4000), ""),
    ] {
        write_signed(&project.path("signed.eif"), years);
        let text = describe(&project, "signed.eif", false).stdout;
        let text = String::from_utf8(text).unwrap();
        let (begin, end) = years;
        let line =
            format!("valid           from {begin}-01-01T00:00:00Z to {end}-01-01T00:00:00Z{state}");
        assert!(text.lines().any(|own| own == line), "{line} in\n{text}");
    }
}
