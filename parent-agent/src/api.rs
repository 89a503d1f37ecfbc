//! The local API: HTTP/1.1 on the enclave's control socket.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/status` | a [`Status`](crate::status::Status) |
//! | `GET /metrics` | the same for Prometheus ([`metrics`]) |
//! | `POST /v1/attest`, [`AttestRequest`] | the document, `application/cbor` |
//! | `POST /v1/secrets`, [`SecretRequest`] | `{}`, once the enclave has opened the secret |
//! | `POST /v1/keys`, [`KeysRequest`] | what came of the step, `application/octet-stream` |
//! | `POST /v1/stop`, [`StopRequest`] | an [`EndResponse`], once the enclave has ended |
//! | `POST /v1/detach` | `{}`, once the agent is about to leave the enclave to the next |
//!
//! A refusal is an [`ErrorResponse`] with a status from 400 on. The socket lies
//! in a folder that only its owner can enter: whoever can connect may use it.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use enclave_host::state::CONTROL_SOCKET;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use link::control::{KeyStep, MAX_HAND_OVER, MAX_NONCE, MAX_SEALED_SECRET};
use log_sinks::losses::LostRecords;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::enclave::{Cause, Code, End, Phase};
use crate::event::{DetachError, Event, Question, RequestError};
use crate::metrics;
use crate::socket::{SocketError, remove_stale};
use crate::status::Board;
use crate::supervisor::Outcome;

/// Most connections at a time; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 32;
/// Largest request body, in bytes.
const MAX_BODY: usize = 16 * 1024;
/// Largest body with a sealed secret, in bytes: it in base64, with room.
const MAX_SECRET_BODY: usize = MAX_SEALED_SECRET / 3 * 4 + 1024;
/// Largest body with what enclaves hand to each other, in bytes: it in base64, with room.
const MAX_KEYS_BODY: usize = MAX_HAND_OVER / 3 * 4 + 1024;
/// How much of a larger one is read all the same, so that its sender reads the
/// refusal instead of a broken connection.
const MAX_DISCARDED: usize = 1024 * 1024;
/// How long a request may take to arrive.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long answers may take to leave once the enclave has ended.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// How long to wait after an error that the next connection would meet as well.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The body of `POST /v1/attest`. There is nothing but a nonce: what else stands in
/// the document is the enclave's choice.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttestRequest {
    /// The verifier's nonce in base64: 1 to 512 bytes.
    pub nonce: String,
    /// Whether the document is to carry the key that secrets are sealed to, and be made
    /// for that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sealing: bool,
}

/// The body of `POST /v1/secrets`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretRequest {
    /// What was sealed to the enclave, in base64.
    pub sealed: String,
}

/// The body of `POST /v1/keys`: a step of what is done with the seed of a family, each with
/// what another enclave has answered, in base64.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case", deny_unknown_fields)]
pub enum KeysRequest {
    /// Make the first seed.
    Create,
    /// Begin to give it.
    Challenge,
    /// Ask for it.
    Request {
        /// What the giver answered to `challenge`.
        challenge: String,
    },
    /// Give it.
    Give {
        /// What the receiver answered to `request`.
        request: String,
    },
    /// Take it.
    Take {
        /// What the giver answered to `give`.
        gift: String,
    },
}

/// The body of `POST /v1/stop`; may be left out.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopRequest {
    /// Milliseconds between the stop signal and SIGKILL, if not the manifest's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_ms: Option<u64>,
}

/// How an enclave ended.
#[derive(Debug, Serialize, Deserialize)]
pub struct EndResponse {
    /// Its cause.
    pub cause: Cause,
    /// The same for people.
    pub detail: String,
    /// The enclave's own code for it, if it gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// What `run` exits with.
    pub exit_code: u8,
    /// Log records that were lost in its life.
    #[serde(default)]
    pub lost: LostRecords,
}

/// Why a request was refused.
#[derive(Debug, Serialize, Deserialize)]
pub struct ErrorResponse {
    /// For people.
    pub error: String,
}

/// What the API answers from.
#[derive(Debug)]
pub struct Api {
    /// What is known of the enclave.
    pub board: Arc<Board>,
    /// Where the supervisor listens.
    pub events: mpsc::Sender<Event>,
    /// How the agent's time with the enclave ended, once it has.
    pub(crate) ended: watch::Receiver<Option<Outcome>>,
}

struct Refusal(StatusCode, String);

type Answer = Result<Response<Full<Bytes>>, Refusal>;

/// Listens on the control socket in an enclave's folder.
pub fn listen(directory: &Path) -> Result<UnixListener, SocketError> {
    let path = directory.join(CONTROL_SOCKET);
    remove_stale(&path);
    UnixListener::bind(&path).map_err(SocketError::at(path.display()))
}

impl Api {
    /// Serves requests until the enclave has ended and the answers have left.
    pub async fn serve(self: Arc<Self>, listener: UnixListener) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        let mut ended = self.ended.clone();
        loop {
            tokio::select! {
                accepted = accept(&listener, &places) => {
                    if let Some((stream, place)) = accepted {
                        while connections.try_join_next().is_some() {}
                        let api = Arc::clone(&self);
                        connections.spawn(async move {
                            api.connection(stream).await;
                            drop(place);
                        });
                    }
                }
                // An error means that the supervisor has ended.
                _ = ended.wait_for(Option::is_some) => break,
            }
        }
        let drained = async { while connections.join_next().await.is_some() {} };
        if timeout(DRAIN_TIMEOUT, drained).await.is_err() {
            debug!("connections to the local API are still open and are given up");
        }
    }

    async fn connection(self: Arc<Self>, stream: UnixStream) {
        let mut ended = self.ended.clone();
        let service = service_fn(move |request| {
            let api = Arc::clone(&self);
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(REQUEST_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let closed = tokio::select! {
            result = connection.as_mut() => Some(result),
            _ = ended.wait_for(Option::is_some) => None,
        };
        let result = if let Some(result) = closed {
            result
        } else {
            connection.as_mut().graceful_shutdown();
            connection.await
        };
        if let Err(error) = result {
            debug!(%error, "a connection to the local API has failed");
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let answer = match (request.method(), request.uri().path()) {
            (&Method::GET, "/v1/status") => Ok(json(StatusCode::OK, &self.board.read())),
            (&Method::GET, "/metrics") => Ok(metrics::response(&self.board.read())),
            (&Method::POST, "/v1/attest") => self.attest(request).await,
            (&Method::POST, "/v1/secrets") => self.put_secret(request).await,
            (&Method::POST, "/v1/keys") => self.keys(request).await,
            (&Method::POST, "/v1/stop") => self.stop(request).await,
            (&Method::POST, "/v1/detach") => self.detach().await,
            (_, "/v1/status" | "/metrics" | "/v1/attest" | "/v1/secrets" | "/v1/keys" | "/v1/stop" | "/v1/detach") => Err(Refusal(
                StatusCode::METHOD_NOT_ALLOWED,
                "use GET for /v1/status and /metrics, and POST for /v1/attest, /v1/secrets, /v1/keys, /v1/stop and /v1/detach".to_owned(),
            )),
            (_, path) => Err(Refusal(
                StatusCode::NOT_FOUND,
                format!("there is no {path}: use /v1/status, /metrics, /v1/attest, /v1/secrets, /v1/keys, /v1/stop or /v1/detach"),
            )),
        };
        answer.unwrap_or_else(|Refusal(status, error)| json(status, &ErrorResponse { error }))
    }

    async fn attest(&self, request: Request<Incoming>) -> Answer {
        let AttestRequest {
            nonce: text,
            sealing,
        } = read(request, MAX_BODY).await?;
        let nonce = nonce(&text)?;
        let document = self.ask(if sealing {
            Question::SealingChallenge(nonce)
        } else {
            Question::Challenge(nonce)
        });
        Ok(typed(StatusCode::OK, "application/cbor", document.await?))
    }

    async fn put_secret(&self, request: Request<Incoming>) -> Answer {
        let SecretRequest { sealed } = read(request, MAX_SECRET_BODY).await?;
        let sealed = bounded("sealed secret", &sealed)?;
        self.ask(Question::SealedSecret(sealed)).await?;
        Ok(json(StatusCode::OK, &serde_json::json!({})))
    }

    async fn keys(&self, request: Request<Incoming>) -> Answer {
        let step = match read(request, MAX_KEYS_BODY).await? {
            KeysRequest::Create => KeyStep::Create,
            KeysRequest::Challenge => KeyStep::Challenge,
            KeysRequest::Request { challenge } => KeyStep::Request {
                challenge: bounded("challenge", &challenge)?,
            },
            KeysRequest::Give { request } => KeyStep::Give {
                request: bounded("request", &request)?,
            },
            KeysRequest::Take { gift } => KeyStep::Take {
                gift: bounded("gift", &gift)?,
            },
        };
        let answer = self.ask(Question::Keys(step)).await?;
        Ok(typed(StatusCode::OK, "application/octet-stream", answer))
    }

    /// Has the enclave answer.
    async fn ask(&self, question: Question) -> Result<Vec<u8>, Refusal> {
        question.ask(&self.events).await.map_err(|error| {
            let status = match error {
                RequestError::NotConnected(_) | RequestError::Busy => {
                    StatusCode::SERVICE_UNAVAILABLE
                }
                RequestError::Refused(_) => StatusCode::BAD_GATEWAY,
                RequestError::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            };
            Refusal(status, error.to_string())
        })
    }

    async fn stop(&self, request: Request<Incoming>) -> Answer {
        let StopRequest { grace_ms } = read(request, MAX_BODY).await?;
        let stop = Event::Stop {
            grace: grace_ms.map(Duration::from_millis),
            insists: false,
        };
        // If nobody listens any more, the end has come already.
        let _ = self.events.send(stop).await;
        let mut ended = self.ended.clone();
        let outcome = match ended.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone(),
            Err(_) => None,
        };
        let Some(Outcome::Ended(end)) = outcome else {
            return Err(Refusal(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the agent ended before the enclave".to_owned(),
            ));
        };
        let End {
            cause,
            detail,
            code,
            ..
        } = end;
        let end = EndResponse {
            cause,
            detail,
            code,
            exit_code: cause.exit() as u8,
            lost: self.board.read().logs.lost_records(),
        };
        Ok(json(StatusCode::OK, &end))
    }

    async fn detach(&self) -> Answer {
        let (reply, answer) = oneshot::channel();
        // If nobody listens any more, nobody answers either.
        let _ = self.events.send(Event::Detach(reply)).await;
        match answer.await {
            Ok(Ok(())) => Ok(json(StatusCode::OK, &serde_json::json!({}))),
            Ok(Err(error)) => Err(Refusal(StatusCode::CONFLICT, error.to_string())),
            Err(_) => Err(Refusal(
                StatusCode::CONFLICT,
                DetachError::NotRunning(Phase::Ended).to_string(),
            )),
        }
    }
}

async fn accept(
    listener: &UnixListener,
    places: &Arc<Semaphore>,
) -> Option<(UnixStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, place)),
        Err(error) => {
            warn!(%error, "cannot accept a connection to the local API");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// Reads a body of JSON; an empty one stands for `{}`.
async fn read<T: DeserializeOwned>(request: Request<Incoming>, limit: usize) -> Result<T, Refusal> {
    let body = match timeout(REQUEST_TIMEOUT, read_body(request.into_body(), limit)).await {
        Ok(body) => body?,
        Err(_) => return Err(bad("the body did not arrive in time".to_owned())),
    };
    let bytes = if body.is_empty() {
        b"{}"
    } else {
        body.as_slice()
    };
    serde_json::from_slice(bytes)
        .map_err(|error| bad(format!("the body is not understood: {error}")))
}

async fn read_body(mut incoming: Incoming, limit: usize) -> Result<Vec<u8>, Refusal> {
    let (mut body, mut length) = (Vec::new(), 0);
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|error| bad(format!("the body cannot be read: {error}")))?;
        let data = frame.into_data().unwrap_or_default();
        length += data.len();
        if length <= limit {
            body.extend_from_slice(&data);
        } else if length > MAX_DISCARDED {
            break;
        }
    }
    if length > limit {
        return Err(Refusal(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body has more than {limit} bytes"),
        ));
    }
    Ok(body)
}

/// Bytes that are given in base64.
fn decode(what: &str, base64: &str) -> Result<Vec<u8>, Refusal> {
    STANDARD
        .decode(base64)
        .map_err(|error| bad(format!("the {what} is not base64: {error}")))
}

/// The same, for a message that has room for so many.
fn bounded<const MAX: usize>(what: &str, base64: &str) -> Result<link::Bytes<MAX>, Refusal> {
    link::Bytes::new(decode(what, base64)?)
        .ok_or_else(|| bad(format!("the {what} has more than {MAX} bytes")))
}

fn nonce(base64: &str) -> Result<link::Bytes<MAX_NONCE>, Refusal> {
    let bytes = decode("nonce", base64)?;
    let length = bytes.len();
    link::Bytes::new(bytes)
        .filter(|bytes| !bytes.is_empty())
        .ok_or_else(|| {
            bad(format!(
                "the nonce has {length} bytes: give 1 to {MAX_NONCE}"
            ))
        })
}

fn bad(error: String) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, error)
}

fn json(status: StatusCode, body: &impl Serialize) -> Response<Full<Bytes>> {
    let bytes = serde_json::to_vec(body).expect("nothing that JSON cannot express");
    typed(status, "application/json", bytes)
}

fn typed(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}
