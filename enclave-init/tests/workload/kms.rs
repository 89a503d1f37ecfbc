//! Calls to KMS as an SDK makes them: with credentials that it fetched once, signed by the
//! crate that AWS's SDK for Rust signs with, to the endpoint in the environment.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::OnceLock;
use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// What the first call has fetched.
static CREDENTIALS: OnceLock<Credentials> = OnceLock::new();

fn variable(name: &str) -> String {
    std::env::var(name).unwrap()
}

/// Host with port, and path.
fn split(url: &str) -> (&str, &str) {
    let rest = url.strip_prefix("http://").unwrap();
    rest.split_at(rest.find('/').unwrap())
}

/// Status and body of the answer.
fn exchange(host: &str, request: &[u8]) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(host).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let body = answer.split_off(end.unwrap() + 4);
    let status = std::str::from_utf8(&answer[9..12]).unwrap();
    (status.parse().unwrap(), body)
}

fn fetched() -> Credentials {
    let url = variable("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    let token = variable("AWS_CONTAINER_AUTHORIZATION_TOKEN");
    let (host, path) = split(&url);
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {token}\r\n\r\n");
    let (status, body) = exchange(host, request.as_bytes());
    assert_eq!(status, 200);
    let found: Value = serde_json::from_slice(&body).unwrap();
    let text = |name: &str| found[name].as_str().unwrap().to_owned();
    let (id, secret) = (text("AccessKeyId"), text("SecretAccessKey"));
    Credentials::new(id, secret, Some(text("Token")), None, "test")
}

/// Calls an operation with the credentials that were fetched first.
pub(crate) fn call(operation: &str, body: &str) {
    let credentials = CREDENTIALS.get_or_init(fetched).clone();
    print(&signed(operation, body, credentials));
}

/// Calls with the body in this file, and tells no more than the status.
pub(crate) fn call_quietly(operation: &str, file: &str) {
    let credentials = CREDENTIALS.get_or_init(fetched).clone();
    let body = std::fs::read_to_string(file).unwrap();
    let url = variable("AWS_ENDPOINT_URL_KMS");
    let request = signed(operation, &body, credentials);
    let (status, _) = exchange(split(&url).0, request.as_bytes());
    println!("status {status}");
}

/// The same without a signature, of the local API's own calls.
pub(crate) fn call_api_quietly(path: &str, file: &str) {
    let body = std::fs::read_to_string(file).unwrap();
    let host = "198.18.0.1:7070";
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nEnclave-Api: 1\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let (status, _) = exchange(host, request.as_bytes());
    println!("status {status}");
}

/// Calls with other credentials.
pub(crate) fn call_as(id: &str, secret: &str, operation: &str, body: &str) {
    print(&signed(
        operation,
        body,
        Credentials::new(id, secret, None, None, "test"),
    ));
}

/// Calls with a secret of its own under the access key that was fetched.
pub(crate) fn call_with(secret: &str, operation: &str, body: &str) {
    let id = CREDENTIALS.get_or_init(fetched).access_key_id().to_owned();
    print(&signed(
        operation,
        body,
        Credentials::new(id, secret, None, None, "test"),
    ));
}

/// Calls without a signature.
pub(crate) fn call_unsigned(operation: &str, body: &str) {
    let url = variable("AWS_ENDPOINT_URL_KMS");
    let (host, path) = split(&url);
    print(&format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nEnclave-Api: 1\r\nX-Amz-Target: TrentService.{operation}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
}

/// So many calls at the same time.
pub(crate) fn call_together(count: u32, operation: &str, body: &str) {
    CREDENTIALS.get_or_init(fetched);
    std::thread::scope(|threads| {
        for _ in 0..count {
            threads.spawn(|| call(operation, body));
        }
    });
}

fn signed(operation: &str, body: &str, credentials: Credentials) -> String {
    let url = variable("AWS_ENDPOINT_URL_KMS");
    let (host, _) = split(&url);
    // With a slash at the end, as the SDK for Rust has it.
    let url = format!("{url}/");
    let (_, path) = split(&url);
    let target = format!("TrentService.{operation}");
    let headers = [
        ("host", host),
        ("content-type", "application/x-amz-json-1.1"),
        ("x-amz-target", &target),
    ];
    let identity = credentials.into();
    let region = variable("AWS_REGION");
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(&region)
        .name("kms")
        .time(SystemTime::now())
        .settings(SigningSettings::default())
        .build()
        .unwrap();
    let signable = SignableRequest::new(
        "POST",
        &url,
        headers.into_iter(),
        SignableBody::Bytes(body.as_bytes()),
    );
    let signed = sign(signable.unwrap(), &parameters.into()).unwrap();
    let (instructions, _) = signed.into_parts();
    let lines: String = headers
        .into_iter()
        .chain(instructions.headers())
        .flat_map(|(name, value)| [name, ": ", value, "\r\n"])
        .collect();
    format!(
        "POST {path} HTTP/1.1\r\nContent-Length: {}\r\n{lines}\r\n{body}",
        body.len()
    )
}

fn print(request: &str) {
    let url = variable("AWS_ENDPOINT_URL_KMS");
    let (status, body) = exchange(split(&url).0, request.as_bytes());
    println!("api {status} {}", STANDARD.encode(body));
}
