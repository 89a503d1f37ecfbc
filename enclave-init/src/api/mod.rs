//! The local API: what the init does for the workload, as HTTP over TCP and on a Unix
//! socket. A module for each resource; this one listens and routes.

mod attestation;
mod credentials;
mod failure;
mod guard;
mod identity;
mod keys;
mod kms;
mod kms_calls;
mod lingering;
mod measurements;
mod random;
mod readiness;
mod registers;
mod runtime_configuration;
mod secrets;
mod time;
mod verify;

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use manifest::{API_PORT, CREDENTIALS_ADDRESS, INIT_ADDRESS, OpenRegisters};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use self::failure::{Code, Failure};
use self::guard::Transport;
use self::lingering::Lingering;
use crate::clock::Clock;
use crate::credentials::{AwsCredentials, PATH as CREDENTIALS, PORT as CREDENTIALS_PORT};
use crate::error::{Doing, InitError};
use crate::family::FamilyKeys;
use crate::kms::Kms;
use crate::mounts::own_folder;
use crate::passing::{self, Connection};
use crate::readiness::{Readiness, Speaker};
use crate::secrets::Secrets;
use crate::security_module::SecurityModule;

/// The same API as a Unix socket, of which each workload has its own.
const SOCKET: &str = "/run/enclave/api.sock";
/// Its name in the workload's own folder.
const FILE: &str = "api.sock";
/// Largest request body in bytes: nonce, user data and key in base64, with room.
const MAX_BODY: usize = 8 * 1024;
/// Memory for what has been received of a connection, and what is to be sent.
const MAX_BUFFER: usize = 16 * 1024;
/// Most connections at a time; a further one waits.
const MAX_CONNECTIONS: usize = 64;
/// A request's head, and its body.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// One request and its answer.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(crate) use crate::readiness::EnclaveReadiness;
pub(crate) use kms::variable as kms_variable;
pub(crate) use verify::Verifications;

/// Where the workload finds the API.
pub(crate) fn url() -> String {
    format!("http://{INIT_ADDRESS}:{API_PORT}")
}

/// What the resources share; each request has a clone.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    pub(crate) nsm: SecurityModule,
    pub(crate) clock: Clock,
    /// The registers that the workload may change.
    pub(crate) open_registers: Arc<OpenRegisters>,
    pub(crate) verifications: Verifications,
    /// The workload's AWS credentials, if it is to have any.
    pub(crate) credentials: Option<AwsCredentials>,
    /// KMS, if the image calls it through the enclave.
    pub(crate) kms: Option<Kms>,
    /// The image's, if it declares any.
    pub(crate) secrets: Option<Secrets>,
    /// Those of the image's family, if it has one.
    pub(crate) keys: Option<FamilyKeys>,
    /// The enclave's own, as they are answered.
    pub(crate) measurements: Arc<serde_json::Value>,
    /// The bytes that the agent gave at the start.
    pub(crate) runtime_config: Bytes,
    pub(crate) readiness: EnclaveReadiness,
}

/// Who has opened a connection.
#[derive(Debug, Clone)]
struct Caller {
    transport: Transport,
    /// None where it may be any of several workloads.
    speaker: Option<Speaker>,
}

/// What there is, for whoever asks for anything else; `docs/local-api.json` describes it for
/// programs. AWS's own paths are not among it: SDKs find those by themselves.
const ROUTES: [(&str, &str); 21] = [
    ("POST", "/v1/attestation"),
    ("GET", "/v1/identity"),
    ("PUT", "/v1/identity"),
    ("POST", "/v1/identity"),
    ("POST", "/v1/sign"),
    ("GET", "/v1/keys"),
    ("GET", "/v1/keys/{purpose}"),
    ("GET", "/v1/measurements"),
    ("GET", "/v1/random"),
    ("GET", "/v1/readiness"),
    ("POST", "/v1/readiness"),
    ("GET", "/v1/runtime-configuration"),
    ("GET", "/v1/secrets/{name}"),
    ("GET", "/v1/time"),
    ("GET", "/v1/registers"),
    ("POST", "/v1/registers/{index}/extend"),
    ("POST", "/v1/registers/{index}/lock"),
    ("POST", "/v1/verify"),
    ("POST", "/v1/kms/decrypt"),
    ("POST", "/v1/kms/generate-data-key"),
    ("POST", "/v1/kms/random"),
];

fn not_found() -> Failure {
    let routes = ROUTES.map(|(method, path)| format!("{method} {path}"));
    let reason = format!("there is no such resource; there are {}", routes.join(", "));
    Failure::new(Code::UnknownResource, reason)
}

/// Passes a request on to its resource.
async fn route(api: Api, caller: Caller, request: Request<Incoming>) -> Result<Answer, Failure> {
    let path = request.uri().path().to_owned();
    let path: Vec<&str> = path.split('/').skip(1).collect();
    match (request.method(), path.as_slice()) {
        (&Method::POST, ["v1", "attestation"]) => attestation::create(&api, request).await,
        (&Method::GET, ["v1", "identity"]) => identity::read(&api),
        (&Method::PUT, ["v1", "identity"]) => identity::name(&api, request).await,
        (&Method::POST, ["v1", "identity"]) => identity::make(&api),
        (&Method::POST, ["v1", "sign"]) => identity::sign(&api, request).await,
        (&Method::GET, ["v1", "keys"]) => keys::describe(&api),
        (&Method::GET, ["v1", "keys", purpose]) => keys::read(&api, purpose, request.uri().query()),
        (&Method::GET, ["v1", "measurements"]) => Ok(measurements::read(&api)),
        (&Method::GET, ["v1", "registers"]) => registers::list(&api).await,
        (&Method::POST, ["v1", "registers", index, "extend"]) => {
            registers::extend(&api, index, request).await
        }
        (&Method::POST, ["v1", "registers", index, "lock"]) => registers::lock(&api, index).await,
        (&Method::POST, ["v1", "verify"]) => verify::create(&api, request).await,
        (&Method::POST, ["v1", "kms", "decrypt"]) => {
            kms_calls::make::<kms_calls::Decrypt>(&api, request).await
        }
        (&Method::POST, ["v1", "kms", "generate-data-key"]) => {
            kms_calls::make::<kms_calls::GenerateDataKey>(&api, request).await
        }
        (&Method::POST, ["v1", "kms", "random"]) => {
            kms_calls::make::<kms_calls::Random>(&api, request).await
        }
        (&Method::GET, ["v1", "random"]) => random::read(&api, request.uri().query()).await,
        (&Method::GET, ["v1", "readiness"]) => Ok(readiness::read(&api, &caller)),
        (&Method::POST, ["v1", "readiness"]) => readiness::hear(&caller, request).await,
        (&Method::GET, ["v1", "runtime-configuration"]) => Ok(runtime_configuration::read(&api)),
        (&Method::GET, ["v1", "secrets", name]) => {
            secrets::read(&api, name, request.uri().query()).await
        }
        (&Method::GET, ["v1", "time"]) => time::read(&api),
        _ => Err(not_found()),
    }
}

/// Answers a request, whoever made it.
async fn answer(api: Api, caller: Caller, request: Request<Incoming>) -> Answer {
    let transport = caller.transport;
    let path = request.uri().path();
    if let Some(credentials) = credentials::asked_for(api.credentials.as_ref(), path) {
        let result = guard::check_sender(transport, &request).and_then(|()| {
            if request.method() == Method::GET {
                Ok(())
            } else {
                Err(not_found())
            }
        });
        return match result {
            Ok(()) => credentials::read(credentials, request.headers()),
            Err(failure) => credentials::refusal(failure.status, &failure.reason),
        };
    }
    if transport == Transport::Credentials {
        let reason = format!("only GET {CREDENTIALS} is answered here");
        return credentials::refusal(StatusCode::NOT_FOUND, &reason);
    }
    if let Some(kms) = kms::asked_for(api.kms.as_ref(), path) {
        return kms::answer(&api, kms, transport, request).await;
    }
    let result = match guard::check(transport, &request) {
        Ok(()) => route(api, caller, request).await,
        Err(failure) => Err(failure),
    };
    result.unwrap_or_else(Answer::from)
}

/// Binds all addresses and serves them until the enclave ends.
pub(crate) async fn start(api: Api) -> Result<(), InitError> {
    let tcp = TcpListener::bind((INIT_ADDRESS, API_PORT))
        .await
        .doing(|| format!("listening on port {API_PORT}"))?;
    let credentials = match api.credentials {
        Some(_) => Some(
            TcpListener::bind((CREDENTIALS_ADDRESS, CREDENTIALS_PORT))
                .await
                .doing(|| format!("listening at {CREDENTIALS_ADDRESS}"))?,
        ),
        None => None,
    };
    let mut unix = UnixListeners::bind(&api.readiness, &tcp)?;
    let closing = passing::closing(MAX_CONNECTIONS)
        .doing(|| format!("starting the thread that closes connections of {SOCKET}"))?;
    tokio::spawn(async move {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            let asked_for_credentials = async {
                match &credentials {
                    Some(listener) => listener.accept().await,
                    None => std::future::pending().await,
                }
            };
            let accepted = tokio::select! {
                accepted = tcp.accept() => accepted.map(|(stream, _)| {
                    let speaker = api.readiness.only().map(Readiness::speaker);
                    let caller = Caller { transport: Transport::Tcp, speaker };
                    spawn(stream, caller, api.clone(), Some(place));
                }),
                accepted = asked_for_credentials => accepted.map(|(stream, _)| {
                    let caller = Caller { transport: Transport::Credentials, speaker: None };
                    spawn(stream, caller, api.clone(), Some(place));
                }),
                accepted = unix.accept() => accepted.map(|(stream, speaker)| {
                    let stream = Connection::new(stream, place, closing.clone());
                    let speaker = Some(speaker);
                    let caller = Caller { transport: Transport::Unix, speaker };
                    spawn(stream, caller, api.clone(), None);
                }),
            };
            if accepted.is_err() {
                sleep(ACCEPT_PAUSE).await;
            }
        }
    });
    Ok(())
}

/// The Unix sockets of all workloads.
struct UnixListeners {
    each: Vec<(UnixListener, Readiness)>,
    /// Which one is asked first: each in turn, so that no workload keeps another out.
    next: usize,
}

impl UnixListeners {
    /// Binds them. Over TCP only an image's one workload can be told from others.
    fn bind(readiness: &EnclaveReadiness, tcp: &TcpListener) -> Result<Self, InitError> {
        let tcp = readiness.only().map(|_| tcp);
        let each = readiness.workloads().iter().enumerate();
        let each = each.map(|(index, workload)| {
            let path = own_folder(index).join(FILE);
            let listener = UnixListener::bind(&path).doing(|| format!("listening on {SOCKET}"))?;
            // The workload's user may be any.
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666))
                .doing(|| SOCKET.to_owned())?;
            workload
                .keep_runs_apart(tcp, &listener)
                .doing(|| format!("looking after {SOCKET}"))?;
            Ok((listener, workload.clone()))
        });
        Ok(Self {
            each: each.collect::<Result<_, InitError>>()?,
            next: 0,
        })
    }

    /// The next connection, and who has opened it. Cancellation safe.
    async fn accept(&mut self) -> io::Result<(UnixStream, Speaker)> {
        let Self { each, next } = self;
        poll_fn(|context| {
            let (before, from) = each.split_at(*next);
            for (listener, workload) in from.iter().chain(before) {
                if let Poll::Ready(accepted) = listener.poll_accept(context) {
                    *next = (*next + 1) % each.len();
                    return Poll::Ready(accepted.map(|(stream, _)| (stream, workload.speaker())));
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// Serves a connection. It has the place itself if none is given.
fn spawn<S>(stream: S, caller: Caller, api: Api, place: Option<OwnedSemaphorePermit>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    tokio::spawn(async move {
        let _place = place;
        let service = service_fn(|request| {
            let (api, caller) = (api.clone(), caller.clone());
            async move {
                let answer = answer(api, caller, request).await;
                Ok::<_, Infallible>(answer.response())
            }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(REQUEST_TIMEOUT)
            .keep_alive(false)
            .max_buf_size(MAX_BUFFER)
            .serve_connection(TokioIo::new(Lingering::new(stream)), service);
        // A client that breaks the connection off, or takes too long, needs no answer.
        let _ = timeout(CONNECTION_TIMEOUT, connection).await;
    });
}

/// What a request is answered with.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn bytes(content_type: &'static str, body: Vec<u8>) -> Self {
        Self::new(StatusCode::OK, content_type, body.into())
    }

    fn new(status: StatusCode, content_type: &'static str, body: Bytes) -> Self {
        let content_type = (CONTENT_TYPE, HeaderValue::from_static(content_type));
        Self {
            status,
            headers: HeaderMap::from_iter([content_type]),
            body,
        }
    }

    fn empty() -> Self {
        Self {
            status: StatusCode::NO_CONTENT,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    fn json(status: StatusCode, body: &serde_json::Value) -> Self {
        Self::new(status, "application/json", body.to_string().into())
    }

    fn response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

/// Reads the body of a request as JSON. None at all is an empty object.
async fn json<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Failure> {
    json_within(request, MAX_BODY).await
}

/// The same, of a body of at most this many bytes.
async fn json_within<T: DeserializeOwned>(
    request: Request<Incoming>,
    limit: usize,
) -> Result<T, Failure> {
    let body = Limited::new(request.into_body(), limit).collect();
    let body = timeout(REQUEST_TIMEOUT, body)
        .await
        .map_err(|_| {
            let reason = format!(
                "the body did not arrive within {} s",
                REQUEST_TIMEOUT.as_secs()
            );
            Failure::new(Code::BodyTimeout, reason)
        })?
        .map_err(|error| {
            if error.is::<LengthLimitError>() {
                let reason = format!("the body has more than {limit} bytes");
                return Failure::new(Code::BodyTooLarge, reason);
            }
            Failure::bad(format!("the body cannot be read: {error}"))
        })?
        .to_bytes();
    let body = if body.is_empty() { b"{}" } else { &*body };
    serde_json::from_slice(body)
        .map_err(|error| Failure::bad(format!("the body is not understood: {error}")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn local_api_is_described_for_programs() {
        let text = std::fs::read_to_string("../docs/local-api.json").unwrap();
        let description: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(description["servers"][0]["url"], url());
        let paths = description["paths"].as_object().unwrap().iter();
        let described = paths.flat_map(|(path, operations)| {
            let methods = operations.as_object().unwrap().keys();
            methods.map(move |method| (method.to_uppercase(), path.clone()))
        });
        let routes = ROUTES.map(|(method, path)| (method.to_owned(), path.to_owned()));
        assert_eq!(described.collect::<BTreeSet<_>>(), BTreeSet::from(routes));
    }
}
