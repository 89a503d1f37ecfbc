//! CloudWatch Logs as far as an agent calls it: AWS JSON 1.1 over HTTP, on loopback.
//! It holds calls against the service's limits, and fails as it is told to.
//!
//! It keeps the events, or hands them to a check and forgets them. It may stand in
//! front of an emulator: what it accepts is then sent on, and the emulator's answer is
//! the answer.

mod limits;
mod server;
mod service;

use std::convert::Infallible;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::bail;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::HeaderValue;
use hyper::http::request::Parts;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use server::Answer;
use service::{Event, State};

/// How the service fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It does not.
    None,
    /// Connections are closed without an answer.
    Down,
    /// Calls are refused as too many.
    Throttled,
    /// Calls end with an internal error.
    ServerError,
    /// Every call is answered with an error.
    Unavailable,
    /// Calls are not answered.
    Hang,
    /// Calls are carried out, and the connection breaks before the answer.
    TakenButNotAnswered,
    /// The caller's credentials have expired.
    ExpiredToken,
    /// The caller may not do this.
    Denied,
    /// The answer is not JSON.
    NoJson,
    /// The answer ends after its first bytes.
    ClosedHalfWay,
    /// So many events at the front are too old.
    TooOld(usize),
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

/// The events of one call.
#[derive(Debug, Clone)]
pub struct Batch {
    events: Vec<Event>,
}

impl Batch {
    /// How full it was, in thousandths of the nearer limit.
    pub fn fill(&self) -> usize {
        limits::fill(&self.events)
    }
}

/// The server, until it is dropped.
pub struct CloudWatch {
    shared: Arc<Shared>,
    endpoint: String,
    /// A file with the certificate that it shows, if it speaks TLS.
    certificate: Option<tempfile::NamedTempFile>,
    task: JoinHandle<()>,
}

struct Shared {
    emulator: Option<SocketAddr>,
    state: Mutex<State>,
}

impl Drop for CloudWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl CloudWatch {
    /// Serves on a free port, and keeps what it takes.
    pub async fn start() -> anyhow::Result<Self> {
        Self::serve(None, None).await
    }

    /// Serves on a free port, hands events to `check` and keeps none; in front of an
    /// emulator, if there is one.
    pub async fn start_checked(emulator: Option<SocketAddr>, check: Check) -> anyhow::Result<Self> {
        Self::serve(emulator, Some(check)).await
    }

    async fn serve(emulator: Option<SocketAddr>, check: Option<Check>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let shared = Shared::new(emulator, check);
        let serving = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(server::connection(stream, Arc::clone(&serving)));
            }
        });
        Ok(Self {
            shared,
            endpoint,
            certificate: None,
            task,
        })
    }

    /// Serves TLS, and is known by its name alone, as the real one.
    pub async fn start_tls() -> anyhow::Result<Self> {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let mut certificate = tempfile::NamedTempFile::new()?;
        certificate.write_all(cert.pem().as_bytes())?;
        let key =
            PrivateKeyDer::try_from(signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let shared = Shared::new(None, None);
        let serving = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, shared) = (acceptor.clone(), Arc::clone(&serving));
                tokio::spawn(async move {
                    // A client that does not trust it goes away.
                    if let Ok(stream) = acceptor.accept(stream).await {
                        server::connection(stream, shared).await;
                    }
                });
            }
        });
        Ok(Self {
            shared,
            endpoint: format!("https://localhost:{port}"),
            certificate: Some(certificate),
            task,
        })
    }

    /// What `AWS_ENDPOINT_URL` is to be.
    pub fn url(&self) -> &str {
        &self.endpoint
    }

    /// What a client's environment must say.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
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

    /// Every call fails in this way from now on.
    pub fn fail(&self, fault: Fault) {
        self.shared.state().fault = Some(fault);
    }

    /// The next calls that store the workload's lines fail like this, one by one.
    pub fn fail_next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.shared.state().next.extend(faults);
    }

    /// Whether all of these have come.
    pub fn has_failed(&self) -> bool {
        self.shared.state().next.is_empty()
    }

    /// Its clock is ahead of everybody's by so many seconds. It does not take calls that
    /// were signed more than five minutes from its time, and says what that is.
    pub fn set_clock_ahead(&self, seconds: i64) {
        self.shared.state().ahead = seconds;
    }

    /// A batch with this message is not taken.
    pub fn refuse(&self, message: &str) {
        self.shared.state().poison = Some(message.to_owned());
    }

    /// Makes a group.
    pub fn create(&self, group: &str, retention: Option<i64>) {
        let mut state = self.shared.state();
        state.groups.entry(group.to_owned()).or_default().retention = retention;
    }

    /// For how many days a group keeps its events.
    pub fn retention(&self, group: &str) -> Option<i64> {
        self.shared.state().groups.get(group)?.retention
    }

    /// The batches of a stream, if it keeps them.
    pub fn batches(&self, group: &str, stream: &str) -> Vec<Batch> {
        let state = self.shared.state();
        let streams = state.groups.get(group).map(|group| &group.streams);
        streams
            .and_then(|streams| streams.get(stream))
            .cloned()
            .unwrap_or_default()
    }

    /// The messages of a stream, if it keeps them.
    pub fn messages(&self, group: &str, stream: &str) -> Vec<String> {
        let batches = self.batches(group, stream);
        let events = batches.into_iter().flat_map(|batch| batch.events);
        events.map(|event| event.message).collect()
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
    fn new(emulator: Option<SocketAddr>, check: Option<Check>) -> Arc<Self> {
        let state = State {
            check,
            ..State::default()
        };
        Arc::new(Self {
            emulator,
            state: Mutex::new(state),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The service's time, as an answer has it.
    fn date(&self) -> HeaderValue {
        let since = u64::try_from(self.state().now()).unwrap_or_default();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(since);
        HeaderValue::try_from(httpdate::fmt_http_date(time))
            .unwrap_or_else(|_| HeaderValue::from_static(""))
    }

    async fn answer(&self, head: Parts, body: Bytes) -> Answer {
        let header = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
        let action = header("x-amz-target").and_then(|name| name.strip_prefix("Logs_20140328."));
        let action = action.unwrap_or_default().to_owned();
        let signature = header("authorization").unwrap_or_default();
        let fault = {
            let mut state = self.state();
            if !signature.starts_with("AWS4-HMAC-SHA256 ") {
                state.broken(&anyhow::anyhow!("a call without a signature"));
            }
            let fault = state.fault.unwrap_or(Fault::None);
            if fault != Fault::None {
                state.counts.failed += 1;
            }
            fault
        };
        if let Some(refusal) = fault.refusal() {
            return refusal;
        }
        let signed = header("x-amz-date").unwrap_or_default();
        if let Some(refusal) = self.state().refusal(signed) {
            return refusal;
        }
        if fault == Fault::Hang {
            std::future::pending::<Infallible>().await;
        }
        let answer = match self.emulator {
            None => self.state().carry_out(&action, &body),
            Some(emulator) => {
                let request = Request::from_parts(head, Full::new(body.clone()));
                match forward(emulator, request).await {
                    Ok(response) => {
                        if action == "PutLogEvents" && response.status().is_success() {
                            self.state().taken_by_emulator(&body);
                        }
                        Answer::Response(response)
                    }
                    Err(_) => Answer::Break(b""),
                }
            }
        };
        match fault {
            Fault::TakenButNotAnswered => Answer::Break(b""),
            _ => answer,
        }
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
