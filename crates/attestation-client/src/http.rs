//! One HTTP/1.1 request, with a bounded answer.

use std::convert::Infallible;
use std::future::pending;
use std::path::Path;
use std::pin::pin;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, LOCATION};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

use crate::dial::dial;
use crate::encoding::{MAX_ENCODED, decode_document};
use crate::endpoint::{Endpoint, Url};
use crate::error::FetchError;
use crate::tls::Tls;

/// Largest head of an answer, in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// Longest text of a server that is shown, in characters.
const MAX_SHOWN: usize = 300;

/// What a challenge is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    Enclave,
    SealingKey,
}

/// What came from an endpoint.
pub(crate) struct Answer {
    pub(crate) document: Vec<u8>,
    /// The `SubjectPublicKeyInfo` of the server's certificate, DER.
    pub(crate) server_key: Option<Vec<u8>>,
}

/// How a service says why it refuses.
#[derive(Deserialize)]
struct Refusal {
    error: String,
}

/// Asks a service: `GET URL?nonce=HEX`.
pub(crate) async fn get(
    endpoint: &Endpoint,
    url: &Url,
    tls: &Tls,
    nonce: &[u8],
) -> Result<Answer, FetchError> {
    if tls.is_attested() && !url.tls {
        return Err(FetchError::NoTls(endpoint.to_string()));
    }
    let request = Request::get(url.target(nonce))
        .header(HOST, &url.authority)
        .header(ACCEPT, "application/cbor, application/json, text/plain")
        .body(Full::default());
    let (response, server_key) = ask(endpoint, url, tls, request, MAX_ENCODED).await?;
    Ok(Answer {
        document: document(endpoint, response)?,
        server_key,
    })
}

/// Asks for what is at a URL: `GET URL`.
pub(crate) async fn resource(
    endpoint: &Endpoint,
    url: &Url,
    tls: &Tls,
    limit: usize,
) -> Result<Bytes, FetchError> {
    let request = Request::get(url.resource())
        .header(HOST, &url.authority)
        .header(ACCEPT, "application/jwk-set+json, application/json")
        .body(Full::default());
    let (response, _) = ask(endpoint, url, tls, request, limit).await?;
    body(endpoint, response)
}

/// Sends the request over a connection of its own; gives the key of a TLS server too.
async fn ask(
    endpoint: &Endpoint,
    url: &Url,
    tls: &Tls,
    request: hyper::http::Result<Request<Full<Bytes>>>,
    limit: usize,
) -> Result<(Response<Bytes>, Option<Vec<u8>>), FetchError> {
    let stream = dial(endpoint, &url.host, url.port).await?;
    if url.tls {
        let (stream, key) = tls.connect(&url.host, stream).await?;
        let response = exchange(endpoint, stream, request, limit).await?;
        return Ok((response, Some(key)));
    }
    Ok((exchange(endpoint, stream, request, limit).await?, None))
}

/// Asks a `parent-agent` on its control socket: `POST /v1/attest`.
pub(crate) async fn post(
    endpoint: &Endpoint,
    socket: &Path,
    nonce: &[u8],
    subject: Subject,
) -> Result<Answer, FetchError> {
    let nonce = STANDARD.encode(nonce);
    let question = match subject {
        Subject::SealingKey => serde_json::json!({ "nonce": nonce, "sealing": true }),
        Subject::Enclave => serde_json::json!({ "nonce": nonce }),
    };
    let response = agent(endpoint, socket, "/v1/attest", &question).await?;
    Ok(Answer {
        document: document(endpoint, response)?,
        server_key: None,
    })
}

/// Hands a sealed secret to a `parent-agent`: `POST /v1/secrets`.
pub(crate) async fn put_secret(
    endpoint: &Endpoint,
    socket: &Path,
    sealed: &[u8],
) -> Result<(), FetchError> {
    let secret = serde_json::json!({ "sealed": STANDARD.encode(sealed) });
    let response = agent(endpoint, socket, "/v1/secrets", &secret).await?;
    body(endpoint, response).map(drop)
}

/// Asks a `parent-agent` something.
async fn agent(
    endpoint: &Endpoint,
    socket: &Path,
    path: &str,
    question: &serde_json::Value,
) -> Result<Response<Bytes>, FetchError> {
    let request = Request::post(path)
        .header(HOST, "localhost")
        .header(CONTENT_TYPE, "application/json")
        .body(Full::from(question.to_string()));
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|error| FetchError::Connect {
            endpoint: endpoint.to_string(),
            reason: error.to_string(),
        })?;
    exchange(endpoint, stream, request, MAX_ENCODED).await
}

/// Sends the request, and reads the answer. The caller sets the deadline.
async fn exchange<S>(
    endpoint: &Endpoint,
    stream: S,
    request: hyper::http::Result<Request<Full<Bytes>>>,
    limit: usize,
) -> Result<Response<Bytes>, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |reason: String| FetchError::Exchange {
        endpoint: endpoint.to_string(),
        reason,
    };
    let request = request.map_err(|error| failed(error.to_string()))?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(error.to_string()))?;
    let exchange = async {
        let answer = sender.send_request(request).await;
        let (head, body) = answer
            .map_err(|error| failed(error.to_string()))?
            .into_parts();
        let body = Limited::new(body, limit).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                return FetchError::TooLarge {
                    endpoint: endpoint.to_string(),
                    limit,
                };
            }
            failed(error.to_string())
        })?;
        Ok(Response::from_parts(head, body.to_bytes()))
    };
    // The connection only drives the exchange, which learns of its failures.
    let connection = async {
        let _ = connection.await;
        pending::<Infallible>().await
    };
    let (exchange, connection) = (pin!(exchange), pin!(connection));
    tokio::select! {
        result = exchange => result,
        never = connection => match never {},
    }
}

/// The document in an answer.
fn document(endpoint: &Endpoint, response: Response<Bytes>) -> Result<Vec<u8>, FetchError> {
    decode_document(&body(endpoint, response)?).map_err(|source| FetchError::NoDocument {
        endpoint: endpoint.to_string(),
        source,
    })
}

/// What is answered, if it is no refusal.
fn body(endpoint: &Endpoint, response: Response<Bytes>) -> Result<Bytes, FetchError> {
    let (head, body) = response.into_parts();
    if head.status == StatusCode::OK {
        return Ok(body);
    }
    let endpoint = endpoint.to_string();
    if head.status.is_redirection()
        && let Some(location) = head.headers.get(LOCATION)
    {
        return Err(FetchError::Redirected {
            endpoint,
            location: plain_text::plain_start(
                &String::from_utf8_lossy(location.as_bytes()),
                MAX_SHOWN,
            ),
        });
    }
    let reason = match serde_json::from_slice(&body) {
        Ok(Refusal { error }) => plain_text::plain_start(&error, MAX_SHOWN),
        Err(_) => head
            .status
            .canonical_reason()
            .unwrap_or("no reason")
            .to_owned(),
    };
    Err(FetchError::Refused {
        endpoint,
        status: head.status.as_u16(),
        reason,
    })
}
