//! `GET /v1/runtime-configuration`: the bytes that PCR16 was extended with the digest of.

use hyper::StatusCode;

use super::{Answer, Api};

pub(super) fn read(api: &Api) -> Answer {
    let body = api.runtime_config.clone();
    Answer::new(StatusCode::OK, "application/octet-stream", body)
}
