//! KMS through the init: a workload that calls as SDKs do, a KMS in software that verifies
//! what it is sent, and an agent between them.

use std::fs;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use enveloped_data::{Encoding, RecipientKey, seal};
use link::target::{Refusal, Reply};
use link::{Stream, Text};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::credentials::{answers, is_taken_in};
use crate::kms_world::{Tamper, World, bytes, go_on, serve};
use crate::tls::Tls;

const PLAINTEXT: &[u8] = b"hush-plaintext";

#[tokio::test]
async fn kms_calls_of_a_workload_are_answered_with_plaintext() {
    let encrypt = json!({
        "KeyId": "KEY",
        "Plaintext": STANDARD.encode(PLAINTEXT),
        "EncryptionContext": {"purpose": "test"},
    });
    let mut world = World::new(
        &[
            "until /first",
            "kms-file Encrypt /request",
            "say encrypted",
            "until /second",
            "kms-file Decrypt /request",
            "say decrypted",
            "until /third",
            "kms-file GenerateDataKey /request",
            "kms GenerateRandom {\"NumberOfBytes\":32}",
            "kms-together 40 GenerateRandom {\"NumberOfBytes\":8}",
            "kms ListGrants {}",
            "kms DescribeKey {\"KeyId\":\"other\"}",
            "say done",
            "wait",
        ],
        &["ASIA1"],
    )
    .await;
    world.connect(None);
    world.give("ASIA1").await;
    let mut request = encrypt.clone();
    request["KeyId"] = world.key.clone().into();
    go_on(&world, "first", &request);
    world.enclave.said("encrypted").await;
    let (status, encrypted) = answers(&world.enclave).pop().unwrap();
    assert_eq!(status, 200, "{encrypted}");

    let request = json!({
        "KeyId": world.key,
        "CiphertextBlob": encrypted["CiphertextBlob"],
        "EncryptionContext": {"purpose": "test"},
    });
    go_on(&world, "second", &request);
    world.enclave.said("decrypted").await;
    let (status, decrypted) = answers(&world.enclave).pop().unwrap();
    assert_eq!(status, 200, "{decrypted}");
    assert_eq!(bytes(&decrypted["Plaintext"]), PLAINTEXT);
    assert_eq!(decrypted["KeyId"], world.key);
    assert_eq!(decrypted.get("CiphertextForRecipient"), None);

    go_on(
        &world,
        "third",
        &json!({"KeyId": world.key, "KeySpec": "AES_256"}),
    );
    let answers = world.done().await;
    let (status, generated) = &answers[2];
    assert_eq!(*status, 200, "{generated}");
    assert_eq!(bytes(&generated["Plaintext"]).len(), 32);
    assert!(generated["CiphertextBlob"].is_string());
    assert_eq!(bytes(&answers[3].1["Plaintext"]).len(), 32);
    for (status, random) in &answers[4..44] {
        assert_eq!((*status, bytes(&random["Plaintext"]).len()), (200, 8));
    }
    // What KMS refuses comes in its own words.
    assert_eq!(answers[44].0, 400);
    assert_eq!(answers[44].1["__type"], "UnknownOperationException");
    assert_eq!(answers[45].1["__type"], "NotFoundException");
}

#[tokio::test]
async fn kms_calls_are_those_of_whoever_has_the_workloads_credentials() {
    let random = "{\"NumberOfBytes\":8}";
    let instructions = [
        format!("kms-unsigned GenerateRandom {random}"),
        format!("kms-as AKIDOTHER hush-secret GenerateRandom {random}"),
        format!("kms-with another GenerateRandom {random}"),
        "forge tcp /v1/aws/kms Host:198.18.0.1:7070 Enclave-Api:1".to_owned(),
        "forge tcp /v1/aws/kms Host:rebound.example:7070".to_owned(),
        format!("kms GenerateRandom {random}"),
        "kms GenerateRandom [".to_owned(),
        format!("kms GenerateRandom {{\"X\":\"{}\"}}", "x".repeat(65_536)),
        "say first".to_owned(),
        "until /second".to_owned(),
        format!("kms GenerateRandom {random}"),
        "say second".to_owned(),
        "until /third".to_owned(),
        format!("kms GenerateRandom {random}"),
        "say done".to_owned(),
        "wait".to_owned(),
    ];
    let instructions: Vec<&str> = instructions.iter().map(String::as_str).collect();
    // The KMS knows the second credentials alone.
    let mut world = World::new(&instructions, &["ASIA2"]).await;
    world.connect(None);
    world.give("ASIA1").await;
    world.enclave.said("first").await;
    let first = answers(&world.enclave);
    let names: Vec<_> = first
        .iter()
        .map(|(status, body)| (*status, body["__type"].as_str().unwrap_or_default()))
        .collect();
    assert_eq!(
        names,
        [
            (400, "MissingAuthenticationTokenException"),
            (400, "UnrecognizedClientException"),
            (400, "InvalidSignatureException"),
            (404, "AccessDeniedException"),
            (403, "AccessDeniedException"),
            // KMS's own.
            (400, "UnrecognizedClientException"),
            (400, "SerializationException"),
            (400, "SerializationException"),
        ]
    );
    let told = first[1].1["message"].as_str().unwrap();
    assert!(told.contains("default chain"), "{told}");

    // The SDK still signs with the first ones; the newest are what KMS is called with.
    world.give("ASIA2").await;
    is_taken_in(&mut world.control).await;
    go_on(&world, "second", &json!({}));
    world.enclave.said("second").await;
    let (status, body) = answers(&world.enclave).pop().unwrap();
    assert_eq!(status, 200, "{body}");
    world.give("ASIA3").await;
    is_taken_in(&mut world.control).await;
    go_on(&world, "third", &json!({}));
    let (status, body) = world.done().await.pop().unwrap();
    assert_eq!(
        (status, &body["__type"]),
        (400, &json!("UnrecognizedClientException"))
    );
}

#[tokio::test]
async fn kms_answers_that_were_tampered_with_release_nothing() {
    let other = RecipientKey::generate().unwrap();
    let for_other = seal(other.public_key_der(), PLAINTEXT, Encoding::Kms).unwrap();
    let tampers: [(Tamper, &str); 5] = [
        (
            Arc::new(|answer: &mut Value| {
                let mut sealed = bytes(&answer["CiphertextForRecipient"]);
                *sealed.last_mut().unwrap() ^= 1;
                let middle = sealed.len() / 2;
                sealed[middle] ^= 1;
                answer["CiphertextForRecipient"] = STANDARD.encode(sealed).into();
            }),
            "cannot be opened with this enclave's key",
        ),
        (
            Arc::new(move |answer: &mut Value| {
                answer["CiphertextForRecipient"] = STANDARD.encode(&for_other).into();
            }),
            "cannot be opened with this enclave's key",
        ),
        (
            Arc::new(|answer: &mut Value| {
                answer
                    .as_object_mut()
                    .unwrap()
                    .remove("CiphertextForRecipient");
            }),
            "cannot be opened with this enclave's key",
        ),
        (
            Arc::new(|answer: &mut Value| answer["Plaintext"] = STANDARD.encode(PLAINTEXT).into()),
            "not encrypted to this enclave",
        ),
        (
            Arc::new(|answer: &mut Value| {
                answer["KeyId"] = "arn:aws:kms:eu-west-1:999999999999:key/mine".into();
            }),
            "KMS answered with the key arn:aws:kms:eu-west-1:999999999999:key/mine",
        ),
    ];
    for (tamper, expected) in tampers {
        let mut world = World::new(
            &[
                "until /first",
                "kms-file GenerateDataKey /request",
                "say done",
                "wait",
            ],
            &["ASIA1"],
        )
        .await;
        world.connect(Some(tamper));
        world.give("ASIA1").await;
        go_on(
            &world,
            "first",
            &json!({"KeyId": world.key, "KeySpec": "AES_256"}),
        );
        let (status, body) = world.done().await.pop().unwrap();
        assert_eq!(
            (status, &body["__type"]),
            (502, &json!("InvalidAnswerException")),
            "{body}"
        );
        let text = body["message"].as_str().unwrap();
        assert!(text.contains(expected), "{text}");
        assert!(!body.to_string().contains("hush"), "{body}");
    }
}

#[tokio::test]
async fn kms_is_unavailable_where_the_parent_stands_in_the_way() {
    let call = "kms GenerateRandom {\"NumberOfBytes\":8}";
    let mut world = World::new(
        &[
            call,
            call,
            call,
            call,
            "say connected",
            "until /go",
            call,
            "say done",
            "wait",
        ],
        &["ASIA1"],
    )
    .await;
    world.give("ASIA1").await;

    // It does not connect.
    let next = world.outgoing.recv().await.unwrap();
    let reason = Text::new("the route is down");
    let refusal = Refusal::Unreachable;
    drop(next.reply(Reply::Refused { refusal, reason }).await);
    // It answers in KMS's place, with a certificate of its own.
    let next = world.outgoing.recv().await.unwrap();
    let stream = next.reply(Reply::Connected).await;
    serve(stream, Tls::new().acceptor, Arc::clone(&world.kms), None).await;
    // It closes.
    let next = world.outgoing.recv().await.unwrap();
    drop(next.reply(Reply::Connected).await);
    // It carries, and keeps what it carries; another time it plays that back.
    let next = world.outgoing.recv().await.unwrap();
    let mut stream = next.reply(Reply::Connected).await;
    let (near, far) = tokio::net::UnixStream::pair().unwrap();
    let mut near = Stream::Unix(near);
    let (kms, acceptor) = (Arc::clone(&world.kms), world.tls.acceptor.clone());
    tokio::spawn(serve(Stream::Unix(far), acceptor, kms, None));
    let mut carried = Vec::new();
    let (mut up, mut down) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
    let said = world.enclave.said("connected");
    tokio::pin!(said);
    loop {
        tokio::select! {
            _ = &mut said => break,
            count = stream.read(&mut up) => {
                near.write_all(&up[..count.unwrap()]).await.unwrap();
            }
            count = near.read(&mut down) => {
                let count = count.unwrap();
                carried.extend_from_slice(&down[..count]);
                stream.write_all(&down[..count]).await.unwrap();
            }
        }
    }
    drop((stream, near));
    is_taken_in(&mut world.control).await;
    fs::write(world.enclave.path("go"), "").unwrap();
    let next = world.outgoing.recv().await.unwrap();
    let mut stream = next.reply(Reply::Connected).await;
    let _ = stream.write_all(&carried).await;
    let _ = stream.read_to_end(&mut Vec::new()).await;

    let answers = world.done().await;
    for ((status, body), expected) in answers.iter().zip([
        Some("the route is down"),
        Some("TLS with kms.example.test:443 failed: invalid peer certificate"),
        Some("TLS with kms.example.test:443 failed"),
        None,
        Some("kms.example.test"),
    ]) {
        let Some(expected) = expected else {
            assert_eq!(*status, 200, "{body}");
            continue;
        };
        assert_eq!(
            (*status, &body["__type"]),
            (503, &json!("ServiceUnavailableException")),
            "{body}"
        );
        let text = body["message"].as_str().unwrap();
        assert!(text.contains(expected), "{text}");
    }
    assert_eq!(answers.len(), 5);
}

/// Calls KMS with botocore, whose configuration is the environment alone.
const BOTOCORE: &str = "
import sys
from botocore.exceptions import ClientError
from botocore.session import get_session
kms = get_session().create_client('kms')
key = sys.argv[1]
context = {'purpose': 'test'}
sealed = kms.encrypt(KeyId=key, Plaintext=b'a secret', EncryptionContext=context)['CiphertextBlob']
print(kms.decrypt(CiphertextBlob=sealed, EncryptionContext=context)['Plaintext'].decode())
data = kms.generate_data_key(KeyId=key, KeySpec='AES_256')
opened = kms.decrypt(KeyId=key, CiphertextBlob=data['CiphertextBlob'])
print(opened['Plaintext'] == data['Plaintext'], len(data['Plaintext']), 'CiphertextForRecipient' in data)
print(len(kms.generate_random(NumberOfBytes=8)['Plaintext']), kms.describe_key(KeyId=key)['KeyMetadata']['Arn'] == key)
try:
    kms.decrypt(CiphertextBlob=sealed)
except ClientError as error:
    print(error.response['Error']['Code'])
";

#[tokio::test]
async fn kms_is_called_by_an_unmodified_botocore() {
    let Some(python) = std::env::var_os("ENCLAVE_TEST_PYTHON") else {
        eprintln!("ENCLAVE_TEST_PYTHON is not set: `cargo xtask test` sets it");
        return;
    };
    let mut world = World::new(&["say started", "wait"], &["ASIA1"]).await;
    world.connect(None);
    world.give("ASIA1").await;
    world.enclave.said("started").await;
    let arguments = [BOTOCORE, &world.key];
    let (found, errors) = world
        .enclave
        .python(&python, &arguments, "AWS_ENDPOINT_URL_KMS")
        .await;
    let expected = "a secret\nTrue 32 False\n8 True\nInvalidCiphertextException\n";
    assert_eq!(found, expected, "{errors}");
}
