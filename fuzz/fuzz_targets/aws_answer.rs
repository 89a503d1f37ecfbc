//! What services of AWS answer: refusals in XML and JSON become an error of one
//! line, and lists of instances are read or refused in one.

#![no_main]

use aws_request::ec2::Page;
use aws_request::{Error, Service};
use fuzz::{assert_readable, within};
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;

/// Most memory that one input takes, in KiB.
const MEMORY_KIB: usize = 4096;

fn check(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    // As far as it is a header's value, one says so before the body.
    let line = bytes
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    if let Some(kind) = line.strip_prefix(b"x-amzn-errortype: ")
        && let Ok(kind) = HeaderValue::from_bytes(kind)
    {
        headers.insert("x-amzn-errortype", kind.clone());
        headers.insert("retry-after", kind);
    }
    for service in Service::ALL {
        let error = Error::refused(service, "Operation", 400, &headers, bytes);
        assert_readable(&error);
        assert_eq!(error.status(), Some(400));
        let _ = (
            error.is_denied(),
            error.is_not_found(),
            error.is_transient(),
        );
    }
    match Page::read(bytes) {
        Ok(page) => assert!(page.next.is_none_or(|token| !token.is_empty())),
        Err(reason) => assert_readable(&reason),
    }
}

fuzz_target!(|bytes: &[u8]| within(MEMORY_KIB, || check(bytes)));
