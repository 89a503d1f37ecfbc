//! AWS credentials: from the agent, through the init, to an SDK in the workload.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use link::control::{EndCause, FromAgent, FromInit};
use link::logs::LogStream;
use link::{Bytes, Credentials, Secret, Text};
use serde_json::{Value, json};

use crate::agent::Control;
use crate::enclave::{Enclave, Image, ending, message};

const ASKED: &str = "forge tcp /v1/aws/credentials Host:198.18.0.1:7070 Authorization:$TOKEN";
const HOUR_MS: u64 = 3_600_000;

/// An image whose workload gets credentials.
fn image(instructions: &[&str]) -> Image {
    Image::new(instructions).with("/workload/aws_credentials", true.into())
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_millis().try_into().unwrap()
}

fn credentials(id: &str, expires_ms: u64, region: &str) -> FromAgent {
    FromAgent::Credentials(Credentials {
        access_key_id: Secret::new(id).unwrap(),
        secret_access_key: Secret::new("hush-secret").unwrap(),
        session_token: Secret::new("hush-session").unwrap(),
        expires_ms,
        region: Text::new(region),
    })
}

fn unavailable(reason: &str) -> FromAgent {
    let reason = Text::new(reason);
    FromAgent::CredentialsUnavailable { reason }
}

/// Waits until the init asks for credentials.
pub(crate) async fn asks(control: &mut Control) {
    message(control, |message| {
        matches!(message, FromInit::WantsCredentials).then_some(())
    })
    .await;
}

/// Waits until the init has taken in what it was sent.
pub(crate) async fn is_taken_in(control: &mut Control) {
    let nonce = Bytes::new(*b"nonce").unwrap();
    control.send(FromAgent::Challenge { id: 1, nonce }).await;
    message(control, |message| {
        matches!(message, FromInit::Document { .. }).then_some(())
    })
    .await;
}

/// What the workload was answered so far, of which all is JSON.
pub(crate) fn answers(enclave: &Enclave) -> Vec<(u16, Value)> {
    let answers = enclave.answers().into_iter();
    answers
        .map(|(status, body)| (status, serde_json::from_slice(&body).unwrap()))
        .collect()
}

#[tokio::test]
async fn credentials_are_given_to_whoever_has_the_token_until_they_expire() {
    let refused = [
        "Host:198.18.0.1:7070",
        "Host:198.18.0.1:7070 Enclave-Api:1",
        "Host:198.18.0.1:7070 Authorization:x$TOKEN",
        "Host:198.18.0.1:7070 Authorization:",
        "Host:198.18.0.1:7070 Authorization:$TOKEN Authorization:$TOKEN",
        "Host:rebound.example:7070 Authorization:$TOKEN",
        "Host:198.18.0.1:7070 Authorization:$TOKEN X-Forwarded-For:1.2.3.4",
    ]
    .map(|headers| format!("forge tcp /v1/aws/credentials {headers}"));
    let mut instructions = vec![ASKED];
    instructions.extend(refused.iter().map(String::as_str));
    instructions.extend(["say first", "until /second", ASKED, "say second"]);
    instructions.extend(["until /third", ASKED, "say third", "until /fourth", ASKED]);
    instructions.extend(["say fourth", "wait"]);
    let (enclave, mut control) = image(&instructions).boot().await;
    asks(&mut control).await;
    control
        .send(credentials("ASIA1", now_ms() + HOUR_MS, "eu-west-1"))
        .await;
    enclave.said("first").await;
    let given = answers(&enclave);
    let (status, first) = &given[0];
    assert_eq!(*status, 200);
    assert_eq!(first["AccessKeyId"], "ASIA1");
    assert_eq!(first["SecretAccessKey"], "hush-secret");
    assert_eq!(first["Token"], "hush-session");
    let expiration = first["Expiration"].as_str().unwrap();
    assert!(expiration.starts_with("20") && expiration.ends_with('Z'));
    assert_eq!(given.len(), 1 + refused.len());
    for ((status, body), request) in given[1..].iter().zip(&refused) {
        assert!([401, 403].contains(status), "{request}: {status}");
        assert!(body["code"].is_string() && body["message"].is_string());
        assert!(!body.to_string().contains("hush"), "{body}");
    }

    control
        .send(credentials("ASIA2", now_ms() + HOUR_MS, ""))
        .await;
    control.send(unavailable("the service is away")).await;
    is_taken_in(&mut control).await;
    fs::write(enclave.path("second"), "").unwrap();
    enclave.said("second").await;
    let (status, body) = answers(&enclave).pop().unwrap();
    assert_eq!((status, &body["AccessKeyId"]), (200, &json!("ASIA2")));

    control.send(credentials("ASIA3", now_ms() - 1, "")).await;
    is_taken_in(&mut control).await;
    fs::write(enclave.path("third"), "").unwrap();
    enclave.said("third").await;
    let (status, body) = answers(&enclave).pop().unwrap();
    assert_eq!(
        (status, &body["code"]),
        (503, &json!("CredentialsUnavailable"))
    );
    assert!(body["message"].as_str().unwrap().contains("have expired"));

    control.send(unavailable("no role is attached")).await;
    is_taken_in(&mut control).await;
    fs::write(enclave.path("fourth"), "").unwrap();
    enclave.said("fourth").await;
    let (status, body) = answers(&enclave).pop().unwrap();
    assert_eq!(status, 503);
    let message = body["message"].as_str().unwrap();
    assert!(message.ends_with("no role is attached"), "{message}");
    for stream in [LogStream::System, LogStream::Errors, LogStream::Health] {
        let lines = enclave.lines(stream).join("\n");
        assert!(
            !lines.contains("hush") && !lines.contains("ASIA"),
            "{lines}"
        );
    }
}

#[tokio::test]
async fn credentials_variables_are_the_workloads_if_the_image_says_so() {
    let variables = |enclave: &Enclave| {
        let lines = enclave.lines(LogStream::Application).into_iter();
        let lines = lines.filter(|line| line.starts_with("variable AWS_"));
        lines.collect::<Vec<_>>()
    };
    let given = image(&["surroundings", "wait"])
        .with("/workload/env", json!({"AWS_DEFAULT_REGION": "us-east-1"}));
    let (enclave, mut control) = given.boot().await;
    asks(&mut control).await;
    control
        .send(credentials("a", now_ms() + HOUR_MS, "eu-west-1"))
        .await;
    enclave.said("Umask").await;
    let mut found = variables(&enclave);
    found.sort_unstable();
    assert_eq!(found.len(), 4, "{found:?}");
    assert!(found[0].starts_with("variable AWS_CONTAINER_AUTHORIZATION_TOKEN="));
    assert_eq!(
        found[1..],
        [
            "variable AWS_CONTAINER_CREDENTIALS_FULL_URI=http://169.254.170.2:80/v1/aws/credentials",
            "variable AWS_DEFAULT_REGION=us-east-1",
            "variable AWS_REGION=us-east-1",
        ]
    );
    let step = enclave.line(LogStream::System, "step=credentials").await;
    assert!(step.contains("took_us="), "{step}");

    let (enclave, mut control) = image(&["surroundings", ASKED, "say done", "wait"])
        .boot()
        .await;
    asks(&mut control).await;
    control.send(unavailable("no role is attached")).await;
    enclave.said("done").await;
    let mut found = variables(&enclave);
    found.retain(|line| line.contains("REGION"));
    assert_eq!(found, [""; 0]);
    assert_eq!(answers(&enclave)[0].0, 503);
    enclave
        .line(
            LogStream::Errors,
            "credentials: the workload is started without AWS credentials and AWS_REGION: no role is attached",
        )
        .await;
}

#[tokio::test]
async fn credentials_have_an_address_where_there_is_nothing_else() {
    let requests = [
        (
            "/v1/aws/credentials Host:169.254.170.2 Authorization:$TOKEN",
            200,
        ),
        (
            "/v1/aws/credentials Host:169.254.170.2:80 Authorization:$TOKEN",
            200,
        ),
        (
            "/v1/aws/credentials Host:169.254.170.2 Authorization:x",
            401,
        ),
        (
            "/v1/aws/credentials Host:198.18.0.1:7070 Authorization:$TOKEN",
            403,
        ),
        ("/v1/random Host:169.254.170.2 Enclave-Api:1", 404),
        ("/latest/meta-data Host:169.254.170.2", 404),
    ];
    let mut instructions: Vec<_> = requests
        .iter()
        .map(|(request, _)| format!("forge credentials {request}"))
        .collect();
    instructions.extend(["say done".to_owned(), "wait".to_owned()]);
    let instructions: Vec<_> = instructions.iter().map(String::as_str).collect();
    let (enclave, mut control) = image(&instructions).boot().await;
    asks(&mut control).await;
    control
        .send(credentials("ASIA", now_ms() + HOUR_MS, "eu-west-1"))
        .await;
    enclave.said("done").await;
    for ((status, _), (request, expected)) in answers(&enclave).iter().zip(requests) {
        assert_eq!(*status, expected, "{request}");
    }
}

#[tokio::test]
async fn credentials_are_neither_asked_for_nor_taken_if_the_image_does_not_say_so() {
    let known = "forge tcp /v1/aws/credentials Host:198.18.0.1:7070 Enclave-Api:1";
    let image = Image::new(&[
        "surroundings",
        ASKED,
        known,
        "say done",
        "until /go",
        "say alive",
        "wait",
    ]);
    let (mut enclave, mut control) = image.boot().await;
    enclave.said("done").await;
    let statuses: Vec<_> = answers(&enclave)
        .into_iter()
        .map(|(status, _)| status)
        .collect();
    assert_eq!(statuses, [403, 404]);
    let lines = enclave.lines(LogStream::Application).join("\n");
    assert!(!lines.contains("variable AWS_"), "{lines}");
    for message in [
        credentials("a", now_ms() + HOUR_MS, "eu-west-1"),
        unavailable("no role"),
    ] {
        control.send(message).await;
        while let Some(message) = control.receive().await {
            assert_ne!(message, FromInit::WantsCredentials);
        }
        control = enclave.control().await;
    }
    enclave
        .line(LogStream::System, "sent credentials unasked")
        .await;
    fs::write(enclave.path("go"), "").unwrap();
    enclave.said("alive").await;
}

#[tokio::test]
async fn credentials_without_sense_end_the_connection_and_are_asked_for_anew() {
    let (mut enclave, mut control) = image(&[ASKED, "say done", "wait"]).boot().await;
    for senseless in [
        credentials("a", now_ms() + HOUR_MS, "EU\0"),
        credentials("a", u64::MAX, "eu-west-1"),
    ] {
        asks(&mut control).await;
        control.send(senseless).await;
        while control.receive().await.is_some() {}
        control = enclave.control().await;
    }
    asks(&mut control).await;
    control
        .send(credentials("ASIA", now_ms() + HOUR_MS, "eu-west-1"))
        .await;
    enclave.said("done").await;
    assert_eq!(answers(&enclave)[0].1["AccessKeyId"], "ASIA");
}

#[tokio::test]
async fn credentials_are_not_waited_for_by_a_shutdown() {
    let (mut enclave, mut control) = image(&["say started", "wait"]).boot().await;
    asks(&mut control).await;
    control.send(FromAgent::Shutdown { grace_ms: None }).await;
    let (cause, _) = ending(&mut control).await;
    assert_eq!(cause, EndCause::Shutdown);
    drop(control);
    assert_eq!(enclave.ended().await.0, 0);
    assert_eq!(enclave.lines(LogStream::Application), [""; 0]);
}

/// Prints what botocore's default chain finds, and which of its members found it.
const BOTOCORE: &str = "
import botocore.session
session = botocore.session.get_session()
found = session.get_credentials()
frozen = found.get_frozen_credentials()
print(found.method, frozen.access_key, frozen.secret_key, frozen.token, session.get_config_variable('region'))
";

#[tokio::test]
async fn credentials_are_found_by_the_default_chain_of_botocore() {
    let Some(python) = std::env::var_os("ENCLAVE_TEST_PYTHON") else {
        eprintln!("ENCLAVE_TEST_PYTHON is not set: `cargo xtask test` sets it");
        return;
    };
    let (enclave, mut control) = image(&["say started", "wait"]).boot().await;
    asks(&mut control).await;
    control
        .send(credentials("ASIA", now_ms() + HOUR_MS, "eu-west-1"))
        .await;
    enclave.said("started").await;
    let (found, errors) = enclave.python(&python, &[BOTOCORE], "AWS_CONTAINER").await;
    assert_eq!(
        found.trim(),
        "container-role ASIA hush-secret hush-session eu-west-1",
        "{errors}"
    );
}
