//! Signature Version 4.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::identity::Identity;
use aws_smithy_types::body::SdkBody;

use crate::endpoint::Service;
use crate::request::Body;

/// Adds the signature's headers to a request whose body is `body`.
pub(crate) fn sign_request(
    request: &mut http::Request<SdkBody>,
    body: &Body,
    service: Service,
    region: &str,
    credentials: Credentials,
    time: SystemTime,
) -> Result<(), String> {
    let mut settings = SigningSettings::default();
    if service == Service::S3 {
        // It takes keys as they are, and wants the body's digest as a header.
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    }
    let identity = Identity::from(credentials);
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name(service.name())
        .time(time)
        .settings(settings)
        .build()
        .map_err(|error| error.to_string())?;
    let headers: Vec<_> = request
        .headers()
        .iter()
        .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
        .collect();
    let signable_body = match body {
        Body::Bytes(bytes) => SignableBody::Bytes(bytes),
        Body::File { sha256, .. } => SignableBody::Precomputed(hex::encode(sha256)),
    };
    let signable = SignableRequest::new(
        request.method().as_str(),
        request.uri().to_string(),
        headers.into_iter(),
        signable_body,
    )
    .map_err(|error| error.to_string())?;
    let (instructions, _signature) = sign(signable, &parameters.into())
        .map_err(|error| error.to_string())?
        .into_parts();
    instructions.apply_to_request_http1x(request);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use serde::Deserialize;

    use super::*;

    /// A request, and the headers with which botocore 1.43.11 has signed it.
    #[derive(Deserialize)]
    struct Case {
        service: String,
        method: String,
        url: String,
        headers: Vec<(String, String)>,
        body: String,
        token: Option<String>,
        time: u64,
        authorization: String,
    }

    #[test]
    fn signatures_are_those_of_botocore() {
        let cases: Vec<Case> =
            serde_json::from_str(include_str!("../tests/signatures.json")).unwrap();
        for case in cases {
            let service = Service::ALL
                .into_iter()
                .find(|service| service.name() == case.service)
                .unwrap();
            let body = Body::Bytes(Bytes::from(case.body.clone()));
            let mut request = http::Request::builder()
                .method(case.method.as_str())
                .uri(&case.url);
            for (name, value) in &case.headers {
                request = request.header(name, value);
            }
            let mut request = request.body(SdkBody::empty()).unwrap();
            let credentials = Credentials::new(
                "AKIDEXAMPLE",
                "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
                case.token.clone(),
                None,
                "test",
            );
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(case.time);
            sign_request(&mut request, &body, service, "us-west-2", credentials, time).unwrap();
            let authorization = request.headers()["authorization"].to_str().unwrap();
            assert_eq!(authorization, case.authorization, "{}", case.url);
            let token = request.headers().get("x-amz-security-token");
            assert_eq!(
                token.map(|token| token.to_str().unwrap()),
                case.token.as_deref()
            );
        }
    }

    #[test]
    fn a_file_is_signed_as_its_bytes_are() {
        let authorization = |body: &Body| {
            let mut request = http::Request::put("https://b.s3.us-west-2.amazonaws.com/k")
                .body(SdkBody::empty())
                .unwrap();
            let credentials = Credentials::new("A", "s", None, None, "test");
            let time = SystemTime::UNIX_EPOCH;
            sign_request(
                &mut request,
                body,
                Service::S3,
                "us-west-2",
                credentials,
                time,
            )
            .unwrap();
            request.headers()["authorization"].clone()
        };
        // The SHA-256 of nothing.
        let sha256 = [
            0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f,
            0xb9, 0x24, 0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b,
            0x78, 0x52, 0xb8, 0x55,
        ];
        let file = Body::File {
            path: "x".into(),
            length: 0,
            sha256,
        };
        assert_eq!(
            authorization(&file),
            authorization(&Body::Bytes(Bytes::new()))
        );
    }
}
