//! Connections of the workload to the outside.

use link::Text;
use link::control::FromInit;
use link::logs::LogStream;
use link::target::{Refusal, Reply};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::agent::Outgoing;
use crate::enclave::{Enclave, Image, LIMIT, message};

fn image(instructions: &[&str]) -> Image {
    Image::new(instructions)
        .with(
            "/network/egress",
            json!(["kms.example.test:443", "*.wild.test:8443", "192.0.2.7:80"]),
        )
        .with("/network/proxy", json!(true))
}

pub(crate) async fn outgoing(enclave: &mut Enclave) -> Outgoing {
    let next = timeout(LIMIT, enclave.prepared.agent.egress.recv()).await;
    match next {
        Ok(Some(outgoing)) => outgoing,
        _ => panic!(
            "nothing comes out, but {:#?}",
            enclave.prepared.agent.shared.records.borrow()
        ),
    }
}

/// Plays the destination: hears all, then answers.
pub(crate) async fn converse(outgoing: Outgoing, expected: &str, answer: &str) {
    let mut stream = outgoing.reply(Reply::Connected).await;
    let mut heard = String::new();
    timeout(LIMIT, stream.read_to_string(&mut heard))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(heard, expected);
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn egress_by_name_reaches_the_agent_and_each_way_ends_by_itself() {
    let (mut enclave, _control) = image(&[
        "connect KMS.example.test 443 hello",
        "connect a.b.wild.test 8443 there",
        "wait",
    ])
    .boot()
    .await;
    for (host, port, text) in [
        ("kms.example.test", 443, "hello"),
        ("a.b.wild.test", 8443, "there"),
    ] {
        let outgoing = outgoing(&mut enclave).await;
        assert_eq!((&*outgoing.target.host, outgoing.target.port), (host, port));
        converse(outgoing, text, "welcome").await;
    }
    enclave.said("answer \"welcome\"").await;
}

#[tokio::test]
async fn aws_services_are_reached_at_their_hosts() {
    let network =
        json!({ "egress": [], "aws_services": ["kms", "s3"], "ingress": [], "proxy": true });
    let (mut enclave, _control) = Image::new(&[
        "connect kms.us-west-2.amazonaws.com 443 hello",
        "proxy bucket.s3.cn-north-1.amazonaws.com.cn:443 there",
        "wait",
    ])
    .with("/network", network)
    .boot()
    .await;
    for (host, text) in [
        ("kms.us-west-2.amazonaws.com", "hello"),
        ("bucket.s3.cn-north-1.amazonaws.com.cn", "there"),
    ] {
        let outgoing = outgoing(&mut enclave).await;
        assert_eq!((&*outgoing.target.host, outgoing.target.port), (host, 443));
        converse(outgoing, text, "welcome").await;
    }
    enclave.said("answer \"welcome\"").await;
}

#[tokio::test]
async fn egress_by_the_proxy_reaches_the_agent() {
    let (mut enclave, _control) = image(&[
        "proxy KMS.example.test.:0443 hello",
        "proxy 192.0.2.7:80 address",
        "wait",
    ])
    .boot()
    .await;
    for (host, port, text) in [
        ("kms.example.test", 443, "hello"),
        ("192.0.2.7", 80, "address"),
    ] {
        let outgoing = outgoing(&mut enclave).await;
        assert_eq!((&*outgoing.target.host, outgoing.target.port), (host, port));
        converse(outgoing, text, "welcome").await;
    }
    enclave.said("answer \"welcome\"").await;
    enclave.said("proxy HTTP/1.1 200").await;
}

#[tokio::test]
async fn egress_names_that_are_allowed_have_an_address_and_no_other_record() {
    let (enclave, _control) = image(&[
        "name kms.example.test 1",
        "name kms.example.test 28",
        "name kms.example.test 16",
        "name KMS.Example.TEST 1",
        "name x.wild.test 1",
        "say done",
        "wait",
    ])
    .boot()
    .await;
    enclave.said("done").await;
    assert_eq!(
        enclave.lines(LogStream::Application)[..5],
        [
            "kms.example.test 1 NoError 1",
            "kms.example.test 28 NoError 0",
            "kms.example.test 16 NoError 0",
            "KMS.Example.TEST 1 NoError 1",
            "x.wild.test 1 NoError 1",
        ]
    );
    assert_eq!(enclave.lines(LogStream::Errors), [""; 0]);
}

#[tokio::test]
async fn egress_names_that_are_not_listed_do_not_exist_and_the_log_says_so() {
    let (enclave, _control) = image(&[
        "name other.test 1",
        "name wild.test 28",
        "proxy other.test:443 x",
        "proxy kms.example.test:80 x",
        "proxy nonsense x",
        "say done",
        "wait",
    ])
    .boot()
    .await;
    enclave.said("done").await;
    assert_eq!(
        enclave.lines(LogStream::Application)[..5],
        [
            "other.test 1 NameError 0",
            "wild.test 28 NameError 0",
            "proxy HTTP/1.1 403 Forbidden",
            "proxy HTTP/1.1 403 Forbidden",
            "proxy HTTP/1.1 400 Bad Request",
        ]
    );
    for text in [
        "egress: the name other.test is not in the image's egress list",
        "egress: the name wild.test is not in",
        "egress: other.test:443 is not in",
        "egress: kms.example.test:80 is not in",
    ] {
        enclave.line(LogStream::System, text).await;
    }
}

#[tokio::test]
async fn egress_that_is_empty_has_names_for_nothing_and_no_proxy() {
    let (enclave, _control) =
        Image::new(&["name kms.example.test 1", "say done", "proxy a.test:1 x"])
            .boot()
            .await;
    enclave.said("done").await;
    enclave.said("kms.example.test 1 NameError 0").await;
    enclave.said("ConnectionRefused").await;
}

#[tokio::test]
async fn egress_refused_by_the_agent_breaks_the_connection_and_is_logged() {
    let (mut enclave, _control) = image(&[
        "connect kms.example.test 443 x",
        "proxy kms.example.test:443 x",
        "wait",
    ])
    .boot()
    .await;
    for _ in 0..2 {
        let refused = Reply::Refused {
            refusal: Refusal::TimedOut,
            // Nothing that the parent says is obeyed by whoever reads it.
            reason: Text::new("the destination\r\n\u{1b}[2Jis asleep"),
        };
        drop(outgoing(&mut enclave).await.reply(refused).await);
    }
    // A reset, and not the end of an answer.
    enclave.said("broken by a reset").await;
    enclave.said("proxy HTTP/1.1 504").await;
    let text = r"egress: kms.example.test:443 failed: the destination\r\n\u{1b}[2Jis asleep";
    enclave.line(LogStream::Errors, text).await;
    enclave.line(LogStream::System, text).await;
}

#[tokio::test]
async fn egress_names_under_a_pattern_stay_inside_as_log_lines_do() {
    let (mut enclave, _control) = image(&[
        "connect secret.wild.test 8443 x",
        "proxy secret.wild.test:8443 x",
        "connect kms.example.test 443 x",
        "wait",
    ])
    .with("/logs/release", json!("never"))
    .boot()
    .await;
    for host in ["secret.wild.test", "secret.wild.test", "kms.example.test"] {
        let refused = Reply::Refused {
            refusal: Refusal::NameNotFound,
            reason: Text::new(format!("{host} has no address")),
        };
        drop(outgoing(&mut enclave).await.reply(refused).await);
    }
    let listed = "egress: kms.example.test:443 failed";
    enclave.line(LogStream::Errors, listed).await;
    let lines = enclave.lines(LogStream::Errors);
    let hidden = lines.iter().filter(|line| line.contains("stays inside"));
    assert_eq!(hidden.count(), 2, "{lines:#?}");
    assert!(!lines.concat().contains("secret"), "{lines:#?}");
}

#[tokio::test]
async fn egress_refusals_do_not_fill_the_log() {
    let (enclave, _control) = image(&["say before", "names 3000", "wait"]).boot().await;
    enclave.said("asked").await;
    enclave
        .line(LogStream::Errors, "further ones are left out")
        .await;
    let lines = enclave.lines(LogStream::System);
    let refusals = lines.iter().filter(|line| line.contains("nowhere.test"));
    let count = refusals.count();
    assert!((100..3000).contains(&count), "{count}");
    assert_eq!(enclave.lines(LogStream::Application), ["before", "asked"]);
}

#[tokio::test]
async fn egress_stays_open_with_idle_connections_to_one_destination() {
    /// What one destination may have of all places.
    const SHARE: usize = 768;
    let (mut enclave, mut control) = image(&[
        &format!("crowd kms.example.test 443 {}", SHARE + 1),
        "connect a.wild.test 8443 x",
        "until /later",
        "connect kms.example.test 443 again",
        "wait",
    ])
    .boot()
    .await;
    let mut held = Vec::new();
    for _ in 0..SHARE {
        let outgoing = outgoing(&mut enclave).await;
        held.push(outgoing.reply(Reply::Connected).await);
    }
    // One is refused, with a line; another destination is served.
    let text = "kms.example.test:443 failed: refused as busy: all 768 connections";
    enclave.line(LogStream::Errors, text).await;
    let other = outgoing(&mut enclave).await;
    assert_eq!(&*other.target.host, "a.wild.test");
    converse(other, "x", "welcome").await;
    // When they have been idle for long, one gives its place up.
    tokio::time::sleep(std::time::Duration::from_secs(10)).await;
    std::fs::write(enclave.path("later"), "").unwrap();
    converse(outgoing(&mut enclave).await, "again", "welcome").await;
    let text = "a connection to kms.example.test:443 was closed: it was idle";
    enclave.line(LogStream::Errors, text).await;
    let counts = message(&mut control, |message| match message {
        FromInit::Places { egress, .. } if egress.evicted > 0 => Some(*egress),
        _ => None,
    });
    let counts = counts.await;
    assert_eq!((counts.refused, counts.evicted), (1, 1));
}
