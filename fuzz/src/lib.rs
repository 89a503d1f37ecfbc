//! What several fuzz targets need.

#![forbid(unsafe_code)]

use std::fmt::Display;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use link::frame;
use minicbor::{Decode, Encode};
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

/// An error as a person reads it: one line that cannot play with a terminal.
pub fn assert_readable(error: &impl Display) {
    let text = error.to_string();
    assert!(
        !text.is_empty() && !text.contains(char::is_control),
        "{text:?}"
    );
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
