//! A second implementation of CMS, of Python's asn1crypto and cryptography, reads what is
//! sealed here, and what it writes is opened here.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use enveloped_data::{Encoding, RecipientKey, seal};

const RECIPIENT: &[u8] = include_bytes!("vectors/recipient.pk8");
/// None, blocks more or less one byte, and one, two and all fragments of an answer of KMS.
const LENGTHS: [usize; 8] = [0, 1, 15, 16, 17, 1000, 1985, 4096];
/// How many forms the script seals in.
const FORMS: usize = 4;

/// What the script answers these lines with.
fn script(python: OsString, command: &str, lines: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let folder = Path::new("tests");
    let mut child = Command::new(python)
        .arg(folder.join("asn1crypto/cms.py"))
        .arg(command)
        .arg(folder.join("vectors/recipient.pk8"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = String::new();
    for line in lines {
        writeln!(input, "{}", hex::encode(line)).unwrap();
    }
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{command}: see above");
    let output = String::from_utf8(output.stdout).unwrap();
    output
        .lines()
        .map(|line| hex::decode(line).unwrap())
        .collect()
}

#[test]
fn asn1crypto_opens_what_seal_writes() {
    let Some(python) = std::env::var_os("ENCLAVE_TEST_PYTHON") else {
        println!("not checked: ENCLAVE_TEST_PYTHON names no Python; run cargo xtask test");
        return;
    };
    let key = RecipientKey::from_pkcs8(RECIPIENT).unwrap();
    let mut messages = Vec::new();
    let mut expected = Vec::new();
    for length in LENGTHS {
        for encoding in [Encoding::Kms, Encoding::Der] {
            let plaintext = vec![9; length];
            messages.push(seal(key.public_key_der(), &plaintext, encoding).unwrap());
            expected.push(plaintext);
        }
    }
    assert_eq!(script(python, "open", &messages), expected);
}

#[test]
fn asn1crypto_seals_what_open_reads() {
    let Some(python) = std::env::var_os("ENCLAVE_TEST_PYTHON") else {
        println!("not checked: ENCLAVE_TEST_PYTHON names no Python; run cargo xtask test");
        return;
    };
    let key = RecipientKey::from_pkcs8(RECIPIENT).unwrap();
    let plaintexts = LENGTHS.map(|length| vec![7; length]);
    let messages = script(python, "seal", &plaintexts);
    assert_eq!(messages.len(), LENGTHS.len() * FORMS);
    for (messages, plaintext) in messages.chunks(FORMS).zip(&plaintexts) {
        for message in messages {
            assert_eq!(key.open(message).unwrap().as_slice(), plaintext);
        }
    }
}
