//! OpenSSL reads what is sealed here, and what it encrypts is opened here if it has the
//! form of KMS's messages, and refused otherwise.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::process::Command;

use enveloped_data::{Encoding, OpenError, RecipientKey, seal};
use tempfile::TempDir;

const PLAINTEXT: &[u8] = include_bytes!("vectors/plaintext");
const RECIPIENT: &[u8] = include_bytes!("vectors/recipient.pk8");

/// RSAES-OAEP as KMS uses it.
const OAEP: &[&str] = &[
    "-keyopt",
    "rsa_padding_mode:oaep",
    "-keyopt",
    "rsa_oaep_md:sha256",
    "-keyopt",
    "rsa_mgf1_md:sha256",
];

fn vectors() -> PathBuf {
    PathBuf::from("tests/vectors")
}

fn openssl(arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {message}");
}

/// What OpenSSL encrypts to the vectors' recipient with these options.
fn encrypted(options: &[&[&str]], plaintext: &[u8]) -> Vec<u8> {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (input, output) = (path("plaintext"), path("message"));
    std::fs::write(&input, plaintext).unwrap();
    let recipient = vectors().join("recipient.pem");
    let recipient = recipient.to_str().unwrap();
    let command = ["cms", "-encrypt", "-binary", "-outform", "DER"];
    let files = ["-in", &input, "-out", &output, "-recip", recipient];
    openssl(&[&command[..], &files, &options.concat()].concat());
    std::fs::read(output).unwrap()
}

fn opened(message: &[u8]) -> Result<Vec<u8>, OpenError> {
    let key = RecipientKey::from_pkcs8(RECIPIENT).unwrap();
    key.open(message).map(|plaintext| plaintext.to_vec())
}

#[test]
fn vectors_are_opened() {
    for message in [
        include_bytes!("vectors/issuer.der").as_slice(),
        include_bytes!("vectors/key-identifier.der"),
        include_bytes!("vectors/stream.ber"),
    ] {
        assert_eq!(opened(message), Ok(PLAINTEXT.to_vec()));
    }
}

#[test]
fn openssl_encrypts_what_open_reads() {
    for length in [0, 1, 15, 16, 17, 4096] {
        let plaintext = vec![7; length];
        for form in [[].as_slice(), &["-keyid"], &["-keyid", "-stream"]] {
            let options = [["-aes-256-cbc"].as_slice(), form, OAEP];
            let message = encrypted(&options, &plaintext);
            assert_eq!(opened(&message).as_ref(), Ok(&plaintext), "{form:?}");
        }
    }
}

#[test]
fn openssl_decrypts_what_seal_writes() {
    let key = RecipientKey::from_pkcs8(RECIPIENT).unwrap();
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (message, plaintext) = (path("message"), path("plaintext"));
    let private = vectors().join("recipient.pk8");
    for length in [0, 16, 1000, 4096] {
        let expected = vec![9; length];
        for encoding in [Encoding::Kms, Encoding::Der] {
            let sealed = seal(key.public_key_der(), &expected, encoding).unwrap();
            std::fs::write(&message, sealed).unwrap();
            openssl(&[
                "cms",
                "-decrypt",
                "-binary",
                "-inform",
                "DER",
                "-in",
                &message,
                "-out",
                &plaintext,
                "-keyform",
                "DER",
                "-inkey",
                private.to_str().unwrap(),
            ]);
            let decrypted = std::fs::read(&plaintext).unwrap();
            assert_eq!(decrypted, expected, "{encoding:?}");
        }
    }
}

#[test]
fn openssl_writes_what_was_sealed_as_der_again() {
    let key = RecipientKey::from_pkcs8(RECIPIENT).unwrap();
    let sealed = seal(key.public_key_der(), PLAINTEXT, Encoding::Der).unwrap();
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (input, output) = (path("sealed"), path("written"));
    std::fs::write(&input, &sealed).unwrap();
    let options = ["cms", "-cmsout", "-inform", "DER", "-outform", "DER"];
    openssl(&[&options[..], &["-in", &input, "-out", &output]].concat());
    assert_eq!(std::fs::read(output).unwrap(), sealed);
}

#[test]
fn public_key_is_the_certificates() {
    let key = RecipientKey::from_pkcs8(RECIPIENT).unwrap();
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("public.der");
    let (public, private) = (file.to_str().unwrap(), vectors().join("recipient.pk8"));
    let options = ["pkey", "-pubout", "-outform", "DER", "-out", public];
    let input = ["-inform", "DER", "-in", private.to_str().unwrap()];
    openssl(&[&options[..], &input].concat());
    assert_eq!(std::fs::read(file).unwrap(), key.public_key_der());
}

#[test]
fn open_refuses_other_algorithms_and_forms() {
    let aes = ["-aes-256-cbc"].as_slice();
    let oaep_sha_1 = ["-keyopt", "rsa_padding_mode:oaep"].as_slice();
    let mgf1_sha_1 = [
        "-keyopt",
        "rsa_padding_mode:oaep",
        "-keyopt",
        "rsa_oaep_md:sha256",
        "-keyopt",
        "rsa_mgf1_md:sha1",
    ]
    .as_slice();
    let label = ["-keyopt", "rsa_oaep_label:6b6d73"].as_slice();
    let password = ["-pwri_password", "password"].as_slice();
    for (options, expected) in [
        (vec![aes], "RSAES-OAEP is"),
        (vec![aes, oaep_sha_1], "does not begin hashFunc"),
        (vec![aes, mgf1_sha_1], "does not begin maskGenFunc"),
        (vec![aes, OAEP, label], "should end there"),
        (vec![&["-aes-128-cbc"], OAEP], "AES-256-CBC is"),
        (vec![&["-aes-256-gcm"], OAEP], "id-envelopedData is"),
        // A second recipient.
        (vec![aes, password, OAEP], "should end there"),
    ] {
        let error = opened(&encrypted(&options, PLAINTEXT))
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{options:?}: {error}");
    }
}
