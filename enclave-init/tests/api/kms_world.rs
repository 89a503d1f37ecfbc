//! An enclave whose workload calls KMS, a KMS in software that verifies what it is sent,
//! and an agent between them.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use attestation::Roots;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use link::control::FromAgent;
use link::logs::LogStream;
use link::target::Reply;
use link::{Credentials, Secret, Stream, Text};
use serde_json::{Value, json};
use software_kms::SoftwareKms;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use crate::agent::{Control, Outgoing};
use crate::credentials::{answers, asks};
use crate::enclave::{Enclave, Image, MEASUREMENTS};
use crate::tls::{HOST, Tls};

const ROLE: &str = "arn:aws:iam::123456789012:role/Enclave";

/// What becomes of each answer on its way to TLS.
pub(crate) type Tamper = Arc<dyn Fn(&mut Value) + Send + Sync>;

/// An enclave whose workload has KMS, and the KMS.
pub(crate) struct World {
    pub(crate) enclave: Enclave,
    pub(crate) control: Control,
    pub(crate) kms: Arc<SoftwareKms>,
    pub(crate) key: String,
    pub(crate) tls: Tls,
    pub(crate) outgoing: mpsc::Receiver<Outgoing>,
}

pub(crate) fn sdk_credentials(id: &str) -> software_kms::Credentials {
    software_kms::Credentials {
        access_key_id: id.to_owned(),
        secret_access_key: "hush-secret".to_owned(),
        session_token: Some("hush-session-of-24-bytes".to_owned()),
        arn: ROLE.to_owned(),
    }
}

impl World {
    /// The workload's instructions can name the ciphertext's file, `/ciphertext`.
    pub(crate) async fn new(instructions: &[&str], knows: &[&str]) -> Self {
        Self::with_clock(instructions, knows, SystemTime::now).await
    }

    /// A world whose KMS goes by this clock.
    pub(crate) async fn with_clock(
        instructions: &[&str],
        knows: &[&str],
        clock: fn() -> SystemTime,
    ) -> Self {
        let tls = Tls::new();
        let kms = json!({
            "endpoint": format!("https://{HOST}"),
            "region": "eu-west-1",
            "roots": tls.authority_pem.trim_end(),
        });
        let image = Image::new(instructions)
            .with("/workload/aws_credentials", true.into())
            .with("/network/egress", json!([format!("{HOST}:443")]))
            .with("/kms", kms);
        let (mut enclave, mut control) = image.boot().await;
        asks(&mut control).await;
        let roots = Roots::from_pem(enclave.prepared.root_pem.as_bytes()).unwrap();
        let mut kms =
            SoftwareKms::new("eu-west-1", "123456789012".parse().unwrap(), roots).with_clock(clock);
        for id in knows {
            kms.admit(sdk_credentials(id)).unwrap();
        }
        let image =
            json!({ "kms:RecipientAttestation:ImageSha384": MEASUREMENTS.pcr0.to_string() });
        let statement = |actions: &[&str]| {
            json!({
                "Effect": "Allow",
                "Principal": { "AWS": ROLE },
                "Action": actions,
                "Resource": "*",
            })
        };
        let mut released = statement(&["kms:Decrypt", "kms:GenerateDataKey"]);
        released["Condition"] = json!({ "StringEqualsIgnoreCase": image });
        let policy = json!({
            "Version": "2012-10-17",
            "Statement": [released, statement(&["kms:Encrypt", "kms:DescribeKey"])],
        });
        let key = kms.create_key(policy.to_string().parse().unwrap());
        let key = key.unwrap().to_string();
        let (_, none) = mpsc::channel(1);
        let outgoing = std::mem::replace(&mut enclave.prepared.agent.egress, none);
        Self {
            enclave,
            control,
            kms: Arc::new(kms),
            key,
            tls,
            outgoing,
        }
    }

    /// Carries the init's connections to the KMS from now on.
    pub(crate) fn connect(&mut self, tamper: Option<Tamper>) {
        let (_, none) = mpsc::channel(1);
        let mut outgoing = std::mem::replace(&mut self.outgoing, none);
        let (kms, acceptor) = (Arc::clone(&self.kms), self.tls.acceptor.clone());
        tokio::spawn(async move {
            while let Some(next) = outgoing.recv().await {
                assert_eq!((&*next.target.host, next.target.port), (HOST, 443));
                let stream = next.reply(Reply::Connected).await;
                let (kms, acceptor) = (Arc::clone(&kms), acceptor.clone());
                tokio::spawn(serve(stream, acceptor, kms, tamper.clone()));
            }
        });
    }

    pub(crate) async fn give(&mut self, id: &str) {
        give(&mut self.control, id).await;
    }

    pub(crate) async fn done(&self) -> Vec<(u16, Value)> {
        self.enclave.said("done").await;
        for stream in [LogStream::System, LogStream::Errors, LogStream::Health] {
            let lines = self.enclave.lines(stream).join("\n");
            assert!(!lines.contains("hush"), "{lines}");
        }
        answers(&self.enclave)
    }
}

/// Hands in credentials, as the agent does.
pub(crate) async fn give(control: &mut Control, id: &str) {
    give_for(control, id, Duration::from_secs(3600)).await;
}

/// Hands in credentials that live so long.
pub(crate) async fn give_for(control: &mut Control, id: &str, life: Duration) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let expires_ms = u64::try_from((now + life).as_millis()).unwrap();
    let credentials = Credentials {
        access_key_id: Secret::new(id).unwrap(),
        secret_access_key: Secret::new("hush-secret").unwrap(),
        session_token: Secret::new("hush-session-of-24-bytes").unwrap(),
        expires_ms,
        // The parent's word counts for nothing beside the image's.
        region: Text::new("us-east-1"),
    };
    control.send(FromAgent::Credentials(credentials)).await;
}

/// Boots an image, hands in credentials, and carries the init's connections to the KMS and
/// to other services of AWS, which answer with a status and a body.
pub(crate) async fn boot<A: Future<Output = (u16, String)> + Send>(
    image: Image,
    id: &str,
    kms: &Arc<SoftwareKms>,
    tls: &Tls,
    answer: impl Fn(String, Request<Bytes>) -> A + Clone + Send + Sync + 'static,
) -> (Enclave, Control) {
    let (mut enclave, mut control) = image.boot().await;
    let (_, none) = mpsc::channel(1);
    let mut outgoing = std::mem::replace(&mut enclave.prepared.agent.egress, none);
    let (kms, acceptor) = (Arc::clone(kms), tls.acceptor.clone());
    tokio::spawn(async move {
        while let Some(next) = outgoing.recv().await {
            let host = next.target.host.to_string();
            let stream = next.reply(Reply::Connected).await;
            let (kms, acceptor, answer) = (Arc::clone(&kms), acceptor.clone(), answer.clone());
            tokio::spawn(async move {
                if host == HOST {
                    return serve(stream, acceptor, kms, None).await;
                }
                let stream = acceptor.accept(stream).await.unwrap();
                let service = service_fn(|request: Request<hyper::body::Incoming>| async {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    let request = Request::from_parts(head, body);
                    let (status, body) = answer(host.clone(), request).await;
                    let mut response = Response::new(Full::new(Bytes::from(body)));
                    *response.status_mut() = status.try_into().unwrap();
                    Ok::<_, std::convert::Infallible>(response)
                });
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    asks(&mut control).await;
    give(&mut control, id).await;
    (enclave, control)
}

pub(crate) async fn serve(
    stream: Stream,
    acceptor: TlsAcceptor,
    kms: Arc<SoftwareKms>,
    tamper: Option<Tamper>,
) {
    // The init gives up on those that it does not believe.
    let Ok(stream) = acceptor.accept(stream).await else {
        return;
    };
    let Some(tamper) = tamper else {
        return software_kms::serve_connection(stream, &kms).await;
    };
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        let (kms, tamper) = (Arc::clone(&kms), Arc::clone(&tamper));
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let (head, body) = kms.handle(&Request::from_parts(head, body)).into_parts();
            let mut body: Value = serde_json::from_slice(&body).unwrap();
            tamper(&mut body);
            let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
            *response.status_mut() = head.status;
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

pub(crate) fn bytes(value: &Value) -> Vec<u8> {
    STANDARD.decode(value.as_str().unwrap()).unwrap()
}

/// Has the workload go on, with this request.
pub(crate) fn go_on(world: &World, file: &str, body: &Value) {
    fs::write(world.enclave.path("request"), body.to_string()).unwrap();
    fs::write(world.enclave.path(file), "").unwrap();
}
