//! The client: signs, sends, reads the answer.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderValue};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use link::Credentials;
use time::OffsetDateTime;
use tokio::time::timeout;
use tokio_rustls::rustls::ClientConfig;
use zeroize::Zeroizing;

use super::connection::{Connection, Connector, Unsent};
use super::error::CallError;
use super::roots;
use super::service::Service;
use super::sign::{Scope, Signable, Unsigned, digest};
use crate::credentials::AwsCredentials;
use crate::egress::Egress;
use crate::error::InitError;

/// How long a call may take in all, less than the local API waits.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of an answer's body; long lists of keys have this many.
const MAX_ANSWER: usize = 256 * 1024;
/// What an answer's body is first read into where its length is not known.
const FIRST_BUFFER: usize = 4096;
/// The type of bodies in AWS's JSON protocol, version 1.1.
const JSON: &str = "application/x-amz-json-1.1";

/// Calls services of AWS with the workload's credentials; clones are the same one.
#[derive(Clone)]
pub(crate) struct Client(Arc<Shared>);

struct Shared {
    egress: Arc<Egress>,
    credentials: AwsCredentials,
    tls: Arc<ClientConfig>,
}

/// What a service is asked for.
enum Wanted<'a> {
    /// An operation of AWS's JSON protocol, version 1.1.
    Operation {
        target: &'a str,
        body: Zeroizing<Vec<u8>>,
    },
    /// What is at a path of S3's, encoded.
    Object(&'a str),
}

/// What a service has answered, of whatever status. The body may hold secrets, and is
/// overwritten when it is dropped.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

impl fmt::Debug for Answer {
    /// The status, and how long the body is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answer({}, {} bytes)", self.status, self.body.len())
    }
}

impl Client {
    /// A client that believes services under these roots, in PEM, or under Amazon's.
    pub(crate) fn new(
        egress: Arc<Egress>,
        credentials: AwsCredentials,
        roots: Option<&str>,
    ) -> Result<Self, InitError> {
        Ok(Self(Arc::new(Shared {
            egress,
            credentials,
            tls: roots::tls(roots)?,
        })))
    }

    /// Makes a call in AWS's JSON protocol, version 1.1, signed with the newest
    /// credentials: `target` is the operation, as `X-Amz-Target` has it. An answer that
    /// refuses the call is an answer, too.
    pub(crate) async fn call(
        &self,
        service: &Service,
        target: &str,
        body: Zeroizing<Vec<u8>>,
    ) -> Result<Answer, CallError> {
        let wanted = Wanted::Operation { target, body };
        self.within(service, wanted, MAX_ANSWER).await
    }

    /// Reads what is at a path, encoded as S3 signs it; an answer has at most this many
    /// bytes.
    pub(crate) async fn get(
        &self,
        service: &Service,
        path: &str,
        limit: usize,
    ) -> Result<Answer, CallError> {
        self.within(service, Wanted::Object(path), limit).await
    }

    async fn within(
        &self,
        service: &Service,
        wanted: Wanted<'_>,
        limit: usize,
    ) -> Result<Answer, CallError> {
        timeout(CALL_TIMEOUT, self.call_in_time(service, wanted, limit))
            .await
            .unwrap_or_else(|_| {
                Err(CallError::TimedOut {
                    endpoint: service.authority(),
                    seconds: CALL_TIMEOUT.as_secs(),
                })
            })
    }

    async fn call_in_time(
        &self,
        service: &Service,
        wanted: Wanted<'_>,
        limit: usize,
    ) -> Result<Answer, CallError> {
        let _turn = service.connections.turn().await?;
        let valid = self.0.credentials.valid();
        let valid = valid.map_err(CallError::NoCredentials)?;
        let request = wanted
            .request(service, &valid.credentials)
            .map_err(|Unsigned(reason)| CallError::Request(reason.to_owned()))?;
        let (connection, response) = self.send(service, request).await?;
        let answer = read(service, response, limit).await?;
        // Not before the whole answer is read: what is left of it would be the next
        // call's.
        service.connections.keep(connection);
        Ok(answer)
    }

    /// Sends a request over a connection that was kept or a new one. A service ends
    /// connections that it has kept long enough, so a request of which nothing was sent
    /// is sent once more, over a new one.
    async fn send(
        &self,
        service: &Service,
        request: Request<Full<Bytes>>,
    ) -> Result<(Connection, Response<Incoming>), CallError> {
        let broken = |error: &hyper::Error| CallError::Broken {
            endpoint: service.authority(),
            reason: error.to_string(),
        };
        let request = match service.connections.kept() {
            None => request,
            Some(mut connection) => match connection.send(request).await {
                Ok(response) => return Ok((connection, response)),
                Err(Unsent {
                    request: Some(request),
                    ..
                }) => request,
                Err(Unsent { error, .. }) => return Err(broken(&error)),
            },
        };
        let connector = Connector {
            egress: &self.0.egress,
            tls: &self.0.tls,
            endpoint: &service.endpoint,
        };
        let mut connection = connector.connect().await?;
        match connection.send(request).await {
            Ok(response) => Ok((connection, response)),
            Err(Unsent { error, .. }) => Err(broken(&error)),
        }
    }
}

impl Wanted<'_> {
    /// The request, signed at this time.
    fn request(
        self,
        service: &Service,
        credentials: &Credentials,
    ) -> Result<Request<Full<Bytes>>, Unsigned> {
        let time = timestamp(OffsetDateTime::now_utc());
        let authority = service.authority();
        let mut headers = BTreeMap::from([("host", authority), ("x-amz-date", time.clone())]);
        let token = &*credentials.session_token;
        if !token.is_empty() {
            headers.insert("x-amz-security-token", token.to_owned());
        }
        let (method, path, body) = match self {
            Self::Operation { target, body } => {
                headers.insert("content-type", JSON.to_owned());
                headers.insert("x-amz-target", target.to_owned());
                (Method::POST, "/", body)
            }
            Self::Object(path) => (Method::GET, path, Zeroizing::default()),
        };
        let digest = digest(&body);
        if method == Method::GET {
            // S3 wants it, and no other service does.
            headers.insert("x-amz-content-sha256", digest.clone());
        }
        let signable = Signable {
            method: method.as_str(),
            path,
            query: "",
            headers,
            body: &digest,
        };
        let scope = Scope::new(&time, &service.region, service.name)?;
        let authorization = signable.authorization(
            &credentials.access_key_id,
            &credentials.secret_access_key,
            &scope,
        )?;
        let mut request = Request::builder()
            .method(&method)
            .uri(path)
            .header(AUTHORIZATION, authorization);
        for (name, value) in signable.headers {
            let mut value = HeaderValue::from_str(&value)
                .map_err(|_| Unsigned("a header has characters that none can have"))?;
            value.set_sensitive(name == "x-amz-security-token");
            request = request.header(name, value);
        }
        request
            .body(Full::new(Bytes::from_owner(body)))
            .map_err(|_| Unsigned("it has characters that no request can have"))
    }
}

/// A time as `x-amz-date` has it.
pub(super) fn timestamp(time: OffsetDateTime) -> String {
    format!(
        "{:04}{:02}{:02}T{:02}{:02}{:02}Z",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

async fn read(
    service: &Service,
    response: Response<Incoming>,
    limit: usize,
) -> Result<Answer, CallError> {
    let too_large = || CallError::TooLarge {
        endpoint: service.authority(),
        limit,
    };
    let (head, mut incoming) = response.into_parts();
    let length = head.headers.get(CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    let capacity = length.unwrap_or(FIRST_BUFFER);
    if capacity > limit {
        return Err(too_large());
    }
    let mut body = Zeroizing::new(Vec::with_capacity(capacity));
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|error| CallError::Broken {
            endpoint: service.authority(),
            reason: error.to_string(),
        })?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if body.len() + data.len() > limit {
            return Err(too_large());
        }
        append(&mut body, &data);
    }
    Ok(Answer {
        status: head.status,
        headers: head.headers,
        body,
    })
}

/// Appends, and leaves nothing of the bytes in memory that is given back.
pub(crate) fn append(bytes: &mut Zeroizing<Vec<u8>>, more: &[u8]) {
    let length = bytes.len() + more.len();
    if length > bytes.capacity() {
        let mut larger = Zeroizing::new(Vec::with_capacity(length.next_power_of_two()));
        larger.extend_from_slice(bytes);
        *bytes = larger;
    }
    bytes.extend_from_slice(more);
}
