//! `POST /v1/aws/kms`: KMS, as AWS's SDKs call it. They are pointed here by
//! `AWS_ENDPOINT_URL_KMS`, cannot send this API's own header, and are known by their
//! signature.

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderName, RETRY_AFTER};
use hyper::{HeaderMap, Method, Request, StatusCode};
use serde_json::json;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::guard::{self, Transport};
use super::{Answer, Api, REQUEST_TIMEOUT};
use crate::aws::append;
use crate::kms::{Kms, KmsError, check_caller};

/// Where it is.
const PATH: &str = "/v1/aws/kms";
/// Largest body of a request: an `Encrypt` of 4096 bytes has 6 KiB, a key policy 32 KiB.
const MAX_BODY: usize = 64 * 1024;
const JSON: &str = "application/x-amz-json-1.1";
/// What KMS says of its answers, beside the body.
const PASSED_ON: [HeaderName; 4] = [
    RETRY_AFTER,
    HeaderName::from_static("x-amz-retry-after"),
    HeaderName::from_static("x-amzn-requestid"),
    HeaderName::from_static("x-amzn-errortype"),
];

/// The variable that has SDKs call KMS here, and its value.
pub(crate) fn variable() -> (&'static str, String) {
    ("AWS_ENDPOINT_URL_KMS", format!("{}{PATH}", super::url()))
}

/// KMS, if the image has it and that is what is asked for. SDKs put a slash at the end, or
/// none.
pub(super) fn asked_for<'a>(kms: Option<&'a Kms>, path: &str) -> Option<&'a Kms> {
    kms.filter(|_| path.strip_suffix('/').unwrap_or(path) == PATH)
}

/// Answers a request.
pub(super) async fn answer(
    api: &Api,
    kms: &Kms,
    transport: Transport,
    request: Request<Incoming>,
) -> Answer {
    let passes = guard::check_sender(transport, &request).and_then(|()| {
        if request.method() == Method::POST {
            Ok(())
        } else {
            Err(super::not_found())
        }
    });
    let called = match passes {
        Ok(()) => call(api, kms, request).await,
        Err(failure) => return refusal(failure.status, "AccessDeniedException", &failure.reason),
    };
    match called {
        Ok(answer) => pass_on(answer),
        Err(KmsError::Refused(answer)) => pass_on(*answer),
        Err(error) => {
            let (status, name) = error.kind();
            refusal(status, name, &error.to_string())
        }
    }
}

async fn call(
    api: &Api,
    kms: &Kms,
    request: Request<Incoming>,
) -> Result<crate::aws::Answer, KmsError> {
    let (head, body) = request.into_parts();
    let body = timeout(REQUEST_TIMEOUT, read(body))
        .await
        .map_err(|_| KmsError::Request("it did not arrive in time".to_owned()))??;
    // There is no KMS without credentials.
    let credentials = api.credentials.as_ref();
    let credentials = credentials.ok_or(KmsError::UnknownOperation)?;
    check_caller(credentials, &head, &body)?;
    let target = only(&head.headers, "x-amz-target").ok_or(KmsError::UnknownOperation)?;
    kms.forward(target, body).await
}

/// Reads a body, which may hold a plaintext that is to be encrypted.
async fn read(mut incoming: Incoming) -> Result<Zeroizing<Vec<u8>>, KmsError> {
    let mut body = Zeroizing::new(Vec::new());
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|error| KmsError::Request(error.to_string()))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if body.len() + data.len() > MAX_BODY {
            let reason = format!("it has more than {MAX_BODY} bytes");
            return Err(KmsError::Request(reason));
        }
        append(&mut body, &data);
    }
    Ok(body)
}

fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

/// KMS's answer, or one in its form, which is overwritten when it has been sent.
fn pass_on(answer: crate::aws::Answer) -> Answer {
    let mut headers = HeaderMap::new();
    let mut passed_on: Vec<HeaderName> = PASSED_ON.to_vec();
    passed_on.push(CONTENT_TYPE);
    for name in passed_on {
        if let Some(value) = answer.headers.get(&name) {
            headers.insert(name, value.clone());
        }
    }
    Answer {
        status: answer.status,
        headers,
        body: Bytes::from_owner(answer.body),
    }
}

/// A refusal in KMS's form.
fn refusal(status: StatusCode, name: &str, message: &str) -> Answer {
    let body = json!({ "__type": name, "message": message }).to_string();
    Answer::new(status, JSON, body.into())
}
