//! The `attest` command: what it prints, and its exit codes.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use base64::Engine;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const PCR0: &str = "17bf8f048519797be90497001a7559a3d555395937117d76f8baaedf56ca6d97952de79479bc0c76e5d176d20f663790";
const PCR2: &str = "249037310daa90f4eb0703e7b105a241fdb09f12d3c40b7aea2f39e57b07b887e6ff4e4f9757943e127e391626b5e4d5";

fn vector() -> PathBuf {
    PathBuf::from("../attestation/corpus/aws/3a4a0301e6aa2839.cbor")
}

fn attest(arguments: &[&str]) -> Output {
    attest_with_input(arguments, &[])
}

fn attest_with_input(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_attest"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

#[test]
fn a_document_is_accepted_at_its_own_time_in_every_form() {
    let bytes = std::fs::read(vector()).unwrap();
    let base64 = base64::engine::general_purpose::STANDARD.encode(&bytes);
    let lines: Vec<&str> = base64
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    let pem = format!(
        "-----BEGIN ATTESTATION-----\n{}\n-----END ATTESTATION-----\n",
        lines.join("\r\n")
    );
    let pcr = format!("0={}", PCR0.to_uppercase());
    let arguments = ["verify", "-", "--time", "document", "--pcr", &pcr];
    for input in [
        bytes.clone(),
        hex::encode(&bytes).into_bytes(),
        hex::encode_upper(&bytes).into_bytes(),
        base64.into_bytes(),
        pem.into_bytes(),
    ] {
        let output = attest_with_input(&arguments, &input);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let text = stdout(&output);
        assert!(text.contains("\nok       chain.root "), "{text}");
        assert!(text.contains("\n-        policy.nonce "), "{text}");
        assert!(text.ends_with("was good    i-0df237f0418feb41e-enc018d1c7ef94eb110\n"));
        // Not a terminal, so no colour.
        assert!(!text.contains('\x1b'));
    }
}

#[test]
fn clock_skew_is_kept_for_every_document_of_aws() {
    let corpus = Path::new("../attestation/corpus");
    let cases: Vec<_> = std::fs::read_dir(corpus.join("aws"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().ends_with("-at-its-own-time.json"))
        .collect();
    assert_eq!(cases.len(), 12);
    for case in cases {
        let case: Value = serde_json::from_slice(&std::fs::read(case).unwrap()).unwrap();
        let file = corpus.join(case["document"].as_str().unwrap());
        let made = i128::from(case["claims"]["timestamp_ms"].as_u64().unwrap());
        let verify = |behind_ms: i128| {
            let nanoseconds = (made - behind_ms) * 1_000_000;
            let time = OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).unwrap();
            let time = time.format(&Rfc3339).unwrap();
            let file = file.to_str().unwrap();
            attest(&[
                "verify",
                file,
                "--allow-any-image",
                "--allow-debug",
                "--time",
                &time,
            ])
        };
        let good = verify(59_000);
        assert_eq!(good.status.code(), Some(0), "{}", stdout(&good));
        let early = verify(61_000);
        assert_eq!(early.status.code(), Some(1));
        let text = stdout(&early);
        let rejected = text.lines().last().unwrap();
        assert!(rejected.contains("the clock is "), "{rejected}");
        assert!(rejected.contains(" s behind"), "{rejected}");
    }
}

#[test]
fn roots_are_printed_and_chosen_by_partition() {
    let output = attest(&["roots"]);
    assert_eq!(output.status.code(), Some(0));
    let output_json = attest(&["roots", "--json"]);
    let roots: Value = serde_json::from_slice(&output_json.stdout).unwrap();
    let text = stdout(&output);
    for root in roots["roots"].as_array().unwrap() {
        for key in ["partition", "sha256", "source"] {
            assert!(text.contains(root[key].as_str().unwrap()), "{text}");
        }
    }
    for partition in roots["unpublished"].as_array().unwrap() {
        assert!(text.contains(partition.as_str().unwrap()), "{text}");
    }
    let folder = tempfile::tempdir().unwrap();
    let pem = folder.path().join("roots.pem");
    std::fs::write(&pem, attest(&["roots", "--pem"]).stdout).unwrap();
    let file = vector();
    let verify = |more: &[&str]| {
        let file = file.to_str().unwrap();
        let mut arguments = vec!["verify", file, "--time", "document", "--allow-any-image"];
        arguments.extend(more);
        attest(&arguments)
    };
    for (more, code) in [
        (["--partition", "aws"].as_slice(), 0),
        (&["--partition", "aws-us-gov", "--partition", "aws"], 0),
        (&["--root", pem.to_str().unwrap()], 0),
        (&["--partition", "aws-us-gov"], 1),
        (&["--partition", "aws-cn"], 2),
    ] {
        let output = verify(more);
        assert_eq!(output.status.code(), Some(code), "{more:?}");
    }
    let certificates = std::fs::read_to_string(&pem).unwrap();
    let number = certificates.matches("-----BEGIN CERTIFICATE-----").count();
    assert_eq!(number, roots["roots"].as_array().unwrap().len());
    let other = verify(&["--partition", "aws-us-gov"]);
    assert!(
        stdout(&other).contains("AWS's partition aws, "),
        "{}",
        stdout(&other)
    );
}

#[test]
fn the_table_is_aligned_and_short() {
    let file = vector();
    let pcr = format!("0={PCR0}");
    let output = attest(&[
        "verify",
        file.to_str().unwrap(),
        "--time",
        "document",
        "--pcr",
        &pcr,
    ]);
    let text = stdout(&output);
    let rows: Vec<_> = text.lines().take_while(|line| !line.is_empty()).collect();
    let column = rows[0].find("expected").unwrap();
    for row in &rows {
        assert!(row.chars().count() <= 120, "{row}");
        assert_eq!(&row[column - 2..column], "  ", "{row}");
        assert_ne!(&row[column..=column], " ", "{row}");
    }
}

#[test]
fn a_refusal_has_code_1_and_names_its_rule() {
    let file = vector();
    let file = file.to_str().unwrap();
    let pcr = format!("0={PCR0}");
    for (arguments, rule) in [
        (vec!["--pcr", &pcr], "certificate.validity"),
        (
            vec!["--pcr", &pcr, "--time", "2024-02-26T07:10:00Z"],
            "freshness.age",
        ),
        (
            vec!["--pcr", &pcr, "--time", "document", "--nonce", "00ff"],
            "policy.nonce",
        ),
        (
            vec![
                "--pcr",
                &pcr,
                "--time",
                "document",
                "--purpose",
                "relayed-challenge",
            ],
            "policy.purpose",
        ),
    ] {
        let mut command = vec!["verify", file];
        command.extend(arguments);
        let output = attest(&command);
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        assert!(stdout(&output).contains(&format!("\nrejected    {rule}: ")));
        assert!(stdout(&output).contains(&format!("\nFAIL     {rule} ")));
        // Only a document that is too old at this moment may have been good.
        let is_told = stderr(&output).contains("with --time document");
        assert_eq!(is_told, rule == "certificate.validity");
    }
    let output = attest_with_input(&["verify", "-", "--allow-any-image"], b"\x84\x44");
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("cbor.encoding"));
}

#[test]
fn the_json_report_keeps_its_schema() {
    let file = vector();
    let file = file.to_str().unwrap();
    let run = |arguments: &[&str]| -> Value {
        let output = attest(arguments);
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let report = run(&[
        "verify",
        file,
        "--allow-any-image",
        "--time",
        "document",
        "--json",
    ]);
    let keys =
        |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
    assert_eq!(
        keys(&report),
        [
            "accepted",
            "checked_at_ms",
            "checks",
            "document",
            "mode",
            "names_code",
            "rejection",
            "root",
            "schema"
        ]
    );
    assert_eq!(report["schema"], 1);
    assert_eq!(report["mode"], "audit");
    assert_eq!(keys(&report["root"]), ["partition", "sha256"]);
    assert_eq!(report["root"]["partition"], "aws");
    assert_eq!(report["accepted"], true);
    assert_eq!(report["rejection"], Value::Null);
    assert_eq!(report["checked_at_ms"], 1_708_930_921_439_u64);
    assert_eq!(
        report["document"],
        serde_json::json!({
            "profile": "enclave",
            "purpose": "workload",
            "module_id": "i-0df237f0418feb41e-enc018d1c7ef94eb110",
            "timestamp_ms": 1_708_930_921_439_u64,
            "unknown_keys": [],
        })
    );
    let checks = report["checks"].as_array().unwrap();
    for check in checks {
        assert_eq!(keys(check), ["actual", "expected", "outcome", "rule"]);
        let outcome = check["outcome"].as_str().unwrap();
        assert!(["passed", "failed", "not-checked"].contains(&outcome));
    }
    assert!(
        checks
            .iter()
            .any(|check| check["rule"] == "policy.image" && check["outcome"] == "not-checked")
    );

    let report = run(&["verify", file, "--allow-any-image", "--json"]);
    assert_eq!(report["mode"], "live");
    assert_eq!(report["accepted"], false);
    assert_eq!(keys(&report["rejection"]), ["reason", "rule"]);
    assert_eq!(report["rejection"]["rule"], "certificate.validity");
}

#[test]
fn a_policy_file_decides_and_options_add_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("policy.toml");
    let file = vector();
    let run = |text: &str, more: &[&str]| {
        std::fs::write(&policy, text).unwrap();
        let mut arguments = vec!["verify", file.to_str().unwrap(), "--time", "document"];
        arguments.extend(["--policy", policy.to_str().unwrap()]);
        arguments.extend(more);
        attest(&arguments)
    };
    let allowed = format!("[pcrs]\n0 = \"{PCR0}\"\n");
    assert_eq!(run(&allowed, &[]).status.code(), Some(0));
    // What contradicts the policy, or loosens it, is a mistake and no addition.
    let strict = format!("purpose = \"workload\"\nnonce = \"00\"\nmax_age = \"60s\"\n{allowed}");
    let other = format!("0={}", "07".repeat(48));
    for more in [
        ["--purpose", "relayed-challenge"].as_slice(),
        &["--nonce", "01"],
        &["--max-age", "61s"],
        &["--pcr", &other],
        &["--allow-any-image"],
        &["--allow-debug"],
    ] {
        let output = run(&strict, more);
        assert_eq!(output.status.code(), Some(2), "{more:?}");
        let error = stderr(&output);
        assert!(error.contains("policy.toml and the options: "), "{error}");
        assert!(error.contains("the policy says "), "{error}");
    }
    let same = format!("0={PCR0}");
    let added = ["--purpose", "workload", "--pcr", &same, "--max-age", "5s"];
    assert_eq!(run(&allowed, &added).status.code(), Some(0));
    for (purpose, code) in [("workload", 0), ("relayed-challenge", 1), ("self-check", 1)] {
        let output = run(&allowed, &["--purpose", purpose]);
        assert_eq!(output.status.code(), Some(code), "{purpose}");
        let output = run(&format!("purpose = \"{purpose}\"\n{allowed}"), &[]);
        assert_eq!(output.status.code(), Some(code), "{purpose}");
    }
    assert_eq!(run(&allowed, &["--nonce", "00"]).status.code(), Some(1));
    let required = format!("nonce = \"required\"\n{allowed}");
    let output = run(&required, &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--nonce"), "{}", stderr(&output));
    assert_eq!(run(&required, &["--nonce", "00"]).status.code(), Some(1));
    let output = run("\npcr = 1", &[]);
    assert_eq!(output.status.code(), Some(2));
    let error = stderr(&output);
    assert!(error.contains("policy.toml: line 2: "), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[test]
fn what_cannot_be_used_has_its_exit_code() {
    let file = vector();
    let file = file.to_str().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("root.key");
    let root = software_nsm::TestRoot::generate().unwrap();
    std::fs::write(&key, root.key_pem()).unwrap();
    let key = key.to_str().unwrap();
    for (arguments, code, part) in [
        (vec!["verify", file], 2, "names no code"),
        (vec!["verify", file, "--pcr", "0"], 2, "N=HEX"),
        (vec!["verify", file, "--pcr", "00=00"], 2, "write 0 to 31"),
        (vec!["verify", file, "--pcr", "+0=00"], 2, "write 0 to 31"),
        (vec!["verify", file, "--max-age", "5"], 2, "90s"),
        (
            vec!["verify", file, "--allow-any-image", "--purpose", "unknown"],
            2,
            "relayed-challenge, self-check, clock, key-release, sealing, key-request, key-gift, workload",
        ),
        (
            vec!["verify", file, "--time", "yesterday"],
            2,
            "2026-01-31T12:00:00Z",
        ),
        (
            vec!["verify", file, "--measurements", "/nonexistent"],
            2,
            "/nonexistent",
        ),
        (
            vec!["verify", file, "--allow-any-image", "--root", file],
            2,
            "PEM",
        ),
        (
            vec!["verify", file, "--allow-any-image", "--root", key],
            2,
            "there is a PRIVATE KEY where a root certificate is wanted",
        ),
        (
            vec!["verify", file, "--allow-any-image", "--root", "/dev/zero"],
            2,
            "/dev/zero has more than",
        ),
        (
            vec!["verify", "/nonexistent", "--allow-any-image"],
            3,
            "/nonexistent",
        ),
        (vec!["verify", "-", "--allow-any-image"], 3, "empty"),
        (vec!["inspect", "/nonexistent"], 3, "/nonexistent"),
        (vec!["inspect", "/proc/version"], 3, "not a document"),
    ] {
        let output = attest(&arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        assert!(stderr(&output).contains(part), "{}", stderr(&output));
    }
}

#[test]
fn pcr_prints_the_registers_of_a_role_an_instance_and_a_signer() {
    let folder = tempfile::tempdir().unwrap();
    let root = software_nsm::TestRoot::generate().unwrap();
    let file = folder.path().join("signer.pem");
    std::fs::write(&file, root.certificate_pem()).unwrap();
    let file = file.to_str().unwrap();
    // Each as AWS's manual computes it, with openssl.
    let script = "(head -c 48 /dev/zero; printf %s \"$1\") | openssl dgst -sha384 -r; \
        (head -c 48 /dev/zero; printf %s \"$2\") | openssl dgst -sha384 -r; \
        (head -c 48 /dev/zero; openssl x509 -in \"$3\" -outform DER | openssl dgst -sha384 -binary) \
        | openssl dgst -sha384 -r";
    let (role, instance) = (
        "arn:aws:iam::123456789012:role/team/Webserver",
        "i-0123456789abcdef0",
    );
    let openssl = Command::new("sh")
        .args(["-c", script, "sh", role, instance, file])
        .output()
        .unwrap();
    let expected: Vec<_> = stdout(&openssl).lines().map(|line| &line[..96]).collect();
    let [pcr3, pcr4, pcr8] = expected[..] else {
        panic!("{openssl:?}")
    };
    let all = [
        "--role",
        role,
        "--instance",
        instance,
        "--certificate",
        file,
    ];
    let run = |more: &[&str]| {
        let output = attest(&[["pcr"].as_slice(), more].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stdout(&output).to_owned()
    };
    assert_eq!(run(&all), format!("3={pcr3}\n4={pcr4}\n8={pcr8}\n"));
    assert_eq!(run(&all[2..4]), format!("4={pcr4}\n"));
    // As the crate `fleet-key` has it of another implementation.
    let family = run(&["--family", "payments", "--generation", "3"]);
    assert!(
        family.starts_with("31=5c2aef86a37ed1646b81e1d5060bbc79ef487121"),
        "{family}"
    );
    let alone = attest(&["pcr", "--family", "payments"]);
    assert_eq!(alone.status.code(), Some(2));
    let zero = attest(&["pcr", "--family", "payments", "--generation", "0"]);
    assert_eq!(zero.status.code(), Some(2));
    let json: Value = serde_json::from_str(&run(&[all.as_slice(), &["--json"]].concat())).unwrap();
    assert_eq!(
        json,
        serde_json::json!({ "PCR3": pcr3, "PCR4": pcr4, "PCR8": pcr8 })
    );
    for (arguments, part) in [
        (vec!["pcr"], "--instance"),
        (vec!["pcr", "--json"], "--certificate"),
        (vec!["pcr", "--role", "Webserver"], "not a role's ARN"),
        (
            vec![
                "pcr",
                "--role",
                "arn:aws:sts::123456789012:assumed-role/a/b",
            ],
            "session of a role",
        ),
        (vec!["pcr", "--instance", "i-1"], "not an instance's id"),
        (vec!["pcr", "--certificate", "/nonexistent"], "/nonexistent"),
        (
            vec!["pcr", "--certificate", "/proc/version"],
            "no PEM block",
        ),
        (
            vec!["pcr", "--certificate", "/dev/zero"],
            "/dev/zero has more than",
        ),
    ] {
        let output = attest(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains(part), "{}", stderr(&output));
    }
}

#[test]
fn a_document_under_a_policy_without_code_says_so() {
    let file = vector();
    let arguments = ["verify", file.to_str().unwrap(), "--time", "document"];
    let run = |more: &[&str]| {
        let output = attest(&[arguments.as_slice(), more].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stdout(&output).to_owned()
    };
    let pcr = format!("0={PCR0}");
    assert!(!run(&["--pcr", &pcr]).contains("\ncode "));
    let any = run(&["--allow-any-image"]);
    assert!(
        any.ends_with("\ncode        any: the policy names none\n"),
        "{any}"
    );
    for (more, names_code) in [
        (["--pcr", &pcr, "--json"].as_slice(), true),
        (&["--allow-any-image", "--json"], false),
    ] {
        let report: Value = serde_json::from_str(&run(more)).unwrap();
        assert_eq!(report["names_code"], names_code);
    }
}

#[test]
fn inspect_shows_everything_and_says_that_nothing_is_verified() {
    let file = vector();
    let output = attest(&["inspect", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0));
    let text = stdout(&output);
    for part in [
        "Not verified",
        "purpose      workload",
        "2024-02-26T07:02:01.439Z (",
        "years ago",
        PCR2,
        "zero         PCR 3 5 6 7 8 9 10 11 12 13 14 15",
        "nonce        none",
        "\"{\"total_memory\":2091298816,\"total_cpus\":1}\"",
        "certificate 4, leaf: 642 bytes",
        "2024-02-26T06:59:33Z to 2024-02-26T09:59:36Z (3 hours, ended",
        "ECDSA with SHA-384",
        "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let output = attest(&["inspect", file.to_str().unwrap(), "--json"]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["pcrs"]["2"], PCR2);
    assert_eq!(json["profile"], "enclave");
    assert_eq!(json["purpose"], "workload");
    assert_eq!(json["certificates"].as_array().unwrap().len(), 5);
    assert_eq!(json["certificates"][3]["fields"]["path_length"], 0);
    assert_eq!(
        json["certificates"][4]["fields"]["not_after_ms"],
        1_708_941_576_000_u64
    );
}
