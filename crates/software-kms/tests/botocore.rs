//! An unmodified botocore calls the KMS over HTTP.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::Path;
use std::sync::Arc;

use attestation::Pcr;
use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};
use serde_json::{Value, json};
use software_kms::KeySpec;
use support::{World, base64, bytes};

/// `cargo xtask test` names a Python that has botocore.
#[test]
fn botocore_calls_the_kms_with_and_without_a_recipient() {
    let Some(python) = std::env::var_os("ENCLAVE_TEST_PYTHON") else {
        println!("not checked: ENCLAVE_TEST_PYTHON names no Python; run cargo xtask test");
        return;
    };
    let world = World::new();
    let image = Pcr::new([1; 48]);
    let key = world.key(&[
        ("kms:Encrypt", &world.role, None),
        ("kms:DescribeKey", &world.role, None),
        ("kms:Decrypt", &world.role, Some(image)),
        ("kms:GenerateDataKeyPair", &world.role, Some(image)),
    ]);
    let agreement = [("kms:*", world.role.as_str(), None)];
    let agreement = world.key_of(KeySpec::EccNistP256, &agreement);
    let mut enclave = world.enclave(Some(image));
    let public_key = enclave.key.public_key_der().to_vec();
    let document = enclave.document(Some(&public_key));

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    runtime.spawn(software_kms::serve(listener, Arc::clone(&world.kms)));

    let credentials = &world.client.credentials;
    let script = Path::new("tests/botocore/call.py");
    let output = std::process::Command::new(python)
        .arg(script)
        .args([&endpoint, &key, &agreement, &base64(&document)])
        .env("AWS_ACCESS_KEY_ID", &credentials.access_key_id)
        .env("AWS_SECRET_ACCESS_KEY", &credentials.secret_access_key)
        .env(
            "AWS_SESSION_TOKEN",
            credentials.session_token.as_ref().unwrap(),
        )
        .env("AWS_DEFAULT_REGION", support::REGION)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();

    let message = bytes(&said["for_recipient"]);
    assert_eq!(enclave.key.open(&message).unwrap().as_slice(), b"a secret");
    assert_eq!(said["plaintext"], "");
    assert_eq!(said["in_plaintext"], json!([]));
    // What the KMS agreed on with the pair's public key is what the private key gives.
    let private = enclave.key.open(&bytes(&said["private_key"])).unwrap();
    let private = PrivateKey::from_private_key_der(&ECDH_P256, &private).unwrap();
    let public = UnparsedPublicKey::new(&ECDH_P256, bytes(&said["public_key"]));
    let secret = agree(&private, public, (), |secret| Ok(secret.to_vec())).unwrap();
    let of_kms = enclave.key.open(&bytes(&said["shared_secret"])).unwrap();
    assert_eq!(*of_kms, secret);
    assert_eq!(said["described"], key);
    let refusals = json!({
        "without a recipient": "AccessDeniedException",
        "another context": "InvalidCiphertextException",
        "a changed document": "ValidationException",
        "a key of another usage": "InvalidKeyUsageException",
        "another key": "NotFoundException",
        "a wrong secret": "InvalidSignatureException",
    });
    assert_eq!(said["refusals"], refusals);
}
