//! `GET /v1/measurements`: the enclave's own measurements, as its self-check found them.

use hyper::StatusCode;

use super::{Answer, Api};

pub(super) fn read(api: &Api) -> Answer {
    Answer::json(StatusCode::OK, &api.measurements)
}
