//! Sealed secrets: from whoever has verified the enclave, over a parent that may be
//! hostile, to the workload.

use attestation::{Nonce, Policy, Purpose, Roots, Rule, VerifiedClaims, Verifier};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use link::Bytes;
use link::control::{EndCause, FromAgent, FromInit, HealthState};
use link::logs::LogStream;
use measurements::{Measurements, Pcr};
use sealed_secret::{Binding, PublicKey, SenderKey, seal};
use serde_json::{Value, json};

use crate::agent::Control;
use crate::enclave::{Enclave, Image, MEASUREMENTS, ending, ending_with_code, message};

const SENDER: &[u8] = include_bytes!("../../../crates/sealed-secret/tests/vectors/sender.key");
const OTHER: &[u8] = include_bytes!("../../../crates/sealed-secret/tests/vectors/other.key");
const NONCE: &[u8] = b"a nonce of whoever has a secret";
const SECRET: &[u8] = b"hush-hunter2";

fn sender() -> SenderKey {
    SenderKey::from_pem(SENDER).unwrap()
}

/// A secret that the sender seals. Its delivery, and what else is to be set.
pub(crate) fn secret(name: &str, wait: Option<&str>, rest: &Value) -> Value {
    let mut sealed = json!({"sender": STANDARD.encode(sender().sender().to_spki())});
    if let Some(wait) = wait {
        sealed["wait"] = wait.into();
    }
    let mut secret = json!({"name": name, "origin": {"sealed": sealed}, "on_failure": "stop"});
    let members = rest.as_object().unwrap().clone();
    secret.as_object_mut().unwrap().extend(members);
    secret
}

/// An image to which two secrets can be sealed, while its workload runs.
fn image(instructions: &[&str]) -> Image {
    let rest = json!({"api": true, "on_failure": "continue"});
    let secrets = json!([
        secret("password", None, &rest),
        secret("other", None, &rest)
    ]);
    Image::new(instructions).with("/secrets", secrets)
}

fn file(name: &str) -> Value {
    json!({"path": format!("/run/secrets/{name}"), "mode": "0400"})
}

/// Seals a secret to an enclave, and hands it in.
pub(crate) async fn seal_and_put(
    enclave: &Enclave,
    control: &mut Control,
    name: &str,
    value: &[u8],
) -> Result<(), String> {
    let (key, binding) = attested(enclave, control).await;
    let sealed = seal(value, name, &key, &binding, &sender()).unwrap();
    put(control, 7, &sealed).await
}

/// Waits until the agent is told what the enclave waits for.
async fn waits_for(control: &mut Control, text: &str) {
    message(control, |message| match message {
        FromInit::Health { state, detail } if detail.contains(text) => {
            assert_eq!(*state, HealthState::Starting);
            Some(())
        }
        _ => None,
    })
    .await;
}

async fn document(control: &mut Control, id: u64, nonce: &[u8]) -> Result<Vec<u8>, String> {
    let nonce = Bytes::new(nonce).unwrap();
    let challenge = FromAgent::SealingChallenge { id, nonce };
    control.send(challenge).await;
    message(control, |message| match message {
        FromInit::Document { id: of, document } if *of == id => Some(Ok(document.to_vec())),
        FromInit::ChallengeFailed { id: of, reason } if *of == id => Some(Err(reason.to_string())),
        _ => None,
    })
    .await
}

/// What whoever has a secret finds of a document.
fn verify(enclave: &Enclave, document: &[u8], nonce: &[u8]) -> Result<VerifiedClaims, Rule> {
    let roots = Roots::from_pem(enclave.prepared.root_pem.as_bytes()).unwrap();
    let policy = Policy::builder()
        .measurements(MEASUREMENTS)
        .purpose(Purpose::Sealing)
        .build()
        .unwrap();
    let verifier = Verifier::new(roots);
    let verification = verifier.verify(document, &policy, Nonce::Fresh(nonce));
    let outcome = verification.outcome;
    outcome
        .map(VerifiedClaims::from)
        .map_err(|rejection| rejection.rule)
}

/// What a secret is sealed to.
async fn attested(enclave: &Enclave, control: &mut Control) -> (PublicKey, Binding) {
    let document = document(control, 1, NONCE).await.unwrap();
    let claims = verify(enclave, &document, NONCE).unwrap();
    let key = PublicKey::from_spki(claims.public_key().unwrap()).unwrap();
    let registers = claims.pcrs();
    let registers = registers.map(|(index, value)| (u8::try_from(index).unwrap(), value));
    (key, Binding::new(claims.module_id(), registers))
}

async fn put(control: &mut Control, id: u64, sealed: &[u8]) -> Result<(), String> {
    let sealed = Bytes::new(sealed).unwrap();
    control.send(FromAgent::SealedSecret { id, sealed }).await;
    message(control, |message| match message {
        FromInit::SecretOpened { id: of } if *of == id => Some(Ok(())),
        FromInit::SecretRefused { id: of, reason } if *of == id => Some(Err(reason.to_string())),
        _ => None,
    })
    .await
}

fn error(body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).unwrap();
    body["error"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn sealed_secret_reaches_the_workload() {
    let ask = "request tcp GET /v1/secrets/password";
    let (enclave, mut control) = image(&[
        ask,
        "request tcp GET /v1/secrets/unknown",
        "request tcp GET /v1/secrets/password?wait=11",
        "say before",
        "request unix GET /v1/secrets/password?wait=10",
        ask,
        "say after",
        "wait",
    ])
    .boot()
    .await;
    enclave.said("before").await;
    let before = enclave.answers();
    let statuses: Vec<u16> = before.iter().map(|(status, _)| *status).collect();
    assert_eq!(statuses, [404, 404, 400]);
    for ((_, body), code) in
        before
            .iter()
            .zip(["secret-not-put", "unknown-secret", "invalid-request"])
    {
        let body: Value = serde_json::from_slice(body).unwrap();
        assert_eq!(body["code"], code, "{body}");
    }
    assert!(error(&before[0].1).contains("nobody has put this"));
    assert!(error(&before[1].1).contains("declares no secret of that name"));

    let (key, binding) = attested(&enclave, &mut control).await;
    let sealed = seal(SECRET, "password", &key, &binding, &sender()).unwrap();
    assert_eq!(put(&mut control, 2, &sealed).await, Ok(()));
    enclave.said("after").await;
    let secret = (200, SECRET.to_vec());
    assert_eq!(enclave.answers()[3..], [secret.clone(), secret]);
    // Whoever has not heard the answer tries again.
    assert_eq!(put(&mut control, 3, &sealed).await, Ok(()));
    let system = enclave.lines(LogStream::System).join("\n");
    assert!(system.contains("secrets: `password` was put"), "{system}");
    assert!(!system.contains("hush"), "{system}");
}

#[tokio::test]
async fn sealed_secret_of_a_hostile_parent_is_refused() {
    let (enclave, mut control) = image(&["wait"]).boot().await;
    let (key, binding) = attested(&enclave, &mut control).await;
    let good = seal(SECRET, "password", &key, &binding, &sender()).unwrap();
    let other_sender = SenderKey::from_pem(OTHER).unwrap();
    let (elsewhere, mut of_elsewhere) = image(&["wait"]).boot().await;
    let (other_key, other_binding) = attested(&elsewhere, &mut of_elsewhere).await;
    let other_register = Binding::new("i-0-enc0", [(0, Pcr::new([1; 48]))]);

    let mut refused = vec![
        // Of the parent's own making, as if it were the sender's.
        seal(b"mine", "password", &key, &binding, &other_sender).unwrap(),
        // To another boot, or for another state of this one.
        seal(SECRET, "password", &other_key, &other_binding, &sender()).unwrap(),
        seal(SECRET, "password", &other_key, &binding, &sender()).unwrap(),
        seal(SECRET, "password", &key, &other_register, &sender()).unwrap(),
    ];
    let flipped = |place: usize| {
        let mut bytes = good.clone();
        bytes[place] ^= 1;
        bytes
    };
    // Ciphertext and signature.
    refused.extend([good.len() - 1, good.len() - 40, good.len() - 70].map(flipped));
    let mut reasons = Vec::new();
    for sealed in &refused {
        reasons.push(put(&mut control, 5, sealed).await.unwrap_err());
    }
    // Which it was is nothing for the parent to know.
    assert!(reasons[0].contains("does not open here"), "{}", reasons[0]);
    assert!(reasons.iter().all(|reason| *reason == reasons[0]));
    for length in [0, 1, good.len() / 2, good.len() - 1] {
        let reason = put(&mut control, 6, &good[..length]).await.unwrap_err();
        assert!(reason.contains("not a sealed secret"), "{reason}");
    }
    let undeclared = seal(SECRET, "unknown", &key, &binding, &sender()).unwrap();
    let reason = put(&mut control, 7, &undeclared).await.unwrap_err();
    assert!(reason.contains("it has other, password"), "{reason}");

    // Nothing of this has taken the place; and what is there stays.
    assert_eq!(put(&mut control, 8, &good).await, Ok(()));
    let second = seal(b"new", "password", &key, &binding, &sender()).unwrap();
    let reason = put(&mut control, 9, &second).await.unwrap_err();
    assert!(reason.contains("has another value already"), "{reason}");
    assert!(!reason.contains("new") && !reason.contains("hush"));
}

#[tokio::test]
async fn sealing_documents_of_a_hostile_parent_are_refused() {
    let (enclave, mut control) = image(&["wait"]).boot().await;
    let good = document(&mut control, 1, NONCE).await.unwrap();
    let claims = verify(&enclave, &good, NONCE).unwrap();
    let key = claims.public_key().unwrap();

    // Another nonce, and an answer to an earlier one.
    let refused = verify(&enclave, &good, b"another nonce").unwrap_err();
    assert_eq!(refused, Rule::PolicyNonce);
    // The parent's own key in its place.
    let place = good.windows(key.len()).position(|part| part == key);
    let mut swapped = good.clone();
    swapped[place.unwrap() + 20] ^= 1;
    let refused = verify(&enclave, &swapped, NONCE).unwrap_err();
    assert_eq!(refused, Rule::DocumentSignature);
    // A document that the parent may have anyhow.
    let nonce = Bytes::new(NONCE).unwrap();
    control.send(FromAgent::Challenge { id: 2, nonce }).await;
    let relayed = message(&mut control, |message| match message {
        FromInit::Document { id: 2, document } => Some(document.to_vec()),
        _ => None,
    })
    .await;
    let refused = verify(&enclave, &relayed, NONCE).unwrap_err();
    assert_eq!(refused, Rule::PolicyPurpose);
    // Another image's enclave.
    let other = Measurements {
        pcr2: Pcr::new([9; 48]),
        ..MEASUREMENTS
    };
    let (other, mut of_other) = image(&["wait"]).measuring(other).boot().await;
    let foreign = document(&mut of_other, 1, NONCE).await.unwrap();
    assert!(verify(&enclave, &foreign, NONCE).is_err());
    assert!(verify(&other, &foreign, NONCE).is_err());

    assert!(document(&mut control, 3, b"").await.is_err(), "no nonce");
}

#[tokio::test]
async fn sealed_secret_is_refused_by_an_image_that_declares_none() {
    let (_enclave, mut control) = Image::new(&["wait"]).boot().await;
    let reason = document(&mut control, 1, NONCE).await.unwrap_err();
    assert!(reason.contains("declares no sealed secrets"), "{reason}");
    let reason = put(&mut control, 2, b"anything").await.unwrap_err();
    assert!(reason.contains("declares no sealed secrets"), "{reason}");
}

#[tokio::test]
async fn sealed_secrets_are_files_and_variables_once_they_are_put() {
    let secrets = json!([
        secret("password", Some("60s"), &json!({"file": file("password")})),
        secret("token", Some("60s"), &json!({"env": "TOKEN"})),
    ]);
    let image = Image::new(&[
        "show /run/secrets/password",
        "surroundings",
        "request tcp GET /v1/secrets/token",
        "say done",
        "wait",
    ])
    .with("/secrets", secrets)
    .with("/workload/user", json!({"uid": 1000, "gid": 1000}));
    let (enclave, mut control) = image.boot().await;
    waits_for(
        &mut control,
        "for the sealed secrets `password`, `token`: seal each",
    )
    .await;
    let put = seal_and_put(&enclave, &mut control, "password", SECRET).await;
    assert_eq!(put, Ok(()));
    waits_for(
        &mut control,
        "for the sealed secret `token`: seal it to this boot",
    )
    .await;
    // What is not for an environment leaves the place to what is.
    for (value, reason) in [
        (b"hush\0hush".as_slice(), "has a zero byte"),
        (&[b'x'; 8193], "8193 bytes, more than the 8192"),
    ] {
        let put = seal_and_put(&enclave, &mut control, "token", value).await;
        let refusal = put.unwrap_err();
        assert!(refusal.contains(reason), "{refusal}");
    }
    assert!(enclave.lines(LogStream::Application).is_empty());
    let put = seal_and_put(&enclave, &mut control, "token", b"hush-token").await;
    assert_eq!(put, Ok(()));
    enclave.said("done").await;
    let said = enclave.lines(LogStream::Application);
    assert!(said.contains(&"\"hush-hunter2\"".to_owned()), "{said:?}");
    assert!(said.contains(&"variable TOKEN=hush-token".to_owned()));
    let [(status, refusal)] = &enclave.answers()[..] else {
        panic!("{said:?}");
    };
    assert_eq!(*status, 404);
    assert!(error(refusal).contains("add `api = true`"));
    // Sealed anew, the same value is the same; its file is what is compared.
    let put = seal_and_put(&enclave, &mut control, "password", SECRET).await;
    assert_eq!(put, Ok(()));
    let put = seal_and_put(&enclave, &mut control, "password", b"hush-other").await;
    assert!(put.unwrap_err().contains("has another value already"));
    enclave
        .line(LogStream::System, "secrets: 2 of 2 delivered")
        .await;
    enclave.line(LogStream::System, "boot step=secrets").await;
    for stream in [LogStream::System, LogStream::Errors, LogStream::Health] {
        let lines = enclave.lines(stream).join("\n");
        assert!(!lines.contains("hush"), "{lines}");
    }
}

#[tokio::test]
async fn sealed_secrets_that_nobody_puts_end_the_boot() {
    let secrets = json!([secret(
        "password",
        Some("50ms"),
        &json!({"env": "PASSWORD"})
    )]);
    let image = Image::new(&["say started"]).with("/secrets", secrets);
    let (mut enclave, mut control) = image.boot().await;
    let (cause, detail, code) = ending_with_code(&mut control).await;
    assert_eq!((cause, &*code), (EndCause::BootFailed, "boot.secrets"));
    let expected = "boot step secrets failed: the secret `password`: nobody put it within 50ms; seal it to this boot with `attest seal --send`";
    assert!(detail.starts_with(expected), "{detail}");
    assert_eq!(enclave.ended().await.0, 1);
    assert!(enclave.lines(LogStream::Application).is_empty());
}

#[tokio::test]
async fn sealed_secrets_may_come_while_the_workload_runs() {
    let rest = json!({
        "file": file("password"),
        "on_change": {"signal": "SIGHUP"},
        "on_failure": "continue",
    });
    let secrets = json!([secret("password", Some("50ms"), &rest)]);
    let image = Image::new(&["catch SIGHUP", "show /run/secrets/password", "wait"]);
    let (enclave, mut control) = image.with("/secrets", secrets).boot().await;
    enclave.said("catching").await;
    let missing = "the workload is started without the secret `password`: nobody put it";
    enclave.line(LogStream::Errors, missing).await;
    let put = seal_and_put(&enclave, &mut control, "password", SECRET).await;
    assert_eq!(put, Ok(()));
    enclave.said("\"hush-hunter2\"").await;
}

#[tokio::test]
async fn sealed_secrets_are_not_waited_for_after_a_shutdown() {
    let secrets = json!([secret(
        "password",
        Some("168h"),
        &json!({"env": "PASSWORD"})
    )]);
    let image = Image::new(&["say started"]).with("/secrets", secrets);
    let (mut enclave, mut control) = image.boot().await;
    waits_for(&mut control, "`password`").await;
    control.send(FromAgent::Shutdown { grace_ms: None }).await;
    assert_eq!(ending(&mut control).await.0, EndCause::Shutdown);
    assert_eq!(enclave.ended().await.0, 0);
    assert!(enclave.lines(LogStream::Application).is_empty());
}

#[tokio::test]
async fn sealed_secrets_that_come_late_are_followed_by_a_command() {
    let read = "/bin/workload open /run/secrets/password";
    let good =
        format!("secrets: `{read}` has ended with exit code 0: open /run/secrets/password: 1");
    let bad = format!(
        "secrets: `{read} exit 3`, which follows a change, failed: it ended with exit code 3: open /run/secrets/password: 1"
    );
    let missing = "secrets: `/bin/missing`, which follows a change, failed: it ended with exit code 127: /bin/missing: No such file or directory (os error 2)";
    let open = "open /run/secrets/password";
    for (command, stream, line) in [
        (json!(["/bin/workload", open]), LogStream::System, good),
        (
            json!(["/bin/workload", open, "exit 3"]),
            LogStream::Errors,
            bad,
        ),
        (
            json!(["/bin/missing"]),
            LogStream::Errors,
            missing.to_owned(),
        ),
    ] {
        let rest = json!({
            "file": file("password"),
            "on_change": {"command": command},
            "on_failure": "continue",
        });
        let secrets = json!([secret("password", Some("50ms"), &rest)]);
        let image = Image::new(&["say here", "until /go", "say still", "wait"]);
        let (enclave, mut control) = image.with("/secrets", secrets).boot().await;
        enclave.said("here").await;
        let put = seal_and_put(&enclave, &mut control, "password", SECRET).await;
        assert_eq!(put, Ok(()));
        assert_eq!(enclave.line(stream, "secrets: `/bin").await, line);
        // A failure does not end the workload.
        std::fs::write(enclave.path("go"), "").unwrap();
        enclave.said("still").await;
    }
}

/// It could say that the workload is alive.
#[tokio::test]
async fn sealed_secrets_that_change_have_no_command_that_finds_the_socket_of_notify() {
    let rest = json!({
        "file": file("password"),
        "on_change": {"command": ["/bin/workload", "notify READY=1"]},
        "on_failure": "continue",
    });
    let secrets = json!([secret("password", Some("50ms"), &rest)]);
    let image = Image::new(&["notify STATUS=mine", "say here", "wait"])
        .with("/workload/health", json!({"notify": true}))
        .with("/secrets", secrets);
    let (enclave, mut control) = image.boot().await;
    enclave.said("here").await;
    let put = seal_and_put(&enclave, &mut control, "password", SECRET).await;
    assert_eq!(put, Ok(()));
    let failed = enclave.line(LogStream::Errors, "secrets: `/bin").await;
    assert!(failed.contains("exit code 101"), "{failed}");
}
