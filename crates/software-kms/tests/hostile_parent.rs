//! A parent instance that has the enclave's credentials, its ciphertexts and its documents,
//! and stands between it and the KMS, does not learn what the KMS gives the enclave.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use attestation::Pcr;
use enveloped_data::RecipientKey;
use serde_json::{Value, json};
use support::link::{Link, Mutation, Way};
use support::tls::{self, Authority};
use support::{Client, Enclave, World, base64, bytes, policy, recipient};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const IMAGE: Pcr = Pcr::new([1; 48]);
const SECRET: &[u8] = b"thirty-two bytes that are secret";
/// How long the enclave waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A secret for the enclave, and all that the parent knows of it.
struct Scene {
    world: World,
    enclave: Enclave,
    key: String,
    ciphertext: Value,
}

impl Scene {
    fn new() -> Self {
        let world = World::new();
        let key = world.key(&[
            ("kms:Encrypt", &world.role, None),
            ("kms:Decrypt", &world.role, Some(IMAGE)),
        ]);
        let request = json!({ "KeyId": key, "Plaintext": base64(SECRET) });
        let mut encrypted = world.call("Encrypt", &request);
        Self {
            enclave: world.enclave(Some(IMAGE)),
            ciphertext: encrypted["CiphertextBlob"].take(),
            key,
            world,
        }
    }

    fn decrypt(&self, recipient: &Value) -> Value {
        json!({ "KeyId": self.key, "CiphertextBlob": self.ciphertext, "Recipient": recipient })
    }
}

/// Whether the secret is in these bytes, as it is or as the protocol has it.
fn shows_secret(bytes: &[u8]) -> bool {
    let encoded = base64(SECRET);
    [SECRET, encoded.as_bytes()]
        .iter()
        .any(|secret| bytes.windows(secret.len()).any(|window| window == *secret))
}

#[test]
fn parents_requests_of_their_own_are_refused() {
    let mut scene = Scene::new();
    let own = RecipientKey::generate().unwrap();
    let public_key = scene.enclave.key.public_key_der().to_vec();
    let document = scene.enclave.document(Some(&public_key));

    // The document of the enclave with the parent's key in it.
    let place = document
        .windows(public_key.len())
        .position(|bytes| bytes == public_key)
        .unwrap();
    let mut swapped = document.clone();
    swapped[place..place + public_key.len()].copy_from_slice(own.public_key_der());
    let of_other = |image| {
        let mut enclave = scene.world.enclave(image);
        enclave.document(Some(own.public_key_der()))
    };
    let mut changed = *IMAGE.as_bytes().first_chunk::<48>().unwrap();
    changed[0] ^= 1;
    let requests = [
        ("no recipient", Value::Null, "AccessDeniedException"),
        (
            "another image",
            recipient(&of_other(Some(Pcr::new(changed)))),
            "AccessDeniedException",
        ),
        (
            "debug mode",
            recipient(&of_other(None)),
            "AccessDeniedException",
        ),
        (
            "a key of its own",
            recipient(&swapped),
            "ValidationException",
        ),
    ];
    for (what, recipient, kind) in requests {
        let refusal = scene.world.refusal("Decrypt", &scene.decrypt(&recipient));
        assert_eq!(refusal["__type"], kind, "{what}: {refusal}");
        assert!(!shows_secret(refusal.to_string().as_bytes()), "{what}");
    }
    let stranger = Client::new("arn:aws:iam::123456789012:role/Stranger");
    let request = scene.decrypt(&recipient(&document));
    let refusal = scene.world.refusal_of(&stranger, "Decrypt", &request);
    assert_eq!(refusal["__type"], "AccessDeniedException", "{refusal}");

    // A document that it has seen, while it is fresh: what it gets only the enclave reads.
    let answer = scene.world.call("Decrypt", &request);
    assert!(!shows_secret(answer.to_string().as_bytes()));
    let message = bytes(&answer["CiphertextForRecipient"]);
    assert!(own.open(&message).is_err());
    assert!(!shows_secret(&message));
    assert_eq!(scene.enclave.key.open(&message).unwrap().as_slice(), SECRET);
    scene.world.set_ahead(301);
    let refusal = scene.world.refusal("Decrypt", &request);
    assert_eq!(refusal["__type"], "ValidationException", "{refusal}");
}

#[test]
fn parents_ciphertexts_are_refused_where_the_enclave_names_its_key() {
    let mut scene = Scene::new();
    let open = policy(&[("kms:*", &scene.world.role, None)]);
    let others = scene.world.kms.create_key(open).unwrap();
    let request = json!({ "KeyId": others.as_str(), "Plaintext": base64(b"of the parent") });
    let substitute = scene.world.call("Encrypt", &request)["CiphertextBlob"].clone();
    let request = json!({
        "CiphertextBlob": substitute,
        "Recipient": scene.enclave.recipient(),
    });
    // Only the key in the answer distinguishes it.
    let answer = scene.world.call("Decrypt", &request);
    assert_eq!(answer["KeyId"], others.as_str());
    scene.ciphertext = substitute;
    let recipient = scene.enclave.recipient();
    let request = scene.decrypt(&recipient);
    let refusal = scene.world.refusal("Decrypt", &request);
    assert_eq!(refusal["__type"], "IncorrectKeyException", "{refusal}");
}

/// What the enclave gets over a connection by TLS to the KMS, through a parent.
async fn over(link: &Link, authority: &Authority, scene: &mut Scene) -> Option<Vec<u8>> {
    let recipient = scene.enclave.recipient();
    let request = scene.decrypt(&recipient);
    let request = scene.world.client.request("Decrypt", &request);
    let exchange = async {
        let stream = TcpStream::connect(link.address).await.ok()?;
        tls::exchange(stream, authority, request).await
    };
    let answer = timeout(PATIENCE, exchange).await.ok()??;
    let message = bytes(answer.get("CiphertextForRecipient")?);
    let secret = scene.enclave.key.open(&message).ok()?;
    Some(secret.to_vec())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parents_that_change_the_connection_break_it() {
    let mut scene = Scene::new();
    let authority = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let kms = listener.local_addr().unwrap();
    let server = tls::serve(listener, authority.acceptor(), Arc::clone(&scene.world.kms));
    let _server = tokio::spawn(server);

    let link = Link::start(kms, None).await;
    assert_eq!(over(&link, &authority, &mut scene).await.unwrap(), SECRET);
    let seen = link.seen();
    assert!(!shows_secret(&seen.up) && !shows_secret(&seen.down));
    assert!(seen.records(Way::Up) > 2 && seen.records(Way::Down) > 2);

    for way in [Way::Up, Way::Down] {
        for record in 0..seen.records(way) {
            for mutation in Mutation::ALL {
                let link = Link::start(kms, Some((way, record, mutation))).await;
                let secret = over(&link, &authority, &mut scene).await;
                let is_changed = link.is_changed();
                // What the KMS says at the end, the enclave no longer waits for.
                assert!(
                    !is_changed || secret.is_none(),
                    "{way:?} {record} {mutation:?}"
                );
                assert!(is_changed || secret.is_none_or(|secret| secret == SECRET));
            }
        }
    }

    // All that the enclave sent, once more.
    let answer = seen.replay(kms).await;
    assert!(!shows_secret(&answer));
    assert!(scene.enclave.key.open(&answer).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parents_that_pretend_to_be_the_kms_are_not_believed() {
    let mut scene = Scene::new();
    let (authority, own) = (Authority::new(), Authority::new());
    // One that would answer: it knows the enclave's public key.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let impostor = listener.local_addr().unwrap();
    let server = tls::serve(listener, own.acceptor(), Arc::clone(&scene.world.kms));
    let _server = tokio::spawn(server);
    let link = Link::start(impostor, None).await;
    assert_eq!(over(&link, &authority, &mut scene).await, None);
    assert_eq!(over(&link, &own, &mut scene).await.unwrap(), SECRET);
}
