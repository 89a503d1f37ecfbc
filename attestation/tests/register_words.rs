//! Words for registers in policies: `role_arn`, `instance_id` and `signer`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;

use attestation::{Policy, PolicyBuilder, pcr8_of_signer};
use measurements::Pcr;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384};

const ROLE: &str = "arn:aws:iam::123456789012:role/Webserver";
/// Of AWS's manual, "Cryptographic attestation".
const PCR3: &str = "78fce75db17cd4e0a3fb8dad3ad128ca5e77edbb2b2c7f75329dccd99aa5f6ef4fc1f1a452e315b9e98f9e312e6921e6";
const INSTANCE: &str = "i-1234567890abcdef0";
/// (printf '%096d' 0 | xxd -r -p; printf i-1234567890abcdef0) | sha384sum
const PCR4: &str = "08f996b5d43e047a9eb51e7f548bfee7e164fd7dc8f65541f2ac09d6545ac812719327281c401a67a10fcba87ae79ce0";

fn certificate() -> String {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let params = CertificateParams::new(vec!["signer.example".to_owned()]).unwrap();
    params.self_signed(&key).unwrap().pem()
}

/// PCR8 as openssl computes it of the PEM file.
fn pcr8(file: &Path) -> Pcr {
    let script = "(head -c 48 /dev/zero; \
        openssl x509 -in \"$1\" -outform DER | openssl dgst -sha384 -binary) \
        | openssl dgst -sha384 -r";
    let output = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(file)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

fn any() -> PolicyBuilder {
    Policy::builder().allow_any_image()
}

#[test]
fn role_arn_and_instance_id_are_pcr3_and_pcr4() {
    let (pcr3, pcr4): (Pcr, Pcr) = (PCR3.parse().unwrap(), PCR4.parse().unwrap());
    let other = "i-0123456789abcdef0";
    let other_pcr4 = Pcr::ZERO.extend(other.as_bytes());
    let expected = any().pcr(3, pcr3).pcr(4, pcr4).pcr(4, other_pcr4);
    let expected = expected.build().unwrap();
    let toml = format!(
        "allow_any_image = true\nrole_arn = \"{ROLE}\"\ninstance_id = [\"{INSTANCE}\", \"{other}\"]"
    );
    assert_eq!(Policy::from_toml(&toml).unwrap(), expected);
    let json = format!(
        r#"{{"allow_any_image": true, "role_arn": ["{ROLE}"], "instance_id": ["{INSTANCE}", "{other}"]}}"#
    );
    assert_eq!(Policy::from_json(&json).unwrap(), expected);
}

#[test]
fn signer_is_the_pcr8_that_openssl_computes() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (certificate(), certificate());
    let file = folder.path().join("signer.pem");
    // A bundle is measured by its first certificate.
    std::fs::write(&file, format!("{one}{two}")).unwrap();
    let expected = Policy::builder().pcr(8, pcr8(&file)).build().unwrap();
    let policy = folder.path().join("policy.toml");
    std::fs::write(&policy, "signer = \"signer.pem\"").unwrap();
    assert_eq!(Policy::read(&policy).unwrap(), expected);
    let inline = format!("signer = '''\n{one}'''");
    assert_eq!(Policy::from_toml(&inline).unwrap(), expected);
    let both = serde_json::json!({ "signer": [one, two] }).to_string();
    let both = Policy::from_json(&both).unwrap();
    let expected = expected.to_builder();
    let expected = expected.pcr(8, pcr8_of_signer(two.as_bytes()).unwrap());
    assert_eq!(both, expected.build().unwrap());
}

#[test]
fn words_that_cannot_be_used_are_refused() {
    let any = "allow_any_image = true\n";
    let value = "07".repeat(48);
    for (text, part) in [
        (format!("role_arn = \"{ROLE}\""), "names no code"),
        (format!("instance_id = \"{INSTANCE}\""), "names no code"),
        (format!("{any}role_arn = []"), "no value for PCR3"),
        (
            format!("{any}role_arn = \"{ROLE}\"\npcrs.3 = \"{value}\""),
            "role_arn and pcrs both give values of PCR3",
        ),
        (
            format!("{any}instance_id = \"{INSTANCE}\"\npcrs.4 = \"{value}\""),
            "instance_id and pcrs both give values of PCR4",
        ),
        (
            format!("{any}instance_id = [\"{INSTANCE}\", \"{INSTANCE}\"]"),
            "twice",
        ),
        (
            format!("{any}profile = \"nitro-tpm\"\ninstance_id = \"{INSTANCE}\""),
            "of enclaves",
        ),
        (
            format!("{any}role_arn = \"arn:aws:sts::123456789012:assumed-role/Webserver/i-1\""),
            "get-role",
        ),
        (
            format!("{any}role_arn = 3"),
            "a role's ARN, or a list of them",
        ),
        (
            format!("{any}instance_id = \"i-1\""),
            "not an instance's id",
        ),
        ("signer = \"signer.pem\"".to_owned(), "write its content"),
        (
            "signer = '''-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----'''"
                .to_owned(),
            "the signer's certificate cannot be read",
        ),
        (
            format!("{any}pcrs.8 = \"{}\"", "07".repeat(32)),
            "attest pcr --certificate",
        ),
        (
            format!("{any}pcrs.8 = \"{}\"", vec!["07"; 48].join(":")),
            "attest pcr --certificate",
        ),
    ] {
        let error = Policy::from_toml(&text).unwrap_err().to_string();
        assert!(error.contains(part), "{text}\n{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("policy.toml");
    std::fs::write(&policy, "signer = \"signer.pem\"").unwrap();
    let error = Policy::read(&policy).unwrap_err().to_string();
    assert!(error.contains("signer.pem: it cannot be read"), "{error}");
    std::fs::write(folder.path().join("signer.pem"), "no PEM").unwrap();
    let error = Policy::read(&policy).unwrap_err().to_string();
    assert!(error.contains("no PEM block CERTIFICATE"), "{error}");
}
