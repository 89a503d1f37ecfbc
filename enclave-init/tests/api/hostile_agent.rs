//! A parent that lies: whatever it sends, the init goes on, and its documents
//! carry nothing of the parent's choosing but the nonce.

use std::fs;
use std::time::Duration;

use attestation::{Document, Nonce, Policy, Roots, Verifier};
use aws_lc_rs::digest::{SHA384, digest};
use link::control::{FromAgent, FromInit};
use link::{Bytes, Endpoint, Listener};
use measurements::Pcr;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::agent::{Agent, Behaviour, Control};
use crate::enclave::{Enclave, Image, LIMIT, MEASUREMENTS, message};

/// What marks data that a parent wants to see in a document.
const FORGED: &[u8] = b"of the parent's choosing";
const NONCE: &[u8] = b"a nonce of a challenger";
/// The beginning of what the init writes into documents of its own.
const PURPOSE: &[u8] = b"enclave-purpose:";
/// What the init may hold at most, whatever is sent to it.
const MEMORY_KIB: u64 = 32 * 1024;

/// A byte string of CBOR (RFC 8949), of fewer than 65,536 bytes.
fn bytes(contents: &[u8]) -> Vec<u8> {
    let length = u16::try_from(contents.len()).unwrap().to_be_bytes();
    [&[0x59], &length[..], contents].concat()
}

/// A message of this number with these fields.
fn variant(number: u8, fields: &[&[u8]]) -> Vec<u8> {
    let count = u8::try_from(fields.len()).unwrap();
    let mut body = vec![0x82, 0x18, number, 0x80 | count];
    body.extend(fields.concat());
    body
}

/// Messages that ask for more than a nonce, each with what it is.
fn forgeries() -> Vec<(&'static str, Vec<u8>)> {
    let id: &[u8] = &[7];
    let null: &[u8] = &[0xf6];
    let (nonce, data) = (&bytes(NONCE)[..], &bytes(FORGED)[..]);
    let purpose = &bytes(b"enclave-purpose:self-check")[..];
    let mut forgeries = vec![
        (
            "the form of version 1",
            variant(1, &[id, nonce, data, data]),
        ),
        ("user data alone", variant(1, &[id, nonce, data])),
        ("a key alone", variant(1, &[id, nonce, null, data])),
        ("no nonce", variant(1, &[id, null, data, data])),
        ("a purpose", variant(1, &[id, nonce, purpose, null])),
        (
            "many fields",
            variant(1, &[id, nonce, data, data, data, data, data, data]),
        ),
        ("its fields by name", {
            let map = [&[0xa2][..], b"\x65nonce", nonce, b"\x69user_data", data];
            [&[0x82, 0x01][..], &map.concat()].concat()
        }),
        ("an array without a length", {
            let fields = [&[0x9f][..], id, nonce, data, data, &[0xff]];
            [&[0x82, 0x01][..], &fields.concat()].concat()
        }),
        ("the data as the nonce's second part", {
            let parts = [&[0x5f][..], nonce, data, &[0xff]];
            variant(1, &[id, &parts.concat()])
        }),
    ];
    // Every other number, a message or not.
    for number in (3..=24).chain([255]) {
        forgeries.push(("another number", variant(number, &[id, nonce, data, data])));
    }
    forgeries
}

/// The answer to challenge 7 on a connection, if there is one before its end.
async fn answer(
    reader: &mut link::frame::Reader<tokio::io::ReadHalf<link::Stream>>,
) -> Option<Vec<u8>> {
    let answered = async {
        loop {
            match reader.receive::<FromInit>().await {
                Ok(Some(FromInit::Document { id: 7, document })) => {
                    return Some(document.into_vec());
                }
                Ok(Some(FromInit::ChallengeFailed { id: 7, .. }) | None) | Err(_) => return None,
                Ok(Some(_)) => {}
            }
        }
    };
    // What is passed over is not answered either.
    timeout(Duration::from_secs(2), answered).await.ok()?
}

async fn document(control: &mut Control, id: u64, nonce: &[u8]) -> Vec<u8> {
    let nonce = Bytes::new(nonce).unwrap();
    control.send(FromAgent::Challenge { id, nonce }).await;
    message(control, |message| match message {
        FromInit::Document {
            id: answered,
            document,
        } if *answered == id => Some(document.to_vec()),
        _ => None,
    })
    .await
}

/// Checks that the document is the module's, of this image and configuration,
/// and has nothing in it that a parent chose but the nonce.
fn holds_nothing_foreign(enclave: &Enclave, document: &[u8], nonce: &[u8], config: &[u8]) {
    let roots = Roots::from_pem(enclave.prepared.root_pem.as_bytes()).unwrap();
    let policy = Policy::builder()
        .measurements(MEASUREMENTS)
        .pcr(16, Pcr::ZERO.extend(digest(&SHA384, config).as_ref()))
        .build()
        .unwrap();
    Verifier::new(roots)
        .verify(document, &policy, Nonce::Fresh(nonce))
        .outcome
        .unwrap();
    let holds = |part: &[u8]| document.windows(part.len()).any(|window| window == part);
    assert!(!holds(FORGED), "the parent's data is in a document");
    let document = Document::parse(document).unwrap();
    assert_eq!(document.unverified_public_key(), None);
    // Nothing, or what the init itself says that the document is for.
    let purpose = [PURPOSE, b"relayed-challenge"].concat();
    let data = document.unverified_user_data().unwrap_or(&purpose);
    assert_eq!(data, purpose);
}

#[tokio::test]
async fn hostile_agent_gets_no_document_with_anything_but_its_nonce() {
    let (mut enclave, mut control) = Image::new(&["wait"]).boot().await;
    let mut documents = 0;
    for (name, body) in forgeries() {
        let mut reader = control.send_raw(&body).await;
        if let Some(document) = answer(&mut reader).await {
            println!("{name}: a document");
            documents += 1;
            holds_nothing_foreign(&enclave, &document, NONCE, b"");
        }
        drop(reader);
        control = enclave.control().await;
    }
    // Fields behind those that are known are passed over.
    assert!(documents >= 3, "only {documents} documents to look at");
    let last = document(&mut control, 8, NONCE).await;
    holds_nothing_foreign(&enclave, &last, NONCE, b"");
}

#[tokio::test]
async fn hostile_agent_replays_and_reorders() {
    let image = Image::new(&["show /run/enclave/runtime-config", "until /go", "wait"])
        .agent(|agent| agent.runtime_config = b"first".to_vec());
    let (enclave, mut control) = image.boot().await;
    // The same number twice, and a configuration between challenges.
    for config in [&b"second"[..], b"", FORGED] {
        let runtime_config = Bytes::new(config).unwrap();
        control.send(FromAgent::Start { runtime_config }).await;
        for nonce in [NONCE, b"enclave-purpose:self-check", NONCE] {
            let document = document(&mut control, 1, nonce).await;
            holds_nothing_foreign(&enclave, &document, nonce, b"first");
        }
    }
    enclave.said("\"first\"").await;
}

/// Answers to the init's hello, all of them lies.
const LIES: &[&[u8]] = &[
    b"",
    b"E",
    b"ENCL\0\x04",
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"ENCX\0\x04\0\0",
    b"ENCL\0\0\0\0",
    b"ENCL\0\x01\0\0",
    b"ENCL\xff\xff\0\0",
    b"ENCL\0\x04\x01\0",
    b"ENCL\0\x04\x02\0",
    b"ENCL\0\x04\x03\0",
    b"ENCL\0\x04\xff\0",
    // Accepted, and then no frame, a frame that is too long, one that is no CBOR.
    b"ENCL\0\x04\0\0\0\0",
    b"ENCL\0\x04\0\0\xff\xff\xff\xff",
    b"ENCL\0\x04\0\0\0\0\0\x04\xff\xff\xff\xff",
];

#[tokio::test]
async fn hostile_agent_lies_in_its_hello() {
    let (mut enclave, control) = Image::new(&["until /go", "say alive", "wait"]).boot().await;
    enclave.prepared.agent.stop().await;
    control.hang_up().await;
    let sockets = enclave.folder().join("sockets");
    {
        let path = sockets.join("host_7000");
        let listener = Listener::bind(&Endpoint::Unix { path }).unwrap();
        // Control and logs both come here, again and again.
        for lie in LIES.iter().chain(LIES) {
            let (mut stream, _) = timeout(LIMIT, listener.accept()).await.unwrap().unwrap();
            // It may close before it has heard everything.
            let _ = stream.read(&mut [0; 8]).await;
            let _ = stream.write_all(lie).await;
        }
    }
    enclave.prepared.agent = Agent::start(&sockets, Behaviour::default());
    let mut control = enclave.control().await;
    fs::write(enclave.path("go"), "").unwrap();
    enclave.said("alive").await;
    let document = document(&mut control, 1, NONCE).await;
    holds_nothing_foreign(&enclave, &document, NONCE, b"");
}

/// What PID 1 holds, in KiB.
fn resident(enclave: &Enclave) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", enclave.pid1())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let words: Vec<_> = line.unwrap().split_whitespace().collect();
    words[1].parse().unwrap()
}

#[tokio::test]
async fn hostile_agent_floods() {
    let image = Image::new(&["serve 8080"])
        .with("/network/ingress", json!([{"port": 80, "to": 8080}]))
        .agent(|agent| agent.takes_logs = false);
    let (mut enclave, mut control) = image.boot().await;
    // Challenges whose answers nobody reads, until the init takes no more.
    let flood = async {
        for id in 0..20_000 {
            let nonce = Bytes::new(NONCE).unwrap();
            control.send(FromAgent::Challenge { id, nonce }).await;
        }
    };
    let _ = timeout(Duration::from_secs(3), flood).await;
    // Connections that say nothing, half of a hello, or a hello alone.
    let mut open = Vec::new();
    for number in 0..1_500 {
        let path = enclave.folder().join("sockets/enclave_7001");
        let Ok(mut stream) = link::connect(&Endpoint::Unix { path }, LIMIT).await else {
            continue;
        };
        let said: &[u8] = match number % 3 {
            0 => b"",
            1 => b"ENCL",
            _ => b"ENCL\0\x04\x04\0",
        };
        let _ = stream.write_all(said).await;
        open.push(stream);
    }
    drop(control);
    let mut control = enclave.control().await;
    let document = document(&mut control, 1, NONCE).await;
    holds_nothing_foreign(&enclave, &document, NONCE, b"");
    let resident = resident(&enclave);
    assert!(resident < MEMORY_KIB, "{resident} KiB");
}
