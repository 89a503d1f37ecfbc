//! The local API: attestation and random bytes for the workload, as HTTP on
//! loopback and on a Unix socket.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use link::control::{MAX_NONCE, MAX_PUBLIC_KEY};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

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
/// Memory for what has been received of a connection, and what is to be sent.
const MAX_BUFFER: usize = 16 * 1024;
/// Most connections at a time; a further one waits.
const MAX_CONNECTIONS: usize = 64;
/// One request and its answer.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
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
    tokio::spawn(async move {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            let accepted = tokio::select! {
                accepted = tcp.accept() => {
                    accepted.map(|(stream, _)| spawn(stream, nsm.clone(), place))
                }
                accepted = unix.accept() => {
                    accepted.map(|(stream, _)| spawn(stream, nsm.clone(), place))
                }
            };
            if accepted.is_err() {
                sleep(ACCEPT_PAUSE).await;
            }
        }
    });
    Ok(())
}

fn spawn<S>(stream: S, nsm: SecurityModule, place: OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    tokio::spawn(async move {
        let _place = place;
        let service = service_fn(|request| {
            let nsm = nsm.clone();
            async move { Ok::<_, Infallible>(respond(request, &nsm).await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .keep_alive(false)
            .max_buf_size(MAX_BUFFER)
            .serve_connection(TokioIo::new(stream), service);
        // A client that breaks the connection off, or takes too long, needs no answer.
        let _ = timeout(CONNECTION_TIMEOUT, connection).await;
    });
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
        .map_err(|error| {
            if error.is::<LengthLimitError>() {
                let reason = format!("the body has more than {MAX_BODY} bytes");
                return (StatusCode::PAYLOAD_TOO_LARGE, reason);
            }
            bad(format!("the body cannot be read: {error}"))
        })?
        .to_bytes();
    let request: AttestationRequest = if body.is_empty() {
        AttestationRequest::default()
    } else {
        serde_json::from_slice(&body)
            .map_err(|error| bad(format!("the body is not understood: {error}")))?
    };
    let nonce = decode::<MAX_NONCE>("nonce", request.nonce)?;
    let user_data = decode::<MAX_NONCE>("user_data", request.user_data)?;
    let public_key = decode::<MAX_PUBLIC_KEY>("public_key", request.public_key)?;
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

fn decode<const MAX: usize>(
    name: &str,
    text: Option<String>,
) -> Result<Option<link::Bytes<MAX>>, Failure> {
    text.map(|text| {
        let bytes = STANDARD
            .decode(text)
            .map_err(|error| bad(format!("{name} is not base64: {error}")))?;
        link::Bytes::new(bytes).ok_or_else(|| bad(format!("{name} has more than {MAX} bytes")))
    })
    .transpose()
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
