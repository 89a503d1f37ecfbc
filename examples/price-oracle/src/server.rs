//! The HTTP service.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use serde_json::json;
use time::OffsetDateTime;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::enclave_api::{ApiError, EnclaveApi};
use crate::key::SigningKey;
use crate::probe::Probe;
use crate::quote::Pair;
use crate::source::{Source, SourceError};

/// Most connections at once; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 64;
/// Largest request head, in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// How long a client may take to send a request's head, idle time included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long open requests may take after the service was told to end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(4);
/// How long no connection is accepted after the system had no room for one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Largest nonce of an attestation document, in bytes (the NSM's limit).
const MAX_NONCE: usize = 512;

/// What the service works with.
pub struct Service {
    /// The key that signs quotes.
    pub key: SigningKey,
    /// Where prices come from.
    pub source: Source,
    /// Where attestation documents come from.
    pub api: EnclaveApi,
    /// The attempts of `/probe-egress`.
    pub probe: Probe,
}

type Answer = Response<Full<Bytes>>;

impl Service {
    /// Serves `listener` until `stop` is done, then lets open requests end.
    pub async fn serve(self, listener: TcpListener, stop: impl Future<Output = ()>) {
        let service = Arc::new(self);
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let (drain, draining) = watch::channel(false);
        let mut connections = JoinSet::new();
        let mut stop = pin!(stop);
        loop {
            let accepted = tokio::select! {
                () = &mut stop => break,
                accepted = accept(&listener, &room) => accepted,
                Some(_) = connections.join_next() => continue,
            };
            match accepted {
                Ok((stream, permit)) => {
                    let connection = serve_connection(service.clone(), stream, draining.clone());
                    connections.spawn(async move {
                        connection.await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    warn!(%error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        drain.send_replace(true);
        let drained = async { while connections.join_next().await.is_some() {} };
        if timeout(DRAIN_TIMEOUT, drained).await.is_err() {
            warn!(open = connections.len(), "open connections were cut");
        }
    }

    async fn route(&self, request: &Request<Incoming>) -> Answer {
        let path = request.uri().path();
        let known = matches!(path, "/health" | "/attestation" | "/probe-egress")
            || path.starts_with("/quote/");
        if !known {
            return failure(StatusCode::NOT_FOUND, &"there is nothing at this path");
        }
        if request.method() != Method::GET {
            let mut answer = failure(StatusCode::METHOD_NOT_ALLOWED, &"only GET is served");
            answer
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET"));
            return answer;
        }
        match path {
            "/health" => success(&json!({ "status": "ok" })),
            "/attestation" => self.attestation(request.uri().query()).await,
            "/probe-egress" => success(&self.probe.run().await),
            _ => self.quote(path.trim_start_matches("/quote/")).await,
        }
    }

    async fn quote(&self, pair: &str) -> Answer {
        let pair: Pair = match pair.parse() {
            Ok(pair) => pair,
            Err(error) => return failure(StatusCode::BAD_REQUEST, &error),
        };
        let quote = match self.source.fetch(&pair).await {
            Ok(quote) => quote,
            Err(error) => {
                warn!(%error, "no quote");
                return failure(status_of(&error), &error);
            }
        };
        match quote.sign(OffsetDateTime::now_utc(), &self.key) {
            Ok(signed) => success(&signed),
            Err(error) => failure(StatusCode::INTERNAL_SERVER_ERROR, &error),
        }
    }

    async fn attestation(&self, query: Option<&str>) -> Answer {
        let nonce = query
            .and_then(|query| query.strip_prefix("nonce="))
            .and_then(|nonce| hex::decode(nonce).ok())
            .filter(|nonce| (1..=MAX_NONCE).contains(&nonce.len()));
        let Some(nonce) = nonce else {
            return failure(
                StatusCode::BAD_REQUEST,
                &format!(
                    "ask for /attestation?nonce=HEX, with a fresh nonce of 1 to {MAX_NONCE} bytes"
                ),
            );
        };
        match self
            .api
            .attestation(&nonce, self.key.public_key_der())
            .await
        {
            Ok(document) => answer(StatusCode::OK, "application/cbor", document),
            Err(error) => {
                warn!(%error, "no attestation document");
                let status = match error {
                    ApiError::TimedOut => StatusCode::GATEWAY_TIMEOUT,
                    _ => StatusCode::BAD_GATEWAY,
                };
                failure(status, &error)
            }
        }
    }
}

/// Waits for room, then for a connection.
async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let Ok(permit) = room.clone().acquire_owned().await else {
        // The semaphore is never closed.
        return pending().await;
    };
    let (stream, _) = listener.accept().await?;
    Ok((stream, permit))
}

async fn serve_connection(
    service: Arc<Service>,
    stream: TcpStream,
    mut draining: watch::Receiver<bool>,
) {
    let respond = service_fn(move |request| {
        let service = service.clone();
        async move { Ok::<_, Infallible>(respond(&service, &request).await) }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), respond)
    );
    // A client that breaks off harms nobody but itself.
    let _ = tokio::select! {
        result = connection.as_mut() => result,
        () = until_set(&mut draining) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
}

async fn until_set(flag: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which ends the waiting as well.
    let _ = flag.wait_for(|set| *set).await;
}

async fn respond(service: &Service, request: &Request<Incoming>) -> Answer {
    let start = Instant::now();
    let answer = service.route(request).await;
    info!(
        method = %request.method(),
        path = request.uri().path(),
        status = answer.status().as_u16(),
        took_us = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX),
        "request"
    );
    answer
}

fn status_of(error: &SourceError) -> StatusCode {
    match error {
        SourceError::TimedOut { .. } => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::BAD_GATEWAY,
    }
}

fn success(body: &impl Serialize) -> Answer {
    match serde_json::to_vec(body) {
        Ok(body) => answer(StatusCode::OK, "application/json", body.into()),
        Err(error) => failure(StatusCode::INTERNAL_SERVER_ERROR, &error),
    }
}

fn failure(status: StatusCode, reason: &impl ToString) -> Answer {
    let body = json!({ "error": reason.to_string() }).to_string();
    answer(status, "application/json", body.into())
}

fn answer(status: StatusCode, content_type: &'static str, body: Bytes) -> Answer {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
