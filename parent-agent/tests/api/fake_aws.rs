//! The services that the agent asks without an SDK crate, on one loopback port:
//! S3, Systems Manager, and the attestation gate as a Lambda function. It fails
//! as it is told to.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Sleep, sleep};

/// Bytes that come at a time where they come slowly, and the pause after them.
const PIECE: usize = 64 * 1024;
const PAUSE: Duration = Duration::from_millis(5);

/// How a request fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It does not.
    None,
    /// HTTP status, and AWS's code.
    Refused(u16, &'static str),
    /// The function itself has failed.
    Function,
    /// Half of the body comes, and the connection breaks.
    HalfWay,
    /// Half of the body comes, and then nothing more.
    Stalls,
    /// The body comes, in small pieces with pauses between them.
    Slow,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) objects: BTreeMap<String, Bytes>,
    pub(crate) parameters: BTreeMap<String, String>,
    /// What becomes of the next requests for objects' bytes; then nothing fails.
    pub(crate) object_faults: VecDeque<Fault>,
    /// The same for invocations.
    pub(crate) gate_faults: VecDeque<Fault>,
    /// The nonce that is asked for, in hexadecimal.
    pub(crate) nonce: Option<String>,
    /// What there is for a sealed secret, as the gate offers it.
    pub(crate) sealing: Option<Value>,
    /// It goes on offering that, whatever the outcome.
    pub(crate) keeps_sealing: bool,
    /// What the gate says to the next documents; then it accepts.
    pub(crate) verdicts: VecDeque<Value>,
    /// What the gate was asked.
    pub(crate) asked: Vec<Value>,
    /// The first byte of each range that was read.
    pub(crate) ranges: Vec<u64>,
    /// Answers do not say how long they are.
    pub(crate) hides_sizes: bool,
    /// Ranges that begin there or later stall.
    pub(crate) stalls_from: Option<usize>,
}

pub(crate) struct FakeAws {
    state: Arc<Mutex<State>>,
    endpoint: String,
    task: JoinHandle<()>,
}

impl Drop for FakeAws {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakeAws {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let state = Arc::clone(&shared);
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let state = Arc::clone(&state);
                        async move { Ok::<_, Infallible>(answer(request, &state).await) }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self {
            state,
            endpoint,
            task,
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// What the agent finds it by.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT_URL", self.endpoint.clone()),
            ("AWS_REGION", "us-west-2".to_owned()),
            ("AWS_ACCESS_KEY_ID", "AKID".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ]
    }

    /// Has an object, with its bucket's name before its key.
    pub(crate) fn hold(&self, object: &str, bytes: impl Into<Bytes>) {
        let object = object.to_owned();
        self.state().objects.insert(object, bytes.into());
    }

    /// An URL of an object.
    pub(crate) fn url(&self, object: &str) -> String {
        format!("{}/{object}", self.endpoint)
    }
}

async fn answer(request: Request<Incoming>, state: &Mutex<State>) -> Response<Content> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let path = parts.uri.path();
    let mut state = state.lock().unwrap();
    if parts.headers.contains_key("x-amz-target") {
        return parameter(&state, &body);
    }
    if path.starts_with("/2015-03-31/functions/gate/") {
        return gate(&mut state, &body);
    }
    let range = parts
        .headers
        .get("range")
        .map(|range| range.to_str().unwrap());
    object(&mut state, &path[1..], parts.method.as_str(), range)
}

fn refused(status: u16, code: &str) -> Response<Content> {
    Response::builder()
        .status(status)
        .header("x-amzn-errortype", code)
        .body(Content::from("{}"))
        .unwrap()
}

fn parameter(state: &State, body: &[u8]) -> Response<Content> {
    let name = serde_json::from_slice::<Value>(body).unwrap()["Name"]
        .as_str()
        .unwrap()
        .to_owned();
    match state.parameters.get(&name) {
        Some(value) => {
            let answer = json!({ "Parameter": { "Value": value } });
            Response::new(Content::from(answer.to_string()))
        }
        None => refused(400, "ParameterNotFound"),
    }
}

fn gate(state: &mut State, body: &[u8]) -> Response<Content> {
    match state.gate_faults.pop_front().unwrap_or(Fault::None) {
        Fault::Refused(status, code) => return refused(status, code),
        Fault::Function => {
            return Response::builder()
                .header("x-amz-function-error", "Unhandled")
                .body(Content::from(
                    r#"{"errorType":"Boom","errorMessage":"it broke"}"#,
                ))
                .unwrap();
        }
        _ => {}
    }
    let question: Value = serde_json::from_slice(body).unwrap();
    state.asked.push(question.clone());
    let answer = match question["action"].as_str().unwrap() {
        "challenge" => {
            let nonce = state.nonce.as_ref();
            json!({ "challenge": nonce.map(|nonce| json!({ "nonce": nonce, "expires_at": "2030-01-01T00:00:00Z" })), "sealing": state.sealing })
        }
        "seal_document" => {
            let accepted = json!({ "accepted": true, "message": "accepted" });
            let verdict = state.verdicts.pop_front().unwrap_or(accepted);
            if verdict["accepted"] == true {
                state.sealing = None;
            }
            verdict
        }
        "seal_outcome" => {
            if !state.keeps_sealing {
                state.sealing = None;
            }
            json!({ "noted": true, "message": "" })
        }
        "document" => {
            let verdict = state.verdicts.pop_front();
            let verdict = verdict.unwrap_or(json!({ "accepted": true, "message": "as asked" }));
            if verdict["accepted"] == true {
                state.nonce = None;
            }
            verdict
        }
        other => panic!("{other}"),
    };
    Response::new(Content::from(answer.to_string()))
}

fn object(state: &mut State, path: &str, method: &str, range: Option<&str>) -> Response<Content> {
    let mut fault = match method {
        "HEAD" => Fault::None,
        _ => state.object_faults.pop_front().unwrap_or(Fault::None),
    };
    if let Fault::Refused(status, code) = fault {
        return refused(status, code);
    }
    let Some(object) = state.objects.get(path).cloned() else {
        return refused(404, "NoSuchKey");
    };
    if method == "HEAD" {
        return Response::builder()
            .header("content-length", object.len())
            .header("etag", "\"e\"")
            .body(Content::from(""))
            .unwrap();
    }
    let (mut status, mut body) = (200, object.clone());
    if let Some(range) = range {
        let (start, end) = range
            .strip_prefix("bytes=")
            .unwrap()
            .split_once('-')
            .unwrap();
        let start: usize = start.parse().unwrap();
        let end = end.parse().map_or(object.len(), |end: usize| end + 1);
        if start >= object.len() {
            return refused(416, "InvalidRange");
        }
        state.ranges.push(start as u64);
        if state.stalls_from.is_some_and(|from| start >= from) {
            fault = Fault::Stalls;
        }
        (status, body) = (206, object.slice(start..end.min(object.len())));
    }
    let mut response = Response::builder().status(status);
    if !state.hides_sizes {
        response = response.header("content-length", body.len());
    }
    let mut content = Content::failing(body, fault);
    content.hides_size = state.hides_sizes;
    response.body(content).unwrap()
}

/// A body, and how it fails.
pub(crate) struct Content {
    bytes: Bytes,
    fault: Fault,
    pause: Option<Pin<Box<Sleep>>>,
    hides_size: bool,
}

impl<T: Into<Bytes>> From<T> for Content {
    fn from(bytes: T) -> Self {
        Self {
            bytes: bytes.into(),
            fault: Fault::None,
            pause: None,
            hides_size: false,
        }
    }
}

impl Content {
    pub(crate) fn failing(mut bytes: Bytes, fault: Fault) -> Self {
        if matches!(fault, Fault::HalfWay | Fault::Stalls) {
            bytes.truncate(bytes.len() / 2);
        }
        Self {
            fault,
            ..bytes.into()
        }
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        if self.bytes.is_empty() {
            return match self.fault {
                Fault::HalfWay => Poll::Ready(Some(Err(io::Error::other("told to break")))),
                Fault::Stalls => Poll::Pending,
                _ => Poll::Ready(None),
            };
        }
        let mut piece = self.bytes.len();
        if self.fault == Fault::Slow {
            piece = piece.min(PIECE);
            self.pause = Some(Box::pin(sleep(PAUSE)));
        }
        Poll::Ready(Some(Ok(Frame::data(self.bytes.split_to(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty() && !matches!(self.fault, Fault::HalfWay | Fault::Stalls)
    }

    fn size_hint(&self) -> SizeHint {
        match self.fault {
            _ if self.hides_size => SizeHint::default(),
            Fault::HalfWay | Fault::Stalls => SizeHint::default(),
            _ => SizeHint::with_exact(self.bytes.len() as u64),
        }
    }
}
