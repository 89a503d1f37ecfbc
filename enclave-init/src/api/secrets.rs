//! `GET /v1/secrets/NAME[?wait=SECONDS]`: a declared secret that the API answers.

use std::time::Duration;

use super::failure::Failure;
use super::{Answer, Api};
use crate::secrets::Missing;

/// The longest wait, in seconds: the connection is closed a few seconds later.
const MAX_WAIT: u64 = 10;

pub(super) async fn read(api: &Api, name: &str, query: Option<&str>) -> Result<Answer, Failure> {
    let wait = wait(query)?;
    let found = match &api.secrets {
        Some(secrets) => secrets.get(name, wait).await,
        None => Err(Missing::Undeclared),
    };
    Ok(Answer::bytes("application/octet-stream", found?.to_vec()))
}

fn wait(query: Option<&str>) -> Result<Duration, Failure> {
    let Some(query) = query else {
        return Ok(Duration::ZERO);
    };
    query
        .strip_prefix("wait=")
        .and_then(|seconds| seconds.parse().ok())
        .filter(|seconds| (0..=MAX_WAIT).contains(seconds))
        .map(Duration::from_secs)
        .ok_or_else(|| Failure::bad(format!("give wait=N with N from 0 to {MAX_WAIT} seconds")))
}
