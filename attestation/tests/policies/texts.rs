//! Policies as texts and files, and what is said of those that are none.

use std::path::Path;

use attestation::{Binding, Policy, Profile, Purpose};
use measurements::{Pcr, TpmMeasurements};

use crate::enclave::{ONE, TWO};

#[test]
fn toml_and_json_say_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    write("two.json", &serde_json::to_string(&TWO).unwrap());
    let (one, three) = (ONE.pcr0.to_string(), "03".repeat(48));
    let toml = write(
        "policy.toml",
        &format!(
            r#"
profile = "enclave"
allow_debug = true
nonce = "required"
purpose = "workload"
module_id = "i-0123*-enc*"
max_age = "90s"
clock_skew = "1m"
user_data = {{ sha256_of = "00ff" }}
public_key = {{ prefix = "30" }}

[[images]]
name = "1.0"
Measurements = {{ HashAlgorithm = "Sha384 {{ ... }}", PCR0 = "{one}", PCR1 = "{one}", PCR2 = "{one}" }}

[[images]]
file = "two.json"

[pcrs]
3 = "{three}"
16 = ["{one}", "{three}"]
"#
        ),
    );
    let json = write(
        "policy.json",
        &format!(
            r#"{{
  "profile": "enclave", "allow_debug": true, "nonce": "required", "purpose": "workload",
  "module_id": "i-0123*-enc*", "max_age": "90s", "clock_skew": "1m",
  "user_data": {{ "sha256_of": "00FF" }}, "public_key": {{ "prefix": "30" }},
  "images": [
    {{ "name": "1.0", "Measurements": {{ "PCR0": "{one}", "PCR1": "{one}", "PCR2": "{one}" }} }},
    {{ "file": "two.json" }}
  ],
  "pcrs": {{ "3": ["{three}"], "16": ["{one}", "{three}"] }}
}}"#
        ),
    );
    let expected = Policy::builder()
        .image("1.0", ONE)
        .image("two.json", TWO)
        .pcr(3, Pcr::new([3; 48]))
        .pcr(16, ONE.pcr0)
        .pcr(16, Pcr::new([3; 48]))
        .allow_debug()
        .require_nonce()
        .purpose(Purpose::Workload)
        .module_id("i-0123*-enc*")
        .max_age(std::time::Duration::from_secs(90))
        .clock_skew(std::time::Duration::from_secs(60))
        .bind_user_data(Binding::Sha256Of(vec![0x00, 0xff]))
        .bind_public_key(Binding::Prefix(vec![0x30]))
        .build()
        .unwrap();
    assert_eq!(Policy::read(&toml).unwrap(), expected);
    assert_eq!(Policy::read(&json).unwrap(), expected);
    // A text from elsewhere reads no files of this machine.
    let text = std::fs::read_to_string(&json).unwrap();
    let error = Policy::from_json(&text).unwrap_err().to_string();
    assert!(
        error.contains("two.json") && error.contains("content"),
        "{error}"
    );
}

#[test]
fn the_images_of_a_nitro_tpm_are_read_as_awss_tool_writes_them() {
    let folder = tempfile::tempdir().unwrap();
    let (pcr4, pcr7, zero) = ("04".repeat(48), "07".repeat(48), "00".repeat(48));
    let file = folder.path().join("tpm.json");
    let written = format!(
        r#"{{
  "Measurements": {{
    "HashAlgorithm": "SHA384",
    "PCR4": "{pcr4}",
    "PCR7": "{pcr7}",
    "PCR12": "{zero}"
  }}
}}"#
    );
    std::fs::write(&file, &written).unwrap();
    let measurements = TpmMeasurements {
        pcr4: Pcr::new([4; 48]),
        pcr7: Some(Pcr::new([7; 48])),
        pcr12: Some(Pcr::ZERO),
    };
    let expected = Policy::builder()
        .profile(Profile::NitroTpm)
        .image("tpm.json", measurements)
        .build()
        .unwrap();
    let policy = folder.path().join("policy.toml");
    let read = |text: &str| {
        std::fs::write(&policy, text).unwrap();
        Policy::read(&policy)
    };
    let images = "[[images]]\nfile = \"tpm.json\"\n";
    let profile = "profile = \"nitro-tpm\"\n";
    assert_eq!(read(&format!("{profile}{images}")).unwrap(), expected);
    // The registers mean something else in an enclave.
    let error = read(images).unwrap_err().to_string();
    assert!(error.contains("write profile = \"nitro-tpm\""), "{error}");
    // As the tool wrote before its release 1.1: the command line is open.
    let old = format!(r#"{{"Measurements": {{"HashAlgorithm": "SHA384", "PCR4": "{pcr4}"}}}}"#);
    std::fs::write(&file, old).unwrap();
    let error = read(&format!("{profile}{images}")).unwrap_err().to_string();
    assert!(error.contains("GHSA-xrv8-2pf5-f3q7"), "{error}");
    let with_pcr12 = read(&format!("{profile}{images}[pcrs]\n12 = \"{zero}\""));
    assert!(with_pcr12.unwrap().names_code());
    for (text, part) in [
        (written.replace("PCR7", "PCR4"), "\"PCR4\" is there twice"),
        (written.replace("PCR7", "PCR0"), "an enclave's image has"),
        (written.replace("PCR7", "PCR9"), "unknown field `PCR9`"),
        (written.replace("PCR4", "PCR8"), "an enclave's image has"),
        (written.replace(&pcr4, "04"), "96 hexadecimal digits"),
    ] {
        std::fs::write(&file, text).unwrap();
        let error = read(&format!("{profile}{images}")).unwrap_err().to_string();
        assert!(
            error.contains("tpm.json") && error.contains(part),
            "{error}"
        );
    }
}

#[test]
fn a_key_that_stands_twice_is_refused() {
    let (one, two) = (ONE.pcr0.to_string(), TWO.pcr0.to_string());
    for text in [
        format!(r#"{{"pcrs": {{"0": "{one}", "0": "{two}"}}}}"#),
        format!(r#"{{"pcrs": {{"0": "{one}", "\u0030": "{two}"}}}}"#),
        format!(r#"{{"pcrs": {{"0": "{one}"}}, "pcrs": {{"0": "{two}"}}}}"#),
        format!(
            r#"{{"images": [{{"Measurements": {{"PCR0": "{one}", "PCR1": "{one}", "PCR2": "{one}", "PCR0": "{two}"}}}}]}}"#
        ),
        format!(r#"{{"pcrs": {{"0": "{one}"}}, "max_age": "1m", "max_age": "1h"}}"#),
        format!(r#"{{"pcrs": {{"0": "{one}"}}, "user_data": {{"equal": "00", "equal": "01"}}}}"#),
    ] {
        let error = Policy::from_json(&text).unwrap_err().to_string();
        assert!(error.contains("is there twice"), "{text}\n{error}");
    }
    for text in [
        format!("[pcrs]\n0 = \"{one}\"\n\"0\" = \"{two}\""),
        format!("pcrs.0 = \"{one}\"\nmax_age = \"1m\"\nmax_age = \"1h\""),
        format!("pcrs.0 = \"{one}\"\nuser_data = {{ equal = \"00\", equal = \"01\" }}"),
    ] {
        let error = Policy::from_toml(&text).unwrap_err().to_string();
        assert!(error.contains("duplicate key"), "{text}\n{error}");
    }
    let text = format!("pcrs.0 = [\"{one}\", \"{one}\"]");
    let error = Policy::from_toml(&text).unwrap_err().to_string();
    assert!(error.contains("twice"), "{error}");
}

#[test]
fn policy_that_is_a_measurements_file_is_named_as_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hello.json");
    let text = serde_json::to_string(&ONE).unwrap();
    std::fs::write(&path, &text).unwrap();
    for error in [
        Policy::from_json(&text).unwrap_err(),
        Policy::read(&path).unwrap_err(),
    ] {
        let error = error.to_string();
        assert!(
            error.contains("measurements of an image, not a policy"),
            "{error}"
        );
        assert!(error.contains("`[[images]]`"), "{error}");
    }
}

#[test]
fn errors_name_the_line_and_the_fix() {
    for (text, parts) in [
        ("", ["names no code", "image-builder"]),
        (
            "allow_any_image = true\nmax_agee = \"5m\"",
            ["line 2", "max_agee"],
        ),
        ("\n\n[pcrs]\n0 = \"12\"", ["line 4", "96 hex"]),
        ("[pcrs]\n0 = 12", ["line 2", "hexadecimal"]),
        ("[pcrs]\n0 = []", ["PCR0", "no value"]),
        ("[pcrs]\n32 = \"x\"", ["line 2", "96 hex"]),
        ("[pcrs]\n00 = \"x\"", ["line 2", "0 to 31"]),
        ("allow_any_image = true\nmax_age = 5", ["line 2", "string"]),
        (
            "allow_any_image = true\nmax_age = \"5 parsecs\"",
            ["line 2", "90s"],
        ),
        (
            "allow_any_image = true\nmax_age = \"18446744073709551615d\"",
            ["line 2", "year"],
        ),
        (
            "allow_any_image = true\nnonce = \"any\"",
            ["line 2", "required"],
        ),
        (
            "allow_any_image = true\nprofile = \"tpm\"",
            ["line 2", "nitro-tpm"],
        ),
        (
            "allow_any_image = true\nuser_data = { equals = \"00\" }",
            ["line 2", "sha256_of"],
        ),
        (
            "allow_any_image = true\nuser_data = { equal = \"00\", prefix = \"00\" }",
            ["line 2", "write one of `equal`, `sha256_of`"],
        ),
        (
            "allow_any_image = true\npublic_key = {}",
            ["line 2", "write one of `equal`, `sha256_of`"],
        ),
        (
            "allow_any_image = true\nuser_data = { equal = \"0\" }",
            ["line 2", "hexadecimal"],
        ),
        (
            "allow_any_image = true\nallow_any_image = true",
            ["line 2", "duplicate"],
        ),
        (
            "allow_any_image = true\npurpose = \"unknown\"",
            [
                "line 2",
                "relayed-challenge, self-check, clock, key-release, sealing, key-request, key-gift, workload",
            ],
        ),
        (
            "allow_any_image = true\npurpose = \"Workload\"",
            ["line 2", "relayed-challenge"],
        ),
        (
            "allow_any_image = true\npurpose = \"self-check\"\nuser_data = { equal = \"00\" }",
            ["purpose self-check", "remove user_data"],
        ),
        (
            "allow_any_image = true\nprofile = \"nitro-tpm\"\npurpose = \"workload\"",
            ["nitro-tpm", "purpose"],
        ),
        ("[[images]]\nname = \"1\"", ["image 1", "Measurements"]),
        ("[[images]]\nfile = \"../m.json\"", ["../m.json", "content"]),
        ("allow_any_image = tru\u{1b}", ["line 1", ""]),
    ] {
        let error = Policy::from_toml(text).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "{text}\n{error}");
        }
        assert!(!error.contains('\n'), "{error}");
    }
    let error = Policy::from_json("{\n\"nonces\": 1}")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("line 2") && error.contains("nonces"),
        "{error}"
    );
}

#[test]
fn a_file_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("policy.toml");
    let read = |text: &str| {
        std::fs::write(&policy, text).unwrap();
        Policy::read(&policy).unwrap_err().to_string()
    };
    let error = read("[[images]]\nfile = \"missing.json\"");
    assert!(error.contains("missing.json: it cannot be read"), "{error}");
    std::fs::write(folder.path().join("not.json"), "PCR0").unwrap();
    let error = read("[[images]]\nfile = \"not.json\"");
    assert!(
        error.contains("not.json") && error.contains("image-builder"),
        "{error}"
    );
    let error = read(&" ".repeat(256 * 1024 + 1));
    assert!(error.contains("policy.toml: it has more than"), "{error}");
    let error = read("x");
    assert!(error.contains("policy.toml: line 1"), "{error}");
    let error = Policy::read(Path::new("/nonexistent/policy")).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/policy"), "{error}");
}

/// An error quotes the text, which may be a stranger's.
#[test]
fn errors_hold_nothing_that_a_terminal_obeys() {
    let errors = [
        Policy::from_json("{\"a\\u001b[31m\\u007f\\nb\": 1}"),
        Policy::from_toml("\"a\\u001b[31m\\u007f\\nb\" = 1"),
        Policy::from_toml("module_id = \"x\"\nprofile = \"\\u001b[31m\""),
        Policy::from_toml("role_arn = \"\\u001b[31m\""),
        Policy::from_toml("instance_id = \"\\u001b[31m\""),
        Policy::from_toml("signer = \"\\u001b[31m\\n\""),
        Policy::from_toml("signer = \"-----BEGIN \\u001b[31m\\n\""),
        Policy::from_toml("[[images]]\nfile = \"\\u001b[31m\""),
        Policy::from_json("{\"\\u001b[31m\": 1, \"\\u001b[31m\": 2}"),
    ]
    .map(|policy| policy.unwrap_err().to_string());
    for error in errors {
        assert!(!error.contains(char::is_control), "{error:?}");
        assert!(
            error.contains("\\u{1b}[31m") || error.contains("PEM"),
            "{error:?}"
        );
    }
}
