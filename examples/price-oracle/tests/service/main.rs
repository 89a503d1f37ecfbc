//! The service's answers, over real sockets.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod world;

use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::{Response, StatusCode};
use price_oracle::SignedQuote;
use price_oracle::probe::{Outcome, Probe, ProbeReport, Way};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use world::{Faults, World, closed_port, names, start_dns, start_proxy};

fn reason(response: &Response<Bytes>) -> String {
    let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
    body["error"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn health_is_ok() {
    let world = World::start(Faults::default()).await;
    let response = world.get("/health").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.body().as_ref(), br#"{"status":"ok"}"#);
}

#[tokio::test]
async fn a_quote_is_signed_by_the_attested_key() {
    let world = World::start(Faults::default()).await;
    let response = world.get("/quote/BTC-USD").await;
    assert_eq!(response.status(), StatusCode::OK);
    let quote: SignedQuote = serde_json::from_slice(response.body()).unwrap();
    assert_eq!(quote.quote.pair.to_string(), "BTC-USD");
    assert_eq!(quote.quote.price.to_string(), "67012.50");

    let response = world.get("/attestation?nonce=00ff17").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "application/cbor");
    let key = world.verify(response.body(), &[0x00, 0xff, 0x17]);
    assert_eq!(key, world.public_key);
    assert_eq!(quote.verify(&key), Ok(()));
}

#[tokio::test]
async fn the_identity_key_is_named_and_another_one_is_refused() {
    let world = World::start(Faults::default()).await;
    world.api.name_identity(&world.public_key).await.unwrap();
    let error = world.api.name_identity(b"another").await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("409") && text.contains("another one"),
        "{text}"
    );
    let world = World::start(Faults {
        no_api: true,
        ..Faults::default()
    })
    .await;
    let error = world
        .api
        .name_identity(&world.public_key)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("cannot be reached"), "{error}");
}

#[tokio::test]
async fn openssl_verifies_a_quote() {
    let world = World::start(Faults::default()).await;
    let response = world.get("/quote/BTC-USD").await;
    let quote: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
    let text = format!(
        "price-oracle quote v1\nBTC-USD\n67012.50\n{}\n",
        quote["time"].as_str().unwrap()
    );
    let signature = STANDARD
        .decode(quote["signature"].as_str().unwrap())
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, contents: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, contents).unwrap();
        path
    };
    let output = Command::new("openssl")
        .args(["dgst", "-sha384", "-keyform", "DER", "-verify"])
        .arg(file("key.der", &world.public_key))
        .arg("-signature")
        .arg(file("signature", &signature))
        .arg(file("text", text.as_bytes()))
        .output()
        .unwrap();
    assert_eq!(output.stdout, b"Verified OK\n", "{output:?}");
}

#[tokio::test]
async fn what_the_source_gets_wrong_is_never_signed() {
    let world = World::start(Faults::default()).await;
    for (pair, expected) in [
        ("LIE-USD", "it quotes BTC-USD"),
        ("TEXT-USD", "did not answer with a price of TEXT-USD"),
        ("FREE-USD", "`free` is not a price"),
        ("HUGE-USD", "more than 16384 bytes"),
        ("GONE-USD", "answered 404"),
    ] {
        let response = world.get(&format!("/quote/{pair}")).await;
        assert_eq!(response.status(), StatusCode::BAD_GATEWAY, "{pair}");
        let reason = reason(&response);
        assert!(reason.contains(expected), "{pair}: {reason}");
    }
}

#[tokio::test]
async fn a_silent_source_is_given_up() {
    let world = World::start(Faults::default()).await;
    let response = world.get("/quote/HANG-USD").await;
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(
        reason(&response),
        "prices.example did not answer within 5 s"
    );
}

#[tokio::test]
async fn a_source_that_no_configured_authority_vouches_for_is_refused() {
    let world = World::start(Faults {
        other_authority: true,
        ..Faults::default()
    })
    .await;
    let response = world.get("/quote/BTC-USD").await;
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    let reason = reason(&response);
    assert!(
        reason.contains("TLS with prices.example failed"),
        "{reason}"
    );
}

#[tokio::test]
async fn a_source_that_the_enclave_does_not_know_is_explained() {
    let world = World::start(Faults {
        source_name: Some("elsewhere.example"),
        ..Faults::default()
    })
    .await;
    let response = world.get("/quote/BTC-USD").await;
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    let reason = reason(&response);
    assert_eq!(
        reason,
        "the enclave's DNS does not know elsewhere.example; does enclave.toml allow it under egress?"
    );
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused() {
    let world = World::start(Faults::default()).await;
    let long_nonce = format!("/attestation?nonce={}", "00".repeat(513));
    for (path, status) in [
        ("/", StatusCode::NOT_FOUND),
        ("/quote", StatusCode::NOT_FOUND),
        ("/quote/", StatusCode::BAD_REQUEST),
        ("/quote/btc-usd", StatusCode::BAD_REQUEST),
        ("/quote/BTC-USD/..", StatusCode::BAD_REQUEST),
        ("/attestation", StatusCode::BAD_REQUEST),
        ("/attestation?nonce=", StatusCode::BAD_REQUEST),
        ("/attestation?nonce=xy", StatusCode::BAD_REQUEST),
        ("/attestation?nonce=0", StatusCode::BAD_REQUEST),
        (&long_nonce, StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(world.get(path).await.status(), status, "{path}");
    }
    let response = world.request("POST", "/health").await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(response.headers()["allow"], "GET");
}

#[tokio::test]
async fn bytes_that_are_not_http_end_the_connection_only() {
    let world = World::start(Faults::default()).await;
    let too_long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(64 * 1024));
    for bytes in ["\0\0\0\0\r\n\r\n", &too_long] {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        // The service may have hung up before it has read everything.
        let _ = stream.write_all(bytes.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP/1.1 2"));
    }
    assert_eq!(world.get("/health").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_refusing_api_is_explained() {
    let world = World::start(Faults::default()).await;
    let nonce = hex::encode("refuse");
    let response = world.get(&format!("/attestation?nonce={nonce}")).await;
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert!(reason(&response).contains("the NSM is busy"));
}

#[tokio::test]
async fn a_missing_api_is_explained() {
    let world = World::start(Faults {
        no_api: true,
        ..Faults::default()
    })
    .await;
    let response = world.get("/attestation?nonce=00").await;
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert!(reason(&response).contains("cannot be reached"));
}

#[tokio::test]
async fn the_probe_reports_each_refusal() {
    let world = World::start(Faults::default()).await;
    let response = world.get("/probe-egress").await;
    assert_eq!(response.status(), StatusCode::OK);
    let report: ProbeReport = serde_json::from_slice(response.body()).unwrap();
    let [name, proxy, address] = &report.attempts[..] else {
        panic!("{report:?}");
    };
    assert_eq!((name.way, name.outcome), (Way::Name, Outcome::Refused));
    assert_eq!(name.destination, "outside.example:443");
    assert_eq!(
        name.reason,
        "the enclave's DNS does not know outside.example"
    );
    assert_eq!((proxy.way, proxy.outcome), (Way::Proxy, Outcome::Refused));
    assert_eq!(proxy.reason, "proxy: 403 Forbidden: no rule allows it");
    assert_eq!(
        (address.way, address.outcome),
        (Way::Address, Outcome::Refused)
    );
}

#[tokio::test]
async fn the_probe_notices_a_way_out() {
    let probe = Probe {
        host: "outside.example".into(),
        port: 443,
        address: start_proxy("200 OK", "").await,
        proxy: Some(start_proxy("200 OK", "").await),
        names: names(start_dns().await),
    };
    let outcomes: Vec<_> = probe
        .run()
        .await
        .attempts
        .iter()
        .map(|attempt| (attempt.way, attempt.outcome))
        .collect();
    assert_eq!(
        outcomes,
        [
            (Way::Name, Outcome::Refused),
            (Way::Proxy, Outcome::Open),
            (Way::Address, Outcome::Open),
        ]
    );
}

#[tokio::test]
async fn the_probe_survives_a_missing_proxy() {
    let probe = Probe {
        host: "outside.example".into(),
        port: 443,
        address: closed_port(),
        proxy: Some(closed_port()),
        names: names(start_dns().await),
    };
    let report = probe.run().await;
    assert!(
        report
            .attempts
            .iter()
            .all(|attempt| attempt.outcome == Outcome::Refused),
        "{report:?}"
    );
}

#[tokio::test]
async fn open_requests_end_before_the_service_does() {
    let world = World::start(Faults::default()).await;
    let mut idle = TcpStream::connect(world.address).await.unwrap();
    let held = world.held.clone();
    let address = world.address;
    let request = tokio::spawn(async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"GET /quote/HELD-USD HTTP/1.1\r\nhost: localhost\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    });
    held.0.notified().await;
    world.stop.send(()).unwrap();
    // An idle connection is closed at once; then nothing listens any more.
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0);
    assert!(TcpStream::connect(address).await.is_err());
    held.1.notify_one();
    let answer = request.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("67012.50"), "{answer}");
    world.served.await.unwrap();
}

#[test]
fn without_an_enclave_the_program_says_what_is_missing() {
    let output = Command::new(env!("CARGO_BIN_EXE_price-oracle"))
        .env_clear()
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let line: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(line["level"], "ERROR");
    assert_eq!(
        line["message"],
        "ENCLAVE_API is not set: this program runs in an enclave, where enclave-init sets it"
    );
}
