//! `GET /v1/random?bytes=N`: random bytes of the security module.

use super::failure::Failure;
use super::{Answer, Api};

/// Most random bytes of one request.
const MAX_RANDOM: usize = 4096;

pub(super) async fn read(api: &Api, query: Option<&str>) -> Result<Answer, Failure> {
    let count = query
        .and_then(|query| query.strip_prefix("bytes="))
        .and_then(|count| count.parse().ok())
        .filter(|count| (1..=MAX_RANDOM).contains(count))
        .ok_or_else(|| Failure::bad(format!("give bytes=N with N from 1 to {MAX_RANDOM}")))?;
    let bytes = api.nsm.run(move |nsm| nsm.random_bytes(count)).await?;
    Ok(Answer::bytes("application/octet-stream", bytes))
}
