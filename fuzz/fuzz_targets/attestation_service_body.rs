//! Bodies of requests to the verification service: any bytes are refused in one
//! line, or are a request within every limit.

#![no_main]

use attestation_service::internal::{
    ChallengeRequest, MAX_BODY, MAX_NAME, NonceChoice, PolicyChoice, VerifyRequest,
};
use fuzz::{assert_readable, within};
use libfuzzer_sys::fuzz_target;

/// Sixteen times the largest body: a policy in it becomes text, tables and values.
const MEMORY_KIB: usize = 1024;

fn check(body: &[u8]) {
    match ChallengeRequest::parse(body) {
        Ok(request) => assert!(request.policy.is_none_or(|name| named(&name))),
        Err(problem) => assert_readable(&problem),
    }
    let request = match VerifyRequest::parse(body) {
        Ok(request) => request,
        Err(problem) => return assert_readable(&problem),
    };
    assert!(request.document.len() < body.len());
    match request.nonce {
        NonceChoice::NotGiven => {}
        NonceChoice::Challenge(nonce) | NonceChoice::Own(nonce) => {
            assert!((1..=1024).contains(&nonce.len()));
        }
    }
    match request.policy {
        PolicyChoice::Named(name) => assert!(named(&name)),
        // It can be used with the nonce of a request.
        PolicyChoice::Inline(policy) => {
            let policy = policy.with_nonce(vec![0]).expect("a policy that was built");
            assert!(!policy.needs_nonce());
        }
    }
}

fn named(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
}

fuzz_target!(|body: &[u8]| {
    // As the service does, which limits bodies before it reads them.
    let body = &body[..body.len().min(MAX_BODY)];
    within(MEMORY_KIB, || check(body));
});
