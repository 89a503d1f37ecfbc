//! What the init's memory holds of secrets that have passed through it: nothing.

use std::fs;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use test_support::memory::{Found, find};

use crate::credentials::answers;
use crate::kms_world::{World, go_on};

/// Bytes that are looked for: of a secret, so many anywhere.
const FRAGMENT: usize = 24;

/// A secret that is nowhere else: longer than what the pieces of others' buffers, or
/// registers that were written to the stack, hold by chance.
fn secret() -> Vec<u8> {
    let mut bytes = vec![0; 240];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    bytes
}

#[tokio::test]
async fn kms_plaintexts_are_not_in_the_inits_memory_after_use() {
    let mut world = World::new(
        &[
            "until /first",
            "kms-file Encrypt /request",
            "say encrypted",
            "until /second",
            "kms-quietly Decrypt /request",
            "kms-quietly GenerateDataKey /data-key",
            "kms-api-quietly /v1/kms/decrypt /api-request",
            // What is encrypted comes in in buffers of HTTP.
            "kms-quietly Encrypt /encrypt",
            "say done",
            "wait",
        ],
        &["ASIA1"],
    )
    .await;
    world.connect(None);
    world.give("ASIA1").await;
    let secret = secret();
    let request = json!({ "KeyId": world.key, "Plaintext": STANDARD.encode(&secret) });
    go_on(&world, "first", &request);
    world.enclave.said("encrypted").await;
    let (status, encrypted) = answers(&world.enclave).pop().unwrap();
    assert_eq!(status, 200, "{encrypted}");
    let ciphertext = &encrypted["CiphertextBlob"];
    let write = |name: &str, body: Value| {
        fs::write(world.enclave.path(name), body.to_string()).unwrap();
    };
    write("encrypt", request);
    write(
        "data-key",
        json!({ "KeyId": world.key, "KeySpec": "AES_256" }),
    );
    write(
        "api-request",
        json!({ "key_id": world.key, "ciphertext": ciphertext }),
    );
    let request = json!({ "KeyId": world.key, "CiphertextBlob": ciphertext });
    go_on(&world, "second", &request);
    world.done().await;
    let statuses = world.enclave.lines(link::logs::LogStream::Application);
    let statuses = statuses.iter().filter(|line| *line == "status 200");
    assert_eq!(statuses.count(), 4);

    let encoded = STANDARD.encode(&secret).into_bytes();
    let found = |text: &[u8]| find(world.enclave.pid1(), text, FRAGMENT).unwrap();
    // What it goes on using is found.
    assert_ne!(found(b"hush-session-of-24-bytes"), Found::default());
    assert_eq!(found(&secret), Found::default(), "the secret");
    assert_eq!(found(&encoded), Found::default(), "its base64");
}
