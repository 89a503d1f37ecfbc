//! Datagrams on a stream: any bytes are datagrams within their limit, which are written as
//! they were, and then an end or an error of one line.

#![no_main]

use fuzz::{assert_readable, poll, within};
use libfuzzer_sys::fuzz_target;
use link::datagrams::{self, MAX_DATAGRAM, Message};

/// Most memory that one input takes, in KiB: a datagram, and what is written.
const MEMORY_KIB: usize = 1024;

fn check(bytes: &[u8]) {
    let (mut rest, mut written) = (bytes, Vec::new());
    loop {
        match poll(datagrams::read(&mut rest)).expect("memory never waits") {
            Ok(Some(message)) => {
                if let Message::Datagram(datagram) = &message {
                    assert!(datagram.len() <= MAX_DATAGRAM);
                }
                poll(datagrams::write(&mut written, &message))
                    .expect("memory never waits")
                    .expect("a message that was read can be written");
            }
            Ok(None) => break assert_eq!(written, bytes),
            Err(error) => {
                assert_readable(&error);
                break assert!(bytes.starts_with(&written));
            }
        }
    }
}

fuzz_target!(|bytes: &[u8]| within(MEMORY_KIB, || check(bytes)));
