//! The local API: attestation and random bytes for the workload, as HTTP on
//! loopback and on a Unix socket.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};

use crate::error::{Doing, InitError};
use crate::security_module::SecurityModule;

/// Where the workload finds the API.
pub(crate) const URL: &str = "http://127.0.0.1:7070";
const PORT: u16 = 7070;
/// The same API as a Unix socket.
const SOCKET: &str = "/run/enclave/api.sock";
/// Largest request body in bytes: nonce, user data and key in base64, with room.
const MAX_BODY: usize = 8 * 1024;
/// Most random bytes of one request.
const MAX_RANDOM: usize = 4096;
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct AttestationRequest {
    nonce: Option<String>,
    user_data: Option<String>,
    public_key: Option<String>,
}

/// Binds both addresses and serves them until the enclave ends.
pub(crate) async fn start(nsm: SecurityModule) -> Result<(), InitError> {
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT))
        .await
        .doing(|| format!("listening on port {PORT}"))?;
    let unix = UnixListener::bind(SOCKET).doing(|| format!("listening on {SOCKET}"))?;
    std::fs::set_permissions(SOCKET, std::fs::Permissions::from_mode(0o666))
        .doing(|| SOCKET.to_owned())?;
    let for_unix = nsm.clone();
    tokio::spawn(async move {
        loop {
            match tcp.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(serve(stream, nsm.clone()))),
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    });
    tokio::spawn(async move {
        loop {
            match unix.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(serve(stream, for_unix.clone()))),
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    });
    Ok(())
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, nsm: SecurityModule) {
    let service = service_fn(|request| {
        let nsm = nsm.clone();
        async move { Ok::<_, Infallible>(respond(request, &nsm).await) }
    });
    // A client that breaks the connection off needs no answer.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn respond(request: Request<Incoming>, nsm: &SecurityModule) -> Response<Full<Bytes>> {
    let result = match (request.method(), request.uri().path()) {
        (&Method::POST, "/v1/attestation") => attestation(request, nsm)
            .await
            .map(|body| (body, "application/cbor")),
        (&Method::GET, "/v1/random") => random(request.uri().query(), nsm)
            .await
            .map(|body| (body, "application/octet-stream")),
        _ => Err((
            StatusCode::NOT_FOUND,
            "there are POST /v1/attestation and GET /v1/random?bytes=N".to_owned(),
        )),
    };
    let (status, body, kind) = match result {
        Ok((body, kind)) => (StatusCode::OK, body, kind),
        Err((status, error)) => {
            let body = serde_json::json!({ "error": error }).to_string();
            (status, body.into_bytes(), "application/json")
        }
    };
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

type Failure = (StatusCode, String);

async fn attestation(request: Request<Incoming>, nsm: &SecurityModule) -> Result<Vec<u8>, Failure> {
    let body = Limited::new(request.into_body(), MAX_BODY).collect().await;
    let body = body
        .map_err(|error| bad(format!("the body cannot be read: {error}")))?
        .to_bytes();
    let request: AttestationRequest = if body.is_empty() {
        AttestationRequest::default()
    } else {
        serde_json::from_slice(&body)
            .map_err(|error| bad(format!("the body is not understood: {error}")))?
    };
    let decode = |name: &str, text: Option<String>| {
        text.map(|text| {
            STANDARD
                .decode(text)
                .map_err(|error| bad(format!("{name} is not base64: {error}")))
        })
        .transpose()
    };
    let nonce = decode("nonce", request.nonce)?;
    let user_data = decode("user_data", request.user_data)?;
    let public_key = decode("public_key", request.public_key)?;
    nsm.run(move |nsm| {
        nsm.attestation(
            user_data.as_deref(),
            nonce.as_deref(),
            public_key.as_deref(),
        )
    })
    .await
    .map_err(|error| failed(&error))
}

async fn random(query: Option<&str>, nsm: &SecurityModule) -> Result<Vec<u8>, Failure> {
    let count = query
        .and_then(|query| query.strip_prefix("bytes="))
        .and_then(|count| count.parse().ok())
        .filter(|count| (1..=MAX_RANDOM).contains(count))
        .ok_or_else(|| bad(format!("give bytes=N with N from 1 to {MAX_RANDOM}")))?;
    nsm.run(move |nsm| {
        let mut bytes = Vec::with_capacity(count);
        while bytes.len() < count {
            bytes.extend(nsm.random()?);
        }
        bytes.truncate(count);
        Ok(bytes)
    })
    .await
    .map_err(|error| failed(&error))
}

fn bad(error: String) -> Failure {
    (StatusCode::BAD_REQUEST, error)
}

fn failed(error: &attestation::nsm::NsmError) -> Failure {
    let status = match error {
        attestation::nsm::NsmError::Refused(_) => StatusCode::BAD_REQUEST,
        _ => StatusCode::BAD_GATEWAY,
    };
    (status, error.to_string())
}
