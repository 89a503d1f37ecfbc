//! `kms-policy`, from measurements to a policy and from a policy to what it lets whom do.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use measurements::Pcr;
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::project::{error_line, program};

const ROLE: &str = "arn:aws:iam::123456789012:role/service/Enclave";
const IMAGE: &str = "kms:RecipientAttestation:ImageSha384";

/// A folder with files of measurements and a certificate.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for (name, byte, signer) in [
            ("current.json", 1, None),
            ("next.json", 2, None),
            ("signed.json", 3, Some(9)),
            ("debug.json", 0, None),
        ] {
            let pcr = |byte| Pcr::new([byte; 48]).to_string();
            let mut measurements = json!({
                "PCR0": pcr(byte), "PCR1": pcr(11), "PCR2": pcr(12),
            });
            if let Some(signer) = signer {
                measurements["PCR8"] = json!(pcr(signer));
            }
            folder.write(name, &json!({"Measurements": measurements}).to_string());
        }
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([])
            .unwrap()
            .self_signed(&key)
            .unwrap();
        folder.write("signer.pem", &certificate.pem());
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program();
        command.arg("kms-policy").args(arguments);
        command.current_dir(self.0.path());
        command
    }

    fn written(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{message}");
        assert_eq!(message, "");
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn refused(&self, arguments: &[&str], code: i32, words: &str) {
        let output = self.command(arguments).output().unwrap();
        let line = error_line(&output);
        assert_eq!(output.status.code(), Some(code), "{line}");
        assert!(line.contains(words), "`{words}` is not in: {line}");
        assert!(output.stdout.is_empty());
    }

    /// Checks a policy that comes by standard input.
    fn check(&self, policy: &str, more: &[&str]) -> Output {
        let mut command = self.command(&["check", "-"]);
        command
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(policy.as_bytes()).unwrap();
        drop(input);
        child.wait_with_output().unwrap()
    }
}

fn statement<'a>(policy: &'a Value, sid: &str) -> &'a Value {
    let statements = policy["Statement"].as_array().unwrap();
    let found = statements.iter().find(|statement| statement["Sid"] == sid);
    found.unwrap_or_else(|| panic!("no statement {sid}"))
}

#[test]
fn kms_policy_demands_what_the_command_line_says() {
    let folder = Folder::new();
    let text = folder.written(&[
        "--measurements",
        "current.json",
        "--next",
        "next.json",
        "--signer",
        "signer.pem",
        "--role",
        ROLE,
        "--instance",
        "i-1234567890abcdef0",
        "--account",
        "123456789012",
        "--encrypter",
        "arn:aws:iam::123456789012:user/Release",
    ]);
    let policy: Value = serde_json::from_str(&text).unwrap();
    let current = &statement(&policy, "CurrentRelease")["Condition"]["StringEqualsIgnoreCase"];
    let next = &statement(&policy, "NextRelease")["Condition"]["StringEqualsIgnoreCase"];
    assert_eq!(current[IMAGE], json!(["01".repeat(48)]));
    assert_eq!(next[IMAGE], json!(["02".repeat(48)]));
    let register = |index| current[format!("kms:RecipientAttestation:PCR{index}")][0].clone();
    // As AWS's own commands compute them, of the same instance and of this role.
    let pcr4 = "08f996b5d43e047a9eb51e7f548bfee7e164fd7dc8f65541f2ac09d6545ac812719327281c401a67a10fcba87ae79ce0";
    assert_eq!(register(4), pcr4);
    assert_eq!(register(3), Pcr::ZERO.extend(ROLE.as_bytes()).to_string());
    let signer = attestation::pcr8_of_signer(&fs::read(folder.path("signer.pem")).unwrap());
    assert_eq!(register(8), signer.unwrap().to_string());
    for sid in ["CurrentRelease", "NextRelease"] {
        assert_eq!(statement(&policy, sid)["Principal"], json!({"AWS": [ROLE]}));
    }
    let root = json!({"AWS": ["arn:aws:iam::123456789012:root"]});
    assert_eq!(statement(&policy, "Administration")["Principal"], root);
    let encrypter = json!({"AWS": ["arn:aws:iam::123456789012:user/Release"]});
    assert_eq!(statement(&policy, "Encryption")["Principal"], encrypter);

    let output = folder.check(&text, &[]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(
        said.ends_with("nobody reads without attestation\n"),
        "{said}"
    );
}

#[test]
fn kms_policy_of_little_leaves_the_rest_to_the_account() {
    let folder = Folder::new();
    let text = folder.written(&[
        "--measurements",
        "signed.json",
        "--role",
        ROLE,
        "--account",
        "123456789012",
    ]);
    let policy: Value = serde_json::from_str(&text).unwrap();
    let current = &statement(&policy, "CurrentRelease")["Condition"]["StringEqualsIgnoreCase"];
    assert_eq!(
        current["kms:RecipientAttestation:PCR8"],
        json!(["09".repeat(48)])
    );
    let root = json!({"AWS": ["arn:aws:iam::123456789012:root"]});
    assert_eq!(statement(&policy, "Encryption")["Principal"], root);
}

#[test]
fn kms_policy_refuses_what_would_protect_nothing() {
    let folder = Folder::new();
    let account = ["--account", "123456789012"];
    let with = |more: &[&'static str]| [more, &account].concat();
    let role = ["--role", ROLE];
    let measured = |file: &'static str| [&["--measurements", file], &role[..]].concat();
    let cases: [(Vec<&str>, i32, &str); 10] = [
        (
            with(&measured("missing.json")),
            1,
            "cannot read missing.json",
        ),
        (with(&measured("signer.pem")), 3, "signer.pem: "),
        (with(&measured("debug.json")), 3, "debug.json: "),
        (
            with(&["--measurements", "current.json"]),
            2,
            "nobody who calls KMS",
        ),
        (
            [
                with(&measured("signed.json")),
                vec!["--signer", "signer.pem"],
            ]
            .concat(),
            3,
            "another certificate",
        ),
        (
            [
                with(&measured("current.json")),
                vec!["--signer", "next.json"],
            ]
            .concat(),
            3,
            "next.json: ",
        ),
        (
            [
                measured("current.json"),
                vec!["--administrator", ROLE, "--encrypter", ROLE],
            ]
            .concat(),
            2,
            "could replace the policy",
        ),
        (
            [with(&measured("current.json")), vec!["--encrypter", "*"]].concat(),
            2,
            "* cannot be who encrypts",
        ),
        (vec!["check", "missing.json"], 1, "cannot read missing.json"),
        (vec!["check", "current.json"], 3, "\"Measurements\""),
    ];
    for (arguments, code, words) in cases {
        folder.refused(&arguments, code, words);
    }
    for arguments in [
        &["--role", ROLE, "--account", "1"][..],
        &["--measurements", "current.json", "--role", ROLE],
        &[
            "--measurements",
            "current.json",
            "--role",
            "Enclave",
            "--account",
            "123456789012",
        ],
        &["--measurements", "current.json", "check", "current.json"],
        &["check"],
        &[],
    ] {
        let output = folder.command(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn kms_policy_check_says_who_could_read_and_ends_with_5() {
    let folder = Folder::new();
    let default = json!({"Version": "2012-10-17", "Statement": [
        {
            "Sid": "Root",
            "Effect": "Allow",
            "Principal": {"AWS": "arn:aws:iam::123456789012:root"},
            "Action": "kms:*",
            "Resource": "*",
        },
        {
            "Effect": "Allow",
            "Principal": {"AWS": ROLE},
            "Action": "kms:Decrypt",
            "Resource": "*",
            "Condition": {"StringEquals": {"kms:RecipientAttestation:PCR8": vec!["AB"; 32].join(":")}},
        },
    ]})
    .to_string();
    let output = folder.check(&default, &[]);
    assert_eq!(output.status.code(), Some(5));
    let said = String::from_utf8(output.stdout).unwrap();
    for words in [
        "open            \"Root\": whom the IAM policies of account 123456789012 allow it may call kms:Decrypt, ",
        " without an attestation document\n",
        " may call kms:CreateGrant for grants by which others read\n",
        "attested        Statement[1]: arn:aws:iam::123456789012:role/service/Enclave may call kms:Decrypt\n",
        "attest pcr --certificate",
        "replaces        \"Root\": ",
        "result          others than attested enclaves could read\n",
    ] {
        assert!(said.contains(words), "`{words}` is not in: {said}");
    }
    let output = folder.check(&default, &["--json"]);
    assert_eq!(output.status.code(), Some(5));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        json["Holes"][0]["Statement"],
        json!({"Index": 0, "Sid": "Root"})
    );
    assert_eq!(json["Holes"][0]["Way"], "without-attestation");
    assert_eq!(json["Holes"][0]["Principals"], json!(["123456789012"]));
    assert_eq!(
        json["Attested"][0]["Demands"][0]["Operator"],
        "StringEquals"
    );
    assert_eq!(
        json["Replacing"][0]["Actions"],
        json!(["kms:PutKeyPolicy", "kms:ReplicateKey"])
    );
}

#[test]
fn kms_policy_for_a_fleet_key_lets_nobody_choose_the_seed() {
    let folder = Folder::new();
    let arguments = [
        "--measurements",
        "current.json",
        "--role",
        ROLE,
        "--account",
        "123456789012",
    ];
    let usual = folder.written(&arguments);
    let text = folder.written(&[&arguments[..], &["--fleet-key"]].concat());
    let policy: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(statement(&policy, "ChosenSeeds")["Effect"], "Deny");
    assert!(!text.contains("\"Encryption\""), "{text}");
    let output = folder.check(&text, &["--fleet-key"]);
    assert_eq!(output.status.code(), Some(0));
    // Of a key for secrets it is right that somebody encrypts.
    assert_eq!(folder.check(&usual, &[]).status.code(), Some(0));
    let output = folder.check(&usual, &["--fleet-key"]);
    assert_eq!(output.status.code(), Some(5));
    let said = String::from_utf8(output.stdout).unwrap();
    for words in [
        "may call kms:Encrypt to choose the seed of the enclaves",
        "others than attested enclaves could choose the seed",
    ] {
        assert!(said.contains(words), "{said}");
    }
    let both = [&arguments[..], &["--fleet-key", "--encrypter", ROLE]].concat();
    let output = folder.command(&both).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("cannot be used with"), "{said}");
}
