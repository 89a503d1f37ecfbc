//! A parent instance that wants the secret: it has the enclave's credentials, the ciphertext
//! and documents of the enclave, and carries the enclave's connections.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use price_oracle::SigningKey;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use demo::kms::{ENCLAVE_ROLE, LocalKms};

use crate::agent::Agent;
use crate::carrier::Carrier;
use crate::proof;
use crate::runs::Runs;
use crate::scene::{Scene, arguments};
use crate::screen::Screen;

/// KMS takes documents for five minutes.
const LATER: Duration = Duration::from_secs(6 * 60);
/// What a request and an answer have in them, unless they are encrypted.
const READABLE: [&str; 3] = [
    "TrentService",
    "AttestationDocument",
    "CiphertextForRecipient",
];

/// Has the parent try everything.
pub(crate) async fn tell(
    runs: &Runs<'_>,
    scene: &Scene,
    carrier: &Carrier,
    document: &[u8],
    folder: &Path,
    agent: &mut Option<Agent>,
    screen: &Arc<Screen>,
) -> anyhow::Result<()> {
    screen.fact(
        "it has",
        "the enclave's credentials, its ciphertext and a document, and carries its connections",
    );
    connections(runs, scene, carrier, screen).await?;
    impostor(runs, scene, folder, agent, screen).await?;
    calls(scene, document, screen).await?;
    let places = holders(folder, &runs.prices.key)?;
    ensure!(
        places.is_empty(),
        "the secret is in the parent's files: {}",
        places.join(", ")
    );
    screen.proven(
        "a parent that calls KMS itself, strips or swaps Recipient, replays, tampers, or presents a certificate of its own learns nothing",
    );
    screen.proven("the secret is in none of the parent's files, logs and connections");
    Ok(())
}

/// What it has carried, and changed, for image A.
async fn connections(
    runs: &Runs<'_>,
    scene: &Scene,
    carrier: &Carrier,
    screen: &Screen,
) -> anyhow::Result<()> {
    let connections = carrier.carried();
    let (Some(first), Some(last)) = (connections.first(), connections.last()) else {
        bail!("image A has not called KMS through the parent");
    };
    ensure!(
        first.is_changed && connections.len() > 1,
        "image A has believed an answer with a changed byte"
    );
    screen.fact(
        "changes an answer",
        "A noticed a changed byte of KMS's answer, and called again",
    );
    let secret = &runs.prices.key;
    let encoded = STANDARD.encode(secret);
    let secrets = [secret.as_str(), encoded.as_str()];
    for bytes in connections.iter().flat_map(|one| [&one.up, &one.down]) {
        for text in secrets.iter().chain(&READABLE) {
            ensure!(
                !contains(bytes, text.as_bytes()),
                "the parent reads A's connection to KMS"
            );
        }
    }
    let answer = last.replay(scene.kms_address).await?;
    ensure!(
        answer.len() < last.down.len(),
        "KMS answers replayed bytes of A's connection"
    );
    screen.fact(
        "sends A's bytes again",
        &format!(
            "{} bytes: TLS, in which KMS ends the connection",
            last.up.len()
        ),
    );
    Ok(())
}

/// A KMS of its own, which would know what to do with a document.
async fn impostor(
    runs: &Runs<'_>,
    scene: &Scene,
    folder: &Path,
    agent: &mut Option<Agent>,
    screen: &Screen,
) -> anyhow::Result<()> {
    let own = folder.join("kms-of-parent");
    let own = LocalKms::bind(([127, 0, 0, 1], 0).into(), &scene.root, &own).await?;
    let address = own.address()?;
    let mut tasks = JoinSet::new();
    tasks.spawn(own.serve());
    let arguments = arguments(runs, scene, address);
    let running = runs.start(arguments, &scene.enclave.environment, None)?;
    let message = agent.insert(running).refused().await;
    let message = message.context("with the parent's own KMS")?;
    *agent = None;
    let words = message.split_once("TLS with ").map(|(_, words)| words);
    let words = words.and_then(|words| words.split_once(';'));
    let Some((words, _)) = words else {
        bail!("{message}, where the certificate should have been refused");
    };
    screen.quoted(
        "answers as KMS itself",
        &format!("A does not believe it: TLS with {words}"),
    );
    Ok(())
}

/// Calls of its own.
async fn calls(scene: &Scene, document: &[u8], screen: &Screen) -> anyhow::Result<()> {
    let decrypt = |recipient: Value| {
        json!({
            "KeyId": scene.key,
            "CiphertextBlob": scene.ciphertext,
            "Recipient": recipient,
        })
    };
    let recipient = |document: &[u8]| {
        json!({
            "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256",
            "AttestationDocument": STANDARD.encode(document),
        })
    };
    // A key whose policy lets its ciphertexts be read.
    let open = json!({
        "Version": "2012-10-17",
        "Statement": {
            "Effect": "Allow",
            "Principal": { "AWS": ENCLAVE_ROLE },
            "Action": "kms:*",
            "Resource": "*",
        },
    });
    let request = json!({ "Policy": open.to_string() });
    let own = scene.kms.answer(&scene.enclave, "CreateKey", &request);
    let own = own.await?.pointer("/KeyMetadata/Arn").cloned();
    let re_encrypt = json!({
        "SourceKeyId": scene.key,
        "CiphertextBlob": scene.ciphertext,
        "DestinationKeyId": own,
    });

    let of_enclave = decrypt(recipient(document));
    for (label, call, request, name, word) in [
        (
            "strips Recipient",
            "Decrypt",
            decrypt(Value::Null),
            "AccessDeniedException",
            "explicit deny",
        ),
        (
            "re-encrypts",
            "ReEncrypt",
            re_encrypt,
            "AccessDeniedException",
            "kms:ReEncryptFrom",
        ),
        (
            "swaps Recipient's key",
            "Decrypt",
            decrypt(recipient(&with_own_key(document)?)),
            "ValidationException",
            "signature",
        ),
        (
            "replays Recipient",
            "Decrypt",
            of_enclave.clone(),
            "ValidationException",
            "key",
        ),
    ] {
        refusal(scene, label, call, &request, (name, word), screen).await?;
    }
    scene.clock.advance(LATER);
    let expected = ("ValidationException", "age");
    refusal(
        scene,
        "six minutes later",
        "Decrypt",
        &of_enclave,
        expected,
        screen,
    )
    .await
}

async fn refusal(
    scene: &Scene,
    label: &str,
    call: &str,
    request: &Value,
    (name, word): (&str, &str),
    screen: &Screen,
) -> anyhow::Result<()> {
    match scene.kms.call(&scene.enclave, call, request).await? {
        Ok(_) => bail!("KMS does what the parent asks for: {label}"),
        Err(refusal) if refusal.name == name && refusal.message.contains(word) => {
            let words = scene.shortened(&refusal.message);
            screen.quoted(label, &format!("refused: {name}: {words}"));
            Ok(())
        }
        Err(refusal) => bail!(
            "{label}: {}: {}, where KMS should have said {name} and {word}",
            refusal.name,
            refusal.message
        ),
    }
}

/// The document with a key of the parent's in the place of the enclave's.
fn with_own_key(document: &[u8]) -> anyhow::Result<Vec<u8>> {
    let key = proof::payload(document)?.public_key;
    let key = key.context("the document has no key")?;
    let own = SigningKey::generate()?;
    let own = own.public_key_der();
    let place = document.windows(key.len()).position(|bytes| bytes == *key);
    let place = place.context("the document's key is not in it")?;
    let mut changed = document.to_vec();
    let place = changed.get_mut(place..place + own.len());
    place.context("keys of two lengths")?.copy_from_slice(own);
    Ok(changed)
}

/// The files that the secret is in, as it is or as KMS's protocol has it.
fn holders(folder: &Path, secret: &str) -> anyhow::Result<Vec<String>> {
    let encoded = STANDARD.encode(secret);
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let (path, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
                if [secret, &encoded]
                    .iter()
                    .any(|text| contains(&bytes, text.as_bytes()))
                {
                    found.push(path.display().to_string());
                }
            }
        }
    }
    Ok(found)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
