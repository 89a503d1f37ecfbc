//! Calls over HTTP: signed as AWS's SDKs sign them, and those of the local API.

use std::time::SystemTime;

use anyhow::{Context, ensure};
use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::cloud::REGION;

/// An operation of KMS's, at a path of some host.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) authority: &'a str,
    pub(crate) path: &'a str,
}

impl Place<'_> {
    /// A signed request.
    pub(crate) fn request(
        self,
        operation: &str,
        body: &Bytes,
        credentials: &Credentials,
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
            .time(SystemTime::now())
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

/// A connection that carries one request after the other.
pub(crate) async fn connection<S>(stream: S) -> anyhow::Result<SendRequest<Full<Bytes>>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, driven) = handshake(TokioIo::new(stream)).await?;
    // How it ends is the business of who sends over it.
    tokio::spawn(async move {
        let _ = driven.await;
    });
    Ok(sender)
}

/// The body of an answer of status 200.
pub(crate) async fn answer(
    connection: &mut SendRequest<Full<Bytes>>,
    request: Request<Bytes>,
) -> anyhow::Result<Bytes> {
    connection.ready().await?;
    let (head, body) = connection
        .send_request(request.map(Full::new))
        .await?
        .into_parts();
    let body = body.collect().await.context("no whole answer")?.to_bytes();
    ensure!(
        head.status == StatusCode::OK,
        "{}: {}",
        head.status,
        String::from_utf8_lossy(&body)
    );
    Ok(body)
}
