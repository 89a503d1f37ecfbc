//! Requests to the software KMS: without a signature whatever their headers say, they are
//! refused; signed, any body of any call is answered or refused for a reason that KMS has.

#![no_main]

use std::sync::LazyLock;
use std::time::SystemTime;

use attestation::Roots;
use aws_credential_types::Credentials as SigningCredentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use bytes::Bytes;
use fuzz::within;
use http::{HeaderValue, Request, StatusCode};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use software_kms::{Credentials, KeySpec, SoftwareKms};

/// Most memory that one input takes, in KiB.
const MEMORY_KIB: usize = 256;
/// Most bytes of an input that are used.
const MAX_INPUT: usize = 16 * 1024;
const REGION: &str = "eu-west-1";
const HOST: &str = "kms.test";
const CALLS: [&str; 13] = [
    "TrentService.Decrypt",
    "TrentService.DescribeKey",
    "TrentService.Encrypt",
    "TrentService.GenerateDataKey",
    "TrentService.GenerateDataKeyWithoutPlaintext",
    "TrentService.GenerateRandom",
    "TrentService.NoSuchCall",
    "TrentService.DeriveSharedSecret",
    "TrentService.GenerateDataKeyPair",
    "TrentService.GenerateDataKeyPairWithoutPlaintext",
    "TrentService.GetPublicKey",
    "TrentService.ReEncrypt",
    "TrentService.CreateKey",
];
/// Why a signed request may be refused.
const REFUSALS: [&str; 11] = [
    "AccessDeniedException",
    "IncorrectKeyException",
    "InvalidCiphertextException",
    "InvalidKeyUsageException",
    "LimitExceededException",
    "MalformedPolicyDocumentException",
    "NotFoundException",
    "SerializationException",
    "UnknownOperationException",
    "UnsupportedOperationException",
    "ValidationException",
];

static KMS: LazyLock<SoftwareKms> = LazyLock::new(|| {
    let roots = Roots::from_pem(include_bytes!("../test-root.pem")).expect("a root");
    let account = "123456789012".parse().expect("an account");
    let mut kms = SoftwareKms::new(REGION, account, roots);
    kms.admit(Credentials {
        access_key_id: "AKIDEXAMPLE".to_owned(),
        secret_access_key: "a secret".to_owned(),
        session_token: None,
        arn: "arn:aws:iam::123456789012:role/Enclave".to_owned(),
    })
    .expect("a role");
    let policy = r#"{"Version": "2012-10-17", "Statement": {"Effect": "Allow",
        "Principal": "*", "Action": "kms:*", "Resource": "*"}}"#;
    for spec in [KeySpec::SymmetricDefault, KeySpec::EccNistP256] {
        kms.create_key_of(spec, policy.parse().expect("a policy"))
            .expect("a key");
    }
    kms
});

fn request(call: &str, body: &[u8]) -> Request<Bytes> {
    Request::post("/")
        .header("host", HOST)
        .header("x-amz-target", call)
        .body(Bytes::copy_from_slice(body))
        .expect("a request")
}

fn signed(call: &str, body: &[u8]) -> Request<Bytes> {
    let identity = SigningCredentials::new("AKIDEXAMPLE", "a secret", None, None, "fuzz").into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(REGION)
        .name("kms")
        .time(SystemTime::now())
        .settings(SigningSettings::default())
        .build()
        .expect("all parameters");
    let headers = [("host", HOST), ("x-amz-target", call)];
    let signable =
        SignableRequest::new("POST", "/", headers.into_iter(), SignableBody::Bytes(body));
    let signed = sign(signable.expect("a request"), &parameters.into()).expect("a signature");
    let mut request = request(call, body);
    signed.into_parts().0.apply_to_request_http1x(&mut request);
    request
}

/// The first byte chooses a call. With its highest bit the rest is a signed body, without
/// it the values of `Authorization` and `X-Amz-Date` in a line each, and a body.
fn check(bytes: &[u8]) {
    let Some((&first, rest)) = bytes.split_first() else {
        return;
    };
    let call = CALLS[usize::from(first & 0x7f) % CALLS.len()];
    if first & 0x80 != 0 {
        let response = KMS.handle(&signed(call, rest));
        let answer: Value = serde_json::from_slice(response.body()).expect("JSON");
        if response.status() != StatusCode::OK {
            let name = answer["__type"].as_str().expect("a name");
            assert!(REFUSALS.contains(&name), "{answer}");
        }
        return;
    }
    let mut parts = rest.splitn(3, |&byte| byte == b'\n');
    let mut request = request(call, &[]);
    for name in ["authorization", "x-amz-date"] {
        if let Ok(value) = HeaderValue::from_bytes(parts.next().unwrap_or_default()) {
            request.headers_mut().insert(name, value);
        }
    }
    *request.body_mut() = Bytes::copy_from_slice(parts.next().unwrap_or_default());
    let response = KMS.handle(&request);
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    serde_json::from_slice::<Value>(response.body()).expect("JSON");
}

fuzz_target!(|bytes: &[u8]| {
    LazyLock::force(&KMS);
    within(MEMORY_KIB, || check(&bytes[..bytes.len().min(MAX_INPUT)]));
});
