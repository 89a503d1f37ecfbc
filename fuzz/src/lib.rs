//! What several fuzz targets need.

#![forbid(unsafe_code)]

pub mod builder;

use std::fmt::Display;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use link::frame;
use minicbor::{Decode, Encode, Encoder};
use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// Does the work, and asserts that the memory in use never grew by more than
/// `limit` KiB meanwhile.
pub fn within<T>(limit: usize, work: impl FnOnce() -> T) -> T {
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    let result = work();
    let used = HEAP.peak_usage().saturating_sub(before) / 1024;
    assert!(used <= limit, "{used} KiB where {limit} are promised");
    result
}

/// The result of a future if it is there at once; the future is dropped.
pub fn poll<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// An error as a person reads it: one line that cannot play with a terminal. A tab is
/// what `plain_text` leaves as it is.
pub fn assert_readable(error: &impl Display) {
    let text = error.to_string();
    let is_control = |character: char| character.is_control() && character != '\t';
    assert!(!text.is_empty() && !text.contains(is_control), "{text:?}");
}

/// The message in a frame's body, or nothing after a readable refusal.
pub fn decode<'b, M: Decode<'b, ()>>(body: &'b [u8]) -> Option<M> {
    frame::decode(body).inspect_err(assert_readable).ok()
}

/// The body of the frame that carries a message which `decode` gave.
pub fn encode<M: Encode<()>>(message: &M, limit: usize) -> Vec<u8> {
    let mut framed = Vec::new();
    poll(frame::write(&mut framed, message, limit))
        .expect("memory never waits")
        .expect("a message that was read can be written");
    let body = framed.split_off(4);
    assert_eq!(
        framed,
        u32::try_from(body.len())
            .expect("a bounded frame")
            .to_be_bytes()
    );
    body
}

/// The certificate in a PEM file.
pub fn der_of_pem(pem: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(pem).expect("PEM is text");
    let lines = text.lines().filter(|line| !line.starts_with("-----"));
    let base64: String = lines.collect();
    STANDARD.decode(base64).expect("base64")
}

/// A document with these certificates, root first, that nobody signed.
pub fn document(cabundle: &[&[u8]], leaf: &[u8]) -> Vec<u8> {
    let mut payload = Encoder::new(Vec::new());
    let written = (|| {
        payload.map(7)?.str("module_id")?.str("i-0-enc0")?;
        payload.str("digest")?.str("SHA384")?;
        payload.str("timestamp")?.u64(1_750_000_000_000)?;
        payload.str("pcrs")?.map(1)?.u8(0)?.bytes(&[1; 48])?;
        payload.str("certificate")?.bytes(leaf)?;
        let count = cabundle.len().try_into().expect("a short list");
        payload.str("cabundle")?.array(count)?;
        for der in cabundle {
            payload.bytes(der)?;
        }
        payload.str("nonce")?.null()?.ok()
    })();
    written.expect("memory");
    let mut document = Encoder::new(Vec::new());
    let written = (|| {
        document.array(4)?.bytes(&[0xa1, 0x01, 0x38, 0x22])?;
        document.map(0)?.bytes(payload.writer())?;
        document.bytes(&[0x5a; 96])?.ok()
    })();
    written.expect("memory");
    document.into_writer()
}
