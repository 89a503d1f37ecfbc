//! Requests to KMS, signed as AWS's SDKs sign them.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use bytes::Bytes;
use hyper::Request;

use crate::kms::REGION;

/// Where KMS is called.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The host's name, with its port where that belongs to the name.
    pub authority: &'a str,
    /// The path.
    pub path: &'a str,
}

impl Place<'_> {
    /// A request for an operation such as `Decrypt`, signed with these credentials at this
    /// time.
    pub fn request(
        self,
        operation: &str,
        body: &Bytes,
        credentials: &Credentials,
        time: SystemTime,
    ) -> anyhow::Result<Request<Bytes>> {
        let target = format!("TrentService.{operation}");
        let headers = [
            ("host", self.authority),
            ("content-type", "application/x-amz-json-1.1"),
            ("x-amz-target", &target),
        ];
        let identity = credentials.clone().into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(REGION)
            .name("kms")
            .time(time)
            .settings(SigningSettings::default())
            .build()?;
        let signable = SignableRequest::new(
            "POST",
            self.path,
            headers.into_iter(),
            SignableBody::Bytes(body),
        )?;
        let (signed, _) = sign(signable, &parameters.into())?.into_parts();
        let mut request = Request::post(self.path);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let mut request = request.body(body.clone())?;
        signed.apply_to_request_http1x(&mut request);
        Ok(request)
    }
}
