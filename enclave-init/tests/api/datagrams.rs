//! Datagrams from the workload to the outside.

use link::Stream;
use link::datagrams::{self, MAX_DATAGRAM, Message};
use link::logs::LogStream;
use link::target::{Refusal, Reply};
use link::{Text, control::FromInit};
use serde_json::json;
use tokio::time::timeout;

use crate::egress::outgoing;
use crate::enclave::{Enclave, Image, LIMIT, message};

fn image(instructions: &[&str]) -> Image {
    Image::new(instructions).with(
        "/network/egress",
        json!([
            "ntp.example.test:123/udp",
            "*.wild.test:123/udp",
            "192.0.2.7:8125/udp",
            "web.example.test:443"
        ]),
    )
}

async fn datagram(stream: &mut Stream) -> Vec<u8> {
    match timeout(LIMIT, datagrams::read(stream)).await.unwrap() {
        Ok(Some(Message::Datagram(bytes))) => bytes,
        other => panic!("{other:?}"),
    }
}

/// Plays the destination of the next flow: hears a datagram, and answers.
async fn answer(enclave: &mut Enclave, host: &str, port: u16, answer: Vec<u8>) -> Vec<u8> {
    let outgoing = outgoing(enclave).await;
    assert_eq!((&*outgoing.target.host, outgoing.target.port), (host, port));
    let mut stream = outgoing.reply(Reply::Connected).await;
    let heard = datagram(&mut stream).await;
    let answer = Message::Datagram(answer);
    datagrams::write(&mut stream, &answer).await.unwrap();
    // The flow stays open: the agent's end is kept until the answer is there.
    tokio::spawn(async move {
        let _ = datagrams::read(&mut stream).await;
    });
    heard
}

#[tokio::test]
async fn datagrams_of_every_size_go_by_name_and_by_address() {
    let (mut enclave, _control) = image(&[
        "datagram NTP.example.test 123 48",
        "datagram a.wild.test 123 0",
        "datagram 192.0.2.7 8125 65507",
        "wait",
    ])
    .boot()
    .await;
    for (host, port, size, back) in [
        ("ntp.example.test", 123, 48, 48),
        ("a.wild.test", 123, 0, MAX_DATAGRAM),
        ("192.0.2.7", 8125, MAX_DATAGRAM, 0),
    ] {
        let heard = answer(&mut enclave, host, port, vec![b'y'; back]).await;
        assert_eq!(heard, vec![b'x'; size], "{host}");
        enclave.said(&format!("datagram of {back} from")).await;
    }
    assert_eq!(enclave.lines(LogStream::Errors), [""; 0]);
}

#[tokio::test]
async fn datagrams_of_one_socket_are_answered_from_where_they_went() {
    let names = "datagrams ntp.example.test b.wild.test 123";
    let (mut enclave, _control) = image(&[names, "wait"]).boot().await;
    for host in ["ntp.example.test", "b.wild.test"] {
        let heard = answer(&mut enclave, host, 123, b"here".to_vec()).await;
        assert_eq!(heard, host.as_bytes());
        let said = format!("{host} answers \"here\" from there: true");
        enclave.said(&said).await;
    }
}

#[tokio::test]
async fn datagrams_that_nobody_takes_are_refused_as_connections_are() {
    let (mut enclave, _control) = image(&[
        // Nobody at the destination's port, as it says itself; and no destination.
        "datagram ntp.example.test 123 1",
        "datagram c.wild.test 123 1",
        // What no rule allows: another port, and the other protocol, each way.
        "datagram ntp.example.test 124 1",
        "datagram web.example.test 443 1",
        "reach 192.0.2.7 8125",
        "say done",
        "wait",
    ])
    .boot()
    .await;
    let mut stream = outgoing(&mut enclave).await.reply(Reply::Connected).await;
    datagram(&mut stream).await;
    datagrams::write(&mut stream, &Message::Unreachable)
        .await
        .unwrap();
    let refused = Reply::Refused {
        refusal: Refusal::NameNotFound,
        reason: Text::new("c.wild.test has no address"),
    };
    drop(outgoing(&mut enclave).await.reply(refused).await);
    enclave.said("done").await;
    assert_eq!(
        enclave.lines(LogStream::Application)[..5],
        [
            "datagram to ntp.example.test: ConnectionRefused",
            "datagram to c.wild.test: ConnectionRefused",
            "datagram to ntp.example.test: ConnectionRefused",
            "datagram to web.example.test: ConnectionRefused",
            "192.0.2.7 8125 ConnectionRefused",
        ]
    );
    let text = "c.wild.test:123/udp failed: c.wild.test has no address";
    enclave.line(LogStream::Errors, text).await;
}

#[tokio::test]
async fn datagrams_have_so_many_flows_and_the_idle_ones_give_way() {
    const FLOWS: usize = 256;
    let crowd = format!("datagram-crowd ntp.example.test 123 {FLOWS}");
    let (mut enclave, mut control) = image(&[&crowd]).boot().await;
    let mut held = Vec::new();
    for _ in 0..FLOWS {
        let mut stream = outgoing(&mut enclave).await.reply(Reply::Connected).await;
        datagram(&mut stream).await;
        held.push(stream);
    }
    // All of them have just been used when another one is wanted.
    std::fs::write(enclave.path("sooner"), "").unwrap();
    let text = "a datagram to ntp.example.test:123/udp was dropped: all 256 flows";
    enclave.line(LogStream::Errors, text).await;
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    std::fs::write(enclave.path("later"), "").unwrap();
    let mut stream = outgoing(&mut enclave).await.reply(Reply::Connected).await;
    assert_eq!(datagram(&mut stream).await, b"x");
    let refused = message(&mut control, |message| match message {
        FromInit::Places { egress, .. } if egress.refused > 0 => Some(egress.refused),
        _ => None,
    });
    assert_eq!(refused.await, 1);
}

#[tokio::test]
async fn datagrams_that_the_parent_garbles_end_the_flow() {
    use tokio::io::AsyncWriteExt;

    let (mut enclave, _control) = image(&["datagram-crowd ntp.example.test 123 1"])
        .boot()
        .await;
    let mut stream = outgoing(&mut enclave).await.reply(Reply::Connected).await;
    datagram(&mut stream).await;
    stream.write_all(&[0, 0xff, 0xff]).await.unwrap();
    let text = "datagrams to ntp.example.test:123/udp were cut off: the peer sent a message of 65535 bytes";
    enclave.line(LogStream::Errors, text).await;
    assert!(datagrams::read(&mut stream).await.unwrap().is_none());
}
