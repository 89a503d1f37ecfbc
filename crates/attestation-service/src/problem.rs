//! Errors of requests, as RFC 9457 has them: what is wrong, and what to do.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use serde_json::json;
use thiserror::Error;

use crate::challenges::NONCE_BYTES;
use crate::limits::MAX_BODY;
use crate::note::Note;

/// Why a request was not answered. What a document is refused for is no problem,
/// but an answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Problem {
    /// The body is not what the API asks for.
    #[error("the body cannot be used: {0}")]
    MalformedRequest(String),
    /// The body is of another type.
    #[error("the body must be JSON: send it with Content-Type: application/json")]
    UnsupportedMediaType,
    /// The body is too large.
    #[error(
        "the body has more than {MAX_BODY} bytes: a request with the largest document has less"
    )]
    BodyTooLarge,
    /// The body came too slowly.
    #[error("the body did not arrive in time: send the request again")]
    RequestTimeout,
    /// Nothing is there.
    #[error("there is nothing at this path: GET /openapi.json lists what there is")]
    NotFound,
    /// Something is there, but not for this method.
    #[error("this path does not serve this method: the header Allow lists those it does")]
    MethodNotAllowed,
    /// No policy has this name.
    #[error("there is no policy of this name: GET /v1/policies lists them")]
    UnknownPolicy,
    /// The policy in the request is wrong.
    #[error("the policy in the request cannot be used: {0}")]
    InvalidPolicy(String),
    /// The service takes only policies of its own.
    #[error(
        "this service does not take policies in requests: name one of GET /v1/policies, or start it with --allow-inline-policies"
    )]
    InlinePoliciesOff,
    /// The policy demands a nonce, and there is none.
    #[error(
        "the policy requires a nonce: ask for one with POST /v1/challenges, have the enclave attest with it, and give it as `challenge`"
    )]
    NonceRequired,
    /// The challenge is not of this service.
    #[error(
        "this service did not issue this challenge, or for another policy: a challenge has {NONCE_BYTES} bytes and is bound to the policy that it was asked for; your own nonce goes into `nonce`"
    )]
    UnknownChallenge,
    /// The caller's own nonce is a challenge.
    #[error(
        "this nonce is a challenge of this service: give it as `challenge`, so that it is used up; your own nonce is one that you made"
    )]
    ChallengeAsNonce,
    /// The challenge is too old.
    #[error("the challenge has expired: ask for a new one with POST /v1/challenges")]
    ChallengeExpired,
    /// The challenge has been used.
    #[error(
        "a document has been accepted for this challenge before: ask for a new one with POST /v1/challenges"
    )]
    ChallengeUsed,
    /// The client asks too often.
    #[error("too many requests from this address: wait for as long as Retry-After says")]
    RateLimited(Duration),
    /// The service has too much to do.
    #[error("the service is busy: wait for as long as Retry-After says")]
    Overloaded,
    /// The service cannot work.
    #[error("the service failed and has logged why: try again later")]
    Internal,
}

impl Problem {
    /// Every problem, as an example of itself.
    pub fn all() -> Vec<Self> {
        vec![
            Self::MalformedRequest(String::new()),
            Self::UnsupportedMediaType,
            Self::BodyTooLarge,
            Self::RequestTimeout,
            Self::NotFound,
            Self::MethodNotAllowed,
            Self::UnknownPolicy,
            Self::InvalidPolicy(String::new()),
            Self::InlinePoliciesOff,
            Self::NonceRequired,
            Self::UnknownChallenge,
            Self::ChallengeAsNonce,
            Self::ChallengeExpired,
            Self::ChallengeUsed,
            Self::RateLimited(Duration::ZERO),
            Self::Overloaded,
            Self::Internal,
        ]
    }

    /// Its stable name: the last part of `type`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::MalformedRequest(_) => "malformed-request",
            Self::UnsupportedMediaType => "unsupported-media-type",
            Self::BodyTooLarge => "body-too-large",
            Self::RequestTimeout => "request-timeout",
            Self::NotFound => "not-found",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::UnknownPolicy => "unknown-policy",
            Self::InvalidPolicy(_) => "invalid-policy",
            Self::InlinePoliciesOff => "inline-policies-off",
            Self::NonceRequired => "nonce-required",
            Self::UnknownChallenge => "unknown-challenge",
            Self::ChallengeAsNonce => "challenge-as-nonce",
            Self::ChallengeExpired => "challenge-expired",
            Self::ChallengeUsed => "challenge-used",
            Self::RateLimited(_) => "rate-limited",
            Self::Overloaded => "overloaded",
            Self::Internal => "internal",
        }
    }

    /// The status of the response.
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::MalformedRequest(_) => StatusCode::BAD_REQUEST,
            Self::InlinePoliciesOff => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::ChallengeUsed => StatusCode::CONFLICT,
            Self::ChallengeExpired => StatusCode::GONE,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::UnknownPolicy
            | Self::InvalidPolicy(_)
            | Self::NonceRequired
            | Self::UnknownChallenge
            | Self::ChallengeAsNonce => StatusCode::UNPROCESSABLE_ENTITY,
            Self::RateLimited(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// How long to wait before the next attempt.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited(wait) => Some(*wait),
            Self::Overloaded => Some(Duration::from_secs(1)),
            _ => None,
        }
    }
}

/// `type` is a reference into `/openapi.json`, which describes the problem.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = json!({
            "type": format!("/openapi.json#/components/responses/{}", self.name()),
            "title": self.name().replace('-', " "),
            "status": self.status().as_u16(),
            "detail": self.to_string(),
        });
        let mut response = (self.status(), body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(wait) = self.retry_after() {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, seconds.max(1).into());
        }
        response.extensions_mut().insert(Note::Problem(self.name()));
        response
    }
}
