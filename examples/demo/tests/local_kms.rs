//! The local KMS gives a secret to the image that its key's policy names, with a client of
//! AWS's.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use demo::kms::{ENCLAVE_ROLE, OPERATOR};
use enveloped_data::RecipientKey;
use key_policy::{Release, Rules};
use measurements::{Measurements, Pcr};
use serde_json::{Value, json};
use software_nsm::{Identity, SoftwareNsm, TestRoot};

const SECRET: &str = "the secret of image A";

struct Kms(Child);

impl Drop for Kms {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running KMS, and where it is.
fn start(folder: &Path, root: &Path) -> (Kms, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_local-kms"))
        .args(["--listen", "127.0.0.1:0", "--folder"])
        .arg(folder)
        .arg("--nsm-root")
        .arg(root)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut endpoint = String::new();
    let stdout = child.stdout.take().unwrap();
    let kms = Kms(child);
    BufReader::new(stdout).read_line(&mut endpoint).unwrap();
    (kms, endpoint.trim().to_owned())
}

fn measured(pcr0: u8) -> Measurements {
    Measurements {
        pcr0: Pcr::new([pcr0; 48]),
        pcr1: Pcr::new([2; 48]),
        pcr2: Pcr::new([3; 48]),
        pcr8: None,
    }
}

fn document(measurements: Option<Measurements>, root: TestRoot, key: &RecipientKey) -> String {
    let identity = Identity {
        instance_id: "i-0123456789abcdef0".to_owned(),
        enclave_id: "enc0123456789abcdef".to_owned(),
        measurements,
    };
    let mut module = SoftwareNsm::new(identity, root).unwrap();
    let request = nsm::Request::Attestation {
        user_data: None,
        nonce: None,
        public_key: Some(key.public_key_der().to_vec().into()),
    };
    match module.answer(request) {
        nsm::Response::Attestation { document } => STANDARD.encode(document),
        other => panic!("{other:?}"),
    }
}

#[test]
fn local_kms_gives_a_secret_to_the_image_that_its_policy_names() {
    let Some(python) = std::env::var_os("ENCLAVE_TEST_PYTHON") else {
        println!("not checked: ENCLAVE_TEST_PYTHON names no Python; run cargo xtask test");
        return;
    };
    let temporary = tempfile::tempdir().unwrap();
    let root = TestRoot::generate().unwrap();
    let (certificate, key_pem) = (root.certificate_pem().to_owned(), root.key_pem());
    let root_file = temporary.path().join("root.pem");
    std::fs::write(&root_file, &certificate).unwrap();
    let same_root = || TestRoot::from_pem(&certificate, &key_pem).unwrap();

    let folder = temporary.path().join("kms");
    // The authority is kept, and the images that know it stay good.
    let (kms, _) = start(&folder, &root_file);
    let authority = std::fs::read(folder.join("authority.pem")).unwrap();
    drop(kms);
    let (_kms, endpoint) = start(&folder, &root_file);
    assert_eq!(
        std::fs::read(folder.join("authority.pem")).unwrap(),
        authority
    );

    let policy = Rules {
        current: Release::from(&measured(1)),
        next: None,
        role: None,
        instance: None,
        callers: vec![ENCLAVE_ROLE.parse().unwrap()],
        administrators: vec![OPERATOR.parse().unwrap()],
        encrypters: vec![OPERATOR.parse().unwrap()],
        is_for_seed: false,
    };
    let policy: Value = serde_json::from_str(&policy.write().unwrap().to_string()).unwrap();
    let key = RecipientKey::generate().unwrap();
    let request = json!({
        "policy": policy,
        "secret": SECRET,
        "documents": {
            "image A": document(Some(measured(1)), same_root(), &key),
            "another image": document(Some(measured(9)), same_root(), &key),
            "debug mode": document(None, same_root(), &key),
            "another NSM": document(Some(measured(1)), TestRoot::generate().unwrap(), &key),
        },
    });
    let script = Path::new("tests/local_kms/call.py");
    let mut child = Command::new(python)
        .arg(script)
        .arg(&endpoint)
        .arg(&folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(request.to_string().as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "see above");
    let answers: Value = serde_json::from_slice(&output.stdout).unwrap();
    for (name, expected) in [
        ("another image", "AccessDeniedException"),
        ("debug mode", "AccessDeniedException"),
        ("another NSM", "ValidationException"),
        ("another root", "SSLError"),
    ] {
        assert_eq!(answers[name], expected, "{name}");
    }
    let message = STANDARD.decode(answers["image A"].as_str().unwrap());
    let secret = key.open(&message.unwrap()).unwrap();
    assert_eq!(secret.as_slice(), SECRET.as_bytes());
}
