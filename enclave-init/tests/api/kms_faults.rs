//! A KMS that refuses, fails, or sends what is none of its answers: what an SDK in the
//! workload is told, and what the log says.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use link::control::{FromAgent, FromInit};
use link::kms::{Calls, Operation, Outcome};
use link::logs::LogStream;
use link::target::Reply;
use link::{Stream, Text};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::credentials::{answers, is_taken_in};
use crate::description::Description;
use crate::enclave::{LIMIT, message};
use crate::kms_world::{World, give_for};

const CALL: &str = "kms GenerateRandom {\"NumberOfBytes\":8}";
/// Between two bytes of an answer that does not end.
const DRIP: Duration = Duration::from_millis(100);

/// How a request is answered.
enum Fault {
    /// With these bytes; the connection stays.
    Sent(String),
    /// With these bytes, and the connection's end.
    Cut(String),
    /// With a byte now and then.
    Dripped(String),
}

fn whole(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/x-amz-json-1.1\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn refusal(name: &str) -> Fault {
    let body = json!({ "__type": name, "message": format!("the words of {name}") });
    Fault::Sent(whole("400 Bad Request", &body.to_string()))
}

/// Answers requests by the faults in turn, over as many connections as that takes.
fn misbehave(world: &mut World, faults: Vec<Fault>) {
    let mut outgoing = std::mem::replace(&mut world.outgoing, mpsc::channel(1).1);
    let acceptor = world.tls.acceptor.clone();
    tokio::spawn(async move {
        let mut faults = VecDeque::from(faults);
        while let Some(next) = outgoing.recv().await {
            let stream = next.reply(Reply::Connected).await;
            serve(stream, &acceptor, &mut faults).await;
        }
    });
}

async fn serve(stream: Stream, acceptor: &TlsAcceptor, faults: &mut VecDeque<Fault>) {
    let mut stream = acceptor.accept(stream).await.unwrap();
    while read_request(&mut stream).await {
        match faults.pop_front().unwrap() {
            Fault::Sent(answer) => stream.write_all(answer.as_bytes()).await.unwrap(),
            Fault::Cut(answer) => {
                stream.write_all(answer.as_bytes()).await.unwrap();
                return;
            }
            Fault::Dripped(answer) => {
                for byte in answer.bytes() {
                    sleep(DRIP).await;
                    // The init gives up.
                    if stream.write_all(&[byte]).await.is_err() {
                        return;
                    }
                    let _ = stream.flush().await;
                }
            }
        }
    }
}

/// Whether there is one more.
async fn read_request(stream: &mut TlsStream<Stream>) -> bool {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return false,
        }
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1).unwrap();
    let length = length.split("\r\n").next().unwrap().parse().unwrap();
    stream.read_exact(&mut vec![0; length]).await.unwrap();
    true
}

/// What the agent is told of the calls, once there are so many.
async fn counted(world: &mut World, calls: u64) -> Vec<Calls> {
    message(&mut world.control, |message| match message {
        FromInit::Kms { calls: told, .. }
            if told.iter().map(|calls| calls.count).sum::<u64>() == calls =>
        {
            Some(told.clone())
        }
        _ => None,
    })
    .await
}

fn of_random(outcome: Outcome, count: u64) -> Calls {
    Calls {
        operation: Operation::GenerateRandom,
        outcome,
        count,
    }
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table of faults")]
async fn kms_faults_are_told_in_kmss_words_and_counted() {
    let answered = |sealed: &[u8]| {
        let body = json!({ "Plaintext": "", "CiphertextForRecipient": STANDARD.encode(sealed) });
        Fault::Sent(whole("200 OK", &body.to_string()))
    };
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    // The status and the error's name that the workload gets, what it is told, and what is
    // counted.
    let cases = [
        (
            refusal("AccessDeniedException"),
            (400, "AccessDeniedException"),
            "the words of AccessDeniedException",
            Outcome::AccessDenied,
        ),
        (
            refusal("ThrottlingException"),
            (400, "ThrottlingException"),
            "the words of ThrottlingException",
            Outcome::Throttled,
        ),
        (
            refusal("ExpiredTokenException"),
            (400, "ExpiredTokenException"),
            "the words of ExpiredTokenException",
            Outcome::CredentialsRefused,
        ),
        (
            Fault::Sent(whole(
                "500 Internal Server Error",
                r#"{"__type":"KMSInternalException","message":"words"}"#,
            )),
            (500, "KMSInternalException"),
            "words",
            Outcome::Failed,
        ),
        (
            Fault::Sent(whole(
                "302 Found",
                r#"{"__type":"Elsewhere","message":"words"}"#,
            )),
            (302, "Elsewhere"),
            "words",
            Outcome::Refused,
        ),
        (
            Fault::Sent(whole("200 OK", "{\"Plaintext\":")),
            (502, "InvalidAnswerException"),
            "cannot be opened with this enclave's key",
            Outcome::NotOurs,
        ),
        (
            answered(b""),
            (502, "InvalidAnswerException"),
            "cannot be opened with this enclave's key",
            Outcome::NotOurs,
        ),
        (
            answered(&[0x30, 0x80, 0x06, 0x09]),
            (502, "InvalidAnswerException"),
            "cannot be opened with this enclave's key",
            Outcome::NotOurs,
        ),
        (
            Fault::Cut("HTTP/1.1 200 OK\r\nContent-Length: 262145\r\n\r\n".to_owned()),
            (503, "ServiceUnavailableException"),
            "answered with more than 262144 bytes",
            Outcome::Unreachable,
        ),
        (
            Fault::Cut(format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}",
                chunk.repeat(5)
            )),
            (503, "ServiceUnavailableException"),
            "answered with more than 262144 bytes",
            Outcome::Unreachable,
        ),
        (
            Fault::Cut("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{".to_owned()),
            (503, "ServiceUnavailableException"),
            "the connection to kms.example.test broke",
            Outcome::Unreachable,
        ),
        (
            Fault::Cut("HTTP/1.1 200 OK\r\nContent-".to_owned()),
            (503, "ServiceUnavailableException"),
            "the connection to kms.example.test broke",
            Outcome::Unreachable,
        ),
        (
            Fault::Cut(String::new()),
            (503, "ServiceUnavailableException"),
            "the connection to kms.example.test broke",
            Outcome::Unreachable,
        ),
        (
            Fault::Cut("SSH-2.0-OpenSSH\r\n".to_owned()),
            (503, "ServiceUnavailableException"),
            "the connection to kms.example.test broke",
            Outcome::Unreachable,
        ),
        (
            Fault::Cut(format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(65_536))),
            (503, "ServiceUnavailableException"),
            "the connection to kms.example.test broke",
            Outcome::Unreachable,
        ),
    ];
    let mut faults = Vec::new();
    let mut expected = Vec::new();
    for (fault, named, told, outcome) in cases {
        faults.push(fault);
        expected.push((named, told, outcome));
    }
    faults.push(Fault::Sent(whole("200 OK", "{}")));
    let calls = vec![CALL; expected.len()];
    let last = ["kms ListGrants {}", "say done", "wait"];
    let mut world = World::new(&[calls.as_slice(), &last].concat(), &["ASIA1"]).await;
    misbehave(&mut world, faults);
    world.give("ASIA1").await;
    let answers = world.done().await;
    for (((status, name), told, _), (found, body)) in expected.iter().zip(&answers) {
        assert_eq!((found, &body["__type"]), (status, &json!(name)), "{body}");
        let message = body["message"].as_str().unwrap();
        assert!(message.contains(told), "{told}: {message}");
    }
    // What went before does no harm to what follows.
    assert_eq!(answers.last(), Some(&(200, json!({}))));

    let counted = counted(&mut world, answers.len().try_into().unwrap()).await;
    for outcome in Outcome::ALL {
        let times = expected.iter().filter(|(_, _, of)| *of == outcome).count();
        let calls = of_random(outcome, times.try_into().unwrap());
        assert_eq!(
            counted.contains(&calls),
            times > 0,
            "{outcome:?} {counted:?}"
        );
    }
    for (words, what_to_do) in [
        (
            "kms: GenerateRandom: KMS refused the call: AccessDeniedException: the words of AccessDeniedException; ",
            "image-builder kms-policy",
        ),
        (
            "KMS refused the call: ThrottlingException: the words of ThrottlingException; ",
            "ask for a higher quota",
        ),
        (
            "KMS refused the call: ExpiredTokenException: the words of ExpiredTokenException; ",
            "clock is wrong",
        ),
        ("cannot be opened with this enclave's key", "try again"),
        (
            "kms: GenerateRandom: kms.example.test",
            "more than 262144 bytes",
        ),
    ] {
        let line = world.enclave.line(LogStream::Errors, words).await;
        assert!(line.contains(what_to_do), "{line}");
    }
    // One for each kind, however many there were.
    let lines = world.enclave.lines(LogStream::Errors).join("\n");
    assert_eq!(lines.matches("kms: ").count(), 7, "{lines}");
}

/// The same without an SDK, by the codes of the local API.
#[tokio::test]
async fn kms_faults_have_codes_for_programs_without_an_sdk() {
    const PATH: &str = "/v1/kms/random";
    let cases = [
        (refusal("AccessDeniedException"), 400, "kms-refused"),
        (Fault::Sent(whole("302 Found", "{}")), 302, "kms-refused"),
        (
            Fault::Sent(whole("500 Internal Server Error", "{}")),
            500,
            "kms-refused",
        ),
        (
            Fault::Sent(whole("200 OK", "{\"Plaintext\":")),
            502,
            "kms-answer",
        ),
        (Fault::Cut(String::new()), 503, "kms-unreachable"),
    ];
    let (faults, expected): (Vec<_>, Vec<_>) = cases
        .into_iter()
        .map(|(fault, status, code)| (fault, (status, code)))
        .unzip();
    let call = format!("request tcp POST {PATH} {{\"bytes\":8}}");
    let calls = vec![&*call; expected.len()];
    let instructions = [calls.as_slice(), &["say done", "wait"]].concat();
    let mut world = World::new(&instructions, &["ASIA1"]).await;
    misbehave(&mut world, faults);
    world.give("ASIA1").await;
    world.done().await;
    let description = Description::read();
    let answers = world.enclave.answers();
    assert_eq!(answers.len(), expected.len());
    for ((wanted, code), (status, body)) in expected.iter().zip(answers) {
        description.check("POST", PATH, status, &body);
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&status, &body["code"]), (wanted, &json!(code)), "{body}");
    }
}

#[tokio::test]
async fn kms_that_answers_slowly_or_not_at_all_is_given_up() {
    let silent = "x".repeat(4096);
    let faults = [
        format!("HTTP/1.1 200 OK\r\nX: {silent}"),
        whole("200 OK", &silent),
    ];
    let mut world = World::new(
        &["kms-together 2 GenerateRandom {}", "say done", "wait"],
        &[],
    )
    .await;
    let mut outgoing = std::mem::replace(&mut world.outgoing, mpsc::channel(1).1);
    let acceptor = world.tls.acceptor.clone();
    tokio::spawn(async move {
        for fault in faults {
            let (next, acceptor) = (outgoing.recv().await.unwrap(), acceptor.clone());
            tokio::spawn(async move {
                let stream = next.reply(Reply::Connected).await;
                serve(
                    stream,
                    &acceptor,
                    &mut VecDeque::from([Fault::Dripped(fault)]),
                )
                .await;
            });
        }
    });
    world.give("ASIA1").await;
    for (status, body) in world.done().await {
        assert_eq!(
            (status, &body["__type"]),
            (503, &json!("ServiceUnavailableException"))
        );
        let message = body["message"].as_str().unwrap();
        assert!(message.contains("did not answer within 10 s"), "{message}");
    }
}

#[tokio::test]
async fn kms_of_another_time_and_credentials_that_are_gone_are_explained() {
    let ahead = || SystemTime::now() + Duration::from_secs(3600);
    let instructions = [CALL, "say skewed", "until /go", CALL, "say done", "wait"];
    let mut world = World::with_clock(&instructions, &["ASIA1"], ahead).await;
    world.connect(None);
    give_for(&mut world.control, "ASIA1", Duration::from_secs(30)).await;
    world.enclave.said("skewed").await;
    let (status, body) = answers(&world.enclave).pop().unwrap();
    assert_eq!(
        (status, &body["__type"]),
        (400, &json!("InvalidSignatureException"))
    );
    let message = body["message"].as_str().unwrap();
    assert!(message.starts_with("Signature expired"), "{message}");
    let line = world.enclave.line(LogStream::Errors, message).await;
    assert!(line.contains("the enclave's clock is wrong"), "{line}");

    // The next ones expire at once, and the instance has a role no longer.
    give_for(&mut world.control, "ASIA2", Duration::ZERO).await;
    let reason = Text::new("no role is attached");
    world
        .control
        .send(FromAgent::CredentialsUnavailable { reason })
        .await;
    is_taken_in(&mut world.control).await;
    std::fs::write(world.enclave.path("go"), "").unwrap();
    let (status, body) = world.done().await.pop().unwrap();
    assert_eq!(
        (status, &body["__type"]),
        (503, &json!("ServiceUnavailableException"))
    );
    let expected = "there are no AWS credentials: no role is attached";
    assert_eq!(body["message"], expected);
    let line = world.enclave.line(LogStream::Errors, expected).await;
    assert!(line.contains("has the instance a role?"), "{line}");
}

/// Calls with botocore's own retries.
const BOTOCORE: &str = "
from botocore.session import get_session
kms = get_session().create_client('kms')
answer = kms.list_grants(KeyId='a')
print(answer['ResponseMetadata']['RetryAttempts'])
";

#[tokio::test]
async fn kms_that_throttles_is_asked_again_by_botocore() {
    let Some(python) = std::env::var_os("ENCLAVE_TEST_PYTHON") else {
        eprintln!("ENCLAVE_TEST_PYTHON is not set: `cargo xtask test` sets it");
        return;
    };
    let mut world = World::new(&["say started", "wait"], &["ASIA1"]).await;
    let faults = vec![
        refusal("ThrottlingException"),
        Fault::Cut(String::new()),
        Fault::Sent(whole("200 OK", "{}")),
    ];
    misbehave(&mut world, faults);
    world.give("ASIA1").await;
    world.enclave.said("started").await;
    let python = world
        .enclave
        .python(&python, &[BOTOCORE], "AWS_ENDPOINT_URL_KMS");
    let (found, errors) = timeout(LIMIT, python).await.unwrap();
    assert_eq!(found.trim(), "2", "{errors}");
    let counted: Vec<_> = counted(&mut world, 3).await;
    let outcomes: Vec<_> = counted.iter().map(|calls| calls.outcome).collect();
    let expected = [Outcome::Answered, Outcome::Throttled, Outcome::Unreachable];
    assert_eq!(outcomes, expected, "{counted:?}");
    let operations: Vec<Value> = counted
        .iter()
        .map(|calls| calls.operation.name().into())
        .collect();
    assert_eq!(operations, vec![Value::from("other"); 3]);
}
