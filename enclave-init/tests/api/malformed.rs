//! The local API against bytes that no well-meaning client sends: one answer at most, and never
//! to a request that was hidden in another one.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use crate::enclave::{Enclave, Image, LIMIT};

const GOOD: &str = "GET /v1/random?bytes=1 HTTP/1.1\r\nHost: x\r\nEnclave-Api: 1\r\n\r\n";

async fn enclave() -> Enclave {
    let (enclave, _control) = Image::new(&["say here", "wait"]).boot().await;
    enclave.said("here").await;
    enclave
}

async fn connect(enclave: &Enclave) -> UnixStream {
    let socket = format!("/proc/{}/root/run/enclave/api.sock", enclave.workload());
    UnixStream::connect(socket).await.unwrap()
}

/// All that is answered to these bytes.
async fn answer(enclave: &Enclave, sent: &[u8]) -> String {
    let mut stream = connect(enclave).await;
    // It may be refused before it has been read.
    let _ = stream.write_all(sent).await;
    rest(&mut stream).await
}

/// What comes until the connection is closed, however that is done.
async fn rest(stream: &mut UnixStream) -> String {
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    let reading = async {
        while let Ok(length @ 1..) = stream.read(&mut part).await {
            answer.extend_from_slice(&part[..length]);
        }
    };
    timeout(LIMIT, reading).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// The statuses of the answers that are in one.
fn statuses(answer: &str) -> Vec<u16> {
    let answers = answer.split("HTTP/1.1 ").skip(1);
    answers.map(|answer| answer[..3].parse().unwrap()).collect()
}

fn request(line: &str, headers: &[&str], body: &str) -> Vec<u8> {
    let mut text = format!("{line}\r\nHost: x\r\nEnclave-Api: 1\r\n");
    for header in headers {
        text.push_str(header);
        text.push_str("\r\n");
    }
    format!("{text}\r\n{body}").into_bytes()
}

#[tokio::test]
async fn local_api_takes_no_malformed_head() {
    let enclave = enclave().await;
    let get = |headers: &[&str]| request("GET /v1/random?bytes=1 HTTP/1.1", headers, "");
    let long = format!("X: {}", "x".repeat(20 * 1024));
    let many = vec!["X: y"; 120];
    for (what, sent, expected) in [
        ("nothing odd", get(&[]), 200),
        ("a folded header", get(&["X: y", " Enclave: z"]), 400),
        ("a space before the colon", get(&["X : y"]), 400),
        ("no colon", get(&["X"]), 400),
        ("a zero byte in a value", get(&["X: \0"]), 400),
        ("a zero byte in a name", get(&["X\0: y"]), 400),
        ("a carriage return in a value", get(&["X: a\rb"]), 400),
        ("a long head", get(&[&long]), 431),
        ("many headers", get(&many), 431),
        (
            "no version",
            request("GET /v1/random?bytes=1", &[], ""),
            400,
        ),
        ("another version", request("GET / HTTP/3.0", &[], ""), 400),
        (
            "TLS",
            b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec(),
            400,
        ),
        (
            "two lengths",
            get(&["Content-Length: 1", "Content-Length: 2"]),
            400,
        ),
        ("a list of lengths", get(&["Content-Length: 1, 2"]), 400),
        ("a length with a sign", get(&["Content-Length: +1"]), 400),
        ("a negative length", get(&["Content-Length: -1"]), 400),
        (
            "an endless length",
            get(&["Content-Length: 99999999999999999999"]),
            400,
        ),
        (
            "an unknown coding",
            get(&["Transfer-Encoding: xchunked"]),
            400,
        ),
        (
            "chunked, but not last",
            get(&["Transfer-Encoding: chunked, gzip"]),
            400,
        ),
    ] {
        let answer = answer(&enclave, &sent).await;
        assert_eq!(statuses(&answer), [expected], "{what}: {answer}");
    }
    // Another protocol has no use for a status.
    let http2 = answer(&enclave, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert_eq!(statuses(&http2), [0; 0], "{http2}");
    // It goes on.
    assert_eq!(statuses(&answer(&enclave, GOOD.as_bytes()).await), [200]);
}

#[tokio::test]
async fn local_api_knows_its_paths_and_methods_in_one_spelling() {
    let enclave = enclave().await;
    for line in [
        "get /v1/time HTTP/1.1",
        "GET //v1/time HTTP/1.1",
        "GET /v1/time/ HTTP/1.1",
        "GET /v1/./time HTTP/1.1",
        "GET /v1/keys/../time HTTP/1.1",
        "GET /v1%2Ftime HTTP/1.1",
        "GET /V1/time HTTP/1.1",
        "GET /v1/time%00 HTTP/1.1",
        "HEAD /v1/time HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "TRACE /v1/time HTTP/1.1",
        "CONNECT 198.18.0.1:7070 HTTP/1.1",
    ] {
        let answer = answer(&enclave, &request(line, &[], "")).await;
        assert_eq!(statuses(&answer), [404], "{line}: {answer}");
    }
}

#[tokio::test]
async fn local_api_answers_no_request_that_follows_or_is_hidden_in_another() {
    let enclave = enclave().await;
    let post = |headers: &[&str], body: &str| {
        request(
            "POST /v1/attestation HTTP/1.1",
            headers,
            &format!("{body}{GOOD}"),
        )
    };
    let both = ["Content-Length: 5", "Transfer-Encoding: chunked"];
    for (what, sent, expected) in [
        ("a second request", [GOOD, GOOD].concat().into_bytes(), 200),
        ("behind a body", post(&["Content-Length: 2"], "{}"), 200),
        (
            "behind a chunked body",
            post(&[both[1]], "2\r\n{}\r\n0\r\n\r\n"),
            200,
        ),
        ("length, then chunked", post(&both, "0\r\n\r\n"), 200),
        (
            "chunked, then length",
            post(&[both[1], both[0]], "0\r\n\r\n"),
            200,
        ),
        (
            "a length that ends in it",
            post(&["Content-Length: 20"], "{}"),
            400,
        ),
        (
            "a chunk of endless length",
            post(&[both[1]], "fffffffffffffffff\r\n"),
            400,
        ),
        ("a chunk of no length", post(&[both[1]], "\r\n{}\r\n"), 400),
        (
            "a chunk that is longer",
            post(&[both[1]], "1\r\n{}\r\n0\r\n\r\n"),
            400,
        ),
        ("in trailers", post(&[both[1]], "0\r\nX: y\r\n\r\n"), 200),
    ] {
        let answer = answer(&enclave, &sent).await;
        assert_eq!(statuses(&answer), [expected], "{what}: {answer}");
    }
    // What follows the body is not a header of it.
    let line = "GET /v1/time HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let unmarked = format!("{line}0\r\nEnclave-Api: 1\r\n\r\n");
    assert_eq!(
        statuses(&answer(&enclave, unmarked.as_bytes()).await),
        [403]
    );
}

#[tokio::test]
async fn local_api_waits_for_no_slow_request_for_long() {
    let enclave = enclave().await;
    let head =
        "POST /v1/attestation HTTP/1.1\r\nHost: x\r\nEnclave-Api: 1\r\nContent-Length: 99\r\n";
    // As slowly as can be: whatever the limits are counted in.
    let drip = async |first: String, part: &[u8]| {
        let mut stream = connect(&enclave).await;
        let begun = Instant::now();
        stream.write_all(first.as_bytes()).await.unwrap();
        let (mut reading, mut writing) = stream.into_split();
        let writing = async {
            while writing.write_all(part).await.is_ok() {
                sleep(Duration::from_millis(200)).await;
            }
            std::future::pending::<()>().await;
        };
        let mut answer = String::new();
        tokio::select! {
            () = writing => {}
            read = reading.read_to_string(&mut answer) => drop(read),
        }
        (answer, begun.elapsed())
    };
    let (in_head, in_body, silent) = tokio::join!(
        drip(head.to_owned(), b"X: y\r\n"),
        drip(format!("{head}\r\n"), b" "),
        drip(format!("{head}\r\n"), b""),
    );
    for (_, took) in [&in_head, &in_body, &silent] {
        assert!(*took < Duration::from_secs(15), "{took:?}");
    }
    // Without a head there is nobody to answer.
    assert!(!in_head.0.contains("200"), "{}", in_head.0);
    for (answer, _) in [in_body, silent] {
        assert_eq!(statuses(&answer), [408], "{answer}");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["code"], "body-timeout");
    }
}
