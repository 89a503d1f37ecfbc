//! What the init's memory holds of secrets that have passed through it: nothing.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::unistd::Pid;
use serde_json::{Value, json};

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

/// Which of these texts the process's memory has a piece of.
fn found_in(process: Pid, texts: &[(&'static str, Vec<u8>)]) -> Vec<&'static str> {
    let memory = File::open(format!("/proc/{process}/mem")).unwrap();
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let mut found = Vec::new();
    for line in maps.lines() {
        let (range, rest) = line.split_once(' ').unwrap();
        // The kernel's own pages cannot be read.
        if !rest.starts_with('r') || rest.contains("[v") {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let address = |text| u64::from_str_radix(text, 16).unwrap();
        let (start, end) = (address(start), address(end));
        let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
        // It may have been given back meanwhile.
        if memory.read_exact_at(&mut bytes, start).is_err() {
            continue;
        }
        for (name, text) in texts {
            let mut pieces = text.chunks_exact(FRAGMENT);
            if pieces.any(|piece| memchr::memmem::find(&bytes, piece).is_some()) {
                found.push(*name);
            }
        }
    }
    found
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
    let texts = [
        ("the secret", secret),
        ("its base64", encoded),
        // What it goes on using is found.
        ("the key's name", world.key.clone().into_bytes()),
        ("the token", b"hush-session-of-24-bytes".to_vec()),
    ];
    let found = found_in(world.enclave.pid1(), &texts);
    assert!(found.contains(&"the token"), "{found:?}");
    assert!(!found.contains(&"the secret"), "{found:?}");
    assert!(!found.contains(&"its base64"), "{found:?}");
}
