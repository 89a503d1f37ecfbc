//! Two enclaves that open an attested channel, and a third that is refused.

use link::target::{Connect, Reply};
use link::{Channel, Endpoint, Text, frame, hello};
use measurements::{Measurements, Pcr};
use serde_json::{Value, json};
use software_nsm::TestRoot;
use tokio::io::copy_bidirectional;
use tokio::time::timeout;

use crate::enclave::{Enclave, Image, LIMIT};

/// What images of this number measure to.
fn measurements(number: u8) -> Measurements {
    Measurements {
        pcr0: Pcr::new([number; 48]),
        pcr1: Pcr::new([number; 48]),
        pcr2: Pcr::new([number; 48]),
        pcr8: None,
    }
}

/// A list with one peer, which runs this image.
fn peers(number: u8) -> Value {
    let policy = attestation::Policy::builder()
        .measurements(measurements(number))
        .build()
        .unwrap();
    json!([{"name": "peer", "policy": policy.to_json().unwrap()}])
}

/// The enclave that waits for channels from those that run image 2.
fn server(root: &TestRoot) -> Image {
    Image::new(&["channel-serve 7443 peer"])
        .with("/network/ingress", json!([{"port": 443, "to": 7443}]))
        .measuring(measurements(1))
        .attestation("peers", peers(2))
        .signed_by(root)
}

/// An enclave that opens a channel to one that runs image 1.
fn client(root: &TestRoot, number: u8) -> Image {
    Image::new(&["channel-open server.test 443 peer", "wait"])
        .with("/network/egress", json!(["server.test:443"]))
        .measuring(measurements(number))
        .attestation("peers", peers(1))
        .signed_by(root)
}

/// Carries the client's one connection to the server, as two agents would.
async fn carry(client: &mut Enclave, server: &Enclave) {
    let outgoing = timeout(LIMIT, client.prepared.agent.egress.recv());
    let outgoing = outgoing.await.unwrap().unwrap();
    assert_eq!(
        (&*outgoing.target.host, outgoing.target.port),
        ("server.test", 443)
    );
    let path = server.folder().join("sockets/enclave_7001");
    let mut inside = link::connect(&Endpoint::Unix { path }, LIMIT)
        .await
        .unwrap();
    hello::open(&mut inside, Channel::Ingress).await.unwrap();
    let target = Connect {
        host: Text::new(""),
        port: 7443,
    };
    frame::write(&mut inside, &target, frame::MAX_TARGET)
        .await
        .unwrap();
    let reply: Reply = frame::read(&mut inside, frame::MAX_TARGET).await.unwrap();
    assert_eq!(reply, Reply::Connected);
    let mut outside = outgoing.reply(Reply::Connected).await;
    // An end that refuses the other breaks the connection.
    let _ = timeout(LIMIT, copy_bidirectional(&mut outside, &mut inside)).await;
}

#[tokio::test]
async fn attested_channel_opens_for_two_enclaves_and_not_for_a_third_image() {
    let root = TestRoot::generate().unwrap();
    let (server, _server_control) = server(&root).boot().await;
    server.said("channels on 7443").await;

    let (mut expected, _control) = client(&root, 2).boot().await;
    carry(&mut expected, &server).await;
    expected.said("answer Ok(\"HELLO\")").await;
    server.said("heard Ok(\"hello\")").await;

    let (mut other, _control) = client(&root, 3).boot().await;
    carry(&mut other, &server).await;
    server.said("no channel: refused by policy.image").await;
    let line = other.said("answer Err").await;
    assert!(line.contains("the other end is gone"), "{line}");
}

#[tokio::test]
async fn attested_channel_refuses_an_enclave_under_another_root() {
    let (server, _server_control) = server(&TestRoot::generate().unwrap()).boot().await;
    server.said("channels on 7443").await;
    // The same image, but another's word for it.
    let other = TestRoot::generate().unwrap();
    let (mut client, _control) = client(&other, 2).boot().await;
    carry(&mut client, &server).await;
    server.said("no channel: refused by chain.root").await;
    client.said("no channel: refused by chain.root").await;
}
