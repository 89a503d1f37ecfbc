//! Results and their keys: checked with what the service publishes, and by
//! libraries that are not ours.

use std::fs;
use std::path::Path;
use std::process::Command;

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::server::{Server, World, eventually};

fn decode(part: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(part).unwrap()
}

/// The claims of a token, unverified.
pub(crate) fn claims(token: &str) -> Value {
    serde_json::from_slice(&decode(token.split('.').nth(1).unwrap())).unwrap()
}

fn key_id(token: &str) -> String {
    let header: Value = serde_json::from_slice(&decode(token.split('.').next().unwrap())).unwrap();
    assert_eq!(
        (&header["alg"], &header["typ"]),
        (&json!("ES384"), &json!("eat+jwt"))
    );
    header["kid"].as_str().unwrap().to_owned()
}

/// Whether a key of the set, the one that the token names, has signed it.
fn verifies(token: &str, jwks: &Value) -> bool {
    let (message, signature) = token.rsplit_once('.').unwrap();
    let kid = key_id(token);
    let keys = jwks["keys"].as_array().unwrap();
    let Some(key) = keys.iter().find(|key| key["kid"] == kid.as_str()) else {
        return false;
    };
    let coordinate = |name: &str| decode(key[name].as_str().unwrap());
    let point = [vec![4], coordinate("x"), coordinate("y")].concat();
    UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point)
        .verify(message.as_bytes(), &decode(signature))
        .is_ok()
}

/// The result of an accepted document, and its challenge.
fn accepted(world: &World, server: &Server) -> (String, Vec<u8>) {
    let challenge = server.challenge(&json!({}));
    let reply = server
        .verify(&world.enclave.attest(&challenge), &challenge)
        .json();
    assert_eq!(reply["report"]["accepted"], true);
    (reply["ear"].as_str().unwrap().to_owned(), challenge)
}

#[test]
fn a_result_verifies_with_the_published_key_and_after_a_restart() {
    let world = World::new();
    let server = world.start(&[]);
    let (token, _) = accepted(&world, &server);
    let reply = server.get("/.well-known/jwks.json");
    assert_eq!(reply.header("cache-control"), Some("public, max-age=300"));
    assert!(verifies(&token, &reply.json()));
    let (message, _) = token.rsplit_once('.').unwrap();
    let forged = format!("{message}.{}", URL_SAFE_NO_PAD.encode([1; 96]));
    assert!(!verifies(&forged, &reply.json()));
    server.kill();

    let server = world.start(&[]);
    assert!(verifies(
        &token,
        &server.get("/.well-known/jwks.json").json()
    ));
    let (again, _) = accepted(&world, &server);
    assert_eq!(key_id(&again), key_id(&token));
}

#[test]
fn a_new_key_is_published_before_it_signs_and_the_old_one_stays() {
    let world = World::new();
    let server = world.start(&[]);
    let (token, _) = accepted(&world, &server);
    server.signal("USR1");
    let jwks = eventually("there is no new key", || {
        let jwks = server.get("/.well-known/jwks.json").json();
        (jwks["keys"].as_array().unwrap().len() == 2).then_some(jwks)
    });
    assert!(verifies(&token, &jwks));
    let (next, _) = accepted(&world, &server);
    assert_eq!(key_id(&next), key_id(&token));
    assert_eq!(server.metric("attest_signing_keys"), 2);
    server.kill();

    // As if the new key had been made long ago: it signs, and the old one is gone.
    let keys = world.data().join("keys");
    for entry in fs::read_dir(&keys).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let (created, id) = name.split_once('-').unwrap();
        let created: u64 = created.parse().unwrap();
        fs::rename(&path, keys.join(format!("{}-{id}", created - 3600))).unwrap();
    }
    let server = world.start(&[]);
    let jwks = server.get("/.well-known/jwks.json").json();
    assert!(!verifies(&token, &jwks));
    let (after, _) = accepted(&world, &server);
    assert!(verifies(&after, &jwks));
    assert_ne!(key_id(&after), key_id(&token));
}

/// `PyJWT` finds the key in the JWKS by itself. `cargo xtask test` names a Python
/// that has it.
#[test]
fn pyjwt_verifies_a_result_through_the_jwks() {
    let Some(python) = std::env::var_os("ENCLAVE_TEST_PYTHON") else {
        println!("not checked: ENCLAVE_TEST_PYTHON names no Python; run cargo xtask test");
        return;
    };
    let world = World::new();
    let server = world.start(&["--issuer", "https://verifier.example"]);
    let (token, challenge) = accepted(&world, &server);
    let script = Path::new("tests/service/verify_ear.py");
    let run = |token: &str| {
        Command::new(&python)
            .arg(script)
            .arg(format!("http://{}/.well-known/jwks.json", server.address))
            .arg(token)
            .args([
                "https://verifier.example",
                &URL_SAFE_NO_PAD.encode(&challenge),
            ])
            .output()
            .unwrap()
    };
    let output = run(&token);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "affirming\n");
    let (message, _) = token.rsplit_once('.').unwrap();
    let forged = format!("{message}.{}", URL_SAFE_NO_PAD.encode([1; 96]));
    assert!(!run(&forged).status.success());
}

/// The crate `ear` of the Veraison project, in a program of its own that
/// `cargo xtask test` builds: see `tests/ear`.
#[test]
fn the_crate_ear_verifies_and_validates_results_of_every_status() {
    let Some(program) = std::env::var_os("ENCLAVE_TEST_EAR") else {
        println!("not checked: ENCLAVE_TEST_EAR names no program; run cargo xtask test");
        return;
    };
    let world = World::new();
    let server = world.start(&[]);
    let jwks = world.folder.path().join("jwks.json");
    fs::write(&jwks, server.get("/.well-known/jwks.json").body).unwrap();
    let (affirming, _) = accepted(&world, &server);
    let result = |document: &[u8], policy: &str| {
        let body = json!({
            "document": base64::engine::general_purpose::STANDARD.encode(document),
            "policy": policy,
            "nonce": "00112233445566778899aabbccddeeff",
        });
        server.post("/v1/verify", &body).json()["ear"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let nonce = hex::decode("00112233445566778899aabbccddeeff").unwrap();
    let warning = result(&world.enclave.attest(&nonce), "any");
    let contraindicated = result(b"no document", "payments");
    for (token, status) in [
        (affirming, "affirming"),
        (warning, "warning"),
        (contraindicated, "contraindicated"),
    ] {
        let output = Command::new(&program)
            .arg(&jwks)
            .arg(&token)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.lines().next(), Some(status), "{text}");
        assert!(text.contains("nitro-enclave: "), "{text}");
    }
}
