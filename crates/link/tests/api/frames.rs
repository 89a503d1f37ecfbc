//! Frames: their bounds, their ends, and receives that are given up half-way.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use link::Text;
use link::control::{FromAgent, FromInit};
use link::frame::{self, FrameError, MAX_CONTROL, MAX_TARGET, Reader, Writer};
use link::target::Connect;
use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf, duplex};

use crate::samples;

type Message = Text<200>;

fn framed(text: &str) -> Vec<u8> {
    let body = minicbor::to_vec(Message::new(text)).unwrap();
    let length = u32::try_from(body.len()).unwrap();
    [&length.to_be_bytes(), body.as_slice()].concat()
}

/// Polls a future once and drops it, as `select!` does with the branches that
/// did not win.
fn poll_once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    match future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// A stream that comes in pieces, with a pause before each.
struct Pieces {
    pieces: Vec<Vec<u8>>,
    paused: bool,
}

impl Pieces {
    fn new(bytes: &[u8], cuts: &[usize]) -> Self {
        let mut pieces = Vec::new();
        let mut rest = bytes;
        let mut cuts = cuts.iter().cycle();
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
            pieces.push(piece.to_vec());
            rest = behind;
        }
        pieces.reverse();
        Self {
            pieces,
            paused: false,
        }
    }
}

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.paused = !self.paused;
        if self.paused {
            return Poll::Pending;
        }
        if let Some(mut piece) = self.pieces.pop() {
            let behind = piece.split_off(piece.len().min(buffer.remaining()));
            buffer.put_slice(&piece);
            if !behind.is_empty() {
                self.pieces.push(behind);
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// A stream that fails.
struct Broken;

impl AsyncRead for Broken {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::Error::other("a broken wire")))
    }
}

proptest! {
    #[test]
    fn receives_that_are_given_up_lose_and_double_nothing(
        texts in proptest::collection::vec(".{0,60}", 0..12),
        cuts in proptest::collection::vec(1..150_usize, 1..8),
    ) {
        let bytes: Vec<_> = texts.iter().flat_map(|text| framed(text)).collect();
        let mut reader = Reader::new(Pieces::new(&bytes, &cuts), 1024);
        let mut received = Vec::new();
        loop {
            match poll_once(reader.receive::<Message>()) {
                None => {}
                Some(Ok(Some(text))) => received.push(text.to_string()),
                Some(Ok(None)) => break,
                Some(Err(error)) => prop_assert!(false, "{error}"),
            }
        }
        prop_assert_eq!(received, texts);
    }
}

#[tokio::test]
async fn a_frame_may_be_cut_anywhere() {
    let bytes = [framed("one"), framed("two")].concat();
    for cut in 0..=bytes.len() {
        let (mut near, far) = duplex(256);
        let mut reader = Reader::new(far, 64);
        near.write_all(&bytes[..cut]).await.unwrap();
        let mut received = Vec::new();
        while let Some(message) = poll_once(reader.receive::<Message>()) {
            received.push(message.unwrap().unwrap().to_string());
        }
        near.write_all(&bytes[cut..]).await.unwrap();
        drop(near);
        while let Some(text) = reader.receive::<Message>().await.unwrap() {
            received.push(text.to_string());
        }
        assert_eq!(received, ["one", "two"], "cut at {cut}");
    }
}

#[tokio::test]
async fn the_end_between_frames_is_none_and_inside_one_an_error() {
    let bytes = framed("one");
    for length in 0..bytes.len() {
        let mut reader = Reader::new(&bytes[..length], 64);
        let received = reader.receive::<Message>().await;
        if length == 0 {
            assert!(received.unwrap().is_none());
        } else {
            assert!(matches!(received, Err(FrameError::Ended)));
        }
        let read = frame::read::<_, Message>(&mut &bytes[..length], 64).await;
        assert_eq!(
            read.unwrap_err().to_string(),
            "the peer closed the connection before its message was complete"
        );
    }
    let mut reader = Reader::new(&bytes[..], 64);
    assert!(reader.receive::<Message>().await.unwrap().is_some());
    assert!(reader.receive::<Message>().await.unwrap().is_none());
    assert!(reader.receive::<Message>().await.unwrap().is_none());
}

#[tokio::test]
async fn a_frame_above_the_limit_is_refused_at_its_length() {
    for length in [65, 1 << 24, u32::MAX] {
        let (mut near, far) = duplex(64);
        // Not a byte of the body is there.
        near.write_all(&length.to_be_bytes()).await.unwrap();
        drop(near);
        let mut reader = Reader::new(far, 64);
        for _ in 0..2 {
            let error = reader.receive::<Message>().await.unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("a frame of {length} bytes exceeds the channel's limit of 64")
            );
        }
        let (mut near, mut far) = duplex(64);
        near.write_all(&length.to_be_bytes()).await.unwrap();
        drop(near);
        let error = frame::read::<_, Message>(&mut far, 64).await.unwrap_err();
        assert!(matches!(error, FrameError::TooLarge { limit: 64, .. }));
    }
}

#[tokio::test]
async fn a_frame_at_the_limit_passes_and_one_byte_more_is_not_sent() {
    let message = Message::new("x".repeat(62));
    let mut sent = Vec::new();
    Writer::new(&mut sent, 64).send(&message).await.unwrap();
    assert_eq!(sent.len(), 4 + 64);
    let mut reader = Reader::new(sent.as_slice(), 64);
    assert_eq!(reader.receive().await.unwrap(), Some(message));

    let mut sent = Vec::new();
    let mut writer = Writer::new(&mut sent, 64);
    let error = writer.send(&Message::new("x".repeat(63))).await;
    assert!(matches!(
        error,
        Err(FrameError::TooLarge {
            length: 65,
            limit: 64
        })
    ));
    // Nothing of it is on the way: the next message is understood.
    writer.send(&Message::new("next")).await.unwrap();
    assert_eq!(sent, framed("next"));
}

#[tokio::test]
async fn a_message_that_is_not_understood_does_not_hide_the_next() {
    let trailing = [&5_u32.to_be_bytes(), b"\x63onex".as_slice()].concat();
    let number = [&1_u32.to_be_bytes(), b"\x07".as_slice()].concat();
    let not_text = [&2_u32.to_be_bytes(), b"\x61\xff".as_slice()].concat();
    let empty = 0_u32.to_be_bytes().to_vec();
    let bytes = [trailing, number, not_text, empty, framed("good")].concat();
    let mut reader = Reader::new(bytes.as_slice(), 64);
    let error = reader.receive::<Message>().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "1 bytes follow the message within its frame"
    );
    for _ in 0..3 {
        let error = reader.receive::<Message>().await.unwrap_err().to_string();
        assert!(
            error.starts_with("the peer sent a message that cannot be understood: "),
            "{error}"
        );
    }
    let good = reader.receive::<Message>().await.unwrap().unwrap();
    assert_eq!(&*good, "good");
}

/// More than one read brings, and more frames than one read can hold.
#[tokio::test]
async fn large_and_many_frames_are_carried() {
    let (_, start, ..) = samples::largest();
    let many: Vec<_> = (0..5000).map(|at_us| FromInit::Ready { at_us }).collect();
    let (near, far) = duplex(100_000);
    let (near, far) = (tokio::io::split(near), tokio::io::split(far));
    let agent = async {
        let mut writer = Writer::new(near.1, MAX_CONTROL);
        let mut reader = Reader::new(near.0, MAX_CONTROL);
        for _ in 0..10 {
            writer.send(&start).await.unwrap();
        }
        for message in &many {
            assert_eq!(reader.receive().await.unwrap().as_ref(), Some(message));
        }
    };
    let init = async {
        let mut writer = Writer::new(far.1, MAX_CONTROL);
        let mut reader = Reader::new(far.0, MAX_CONTROL);
        for message in &many {
            writer.send(message).await.unwrap();
        }
        for _ in 0..10 {
            let received = reader.receive::<FromAgent>().await.unwrap();
            assert_eq!(received.as_ref(), Some(&start));
        }
    };
    tokio::join!(agent, init);
}

#[tokio::test]
async fn reading_one_message_leaves_what_follows_it() {
    let connect = Connect {
        host: Text::new("example.com"),
        port: 443,
    };
    let mut sent = Vec::new();
    frame::write(&mut sent, &connect, MAX_TARGET).await.unwrap();
    sent.extend_from_slice(b"\x16\x03\x01");
    let mut stream = sent.as_slice();
    let read: Connect = frame::read(&mut stream, MAX_TARGET).await.unwrap();
    assert_eq!(read, connect);
    assert_eq!(stream, b"\x16\x03\x01");
}

#[tokio::test]
async fn a_writer_gives_its_stream_back() {
    let (near, mut far) = duplex(64);
    let mut writer = Writer::new(near, 64);
    writer.send(&Message::new("one")).await.unwrap();
    let mut near = writer.into_inner();
    near.write_all(b"rest").await.unwrap();
    drop(near);
    let mut bytes = Vec::new();
    far.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(bytes, [framed("one").as_slice(), b"rest"].concat());
}

#[tokio::test]
async fn a_failed_connection_is_an_error_on_both_sides() {
    let (near, far) = duplex(64);
    drop(far);
    let error = Writer::new(near, 64).send(&Message::new("one")).await;
    assert!(matches!(error, Err(FrameError::Io(_))), "{error:?}");

    let error = Reader::new(Broken, 64).receive::<Message>().await;
    assert_eq!(
        error.unwrap_err().to_string(),
        "the connection failed: a broken wire"
    );
}
