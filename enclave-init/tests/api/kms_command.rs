//! `enclave-kms` in the image, called as scripts call AWS's `kmstool_enclave_cli`.

use std::fs;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use link::logs::LogStream;
use serde_json::{Value, json};

use crate::credentials::answers;
use crate::kms_world::{World, go_on};

/// What scripts give, and what no call is made with.
const GIVEN: [&str; 10] = [
    "--region",
    "us-east-1",
    "--proxy-port",
    "8000",
    "--aws-access-key-id",
    "AKIDOTHER",
    "--aws-secret-access-key",
    "another",
    "--aws-session-token",
    "token",
];

#[tokio::test]
async fn kms_command_prints_what_scripts_of_kmstool_expect() {
    let mut world = World::new(
        &[
            "until /first",
            "kms-file Encrypt /request",
            "say encrypted",
            "until /second",
            "run /decrypt",
            "run /genkey",
            "run /genrandom",
            "run /refused",
            "run /wrong",
            "say done",
            "wait",
        ],
        &["ASIA1"],
    )
    .await;
    world.connect(None);
    world.give("ASIA1").await;
    let program = "/bin/enclave-kms";
    fs::copy(
        env!("CARGO_BIN_EXE_enclave-kms"),
        world.enclave.path(program.trim_start_matches('/')),
    )
    .unwrap();
    let plaintext = STANDARD.encode("hush-plaintext");
    let request = json!({
        "KeyId": world.key,
        "Plaintext": plaintext,
        "EncryptionContext": {"app": "payments"},
    });
    go_on(&world, "first", &request);
    world.enclave.said("encrypted").await;
    let (_, encrypted) = answers(&world.enclave).pop().unwrap();
    let ciphertext = encrypted["CiphertextBlob"].as_str().unwrap();
    let context = "{\"app\":\"payments\"}";
    let command = |name: &str, arguments: &[&str]| {
        let command = [&[program, name], &GIVEN[..], arguments].concat();
        fs::write(world.enclave.path(name), json!(command).to_string()).unwrap();
    };
    let decrypt = ["--ciphertext", ciphertext, "--key-id", &world.key];
    let algorithm = ["--encryption-algorithm", "SYMMETRIC_DEFAULT"];
    let in_context = ["--encryption-context", context];
    command("decrypt", &[&decrypt[..], &algorithm, &in_context].concat());
    command("genkey", &["--key-id", &world.key, "--key-spec", "AES-256"]);
    command("genrandom", &["--length", "16"]);
    let refused = [&[program, "decrypt"], &GIVEN[..], &decrypt].concat();
    fs::write(world.enclave.path("refused"), json!(refused).to_string()).unwrap();
    let wrong = json!([program, "encrypt"]).to_string();
    fs::write(world.enclave.path("wrong"), wrong).unwrap();
    go_on(&world, "second", &json!({}));
    world.done().await;

    let lines = world.enclave.lines(LogStream::Application);
    let ran: Vec<Value> = lines
        .iter()
        .filter_map(|line| serde_json::from_str(line.strip_prefix("ran ")?).ok())
        .collect();
    let codes: Vec<_> = ran.iter().map(|ran| ran["code"].clone()).collect();
    assert_eq!(codes, [0, 0, 0, 1, 2], "{ran:?}");
    assert_eq!(ran[0]["output"], format!("PLAINTEXT: {plaintext}\n"));
    let bytes = |line: &str| STANDARD.decode(line.split_once(": ").unwrap().1).unwrap();
    let key: Vec<&str> = ran[1]["output"].as_str().unwrap().lines().collect();
    assert!(key[0].starts_with("CIPHERTEXT: ") && key[1].starts_with("PLAINTEXT: "));
    assert_eq!((key.len(), bytes(key[1]).len()), (2, 32));
    assert_eq!(bytes(ran[2]["output"].as_str().unwrap().trim()).len(), 16);
    // Without the context that it was encrypted in.
    let errors = ran[3]["errors"].as_str().unwrap();
    assert!(errors.contains("InvalidCiphertextException"), "{errors}");
    assert_eq!(ran[3]["output"], "");
    let errors = ran[4]["errors"].as_str().unwrap();
    assert!(errors.contains("usage: enclave-kms"), "{errors}");
}
