//! CloudWatch Logs as far as an agent uses it: a server on loopback that holds
//! what it is sent against the service's limits, hands the events to a check,
//! and fails when it is told to.
//!
//! It may stand in front of an emulator: what it accepts is then sent on, and
//! the emulator's answer is the answer.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, bail, ensure};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

/// Most events of one PutLogEvents call.
const MAX_EVENTS: usize = 10_000;
/// Most bytes of one call: every event counts its message and 26 more.
const MAX_BATCH_BYTES: usize = 1_048_576;
const EVENT_OVERHEAD: usize = 26;
/// Most milliseconds between the first and the last event of one call.
const MAX_SPAN_MS: i64 = 24 * 60 * 60 * 1000;

/// How the service fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It does not.
    None,
    /// Connections are closed without an answer.
    Down,
    /// Calls are refused as too many.
    Throttle,
    /// Calls end with an internal error.
    Error,
    /// Calls are not answered.
    Hang,
    /// Calls are carried out, and their answer is lost.
    LostAnswer,
}

impl Fault {
    /// Every way to fail.
    pub const ALL: [Self; 5] = [
        Self::Down,
        Self::Throttle,
        Self::Error,
        Self::Hang,
        Self::LostAnswer,
    ];
}

/// What has arrived.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// PutLogEvents calls that were carried out.
    pub batches: u64,
    /// Events in them, repeated ones among them.
    pub events: u64,
    /// How full those batches were, summed, in thousandths: of the limit of
    /// events or of bytes, whichever was nearer.
    pub fill: u64,
    /// Calls that failed on purpose.
    pub failed: u64,
}

/// Told of every event that is accepted: its stream, its time in milliseconds
/// since 1970, and its message.
pub type Check = Box<dyn FnMut(&str, i64, &str) -> anyhow::Result<()> + Send>;

/// The server.
pub struct CloudWatch {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    emulator: Option<SocketAddr>,
    state: Mutex<State>,
}

struct State {
    fault: Fault,
    counts: Counts,
    streams: BTreeSet<(String, String)>,
    groups: BTreeSet<String>,
    check: Check,
    /// The first breach of a limit or of the check.
    breach: Option<String>,
}

#[derive(Deserialize)]
struct PutLogEvents {
    #[serde(rename = "logGroupName")]
    group: String,
    #[serde(rename = "logStreamName")]
    stream: String,
    #[serde(rename = "logEvents")]
    events: Vec<LogEvent>,
}

#[derive(Deserialize)]
struct LogEvent {
    timestamp: i64,
    message: String,
}

impl CloudWatch {
    /// Serves on a free port of the loopback address, until the runtime ends.
    pub async fn start(emulator: Option<SocketAddr>, check: Check) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            emulator,
            state: Mutex::new(State {
                fault: Fault::None,
                counts: Counts::default(),
                streams: BTreeSet::new(),
                groups: BTreeSet::new(),
                check,
                breach: None,
            }),
        });
        let serving = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&serving);
                tokio::spawn(async move {
                    let service = service_fn(|request| answer(&shared, request));
                    // A client that goes away is none of our business.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Ok(Self { address, shared })
    }

    /// What `AWS_ENDPOINT_URL` is to be.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Fails in this way from now on.
    pub fn fail(&self, fault: Fault) {
        self.shared.state().fault = fault;
    }

    /// What has arrived so far; an error once a limit or the check was broken.
    pub fn counts(&self) -> anyhow::Result<Counts> {
        let state = self.shared.state();
        match &state.breach {
            Some(breach) => bail!("{breach}"),
            None => Ok(state.counts),
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("closed without an answer")]
struct Closed;

async fn answer(
    shared: &Shared,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Closed> {
    let target = request.headers().get("x-amz-target");
    let target = target.and_then(|target| target.to_str().ok());
    let action = target
        .and_then(|target| target.strip_prefix("Logs_20140328."))
        .unwrap_or_default()
        .to_owned();
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Closed)?.to_bytes();
    let fault = shared.state().fault;
    match fault {
        Fault::None | Fault::LostAnswer => {}
        Fault::Down => return shared.failed(Err(Closed)),
        Fault::Throttle => {
            let refusal = refuse(
                StatusCode::BAD_REQUEST,
                "ThrottlingException",
                "Rate exceeded",
            );
            return shared.failed(Ok(refusal));
        }
        Fault::Error => {
            let refusal = refuse(
                StatusCode::INTERNAL_SERVER_ERROR,
                "ServiceUnavailableException",
                "try again",
            );
            return shared.failed(Ok(refusal));
        }
        Fault::Hang => {
            shared.state().counts.failed += 1;
            std::future::pending::<Infallible>().await;
        }
    }
    let response = match shared.emulator {
        Some(emulator) => forward(emulator, Request::from_parts(head, Full::new(body.clone())))
            .await
            .map_err(|_| Closed)?,
        None => shared.carry_out(&action, &body),
    };
    if action == "PutLogEvents" && response.status().is_success() {
        shared.take(&body);
    }
    if fault == Fault::LostAnswer {
        return shared.failed(Err(Closed));
    }
    Ok(response)
}

impl Shared {
    fn failed<T>(&self, result: T) -> T {
        self.state().counts.failed += 1;
        result
    }

    /// The answers of the service itself.
    fn carry_out(&self, action: &str, body: &[u8]) -> Response<Full<Bytes>> {
        let mut state = self.state();
        if action == "PutLogEvents" {
            // Only the names are looked at: the events are taken afterwards.
            #[derive(Deserialize)]
            #[serde(rename_all = "camelCase")]
            struct Names {
                log_group_name: String,
                log_stream_name: String,
            }
            let names: Result<Names, _> = serde_json::from_slice(body);
            let known = names.is_ok_and(|names| {
                state
                    .streams
                    .contains(&(names.log_group_name, names.log_stream_name))
            });
            return if known {
                respond(StatusCode::OK, &json!({}))
            } else {
                not_found()
            };
        }
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |name: &str| {
            let text = body.get(name).and_then(Value::as_str);
            text.unwrap_or_default().to_owned()
        };
        let group = text("logGroupName");
        let created = match action {
            "CreateLogGroup" => state.groups.insert(group),
            "CreateLogStream" if !state.groups.contains(&group) => return not_found(),
            "CreateLogStream" => state.streams.insert((group, text("logStreamName"))),
            "PutRetentionPolicy" if state.groups.contains(&group) => true,
            "PutRetentionPolicy" => return not_found(),
            _ => {
                return refuse(StatusCode::BAD_REQUEST, "UnknownOperationException", action);
            }
        };
        if created {
            respond(StatusCode::OK, &json!({}))
        } else {
            refuse(
                StatusCode::BAD_REQUEST,
                "ResourceAlreadyExistsException",
                "it exists already",
            )
        }
    }

    /// Holds a batch that was carried out against the limits and the check.
    fn take(&self, body: &[u8]) {
        let mut state = self.state();
        if let Err(error) = state.take(body) {
            state.breach.get_or_insert(format!("{error:#}"));
        }
    }
}

impl State {
    fn take(&mut self, body: &[u8]) -> anyhow::Result<()> {
        let batch: PutLogEvents = serde_json::from_slice(body).context("PutLogEvents")?;
        let events = &batch.events;
        ensure!(
            batch.group.starts_with("/aws/ec2/enclave/"),
            "events for the group {:?}",
            batch.group
        );
        ensure!(
            (1..=MAX_EVENTS).contains(&events.len()),
            "{} events in one call",
            events.len()
        );
        let bytes: usize = events
            .iter()
            .map(|event| event.message.len() + EVENT_OVERHEAD)
            .sum();
        ensure!(bytes <= MAX_BATCH_BYTES, "{bytes} bytes in one call");
        ensure!(
            events.is_sorted_by_key(|event| event.timestamp),
            "events are not in the order of their times"
        );
        let span = events.last().map_or(0, |event| event.timestamp)
            - events.first().map_or(0, |event| event.timestamp);
        ensure!(span <= MAX_SPAN_MS, "{span} ms between events of one call");
        let fill = (events.len() * 1000 / MAX_EVENTS).max(bytes * 1000 / MAX_BATCH_BYTES);
        self.counts.batches += 1;
        self.counts.events += u64::try_from(events.len())?;
        self.counts.fill += u64::try_from(fill)?;
        for event in events {
            ensure!(!event.message.is_empty(), "an event without a message");
            (self.check)(&batch.stream, event.timestamp, &event.message)?;
        }
        Ok(())
    }
}

async fn forward(
    emulator: SocketAddr,
    request: Request<Full<Bytes>>,
) -> anyhow::Result<Response<Full<Bytes>>> {
    let stream = TcpStream::connect(emulator).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Response::from_parts(head, Full::new(body)))
}

fn not_found() -> Response<Full<Bytes>> {
    refuse(
        StatusCode::BAD_REQUEST,
        "ResourceNotFoundException",
        "The specified log group or stream does not exist.",
    )
}

fn refuse(status: StatusCode, kind: &str, message: &str) -> Response<Full<Bytes>> {
    respond(status, &json!({ "__type": kind, "message": message }))
}

fn respond(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    let json = hyper::header::HeaderValue::from_static("application/x-amz-json-1.1");
    response
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, json);
    response
}
