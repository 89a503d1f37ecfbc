//! The paths of the API.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::Body as _;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use serde_json::json;
use tokio::task::yield_now;
use tokio::time::timeout;
use tracing::error;

use crate::clock;
use crate::crowd::Place;
use crate::limits::{BODY_TIMEOUT, MAX_BODY, MAX_DROPPED};
use crate::metrics::{Gauges, Route};
use crate::note::Note;
use crate::problem::Problem;
use crate::request::ChallengeRequest;
use crate::shared::Shared;
use crate::store::{Use, UseError};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
/// Keys are published for longer than this before they sign.
const FIVE_MINUTES: HeaderValue = HeaderValue::from_static("public, max-age=300");

/// Everything but metrics.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route(Route::Challenges.path(), post(issue_challenge))
        .route(Route::Verify.path(), post(verify))
        .route(Route::Policies.path(), get(policies))
        .route(Route::Jwks.path(), get(jwks))
        .route(Route::OpenApi.path(), get(openapi))
        .route(Route::Healthz.path(), get(healthz))
        .route(Route::Readyz.path(), get(readyz))
        .fallback(async || Problem::NotFound)
        .method_not_allowed_fallback(async || Problem::MethodNotAllowed)
        .with_state(shared)
}

/// Metrics, for a listener of their own: they are nobody's business outside.
pub(crate) fn metrics_router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route(Route::Healthz.path(), get(healthz))
        .route(Route::Readyz.path(), get(readyz))
        .fallback(async || Problem::NotFound)
        .method_not_allowed_fallback(async || Problem::MethodNotAllowed)
        .with_state(shared)
}

async fn issue_challenge(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let body = collect(&head, body).await?;
    if !body.is_empty() {
        require_json(&head.headers)?;
    }
    let request = ChallengeRequest::parse(&body)?;
    let appraiser = &shared.appraiser;
    if let Some(policy) = &request.policy
        && appraiser.policies.get().get(policy).is_none()
    {
        return Err(Problem::UnknownPolicy);
    }
    let challenge = appraiser
        .challenges
        .issue(request.policy.as_deref(), clock::now_ms())
        .map_err(|error| {
            error!(%error, "no challenge");
            Problem::Internal
        })?;
    appraiser.metrics.challenge_issued();
    let body = json!({
        "challenge": hex::encode(challenge.nonce),
        "expires_at_ms": challenge.expires_ms,
        "policy": request.policy,
    });
    Ok(json_response(StatusCode::OK, body.to_string(), NO_STORE))
}

async fn verify(State(shared): State<Arc<Shared>>, request: Request) -> Result<Response, Problem> {
    let answer = answer(&shared, request).await;
    // A replay is refused as a document that broke a rule is, whatever the status.
    let replay = match &answer {
        Err(Problem::ChallengeUsed) => Some("challenge.used"),
        Err(Problem::ChallengeExpired) => Some("challenge.expired"),
        _ => None,
    };
    if replay.is_some() {
        shared.appraiser.metrics.verified(replay);
    }
    answer
}

/// The answer to a request for verification.
async fn answer(shared: &Shared, request: Request) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    require_json(&head.headers)?;
    let body = collect(&head, body).await?;
    let answer = {
        let _permit = shared
            .verifications
            .try_acquire()
            .map_err(|_| Problem::Overloaded)?;
        // Whatever else this thread has to do comes first; then it verifies, which
        // takes less time than to hand the work to another thread would be worth.
        yield_now().await;
        shared.appraiser.appraise(&body)?
    };
    let metrics = &shared.appraiser.metrics;
    if let Some(challenge) = answer.challenge {
        let used = shared
            .store
            .r#use(challenge)
            .await
            .map_err(|error| match error {
                UseError::Full => Problem::Overloaded,
                UseError::Failed => Problem::Internal,
            })?;
        metrics.challenge_used(used);
        match used {
            Use::First => {}
            Use::Again => return Err(Problem::ChallengeUsed),
            Use::Forgotten => return Err(Problem::ChallengeExpired),
        }
    }
    // Not before: of replays all but one are accepted by the verifier, and refused.
    metrics.verified(answer.rejected_by.as_deref());
    if answer.signed {
        metrics.signed();
    }
    let mut response = json_response(StatusCode::OK, answer.body, NO_STORE);
    response.extensions_mut().insert(Note::Verified {
        policy: answer.policy,
        rejected_by: answer.rejected_by,
    });
    Ok(response)
}

async fn policies(State(shared): State<Arc<Shared>>) -> Response {
    let policies = shared.appraiser.policies.get().to_json();
    json_response(StatusCode::OK, policies, NO_STORE)
}

async fn jwks(State(shared): State<Arc<Shared>>) -> Response {
    let jwks = shared.appraiser.keys.get().jwks().to_owned();
    json_response(StatusCode::OK, jwks, FIVE_MINUTES)
}

async fn openapi() -> Response {
    json_response(StatusCode::OK, include_str!("openapi.json"), FIVE_MINUTES)
}

/// The process serves.
async fn healthz() -> Response {
    health(StatusCode::OK, "ok")
}

/// The service can do its work, and is not about to end.
async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    if shared.draining.load(Ordering::Relaxed) {
        health(StatusCode::SERVICE_UNAVAILABLE, "stopping")
    } else if !shared.store.is_ready().await {
        health(
            StatusCode::SERVICE_UNAVAILABLE,
            "used challenges cannot be recorded",
        )
    } else {
        health(StatusCode::OK, "ok")
    }
}

fn health(status: StatusCode, text: &str) -> Response {
    json_response(status, json!({ "status": text }).to_string(), NO_STORE)
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let appraiser = &shared.appraiser;
    let gauges = Gauges {
        policies: appraiser.policies.get().len(),
        signing_keys: appraiser.keys.get().published(),
        ready: !shared.draining.load(Ordering::Relaxed) && shared.store.is_healthy(),
    };
    let text = appraiser.metrics.render(&gauges);
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(CONTENT_TYPE, content_type)], text).into_response()
}

fn json_response(status: StatusCode, body: impl Into<Body>, cache: HeaderValue) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response.headers_mut().insert(CACHE_CONTROL, cache);
    response
}

fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let essence = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next());
    match essence {
        Some(essence) if essence.trim().eq_ignore_ascii_case("application/json") => Ok(()),
        _ => Err(Problem::UnsupportedMediaType),
    }
}

/// The whole body, if it is small enough and comes in time.
///
/// Of one that is not, a little is read and dropped: a client that is still
/// sending when the connection closes may never see the answer.
async fn collect(head: &Parts, mut body: Body) -> Result<Bytes, Problem> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > MAX_DROPPED {
        return Err(Problem::BodyTooLarge);
    }
    let mut whole = Vec::with_capacity(announced.min(MAX_BODY));
    let mut size = 0;
    let read = async {
        while let Some(frame) = body.frame().await {
            // A client that ended early hears this only if it still listens.
            let frame = frame.map_err(|_| {
                Problem::MalformedRequest("it ends early, or its chunks are wrong".to_owned())
            })?;
            let data = frame.into_data().unwrap_or_default();
            size += data.len();
            if size > MAX_DROPPED {
                break;
            }
            if size <= MAX_BODY {
                whole.extend_from_slice(&data);
            }
        }
        Ok(())
    };
    timeout(BODY_TIMEOUT, read)
        .await
        .unwrap_or(Err(Problem::RequestTimeout))?;
    if size > MAX_BODY {
        return Err(Problem::BodyTooLarge);
    }
    if let Some(place) = head.extensions.get::<Arc<Place>>() {
        place.works();
    }
    Ok(whole.into())
}
