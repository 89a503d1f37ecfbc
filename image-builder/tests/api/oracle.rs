//! AWS's own crate reads what is built and finds the same measurements.

use std::fs;

use aws_nitro_enclaves_image_format::utils::PcrSignatureChecker;
use aws_nitro_enclaves_image_format::utils::eif_reader::EifReader;
use measurements::Measurements;
use rcgen::{
    CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384,
    PKCS_ECDSA_P521_SHA512, SignatureAlgorithm, date_time_ymd,
};
use serde_json::json;

use crate::image::sha256;
use crate::layer::elf;
use crate::project::Project;

/// What AWS's reader finds; its findings on CRC and signature are asserted.
fn measure(project: &Project, signed: bool) -> Measurements {
    let path = project.path("out.eif").to_str().unwrap().to_owned();
    let mut reader = EifReader::from_eif(path.clone()).unwrap();
    assert!(reader.check_crc());
    let measurements = reader.get_measurements().unwrap();
    if signed {
        reader.get_certificate_info(measurements.clone()).unwrap();
        assert_eq!(reader.sign_check, Some(true));
        PcrSignatureChecker::from_eif(&path)
            .unwrap()
            .verify()
            .unwrap();
    }
    let metadata = reader.get_metadata().unwrap();
    assert_eq!(metadata.img_name, "test");
    serde_json::from_value(json!({ "Measurements": measurements })).unwrap()
}

fn write_identity(project: &Project, name: &str, algorithm: &'static SignatureAlgorithm) {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let certificate = CertificateParams::default().self_signed(&key).unwrap();
    project.write(&format!("{name}.key"), key.serialize_pem());
    project.write(&format!("{name}.pem"), certificate.pem());
}

/// Builds signed, and gives the measurements that were printed and written.
fn build_signed(project: &Project, name: &str) -> Measurements {
    let mut command = project.command();
    command
        .args(["--json", "--measurements", "measurements.json"])
        .args(["--signing-key", &format!("{name}.key")])
        .args(["--signing-certificate", &format!("{name}.pem")]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let printed: Measurements = serde_json::from_slice(&output.stdout).unwrap();
    let written = fs::read(project.path("measurements.json")).unwrap();
    assert_eq!(written, output.stdout);
    printed
}

#[test]
fn it_finds_the_measurements_that_were_printed() {
    let project = Project::new();
    let output = project.command().arg("--json").output().unwrap();
    let printed: Measurements = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed.pcr8, None);
    assert_eq!(measure(&project, false), printed);
    // What people read has the same values.
    let output = project.command().output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "image           test");
    assert!(lines[1].starts_with("file            out.eif, "), "{text}");
    assert_eq!(lines[2], format!("init            {}", sha256(&elf())));
    assert_eq!(lines[3], format!("PCR0            {}", printed.pcr0));
    assert_eq!(lines[4], format!("PCR1            {}", printed.pcr1));
    assert_eq!(lines[5], format!("PCR2            {}", printed.pcr2));
    assert_eq!(lines.len(), 6);
}

#[test]
fn signing_measures_the_certificate_and_nothing_else() {
    let project = Project::new();
    project.build();
    let unsigned = measure(&project, false);
    let mut certificates = Vec::new();
    for (name, algorithm) in [
        ("p256", &PKCS_ECDSA_P256_SHA256),
        ("p384", &PKCS_ECDSA_P384_SHA384),
        ("p521", &PKCS_ECDSA_P521_SHA512),
    ] {
        write_identity(&project, name, algorithm);
        let printed = build_signed(&project, name);
        assert_eq!(measure(&project, true), printed);
        certificates.push(printed.pcr8.unwrap().to_string());
        let rest = Measurements {
            pcr8: None,
            ..printed
        };
        assert_eq!(rest, unsigned);
    }
    certificates.sort();
    certificates.dedup();
    assert_eq!(certificates.len(), 3);
}

#[test]
fn keys_that_do_not_fit_are_refused() {
    let project = Project::new();
    write_identity(&project, "one", &PKCS_ECDSA_P384_SHA384);
    write_identity(&project, "other", &PKCS_ECDSA_P384_SHA384);
    project.write("empty", "");
    for (key, certificate, code, words) in [
        ("one.key", "other.pem", 3, ["one.key", "does not belong to"]),
        (
            "empty",
            "one.pem",
            3,
            ["empty", "signing key cannot be used"],
        ),
        (
            "one.key",
            "empty",
            3,
            ["empty", "certificate cannot be used"],
        ),
        ("absent", "one.pem", 1, ["absent", "No such file"]),
    ] {
        let mut command = project.command();
        command.args(["--signing-key", key, "--signing-certificate", certificate]);
        project.refuses(command, code, &words);
    }
    for (name, years, problem) in [
        ("old", (2020, 2021), "it expired at 2021-01-01T00:00:00Z"),
        (
            "new",
            (4000, 4001),
            "it is not valid before 4000-01-01T00:00:00Z",
        ),
    ] {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
        let mut certificate = CertificateParams::default();
        certificate.not_before = date_time_ymd(years.0, 1, 1);
        certificate.not_after = date_time_ymd(years.1, 1, 1);
        let certificate = certificate.self_signed(&key).unwrap();
        project.write(&format!("{name}.key"), key.serialize_pem());
        let file = format!("{name}.pem");
        project.write(&file, certificate.pem());
        let mut command = project.command();
        command.args(["--signing-key", &format!("{name}.key")]);
        command.args(["--signing-certificate", &file]);
        project.refuses(command, 3, &[&file, problem, "make a new certificate"]);
    }
    // One without the other is a wrong command line.
    let mut command = project.command();
    command.args(["--signing-key", "one.key"]);
    assert_eq!(command.output().unwrap().status.code(), Some(2));
}
