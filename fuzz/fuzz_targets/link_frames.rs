//! The reader of frames: it gives the same messages and the same end however the
//! stream is cut, and however often a receive is given up half-way. The first
//! two bytes are the seed of the cuts.

#![no_main]

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use fuzz::within;
use libfuzzer_sys::fuzz_target;
use link::Text;
use link::frame::{self, FrameError, Reader};
use tokio::io::{AsyncRead, ReadBuf};

/// Most memory that one input takes, in KiB.
const MEMORY_KIB: usize = 512;

/// Small, so that frames above it are found.
const LIMIT: usize = 300;

/// A stream that comes in pieces, with a pause before each.
struct Pieces<'a> {
    bytes: &'a [u8],
    random: u32,
    paused: bool,
}

impl Pieces<'_> {
    fn next(&mut self) -> usize {
        self.random = self
            .random
            .wrapping_mul(1_664_525)
            .wrapping_add(1_013_904_223);
        (self.random >> 24) as usize
    }
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.paused = !self.paused;
        if self.paused {
            return Poll::Pending;
        }
        let count = (self.next() % 64 + 1)
            .min(buffer.remaining())
            .min(self.bytes.len());
        let (piece, rest) = self.bytes.split_at(count);
        buffer.put_slice(piece);
        self.bytes = rest;
        Poll::Ready(Ok(()))
    }
}

/// The texts in a stream of frames, and how it ends: what a frame is, said again.
fn expected(mut bytes: &[u8]) -> (Vec<String>, String) {
    let mut texts = Vec::new();
    loop {
        let Some((prefix, rest)) = bytes.split_first_chunk() else {
            let end = if bytes.is_empty() {
                String::new()
            } else {
                FrameError::Ended.to_string()
            };
            return (texts, end);
        };
        let length = u32::from_be_bytes(*prefix) as usize;
        if length > LIMIT {
            return (
                texts,
                FrameError::TooLarge {
                    length,
                    limit: LIMIT,
                }
                .to_string(),
            );
        }
        let Some((body, rest)) = rest.split_at_checked(length) else {
            return (texts, FrameError::Ended.to_string());
        };
        texts.push(match frame::decode::<Text<200>>(body) {
            Ok(text) => text.to_string(),
            Err(error) => format!("error: {error}"),
        });
        bytes = rest;
    }
}

fn check(bytes: &[u8]) {
    let Some((seed, stream)) = bytes.split_first_chunk() else {
        return;
    };
    let random = u32::from(u16::from_be_bytes(*seed));
    let mut reader = Reader::new(
        Pieces {
            bytes: stream,
            random,
            paused: false,
        },
        LIMIT,
    );
    let mut texts = Vec::new();
    let end = loop {
        // Each poll gets a receive of its own: those before it were given up.
        let Some(received) = fuzz::poll(reader.receive::<Text<200>>()) else {
            continue;
        };
        match received {
            Ok(Some(text)) => texts.push(text.to_string()),
            Ok(None) => break String::new(),
            Err(error @ (FrameError::Decode(_) | FrameError::Trailing(_))) => {
                texts.push(format!("error: {error}"));
            }
            Err(error) => break error.to_string(),
        }
    };
    assert_eq!((texts, end), expected(stream));
}

fuzz_target!(|bytes: &[u8]| within(MEMORY_KIB, || check(bytes)));
