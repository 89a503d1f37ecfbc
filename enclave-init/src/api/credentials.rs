//! `GET /v1/aws/credentials`: the workload's AWS credentials, in the form in which AWS's
//! SDKs ask a container's host for them
//! (<https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html>).
//!
//! SDKs cannot send this API's own header; they send the token that the workload was
//! started with, which nobody else knows.

use hyper::header::AUTHORIZATION;
use hyper::{HeaderMap, StatusCode};
use serde_json::json;

use super::Answer;
use crate::credentials::{AwsCredentials, PATH};

/// The workload's credentials, if it gets any and that is what is asked for.
pub(super) fn asked_for<'a>(
    credentials: Option<&'a AwsCredentials>,
    path: &str,
) -> Option<&'a AwsCredentials> {
    credentials.filter(|_| path == PATH)
}

/// Gives the credentials to whoever has the token.
pub(super) fn read(credentials: &AwsCredentials, headers: &HeaderMap) -> Answer {
    let mut tokens = headers.get_all(AUTHORIZATION).iter();
    let is_known = match (tokens.next(), tokens.next()) {
        (Some(token), None) => credentials.is_token(token.as_bytes()),
        _ => false,
    };
    if !is_known {
        let reason = "send `Authorization` with the value of AWS_CONTAINER_AUTHORIZATION_TOKEN";
        return refusal(StatusCode::UNAUTHORIZED, reason);
    }
    let valid = match credentials.valid() {
        Ok(valid) => valid,
        Err(reason) => {
            let reason = format!("there are no AWS credentials: {reason}");
            return refusal(StatusCode::SERVICE_UNAVAILABLE, &reason);
        }
    };
    let credentials = &valid.credentials;
    Answer::json(
        StatusCode::OK,
        &json!({
            "AccessKeyId": &*credentials.access_key_id,
            "SecretAccessKey": &*credentials.secret_access_key,
            "Token": &*credentials.session_token,
            "Expiration": valid.expiration,
        }),
    )
}

/// A failure as SDKs read it.
pub(super) fn refusal(status: StatusCode, reason: &str) -> Answer {
    let code = match status {
        StatusCode::UNAUTHORIZED => "InvalidAuthorizationToken",
        StatusCode::SERVICE_UNAVAILABLE => "CredentialsUnavailable",
        StatusCode::FORBIDDEN => "Forbidden",
        _ => "NotFound",
    };
    Answer::json(status, &json!({ "code": code, "message": reason }))
}
