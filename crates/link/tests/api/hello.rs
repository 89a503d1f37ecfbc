//! The hello: what each side does, and what a person reads on each side when it
//! comes to nothing.

use std::time::Duration;

use link::Channel;
use link::hello::{self, HELLO_TIMEOUT, HelloError};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::time::{Instant, sleep};

const CHANNELS: [Channel; 6] = [
    Channel::Control,
    Channel::Logs,
    Channel::Egress,
    Channel::Ingress,
    Channel::Records,
    Channel::Datagrams,
];

/// What an acceptor that serves control only makes of `request`, and answers.
async fn accept(request: &[u8]) -> (Result<Channel, HelloError>, Vec<u8>) {
    let (mut near, mut far) = duplex(64);
    near.write_all(request).await.unwrap();
    near.shutdown().await.unwrap();
    let result = hello::accept(&mut far, |channel| channel == Channel::Control).await;
    drop(far);
    let mut answer = Vec::new();
    near.read_to_end(&mut answer).await.unwrap();
    (result, answer)
}

/// What an opener of the log channel makes of `answer`.
async fn open(answer: &[u8]) -> Result<(), HelloError> {
    let (mut near, mut far) = duplex(64);
    far.write_all(answer).await.unwrap();
    far.shutdown().await.unwrap();
    hello::open(&mut near, Channel::Logs).await
}

fn text<T: std::fmt::Debug>(result: Result<T, HelloError>) -> String {
    result.unwrap_err().to_string()
}

#[tokio::test]
async fn every_channel_is_agreed_on_and_what_follows_is_left_alone() {
    for channel in CHANNELS {
        let (mut near, mut far) = duplex(64);
        let opened = async {
            hello::open(&mut near, channel).await.unwrap();
            near.write_all(b"after").await.unwrap();
        };
        let accepted = async {
            let served = |asked| {
                assert_eq!(asked, channel);
                true
            };
            let accepted = hello::accept(&mut far, served).await.unwrap();
            assert_eq!(accepted, channel);
            let mut after = [0; 5];
            far.read_exact(&mut after).await.unwrap();
            assert_eq!(&after, b"after");
        };
        tokio::join!(opened, accepted);
    }
}

/// What a person reads of a peer of this version.
fn of_version(peer: u16) -> String {
    format!(
        "the peer speaks protocol version {peer}, this side version 4: use an enclave image and a parent-agent of the same release"
    )
}

/// Version 1 let a challenge's relay put more than a nonce into the document, a peer of
/// version 2 cannot read a request for credentials, and one of version 3 no sealed secret.
#[tokio::test]
async fn earlier_versions_are_refused_on_both_sides_with_a_sentence() {
    for version in [1, 2, 3] {
        for channel in 1..=4 {
            let (accepted, answer) =
                accept(&[b'E', b'N', b'C', b'L', 0, version, channel, 0]).await;
            assert_eq!(answer, b"ENCL\0\x04\x01\0");
            assert_eq!(text(accepted), of_version(version.into()));
        }
        // As an acceptor of that version answers an opener of this one, and as one would
        // that took it for its own.
        for status in [1, 0] {
            let answer = [b'E', b'N', b'C', b'L', 0, version, status, 0];
            assert_eq!(text(open(&answer).await), of_version(version.into()));
        }
    }
}

#[tokio::test]
async fn a_later_version_is_named_on_both_sides() {
    let (accepted, answer) = accept(b"ENCL\0\x05\x01\0").await;
    assert_eq!(answer, b"ENCL\0\x04\x01\0");
    assert_eq!(text(accepted), of_version(5));
    // As a later release's acceptor would answer.
    for answer in [
        b"ENCL\0\x05\x01\0",
        b"ENCL\0\x05\x00\0",
        b"ENCL\0\x05\xff\0",
    ] {
        assert_eq!(text(open(answer).await), of_version(5));
    }
}

#[tokio::test]
async fn a_channel_that_is_not_served_is_named_on_both_sides() {
    for code in [0, 2, 3, 4, 5, 255] {
        let (accepted, answer) = accept(&[b'E', b'N', b'C', b'L', 0, 4, code, 0]).await;
        assert_eq!(answer, b"ENCL\0\x04\x02\0");
        assert_eq!(
            text(accepted),
            format!("the peer asked for channel {code}, which is not served here")
        );
    }
    assert_eq!(
        text(open(b"ENCL\0\x04\x02\0").await),
        "the peer does not serve the logs channel"
    );
}

#[tokio::test]
async fn a_peer_of_another_protocol_gets_no_answer() {
    let (accepted, answer) = accept(b"GET / HTTP/1.1\r\n").await;
    assert_eq!(answer, b"");
    let magic = "the peer does not speak this protocol: it began with [47, 45, 54, 20]";
    assert_eq!(text(accepted), magic);
    assert_eq!(text(open(b"GET / HT").await), magic);
}

#[tokio::test]
async fn a_busy_acceptor_says_so() {
    let (mut near, mut far) = duplex(64);
    let opened = hello::open(&mut near, Channel::Ingress);
    let (opened, refused) = tokio::join!(opened, hello::refuse_busy(&mut far));
    refused.unwrap();
    assert_eq!(text(opened), "the peer has too many connections open");
    // Whatever its version.
    assert!(matches!(
        open(b"ENCL\0\x01\x03\0").await,
        Err(HelloError::Busy)
    ));
    let (mut near, mut far) = duplex(64);
    near.write_all(b"SSH-2.0-").await.unwrap();
    let refused = hello::refuse_busy(&mut far).await;
    assert!(matches!(refused, Err(HelloError::Magic(_))), "{refused:?}");
}

#[tokio::test]
async fn a_status_without_sense_is_not_taken_for_consent() {
    for status in 4..=255 {
        assert_eq!(
            text(open(&[b'E', b'N', b'C', b'L', 0, 4, status, 0]).await),
            format!("the peer answered the hello with the invalid status {status}")
        );
    }
    // "I do not know your version", of the very version.
    assert!(matches!(
        open(b"ENCL\0\x04\x01\0").await,
        Err(HelloError::Status(1))
    ));
}

#[tokio::test]
async fn the_last_byte_is_for_later_releases() {
    let (accepted, _) = accept(b"ENCL\0\x04\x01\xff").await;
    assert_eq!(accepted.unwrap(), Channel::Control);
    open(b"ENCL\0\x04\0\xff").await.unwrap();
}

#[tokio::test]
async fn a_hello_that_is_cut_short_is_an_end_and_not_a_hello() {
    let closed = "the peer closed the connection during the hello";
    for length in 0..8 {
        let (accepted, answer) = accept(&b"ENCL\0\x04\x01\0"[..length]).await;
        assert_eq!((text(accepted).as_str(), answer.len()), (closed, 0));
        assert_eq!(text(open(&b"ENCL\0\x04\0\0"[..length]).await), closed);
    }
    let (mut near, far) = duplex(64);
    drop(far);
    assert_eq!(text(hello::open(&mut near, Channel::Logs).await), closed);
}

#[tokio::test(start_paused = true)]
async fn silence_is_not_waited_for_longer_than_the_limit() {
    let start = Instant::now();
    let silence = "the peer sent no hello within 5 s";
    let (mut near, _far) = duplex(64);
    assert_eq!(text(hello::open(&mut near, Channel::Logs).await), silence);
    assert_eq!(start.elapsed(), HELLO_TIMEOUT);
    let (mut near, _far) = duplex(64);
    assert_eq!(text(hello::accept(&mut near, |_| true).await), silence);
    let (mut near, _far) = duplex(64);
    assert_eq!(text(hello::refuse_busy(&mut near).await), silence);
    assert_eq!(start.elapsed(), 3 * HELLO_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn a_byte_now_and_then_does_not_extend_the_limit() {
    let start = Instant::now();
    let (mut near, mut far) = duplex(64);
    let drip = async {
        for byte in *b"ENCL\0\x04\x01" {
            near.write_all(&[byte]).await.unwrap();
            sleep(Duration::from_secs(1)).await;
        }
        unreachable!("the acceptor gives up first");
    };
    tokio::select! {
        accepted = hello::accept(&mut far, |_| true) => {
            assert!(matches!(accepted, Err(HelloError::TimedOut)), "{accepted:?}");
        }
        () = drip => {}
    }
    assert_eq!(start.elapsed(), HELLO_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_is_not_waited_for_longer_than_the_limit() {
    let (mut near, mut far) = duplex(4);
    assert!(matches!(
        hello::open(&mut near, Channel::Logs).await,
        Err(HelloError::TimedOut)
    ));
    let mut sent = [0; 4];
    far.read_exact(&mut sent).await.unwrap();
    assert_eq!(&sent, b"ENCL");
}
