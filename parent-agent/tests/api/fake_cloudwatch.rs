//! CloudWatch Logs as far as the agent calls it: AWS JSON 1.1 over HTTP. It
//! checks the limits of `PutLogEvents` and fails as it is told to.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// How the next `PutLogEvents` fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Not at all.
    None,
    Throttled,
    ServerError,
    ExpiredToken,
    Denied,
    /// The answer is not JSON.
    NoJson,
    /// The events are taken, and the connection breaks before the answer.
    TakenButNotAnswered,
    /// The answer ends after its first bytes.
    ClosedHalfWay,
    /// The connection breaks.
    Reset,
    /// So many events at the front are too old.
    TooOld(usize),
}

#[derive(Default)]
struct State {
    groups: BTreeMap<String, Group>,
    faults: VecDeque<Fault>,
    down: bool,
    poison: Option<String>,
    violations: Vec<String>,
}

#[derive(Default)]
struct Group {
    retention: Option<i64>,
    streams: BTreeMap<String, Vec<Batch>>,
}

/// The events of one request.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    messages: Vec<String>,
}

impl Batch {
    /// How close to a limit it is.
    pub(crate) fn fill(&self) -> f64 {
        let bytes = self.messages.iter().map(|message| message.len() + 26);
        let bytes = f64::from(u32::try_from(bytes.sum::<usize>()).unwrap());
        let events = f64::from(u32::try_from(self.messages.len()).unwrap());
        (bytes / 1_048_576.0).max(events / 10_000.0)
    }
}

pub(crate) struct FakeCloudWatch {
    state: Arc<Mutex<State>>,
    endpoint: String,
    /// A file with the certificate that it shows, if it speaks TLS.
    certificate: Option<tempfile::NamedTempFile>,
    task: JoinHandle<()>,
}

impl Drop for FakeCloudWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakeCloudWatch {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(connection(stream, Arc::clone(&shared)));
            }
        });
        Self {
            state,
            endpoint,
            certificate: None,
            task,
        }
    }

    /// One that speaks TLS and is known by its name alone, as the real one.
    pub(crate) async fn start_tls() -> Self {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let mut certificate = tempfile::NamedTempFile::new().unwrap();
        certificate.write_all(cert.pem().as_bytes()).unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
                tokio::spawn(async move {
                    // A client that does not trust it goes away.
                    if let Ok(stream) = acceptor.accept(stream).await {
                        connection(stream, shared).await;
                    }
                });
            }
        });
        Self {
            state,
            endpoint: format!("https://localhost:{port}"),
            certificate: Some(certificate),
            task,
        }
    }

    /// What the agent's environment must say.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        let trusted = self
            .certificate
            .as_ref()
            .map_or(Path::new("/dev/null"), |file| file.path());
        vec![
            ("SSL_CERT_FILE", trusted.display().to_string()),
            ("AWS_ENDPOINT_URL", self.endpoint.clone()),
            ("AWS_REGION", "us-west-2".to_owned()),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
            ("AWS_CONFIG_FILE", "/dev/null".to_owned()),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null".to_owned()),
        ]
    }

    pub(crate) fn create(&self, group: &str, retention: Option<i64>) {
        let mut state = self.state();
        state.groups.entry(group.to_owned()).or_default().retention = retention;
    }

    /// The next calls fail like this.
    pub(crate) fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state().faults.extend(faults);
    }

    pub(crate) fn is_empty_of_faults(&self) -> bool {
        self.state().faults.is_empty()
    }

    /// Whether every call is answered with an error.
    pub(crate) fn down(&self, down: bool) {
        self.state().down = down;
    }

    /// A batch with this message is not taken.
    pub(crate) fn refuse(&self, message: &str) {
        self.state().poison = Some(message.to_owned());
    }

    pub(crate) fn retention(&self, group: &str) -> Option<i64> {
        self.state().groups[group].retention
    }

    pub(crate) fn batches(&self, group: &str, stream: &str) -> Vec<Batch> {
        let state = self.state();
        let streams = state.groups.get(group).map(|group| &group.streams);
        streams
            .and_then(|streams| streams.get(stream))
            .cloned()
            .unwrap_or_default()
    }

    pub(crate) fn messages(&self, group: &str, stream: &str) -> Vec<String> {
        let batches = self.batches(group, stream);
        batches
            .into_iter()
            .flat_map(|batch| batch.messages)
            .collect()
    }

    /// No limit was exceeded.
    pub(crate) fn check(&self) {
        assert_eq!(self.state().violations, Vec::<String>::new());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite, state: Arc<Mutex<State>>) {
    // What breaks a connection is not HTTP any more.
    let broken = Arc::new(Mutex::new(None));
    let fault = Arc::clone(&broken);
    let service = service_fn(move |request| {
        let (state, broken) = (Arc::clone(&state), Arc::clone(&fault));
        async move {
            let answer = answer(request, &state).await;
            if let Answer::Break(bytes) = answer {
                *broken.lock().unwrap() = Some(bytes);
                // Hyper is stopped before it writes this.
                return Ok::<_, Infallible>(Response::new(Full::default()));
            }
            let Answer::Response(response) = answer else {
                unreachable!()
            };
            Ok(response)
        }
    });
    let (near, far) = tokio::io::duplex(64 * 1024);
    let server = tokio::spawn(async move {
        let _ = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(far), service)
            .await;
    });
    let (mut from_hyper, mut to_hyper) = tokio::io::split(near);
    let (mut read, mut write) = tokio::io::split(stream);
    let requests = tokio::io::copy(&mut read, &mut to_hyper);
    let answers = async {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = from_hyper.read(&mut buffer).await {
            let bytes = broken.lock().unwrap().take();
            if let Some(bytes) = bytes {
                let _ = write.write_all(bytes).await;
                return;
            }
            if write.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        _ = requests => {}
        () = answers => {}
    }
    server.abort();
}

enum Answer {
    Response(Response<Full<Bytes>>),
    /// Only these bytes, then the end.
    Break(&'static [u8]),
}

fn ok(body: &Value) -> Answer {
    respond(200, body.to_string())
}

fn error(status: u16, code: &str) -> Answer {
    let body = json!({ "__type": code, "message": "as the test wants it" });
    respond(status, body.to_string())
}

fn respond(status: u16, body: String) -> Answer {
    let response = Response::builder()
        .status(status)
        .header("content-type", "application/x-amz-json-1.1")
        .body(Full::from(body))
        .unwrap();
    Answer::Response(response)
}

async fn answer(request: Request<Incoming>, state: &Mutex<State>) -> Answer {
    let target = request.headers()["x-amz-target"].to_str().unwrap();
    let call = target.strip_prefix("Logs_20140328.").unwrap().to_owned();
    let authorization = request.headers()["authorization"].to_str().unwrap();
    assert!(authorization.starts_with("AWS4-HMAC-SHA256 "));
    let Ok(body) = request.into_body().collect().await else {
        return Answer::Break(b"");
    };
    let body: Value = serde_json::from_slice(&body.to_bytes()).unwrap();
    let group = body["logGroupName"].as_str().unwrap().to_owned();
    let mut state = state.lock().unwrap();
    if state.down {
        return error(503, "ServiceUnavailableException");
    }
    let stream = body["logStreamName"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    match call.as_str() {
        "CreateLogGroup" => match state.groups.insert(group.clone(), Group::default()) {
            Some(old) => {
                state.groups.insert(group, old);
                error(400, "ResourceAlreadyExistsException")
            }
            None => ok(&json!({})),
        },
        "PutRetentionPolicy" => {
            let days = body["retentionInDays"].as_i64();
            state.groups.get_mut(&group).unwrap().retention = days;
            ok(&json!({}))
        }
        "CreateLogStream" => match state.groups.get_mut(&group) {
            None => error(400, "ResourceNotFoundException"),
            Some(group) if group.streams.contains_key(&stream) => {
                error(400, "ResourceAlreadyExistsException")
            }
            Some(group) => {
                group.streams.insert(stream, Vec::new());
                ok(&json!({}))
            }
        },
        "PutLogEvents" => put(&mut state, &group, &stream, &body),
        other => panic!("an unexpected call: {other}"),
    }
}

fn put(state: &mut State, group: &str, stream: &str, body: &Value) -> Answer {
    let is_there = state
        .groups
        .get(group)
        .is_some_and(|group| group.streams.contains_key(stream));
    if !is_there {
        return error(400, "ResourceNotFoundException");
    }
    let events: Vec<(i64, String)> = body["logEvents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| {
            let message = event["message"].as_str().unwrap().to_owned();
            (event["timestamp"].as_i64().unwrap(), message)
        })
        .collect();
    check(&mut state.violations, &events);
    let mut messages: Vec<_> = events.into_iter().map(|(_, message)| message).collect();
    if let Some(poison) = &state.poison
        && messages.contains(poison)
    {
        return error(400, "InvalidParameterException");
    }
    // Faults are for the stream that the tests fill.
    let fault = match stream {
        "application" => state.faults.pop_front(),
        _ => None,
    };
    let mut answer = json!({ "nextSequenceToken": "1" });
    let mut after = ok(&answer);
    match fault {
        Some(Fault::Throttled) => return error(400, "ThrottlingException"),
        Some(Fault::ServerError) => return error(500, "InternalFailure"),
        Some(Fault::ExpiredToken) => return error(400, "ExpiredTokenException"),
        Some(Fault::Denied) => return error(400, "AccessDeniedException"),
        Some(Fault::NoJson) => return respond(200, "<html>".to_owned()),
        Some(Fault::ClosedHalfWay) => {
            return Answer::Break(b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n{");
        }
        Some(Fault::Reset) => return Answer::Break(b""),
        Some(Fault::TakenButNotAnswered) => after = Answer::Break(b""),
        Some(Fault::TooOld(count)) => {
            messages.drain(..count);
            answer["rejectedLogEventsInfo"] = json!({ "tooOldLogEventEndIndex": count });
            after = ok(&answer);
        }
        Some(Fault::None) | None => {}
    }
    let batches = state.groups.get_mut(group).unwrap();
    let batches = batches.streams.get_mut(stream).unwrap();
    batches.push(Batch { messages });
    after
}

fn check(violations: &mut Vec<String>, events: &[(i64, String)]) {
    let mut demand = |holds: bool, limit: &str| {
        if !holds {
            violations.push(limit.to_owned());
        }
    };
    demand((1..=10_000).contains(&events.len()), "1 to 10,000 events");
    let bytes: usize = events.iter().map(|(_, message)| message.len() + 26).sum();
    demand(bytes <= 1_048_576, "1,048,576 bytes");
    demand(
        events.iter().all(|(_, message)| !message.is_empty()),
        "no message is empty",
    );
    demand(
        events
            .iter()
            .all(|(_, message)| message.len() + 26 <= 262_144),
        "256 KiB an event",
    );
    demand(
        events.is_sorted_by_key(|(time, _)| *time),
        "in order of time",
    );
    let first = events.first().map_or(0, |(time, _)| *time);
    let last = events.last().map_or(0, |(time, _)| *time);
    demand(last - first <= DAY_MS, "24 hours");
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let now = i64::try_from(now.as_millis()).unwrap();
    demand(first >= now - 14 * DAY_MS, "not older than 14 days");
    demand(last <= now + DAY_MS / 12, "not 2 hours ahead");
}
