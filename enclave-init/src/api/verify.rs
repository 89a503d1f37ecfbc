//! `POST /v1/verify`: another enclave's document, under a measured policy.

use std::sync::Arc;

use ::attestation::{Accepted, MAX_DOCUMENT, MAX_NONCE, Nonce, Policy, Rejection};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;

use super::failure::{Code, Failure};
use super::{Answer, Api};
use crate::trust::Trust;

/// Verifications at a time; a further one waits. Each takes a thread for some
/// milliseconds.
const MAX_VERIFICATIONS: usize = 2;
/// Largest request body in bytes: a document and a nonce in base64, with room.
const MAX_BODY: usize = (MAX_DOCUMENT + MAX_NONCE) / 3 * 4 + 1024;

/// Verifies documents, few at a time.
#[derive(Debug, Clone)]
pub(crate) struct Verifications {
    trust: Arc<Trust>,
    places: Arc<Semaphore>,
}

impl Verifications {
    pub(crate) fn new(trust: Arc<Trust>) -> Self {
        Self {
            trust,
            places: Arc::new(Semaphore::new(MAX_VERIFICATIONS)),
        }
    }

    /// Verifies on a thread of its own: now, and under the measured root.
    async fn run(
        &self,
        document: Vec<u8>,
        policy: Policy,
        nonce: Vec<u8>,
    ) -> Result<Value, Failure> {
        let trust = Arc::clone(&self.trust);
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.map_err(|_| failed())?;
        let verification = tokio::task::spawn_blocking(move || {
            // Until the work is done, even if nobody waits for it any more.
            let _place = place;
            let verifier = trust.verifier();
            let verification = verifier.verify(&document, &policy, Nonce::Fresh(&nonce));
            match verification.outcome {
                Ok(accepted) => accept(&accepted),
                Err(rejection) => refuse(&rejection),
            }
        });
        verification.await.map_err(|_| failed())
    }
}

fn failed() -> Failure {
    Failure::new(
        Code::InitFailed,
        "the document could not be verified: try again",
    )
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct VerifyRequest {
    document: String,
    peer: String,
    nonce: String,
}

pub(super) async fn create(api: &Api, request: Request<Incoming>) -> Result<Answer, Failure> {
    let request: VerifyRequest = super::json_within(request, MAX_BODY).await?;
    let verifications = &api.verifications;
    let Some(policy) = verifications.trust.peer(&request.peer) else {
        return Err(unknown_peer(&verifications.trust));
    };
    if let Some(why) = api.clock.no_time() {
        return Err(Failure::new(
            Code::NoTime,
            format!(
                "{why}, so no document can be checked against the time: GET /v1/time says more"
            ),
        ));
    }
    let document = decode("document", request.document, MAX_DOCUMENT)?;
    let nonce = decode("nonce", request.nonce, MAX_NONCE)?;
    if nonce.is_empty() {
        return Err(Failure::bad(
            "the nonce is empty: it must be new for each document, so give at least 16 random bytes",
        ));
    }
    let verdict = verifications.run(document, policy.clone(), nonce).await?;
    Ok(Answer::json(StatusCode::OK, &verdict))
}

fn unknown_peer(trust: &Trust) -> Failure {
    let known: Vec<&str> = trust.peers().collect();
    let known = if known.is_empty() {
        "the image's manifest names no peers".to_owned()
    } else {
        format!("the image's manifest names {}", known.join(", "))
    };
    Failure::new(
        Code::UnknownPeer,
        format!("there is no such peer: {known}; add it as [[attestation.peers]]"),
    )
}

fn decode(name: &str, text: String, limit: usize) -> Result<Vec<u8>, Failure> {
    let bytes = STANDARD
        .decode(text)
        .map_err(|error| Failure::bad(format!("{name} is not base64: {error}")))?;
    if bytes.len() > limit {
        let reason = format!("{name} has more than {limit} bytes");
        return Err(Failure::bad(reason));
    }
    Ok(bytes)
}

fn accept(accepted: &Accepted<'_>) -> Value {
    let base64 = |bytes: Option<&[u8]>| bytes.map(|bytes| STANDARD.encode(bytes));
    let pcrs: Map<String, Value> = accepted
        .pcrs()
        .map(|(index, pcr)| (index.to_string(), pcr.to_string().into()))
        .collect();
    json!({
        "accepted": true,
        "module_id": accepted.module_id(),
        "timestamp_ms": accepted.timestamp_ms(),
        "pcrs": pcrs,
        "purpose": accepted.purpose(),
        "public_key": base64(accepted.public_key()),
        "user_data": base64(accepted.user_data()),
    })
}

fn refuse(rejection: &Rejection) -> Value {
    json!({
        "accepted": false,
        "rule": rejection.rule,
        "reason": rejection.reason,
    })
}
