//! Who may call: whoever signs with the credentials that the init hands out. A request
//! that something in the workload was tricked into making (by a web page, a redirect, an
//! address that a client chose) has no such signature.

use std::collections::BTreeMap;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use hyper::http::request::Parts;

use super::error::KmsError;
use crate::aws::{ALGORITHM, Scope, Signable, Unsigned, digest};
use crate::credentials::AwsCredentials;

/// Headers that have to be signed, as far as the request has them: the others change
/// nothing.
const SIGNED: [&str; 4] = ["host", "x-amz-date", "x-amz-target", "x-amz-security-token"];

/// The parts of `Authorization`.
#[derive(Debug)]
struct Authorization<'a> {
    access_key_id: &'a str,
    scope: Scope<'a>,
    signed: Vec<&'a str>,
    signature: Vec<u8>,
}

/// Refuses a request that is not signed with the credentials that the init hands out, or
/// handed out before those.
pub(crate) fn check(
    credentials: &AwsCredentials,
    head: &Parts,
    body: &[u8],
) -> Result<(), KmsError> {
    let authorization = authorization(&head.headers)?;
    let Some(known) = credentials.handed_out(authorization.access_key_id) else {
        return Err(refused(
            "UnrecognizedClientException",
            "the request is not signed with the credentials that the enclave gives its workload: leave credentials to the SDK's default chain, which finds them by AWS_CONTAINER_CREDENTIALS_FULL_URI, and do not set AWS_ACCESS_KEY_ID or a profile",
        ));
    };
    let mut headers = BTreeMap::new();
    for name in &authorization.signed {
        headers.insert(*name, value(&head.headers, name)?);
    }
    let is_left_out =
        |name: &&str| head.headers.contains_key(*name) && !headers.contains_key(*name);
    if SIGNED.iter().any(is_left_out) {
        return Err(incomplete("it signs too few headers"));
    }
    let body = digest(body);
    let signable = Signable {
        method: head.method.as_str(),
        path: head.uri.path(),
        query: head.uri.query().unwrap_or_default(),
        headers,
        body: &body,
    };
    let signature = signable
        .signature(&known.secret_access_key, &authorization.scope)
        .map_err(|Unsigned(reason)| incomplete(reason))?;
    verify_slices_are_equal(signature.as_ref(), &authorization.signature).map_err(|_| {
        refused(
            "InvalidSignatureException",
            "the signature is not that of the request: sign it for the URL in AWS_ENDPOINT_URL_KMS, and change nothing afterwards",
        )
    })
}

fn authorization(headers: &HeaderMap) -> Result<Authorization<'_>, KmsError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(refused(
            "MissingAuthenticationTokenException",
            "the request is not signed: call KMS with an SDK of AWS, or sign with Signature Version 4",
        ));
    };
    let parse = || {
        let rest = value.to_str().ok()?.strip_prefix(ALGORITHM)?;
        let (mut credential, mut signed, mut signature) = (None, None, None);
        for part in rest.split(',') {
            let (name, value) = part.trim().split_once('=')?;
            let place = match name {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut signed,
                "Signature" => &mut signature,
                _ => return None,
            };
            if place.replace(value).is_some() {
                return None;
            }
        }
        let (access_key_id, scope) = credential?.split_once('/')?;
        Some(Authorization {
            access_key_id,
            scope: Scope::parse(scope)?,
            signed: signed?.split(';').collect(),
            signature: hex::decode(signature?).ok()?,
        })
    };
    parse().ok_or_else(|| {
        incomplete("Authorization is not that of Signature Version 4 with AWS4-HMAC-SHA256")
    })
}

/// A header's value, or its values.
fn value(headers: &HeaderMap, name: &str) -> Result<String, KmsError> {
    let values: Option<Vec<&str>> = headers
        .get_all(name)
        .iter()
        .map(|value| value.to_str().ok())
        .collect();
    match values {
        Some(values) if !values.is_empty() => Ok(values.join(",")),
        _ => Err(incomplete(
            "a header that is signed is not there, or is no text",
        )),
    }
}

fn incomplete(reason: &str) -> KmsError {
    let message = format!("the request's signature cannot be verified: {reason}");
    KmsError::Caller {
        name: "IncompleteSignatureException",
        message,
    }
}

fn refused(name: &'static str, message: &str) -> KmsError {
    KmsError::Caller {
        name,
        message: message.to_owned(),
    }
}
