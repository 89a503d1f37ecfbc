//! Key policies: any text is refused in one line that names its place, or is a policy that
//! decides of every call, and in whose review is a hole where it lets a call read that has no
//! attestation document.

#![no_main]

use fuzz::{assert_readable, within};
use key_policy::{Action, Caller, Decision, KeyArn, Policy, Request};
use libfuzzer_sys::fuzz_target;
use measurements::Pcr;

/// Most memory that one input takes, in KiB.
const MEMORY_KIB: usize = 16 * 1024;

const CALLERS: [&str; 4] = [
    "arn:aws:iam::123456789012:role/a",
    "arn:aws:iam::123456789012:root",
    "arn:aws:sts::210987654321:assumed-role/a/b",
    "s3.amazonaws.com",
];

fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let policy: Policy = match text.parse() {
        Ok(policy) => policy,
        Err(error) => return assert_readable(&error),
    };
    let review = policy.review();
    let key: KeyArn = "arn:aws:kms:eu-west-1:123456789012:key/a"
        .parse()
        .expect("a key");
    for caller in CALLERS {
        let caller: Caller = caller.parse().expect("a caller");
        for action in Action::READING {
            let request = Request::new(caller.clone(), action, key.clone());
            let reads = matches!(
                policy.evaluate(&request),
                Decision::Allow(_) | Decision::LeftToIam(_)
            );
            assert!(!reads || !review.holes.is_empty());
            let registers = (0..32).map(|index| (index, Pcr::ZERO));
            let context = [("a", "b"), ("A", "c")];
            policy.evaluate(&request.attested(registers).encryption_context(context));
        }
    }
}

fuzz_target!(|bytes: &[u8]| within(MEMORY_KIB, || check(bytes)));
