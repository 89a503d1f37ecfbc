//! Who has not signed a request as Signature Version 4 has it is refused.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Method, Request};
use serde_json::json;
use support::{Client, World};

const CALL: &str = "GenerateRandom";

/// The name of the error that a request is refused with, or `None`.
fn refused(world: &World, request: &Request<Bytes>) -> Option<String> {
    let (_, answer) = world.answer(request);
    let name = answer.get("__type")?;
    Some(name.as_str().unwrap().to_owned())
}

fn signed(client: &Client) -> Request<Bytes> {
    client.request(CALL, &json!({ "NumberOfBytes": 16 }))
}

fn client() -> Client {
    Client::new(support::ROLE)
}

#[test]
fn signatures_cover_all_of_a_request() {
    let world = World::new();
    let request = || signed(&world.client);
    assert_eq!(refused(&world, &request()), None);

    let mut changed = request();
    *changed.body_mut() = Bytes::from(json!({ "NumberOfBytes": 17 }).to_string());
    assert_eq!(
        refused(&world, &changed).unwrap(),
        "InvalidSignatureException"
    );
    let mut changed = request();
    *changed.uri_mut() = "/?a=b".parse().unwrap();
    assert_eq!(
        refused(&world, &changed).unwrap(),
        "InvalidSignatureException"
    );
    for (name, value) in [
        ("host", "kms.other"),
        ("content-type", "application/x-amz-json-1.0"),
        ("x-amz-target", "TrentService.Encrypt"),
    ] {
        let mut changed = request();
        changed.headers_mut().insert(name, value.parse().unwrap());
        let refusal = refused(&world, &changed).unwrap();
        assert_eq!(refusal, "InvalidSignatureException", "{name}");
    }
    // A header that is not signed, which KMS would act on.
    let mut changed = request();
    let added = HeaderValue::from_static("1");
    changed.headers_mut().insert("x-amz-other", added);
    assert_eq!(
        refused(&world, &changed).unwrap(),
        "InvalidSignatureException"
    );
}

#[test]
fn signatures_with_any_character_changed_are_refused() {
    let world = World::new();
    let request = signed(&world.client);
    let authorization = request.headers()[AUTHORIZATION]
        .to_str()
        .unwrap()
        .to_owned();
    for position in 0..authorization.len() {
        let mut changed = authorization.clone().into_bytes();
        changed[position] ^= 1;
        let Ok(value) = HeaderValue::from_bytes(&changed) else {
            continue;
        };
        let mut request = request.clone();
        request.headers_mut().insert(AUTHORIZATION, value);
        assert!(refused(&world, &request).is_some(), "{position}");
    }
}

#[test]
fn signatures_hold_for_five_minutes() {
    let world = World::new();
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let mut client = client();
    for (time, expected) in [
        (SystemTime::now() - minutes(4), None),
        (SystemTime::now() + minutes(4), None),
        (SystemTime::now() - minutes(6), Some("Signature expired: ")),
        (
            SystemTime::now() + minutes(6),
            Some("Signature not yet current: "),
        ),
    ] {
        client.time = time;
        let (_, answer) = world.answer(&signed(&client));
        let message = answer
            .get("message")
            .map(|message| message.as_str().unwrap());
        assert_eq!(message.is_some(), expected.is_some(), "{answer}");
        if let (Some(message), Some(expected)) = (message, expected) {
            assert!(message.starts_with(expected), "{message}");
            assert!(message.ends_with(" 5 min.)"), "{message}");
        }
    }
}

#[test]
fn signatures_are_for_a_region_and_a_service() {
    let world = World::new();
    let mut elsewhere = client();
    elsewhere.region = "us-east-1";
    let mut other = client();
    other.service = "s3";
    for client in [elsewhere, other] {
        let refusal = refused(&world, &signed(&client)).unwrap();
        assert_eq!(refusal, "InvalidSignatureException");
    }
}

#[test]
fn signatures_are_of_somebody_whom_the_kms_knows() {
    let world = World::new();
    let unknown = Client::new("arn:aws:iam::123456789012:role/Unknown");
    let mut without_token = client();
    without_token.credentials.session_token = None;
    let mut wrong_token = client();
    wrong_token.credentials.session_token = Some("another".to_owned());
    for client in [unknown, without_token, wrong_token] {
        let refusal = refused(&world, &signed(&client)).unwrap();
        assert_eq!(refusal, "UnrecognizedClientException");
    }
    let mut wrong_secret = client();
    wrong_secret.credentials.secret_access_key = "another".to_owned();
    let refusal = refused(&world, &signed(&wrong_secret)).unwrap();
    assert_eq!(refusal, "InvalidSignatureException");
}

#[test]
fn signatures_that_are_missing_or_incomplete_are_refused() {
    let world = World::new();
    let mut request = signed(&world.client);
    request.headers_mut().remove(AUTHORIZATION);
    let refusal = refused(&world, &request).unwrap();
    assert_eq!(refusal, "MissingAuthenticationTokenException");
    for value in [
        "",
        "Bearer x",
        "AWS4-HMAC-SHA256 Credential=a/b/c/d/aws4_request",
        "AWS4-HMAC-SHA256 Credential=a, SignedHeaders=host, Signature=0",
        "AWS4-HMAC-SHA256 Signature=0, Signature=0",
    ] {
        let mut request = signed(&world.client);
        request
            .headers_mut()
            .insert(AUTHORIZATION, value.parse().unwrap());
        let refusal = refused(&world, &request).unwrap();
        assert_eq!(refusal, "IncompleteSignatureException", "{value}");
    }
    for (name, kind) in [
        ("x-amz-date", "IncompleteSignatureException"),
        ("host", "IncompleteSignatureException"),
        ("x-amz-target", "UnknownOperationException"),
    ] {
        let mut request = signed(&world.client);
        request.headers_mut().remove(name);
        assert_eq!(refused(&world, &request).unwrap(), kind, "{name}");
    }
    let mut request = signed(&world.client);
    *request.method_mut() = Method::GET;
    assert_eq!(
        refused(&world, &request).unwrap(),
        "UnknownOperationException"
    );
}
