//! The hello, from both sides: a channel is agreed on exactly when the bytes say
//! so, the acceptor answers whoever speaks the protocol and nobody else, and the
//! opener learns from the answer what the acceptor found.

#![no_main]

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use fuzz::{assert_readable, within};
use libfuzzer_sys::fuzz_target;
use link::Channel;
use link::hello::{self, HelloError, VERSION};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::{Builder, Runtime};

/// Most memory that one input takes, in KiB.
const MEMORY_KIB: usize = 16;

/// A peer that has said everything and listens.
struct Peer<'a> {
    says: &'a [u8],
    hears: Vec<u8>,
}

impl AsyncRead for Peer<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.says).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Peer<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.hears.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

thread_local! {
    /// For the hello's time limit.
    static RUNTIME: Runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
}

fn accept(says: &[u8]) -> (Result<Channel, HelloError>, Vec<u8>) {
    let mut peer = Peer {
        says,
        hears: Vec::new(),
    };
    let serves = |channel| channel != Channel::Ingress;
    let result = RUNTIME.with(|runtime| runtime.block_on(hello::accept(&mut peer, serves)));
    (result, peer.hears)
}

fn open(says: &[u8]) -> (Result<(), HelloError>, Vec<u8>) {
    let mut peer = Peer {
        says,
        hears: Vec::new(),
    };
    let result = RUNTIME.with(|runtime| runtime.block_on(hello::open(&mut peer, Channel::Logs)));
    (result, peer.hears)
}

fn check(bytes: &[u8]) {
    let (accepted, answer) = accept(bytes);
    let fields: Option<[u8; 8]> = bytes
        .first_chunk()
        .copied()
        .filter(|hello| hello.starts_with(b"ENCL"));
    match fields {
        None => {
            assert!(matches!(
                accepted,
                Err(HelloError::Closed | HelloError::Magic(_))
            ));
            assert!(answer.is_empty());
        }
        Some([_, _, _, _, v0, v1, code, _]) => {
            let ours = u16::from_be_bytes([v0, v1]) == VERSION;
            assert_eq!(accepted.is_ok(), ours && matches!(code, 1..=3 | 5..=6));
            // What the opener makes of it.
            let (opened, _) = open(&answer);
            match (&accepted, &opened) {
                (Ok(_), Ok(())) | (Err(HelloError::NotServed(_)), Err(HelloError::Refused(_))) => {}
                (Err(HelloError::Version { .. }), Err(HelloError::Status(1))) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    let (opened, request) = open(bytes);
    assert_eq!(
        request,
        [b"ENCL".as_slice(), &VERSION.to_be_bytes(), &[2, 0]].concat()
    );
    let [v0, v1] = VERSION.to_be_bytes();
    let agrees = fields.is_some_and(|hello| hello[4..7] == [v0, v1, 0]);
    assert_eq!(opened.is_ok(), agrees);
    for error in [accepted.err(), opened.err()].into_iter().flatten() {
        assert_readable(&error);
    }
}

fuzz_target!(|bytes: &[u8]| {
    RUNTIME.with(|_| ());
    within(MEMORY_KIB, || check(bytes));
});
