//! Calls to KMS that several tests make.

use key_policy::{Action, Caller, Decision, KeyArn, Policy, Request};
use measurements::Pcr;

pub(crate) const ACCOUNT: &str = "123456789012";
pub(crate) const ENCLAVE: &str = "arn:aws:iam::123456789012:role/service/Enclave";
pub(crate) const ADMINISTRATOR: &str = "arn:aws:iam::123456789012:user/Administrator";
pub(crate) const ENCRYPTER: &str = "arn:aws:iam::123456789012:role/Encrypter";
pub(crate) const STRANGER: &str = "arn:aws:iam::123456789012:role/Stranger";
pub(crate) const FOREIGNER: &str = "arn:aws:iam::210987654321:role/service/Enclave";

pub(crate) fn key() -> KeyArn {
    "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
        .parse()
        .unwrap()
}

pub(crate) fn pcr(byte: u8) -> Pcr {
    Pcr::new([byte; 48])
}

pub(crate) fn request(caller: &str, action: &str) -> Request {
    let caller: Caller = caller.parse().unwrap();
    let action: Action = action.parse().unwrap();
    Request::new(caller, action, key())
}

/// What the decision is called, and the statement that it is because of.
pub(crate) fn decide(policy: &Policy, request: &Request) -> (&'static str, String) {
    match policy.evaluate(request) {
        Decision::ExplicitDeny(id) => ("deny", id.sid.unwrap_or_default()),
        Decision::Allow(id) => ("allow", id.sid.unwrap_or_default()),
        Decision::LeftToIam(id) => ("iam", id.sid.unwrap_or_default()),
        Decision::ImplicitDeny => ("none", String::new()),
    }
}
