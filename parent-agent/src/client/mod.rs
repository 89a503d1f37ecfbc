//! Talking to a running enclave's agent: `status`, `attest`, `secret`, `keys`,
//! `stop` and `detach`.

mod args;
mod keys;

use std::fmt::Write as _;
use std::fs;
use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use enclave_host::state::{CONTROL_SOCKET, StateArgs, StateDir, StateError, Target};
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::HOST;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use link::control::MAX_SEALED_SECRET;
use manifest::EnclaveName;
use serde::Serialize;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use crate::api::{AttestRequest, EndResponse, ErrorResponse, SecretRequest, StopRequest};
use crate::attach;
use crate::enclave::Cause;
use crate::exit::Exit;
use crate::status::Status;

pub use args::{AttestArgs, HandOverArgs, HexBytes, PutArgs, StatusArgs, StopArgs, TargetArgs};

pub use keys::{Step, create_keys, hand_over_keys, keys_step};

/// Largest answer, in bytes.
const MAX_ANSWER: usize = 4 * 1024 * 1024;
/// How long an answer may take, except to `stop`.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// How long an ended enclave's folder may take to be removed.
const GONE_TIMEOUT: Duration = Duration::from_secs(30);
const GONE_POLL: Duration = Duration::from_millis(5);

/// Why an enclave could not be asked, or did not answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The state folder cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// No enclave runs.
    #[error("no enclave is running under {}: start one with `parent-agent run`, or name its --state-dir", .0.display())]
    NoneRunning(PathBuf),
    /// The named one does not run.
    #[error("no enclave named `{0}` is running")]
    NotRunning(EnclaveName),
    /// Several run.
    #[error("several enclaves are running ({0}): choose one with --name")]
    Several(String),
    /// The agent cannot be reached.
    #[error("the agent of `{name}` cannot be reached: {reason}")]
    Unreachable {
        /// The enclave.
        name: EnclaveName,
        /// Why.
        reason: String,
    },
    /// The enclave has no agent.
    #[error(
        "the enclave `{name}` has no agent: `parent-agent run` with its image and arguments takes it over, `parent-agent stop {0}` ends it",
        name = .0.name()
    )]
    NoAgent(Target),
    /// The enclave has no agent, and its guard does not end it.
    #[error("the enclave `{name}` has no agent, and cannot be ended: {reason}")]
    NotEnded {
        /// The enclave.
        name: EnclaveName,
        /// Why.
        reason: String,
    },
    /// The agent refused.
    #[error("{0}")]
    Refused(String),
    /// A file cannot be written.
    #[error("{} cannot be used: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Standard input has nothing that another enclave answered.
    #[error("standard input cannot be used: {0}")]
    Input(String),
    /// Standard output cannot be written to.
    #[error("standard output cannot be written: {0}")]
    Output(#[from] io::Error),
    /// The enclave has ended, but something is left.
    #[error("the enclave `{0}` has ended, but its agent is still there after {seconds} s", seconds = GONE_TIMEOUT.as_secs())]
    NotGone(EnclaveName),
}

/// Prints an enclave's status.
pub async fn status(args: StatusArgs) -> Result<Exit, ClientError> {
    let client = Client::find(args.target)?;
    let answer = client.ask(Method::GET, "/v1/status", &()).await?;
    let status: Status = client.parse(&answer)?;
    let text = if args.json {
        serde_json::to_string_pretty(&status).map_err(io::Error::from)? + "\n"
    } else {
        status.table()
    };
    command_output::write(text.as_bytes())?;
    Ok(Exit::Success)
}

/// Gets an attestation document.
pub async fn attest(args: AttestArgs) -> Result<Exit, ClientError> {
    let client = Client::find(args.target)?;
    let request = AttestRequest {
        nonce: STANDARD.encode(args.nonce.0),
        sealing: args.sealing,
    };
    let document = client.ask(Method::POST, "/v1/attest", &request).await?;
    if let Some(path) = args.output {
        fs::write(&path, &document).map_err(|source| ClientError::File { path, source })?;
        return Ok(Exit::Success);
    }
    if io::stdout().is_terminal() {
        command_output::write((STANDARD.encode(&document) + "\n").as_bytes())?;
    } else {
        command_output::write(&document)?;
    }
    Ok(Exit::Success)
}

/// Hands a sealed secret to an enclave, which opens it.
pub async fn put_secret(args: PutArgs) -> Result<Exit, ClientError> {
    let client = Client::find(args.target)?;
    let path = args.file;
    let cannot_use = |source| ClientError::File {
        path: path.clone(),
        source,
    };
    let mut sealed = Vec::new();
    fs::File::open(&path)
        .and_then(|file| {
            let limit = MAX_SEALED_SECRET as u64 + 1;
            file.take(limit).read_to_end(&mut sealed)
        })
        .map_err(cannot_use)?;
    if sealed.len() > MAX_SEALED_SECRET {
        let reason = format!(
            "it has more than {MAX_SEALED_SECRET} bytes: is this the file that `attest seal` wrote?"
        );
        return Err(cannot_use(io::Error::other(reason)));
    }
    let request = SecretRequest {
        sealed: STANDARD.encode(sealed),
    };
    client.ask(Method::POST, "/v1/secrets", &request).await?;
    Ok(Exit::Success)
}

/// Stops an enclave and waits until nothing of it is left.
pub async fn stop(args: StopArgs) -> Result<Exit, ClientError> {
    let client = Client::find(args.target)?;
    let request = StopRequest {
        grace_ms: args
            .grace
            .map(|grace| enclave_host::duration::milliseconds(grace.as_duration())),
    };
    // The agent bounds how long a stop takes.
    let answer = match client.send(Method::POST, "/v1/stop", &request).await {
        Err(ClientError::NoAgent(_)) => return end_alone(&client.state, client.name).await,
        answer => answer?,
    };
    let end: EndResponse = client.parse(&answer)?;
    let gone = async {
        while client.state.is_running(&client.name) {
            sleep(GONE_POLL).await;
        }
    };
    if timeout(GONE_TIMEOUT, gone).await.is_err() {
        return Err(ClientError::NotGone(client.name));
    }
    let name = client.name;
    let mut lines = format!("{name}: {}: {}\n", end.cause, end.detail);
    if !end.lost.is_empty() {
        let _ = writeln!(lines, "{name}: lost: {}", end.lost);
    }
    command_output::write(lines.as_bytes())?;
    Ok(match end.cause {
        Cause::Killed => Exit::Killed,
        // It is gone, and had the time that it was given.
        _ => Exit::Success,
    })
}

/// Ends an enclave that nobody can ask to stop.
async fn end_alone(state: &StateDir, name: EnclaveName) -> Result<Exit, ClientError> {
    if let Err(error) = attach::end(state, &name).await {
        let reason = error.to_string();
        return Err(ClientError::NotEnded { name, reason });
    }
    let line = format!("{name}: killed: it had no agent that could ask it to stop\n");
    command_output::write(line.as_bytes())?;
    Ok(Exit::Killed)
}

/// Ends an enclave's agent, but not the enclave, and waits until it is gone.
pub async fn detach(args: TargetArgs) -> Result<Exit, ClientError> {
    let client = Client::find(args)?;
    client.ask(Method::POST, "/v1/detach", &()).await?;
    let gone = async {
        while client.state.has_agent(&client.name) {
            sleep(GONE_POLL).await;
        }
    };
    if timeout(GONE_TIMEOUT, gone).await.is_err() {
        return Err(client.unreachable(&"it does not end"));
    }
    Ok(Exit::Success)
}

/// An enclave's status.
pub(crate) async fn read_status(
    name: EnclaveName,
    state_dir: Option<PathBuf>,
) -> Result<Status, ClientError> {
    let client = Client::find(TargetArgs {
        name: Some(name),
        state: StateArgs { state_dir },
    })?;
    let answer = client.ask(Method::GET, "/v1/status", &()).await?;
    client.parse(&answer)
}

struct Client {
    state: StateDir,
    name: EnclaveName,
}

impl Client {
    /// The named enclave, or the only one.
    fn find(target: TargetArgs) -> Result<Self, ClientError> {
        let state = StateDir::new(target.state.state_dir)?;
        let running = state.running()?;
        let name = match target.name {
            Some(name) if running.contains(&name) => name,
            Some(name) => return Err(ClientError::NotRunning(name)),
            None => match running.as_slice() {
                [] => return Err(ClientError::NoneRunning(state.path().to_owned())),
                [only] => only.clone(),
                several => {
                    let names: Vec<_> = several.iter().map(EnclaveName::as_str).collect();
                    return Err(ClientError::Several(names.join(", ")));
                }
            },
        };
        Ok(Self { state, name })
    }

    /// The answer's body, if it comes in time.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Bytes, ClientError> {
        timeout(ANSWER_TIMEOUT, self.send(method, path, body))
            .await
            .unwrap_or_else(|_| {
                let seconds = ANSWER_TIMEOUT.as_secs();
                Err(self.unreachable(&format!("it did not answer within {seconds} s")))
            })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Bytes, ClientError> {
        let body = match method {
            Method::GET => Vec::new(),
            _ => serde_json::to_vec(body).map_err(|error| self.unreachable(&error))?,
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "localhost")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| self.unreachable(&error))?;
        let socket = self.state.enclave(&self.name).join(CONTROL_SOCKET);
        let stream = match UnixStream::connect(socket).await {
            Ok(stream) => stream,
            Err(_) if !self.state.has_agent(&self.name) => {
                return Err(ClientError::NoAgent(self.state.target(&self.name)));
            }
            Err(error) => return Err(self.unreachable(&error)),
        };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.unreachable(&error))?;
        let connection = tokio::spawn(connection);
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(|error| self.unreachable(&error))?
            .to_bytes();
        connection.abort();
        if status == StatusCode::OK {
            return Ok(body);
        }
        let error = serde_json::from_slice(&body)
            .map_or_else(|_| status.to_string(), |ErrorResponse { error }| error);
        Err(ClientError::Refused(error))
    }

    fn parse<T: serde::de::DeserializeOwned>(&self, body: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(body).map_err(|error| {
            self.unreachable(&format!(
                "its answer is not understood ({error}); is it of another release?"
            ))
        })
    }

    fn unreachable(&self, reason: &impl ToString) -> ClientError {
        ClientError::Unreachable {
            name: self.name.clone(),
            reason: reason.to_string(),
        }
    }
}
