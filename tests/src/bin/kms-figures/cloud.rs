//! KMS by TLS, and an instance's metadata service, on a thread of their own. Credentials of
//! the instance's role are new whenever they are asked for, and expire soon: KMS refuses
//! requests that are signed with them afterwards.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use attestation::Roots;
use aws_credential_types::Credentials;
use demo::authority::Authority;
use demo::kms::REGION;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::AUTHORIZATION;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::json;
use software_kms::SoftwareKms;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio_rustls::TlsAcceptor;

/// What the KMS is called in its certificate, and in the image.
pub(crate) const HOST: &str = "kms.example";
pub(crate) const ROLE: &str = "arn:aws:iam::000000000000:role/Enclave";
const ACCOUNT: &str = "000000000000";
const LOOPBACK: &str = "127.0.0.1:0";

/// How long the role's credentials live: the agent asks for new ones after 30 s.
const LIFE: Duration = Duration::from_secs(40);
/// How many credentials there are at most, enough for an hour.
const MOST_CREDENTIALS: usize = 256;

const METADATA: &str = "/latest/meta-data/";
const OF_ROLE: &str = "iam/security-credentials/enclave";

/// KMS and the metadata service.
pub(crate) struct Cloud {
    pub(crate) kms: Arc<SoftwareKms>,
    pub(crate) kms_address: SocketAddr,
    pub(crate) metadata_address: SocketAddr,
    /// The root of KMS's certificate.
    pub(crate) authority: String,
    issued: Arc<Issued>,
}

/// When the credentials that were given out expire, by their number.
#[derive(Default)]
struct Issued(Mutex<Vec<SystemTime>>);

impl Cloud {
    /// A KMS that believes documents under this root (PEM).
    pub(crate) async fn start(nsm_root: &str) -> anyhow::Result<Self> {
        let roots = Roots::from_pem(nsm_root.as_bytes()).context("the root of the documents")?;
        let mut kms = SoftwareKms::new(REGION, ACCOUNT.parse()?, roots);
        for credentials in (0..MOST_CREDENTIALS).map(credentials).chain([of_host()]) {
            kms.admit(software_kms::Credentials {
                access_key_id: credentials.access_key_id().to_owned(),
                secret_access_key: credentials.secret_access_key().to_owned(),
                session_token: credentials.session_token().map(str::to_owned),
                arn: ROLE.to_owned(),
            })?;
        }
        let authority = Authority::new("Authority of the KMS of a benchmark")?;
        let acceptor = authority.acceptor(&[HOST])?;
        let (kms, issued) = (Arc::new(kms), Arc::new(Issued::default()));
        let listeners = (
            TcpListener::bind(LOOPBACK).await?,
            TcpListener::bind(LOOPBACK).await?,
        );
        let cloud = Self {
            kms_address: listeners.0.local_addr()?,
            metadata_address: listeners.1.local_addr()?,
            authority: authority.pem().to_owned(),
            kms: Arc::clone(&kms),
            issued: Arc::clone(&issued),
        };
        let listeners = (listeners.0.into_std()?, listeners.1.into_std()?);
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        // It ends with the program.
        thread::spawn(move || {
            runtime.block_on(async {
                let (of_kms, of_metadata) = (
                    TcpListener::from_std(listeners.0)?,
                    TcpListener::from_std(listeners.1)?,
                );
                let metadata = Arc::clone(&issued);
                tokio::try_join!(
                    accept(of_kms, move |stream| {
                        serve_kms(
                            stream,
                            acceptor.clone(),
                            Arc::clone(&kms),
                            Arc::clone(&issued),
                        )
                    }),
                    accept(of_metadata, move |stream| {
                        serve_metadata(stream, Arc::clone(&metadata))
                    }),
                )
            })
        });
        Ok(cloud)
    }

    /// How many credentials of the role have expired, of how many.
    pub(crate) fn expired(&self) -> (usize, usize) {
        let now = SystemTime::now();
        let ends = self.issued.ends();
        let expired = ends.iter().filter(|end| **end <= now).count();
        (expired, ends.len())
    }
}

/// Credentials of the role that do not expire, for calls from the host.
pub(crate) fn of_host() -> Credentials {
    credentials(MOST_CREDENTIALS)
}

/// Of the role, by their number; of AWS's lengths.
fn credentials(number: usize) -> Credentials {
    Credentials::new(
        format!("ASIA{number:016}"),
        format!("{number:040}"),
        Some(format!("{number:00$}", 800)),
        None,
        "role",
    )
}

impl Issued {
    fn ends(&self) -> MutexGuard<'_, Vec<SystemTime>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// New credentials as the metadata service gives them, if there are more.
    fn next(&self) -> Option<String> {
        let mut ends = self.ends();
        let number = ends.len();
        if number == MOST_CREDENTIALS {
            return None;
        }
        // Whole seconds, as AWS's.
        let end = OffsetDateTime::now_utc() + LIFE;
        let end = end.replace_nanosecond(0).ok()?;
        ends.push(end.into());
        let credentials = credentials(number);
        let answer = json!({
            "Code": "Success",
            "Type": "AWS-HMAC",
            "LastUpdated": "2026-01-01T00:00:00Z",
            "AccessKeyId": credentials.access_key_id(),
            "SecretAccessKey": credentials.secret_access_key(),
            "Token": credentials.session_token(),
            "Expiration": end.format(&Rfc3339).ok()?,
        });
        Some(answer.to_string())
    }

    /// Whether the request names credentials that have expired.
    fn refuses(&self, request: &Request<Bytes>) -> bool {
        let number = || {
            let authorization = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
            let (_, credential) = authorization.split_once("Credential=ASIA")?;
            let (number, _) = credential.split_once('/')?;
            number.parse::<usize>().ok()
        };
        let ends = self.ends();
        let end = number().and_then(|number| ends.get(number));
        end.is_some_and(|end| *end <= SystemTime::now())
    }
}

async fn accept<S>(
    listener: TcpListener,
    serve: impl Fn(TcpStream) -> S,
) -> anyhow::Result<Infallible>
where
    S: Future<Output = ()> + Send + 'static,
{
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(serve(stream));
    }
}

async fn serve_kms(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    kms: Arc<SoftwareKms>,
    issued: Arc<Issued>,
) {
    // A connection that fails is its client's to report.
    let Ok(stream) = acceptor.accept(stream).await else {
        return;
    };
    serve(stream, |request| {
        if issued.refuses(&request) {
            let message = "The security token included in the request is expired";
            let body = json!({ "__type": "ExpiredTokenException", "message": message });
            return response(StatusCode::BAD_REQUEST, body.to_string());
        }
        kms.handle(&request).map(Full::new)
    })
    .await;
}

async fn serve_metadata(stream: TcpStream, issued: Arc<Issued>) {
    serve(stream, |request| {
        let path = request.uri().path();
        let page = match path.strip_prefix(METADATA) {
            None if path == "/latest/api/token" => Some("token".to_owned()),
            Some("iam/security-credentials/") => Some("enclave".to_owned()),
            Some(OF_ROLE) => issued.next(),
            Some("placement/region") => Some(REGION.to_owned()),
            _ => None,
        };
        match page {
            Some(page) => response(StatusCode::OK, page),
            None => response(StatusCode::NOT_FOUND, String::new()),
        }
    })
    .await;
}

fn response(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    // For the tokens of the metadata service.
    headers.insert("x-aws-ec2-metadata-token-ttl-seconds", 21_600_u32.into());
    response
}

/// Answers requests until the connection ends.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    answer: impl Fn(Request<Bytes>) -> Response<Full<Bytes>>,
) {
    let answer = &answer;
    let service = service_fn(|request: Request<Incoming>| async move {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok::<_, hyper::Error>(answer(Request::from_parts(head, body)))
    });
    // As above.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// A key whose policy lets the role encrypt, and decrypt under this condition.
pub(crate) fn create_key(
    kms: &SoftwareKms,
    condition: Option<serde_json::Value>,
) -> anyhow::Result<String> {
    let allowed = |action: &str| {
        json!({
            "Effect": "Allow",
            "Principal": { "AWS": ROLE },
            "Action": action,
            "Resource": "*",
        })
    };
    let (mut decrypt, encrypt) = (allowed("kms:Decrypt"), allowed("kms:Encrypt"));
    if let Some(condition) = condition
        && let Some(statement) = decrypt.as_object_mut()
    {
        statement.insert("Condition".to_owned(), condition);
    }
    let policy = json!({ "Version": "2012-10-17", "Statement": [decrypt, encrypt] });
    Ok(kms.create_key(policy.to_string().parse()?)?.to_string())
}
