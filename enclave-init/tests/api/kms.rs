//! KMS through the init: a workload that calls as SDKs do, a KMS in software that verifies
//! what it is sent, and an agent between them.

use std::fs;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use attestation::Roots;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use enveloped_data::{Encoding, RecipientKey, seal};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use link::control::FromAgent;
use link::logs::LogStream;
use link::target::{Refusal, Reply};
use link::{Credentials, Secret, Stream, Text};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use software_kms::SoftwareKms;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::agent::{Control, Outgoing};
use crate::credentials::{answers, asks, is_taken_in};
use crate::enclave::{Enclave, Image, MEASUREMENTS};

pub(crate) const HOST: &str = "kms.example.test";
/// Where the init finds Systems Manager.
pub(crate) const SSM_HOST: &str = "ssm.eu-west-1.amazonaws.com";
const ROLE: &str = "arn:aws:iam::123456789012:role/Enclave";
const PLAINTEXT: &[u8] = b"hush-plaintext";

/// An authority, and a certificate of its for the services.
pub(crate) struct Tls {
    pub(crate) authority_pem: String,
    pub(crate) acceptor: TlsAcceptor,
}

impl Tls {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([HOST, SSM_HOST].map(str::to_owned))
            .unwrap()
            .signed_by(&key, &issuer)
            .unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        Self {
            authority_pem,
            acceptor: TlsAcceptor::from(Arc::new(config)),
        }
    }
}

/// What becomes of each answer on its way to TLS.
pub(crate) type Tamper = Arc<dyn Fn(&mut Value) + Send + Sync>;

/// An enclave whose workload has KMS, and the KMS.
struct World {
    enclave: Enclave,
    control: Control,
    kms: Arc<SoftwareKms>,
    key: String,
    tls: Tls,
    outgoing: mpsc::Receiver<Outgoing>,
}

pub(crate) fn sdk_credentials(id: &str) -> software_kms::Credentials {
    software_kms::Credentials {
        access_key_id: id.to_owned(),
        secret_access_key: "hush-secret".to_owned(),
        session_token: Some("hush-session".to_owned()),
        arn: ROLE.to_owned(),
    }
}

impl World {
    /// The workload's instructions can name the ciphertext's file, `/ciphertext`.
    async fn new(instructions: &[&str], knows: &[&str]) -> Self {
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
        let mut kms = SoftwareKms::new("eu-west-1", "123456789012".parse().unwrap(), roots);
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
    fn connect(&mut self, tamper: Option<Tamper>) {
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

    async fn give(&mut self, id: &str) {
        give(&mut self.control, id).await;
    }

    async fn done(&self) -> Vec<(u16, Value)> {
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
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let expires_ms = u64::try_from(now.as_millis()).unwrap() + 3_600_000;
    let credentials = Credentials {
        access_key_id: Secret::new(id).unwrap(),
        secret_access_key: Secret::new("hush-secret").unwrap(),
        session_token: Secret::new("hush-session").unwrap(),
        expires_ms,
        // The parent's word counts for nothing beside the image's.
        region: Text::new("us-east-1"),
    };
    control.send(FromAgent::Credentials(credentials)).await;
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

fn bytes(value: &Value) -> Vec<u8> {
    STANDARD.decode(value.as_str().unwrap()).unwrap()
}

/// Has the workload go on, with this request.
fn go_on(world: &World, file: &str, body: &Value) {
    fs::write(world.enclave.path("request"), body.to_string()).unwrap();
    fs::write(world.enclave.path(file), "").unwrap();
}

#[tokio::test]
async fn kms_calls_of_a_workload_are_answered_with_plaintext() {
    let encrypt = json!({
        "KeyId": "KEY",
        "Plaintext": STANDARD.encode(PLAINTEXT),
        "EncryptionContext": {"purpose": "test"},
    });
    let mut world = World::new(
        &[
            "until /first",
            "kms-file Encrypt /request",
            "say encrypted",
            "until /second",
            "kms-file Decrypt /request",
            "say decrypted",
            "until /third",
            "kms-file GenerateDataKey /request",
            "kms GenerateRandom {\"NumberOfBytes\":32}",
            "kms-together 40 GenerateRandom {\"NumberOfBytes\":8}",
            "kms ListGrants {}",
            "kms DescribeKey {\"KeyId\":\"other\"}",
            "say done",
            "wait",
        ],
        &["ASIA1"],
    )
    .await;
    world.connect(None);
    world.give("ASIA1").await;
    let mut request = encrypt.clone();
    request["KeyId"] = world.key.clone().into();
    go_on(&world, "first", &request);
    world.enclave.said("encrypted").await;
    let (status, encrypted) = answers(&world.enclave).pop().unwrap();
    assert_eq!(status, 200, "{encrypted}");

    let request = json!({
        "KeyId": world.key,
        "CiphertextBlob": encrypted["CiphertextBlob"],
        "EncryptionContext": {"purpose": "test"},
    });
    go_on(&world, "second", &request);
    world.enclave.said("decrypted").await;
    let (status, decrypted) = answers(&world.enclave).pop().unwrap();
    assert_eq!(status, 200, "{decrypted}");
    assert_eq!(bytes(&decrypted["Plaintext"]), PLAINTEXT);
    assert_eq!(decrypted["KeyId"], world.key);
    assert_eq!(decrypted.get("CiphertextForRecipient"), None);

    go_on(
        &world,
        "third",
        &json!({"KeyId": world.key, "KeySpec": "AES_256"}),
    );
    let answers = world.done().await;
    let (status, generated) = &answers[2];
    assert_eq!(*status, 200, "{generated}");
    assert_eq!(bytes(&generated["Plaintext"]).len(), 32);
    assert!(generated["CiphertextBlob"].is_string());
    assert_eq!(bytes(&answers[3].1["Plaintext"]).len(), 32);
    for (status, random) in &answers[4..44] {
        assert_eq!((*status, bytes(&random["Plaintext"]).len()), (200, 8));
    }
    // What KMS refuses comes in its own words.
    assert_eq!(answers[44].0, 400);
    assert_eq!(answers[44].1["__type"], "UnknownOperationException");
    assert_eq!(answers[45].1["__type"], "NotFoundException");
}

#[tokio::test]
async fn kms_calls_are_those_of_whoever_has_the_workloads_credentials() {
    let random = "{\"NumberOfBytes\":8}";
    let instructions = [
        format!("kms-unsigned GenerateRandom {random}"),
        format!("kms-as AKIDOTHER hush-secret GenerateRandom {random}"),
        format!("kms-with another GenerateRandom {random}"),
        "forge tcp /v1/aws/kms Host:127.0.0.1:7070 Enclave-Api:1".to_owned(),
        "forge tcp /v1/aws/kms Host:rebound.example:7070".to_owned(),
        format!("kms GenerateRandom {random}"),
        "kms GenerateRandom [".to_owned(),
        format!("kms GenerateRandom {{\"X\":\"{}\"}}", "x".repeat(65_536)),
        "say first".to_owned(),
        "until /second".to_owned(),
        format!("kms GenerateRandom {random}"),
        "say second".to_owned(),
        "until /third".to_owned(),
        format!("kms GenerateRandom {random}"),
        "say done".to_owned(),
        "wait".to_owned(),
    ];
    let instructions: Vec<&str> = instructions.iter().map(String::as_str).collect();
    // The KMS knows the second credentials alone.
    let mut world = World::new(&instructions, &["ASIA2"]).await;
    world.connect(None);
    world.give("ASIA1").await;
    world.enclave.said("first").await;
    let first = answers(&world.enclave);
    let names: Vec<_> = first
        .iter()
        .map(|(status, body)| (*status, body["__type"].as_str().unwrap_or_default()))
        .collect();
    assert_eq!(
        names,
        [
            (400, "MissingAuthenticationTokenException"),
            (400, "UnrecognizedClientException"),
            (400, "InvalidSignatureException"),
            (404, "AccessDeniedException"),
            (403, "AccessDeniedException"),
            // KMS's own.
            (400, "UnrecognizedClientException"),
            (400, "SerializationException"),
            (400, "SerializationException"),
        ]
    );
    let told = first[1].1["message"].as_str().unwrap();
    assert!(told.contains("default chain"), "{told}");

    // The SDK still signs with the first ones; the newest are what KMS is called with.
    world.give("ASIA2").await;
    is_taken_in(&mut world.control).await;
    go_on(&world, "second", &json!({}));
    world.enclave.said("second").await;
    let (status, body) = answers(&world.enclave).pop().unwrap();
    assert_eq!(status, 200, "{body}");
    world.give("ASIA3").await;
    is_taken_in(&mut world.control).await;
    go_on(&world, "third", &json!({}));
    let (status, body) = world.done().await.pop().unwrap();
    assert_eq!(
        (status, &body["__type"]),
        (400, &json!("UnrecognizedClientException"))
    );
}

#[tokio::test]
async fn kms_answers_that_were_tampered_with_release_nothing() {
    let other = RecipientKey::generate().unwrap();
    let for_other = seal(other.public_key_der(), PLAINTEXT, Encoding::Kms).unwrap();
    let tampers: [(Tamper, &str); 5] = [
        (
            Arc::new(|answer: &mut Value| {
                let mut sealed = bytes(&answer["CiphertextForRecipient"]);
                *sealed.last_mut().unwrap() ^= 1;
                let middle = sealed.len() / 2;
                sealed[middle] ^= 1;
                answer["CiphertextForRecipient"] = STANDARD.encode(sealed).into();
            }),
            "cannot be opened with this enclave's key",
        ),
        (
            Arc::new(move |answer: &mut Value| {
                answer["CiphertextForRecipient"] = STANDARD.encode(&for_other).into();
            }),
            "cannot be opened with this enclave's key",
        ),
        (
            Arc::new(|answer: &mut Value| {
                answer
                    .as_object_mut()
                    .unwrap()
                    .remove("CiphertextForRecipient");
            }),
            "cannot be opened with this enclave's key",
        ),
        (
            Arc::new(|answer: &mut Value| answer["Plaintext"] = STANDARD.encode(PLAINTEXT).into()),
            "not encrypted to this enclave",
        ),
        (
            Arc::new(|answer: &mut Value| {
                answer["KeyId"] = "arn:aws:kms:eu-west-1:999999999999:key/mine".into();
            }),
            "KMS answered with the key arn:aws:kms:eu-west-1:999999999999:key/mine",
        ),
    ];
    for (tamper, expected) in tampers {
        let mut world = World::new(
            &[
                "until /first",
                "kms-file GenerateDataKey /request",
                "say done",
                "wait",
            ],
            &["ASIA1"],
        )
        .await;
        world.connect(Some(tamper));
        world.give("ASIA1").await;
        go_on(
            &world,
            "first",
            &json!({"KeyId": world.key, "KeySpec": "AES_256"}),
        );
        let (status, body) = world.done().await.pop().unwrap();
        assert_eq!(
            (status, &body["__type"]),
            (502, &json!("InvalidAnswerException")),
            "{body}"
        );
        let text = body["message"].as_str().unwrap();
        assert!(text.contains(expected), "{text}");
        assert!(!body.to_string().contains("hush"), "{body}");
    }
}

#[tokio::test]
async fn kms_is_unavailable_where_the_parent_stands_in_the_way() {
    let call = "kms GenerateRandom {\"NumberOfBytes\":8}";
    let mut world = World::new(
        &[
            call,
            call,
            call,
            call,
            "say connected",
            "until /go",
            call,
            "say done",
            "wait",
        ],
        &["ASIA1"],
    )
    .await;
    world.give("ASIA1").await;

    // It does not connect.
    let next = world.outgoing.recv().await.unwrap();
    let reason = Text::new("the route is down");
    let refusal = Refusal::Unreachable;
    drop(next.reply(Reply::Refused { refusal, reason }).await);
    // It answers in KMS's place, with a certificate of its own.
    let next = world.outgoing.recv().await.unwrap();
    let stream = next.reply(Reply::Connected).await;
    serve(stream, Tls::new().acceptor, Arc::clone(&world.kms), None).await;
    // It closes.
    let next = world.outgoing.recv().await.unwrap();
    drop(next.reply(Reply::Connected).await);
    // It carries, and keeps what it carries; another time it plays that back.
    let next = world.outgoing.recv().await.unwrap();
    let mut stream = next.reply(Reply::Connected).await;
    let (near, far) = tokio::net::UnixStream::pair().unwrap();
    let mut near = Stream::Unix(near);
    let (kms, acceptor) = (Arc::clone(&world.kms), world.tls.acceptor.clone());
    tokio::spawn(serve(Stream::Unix(far), acceptor, kms, None));
    let mut carried = Vec::new();
    let (mut up, mut down) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
    let said = world.enclave.said("connected");
    tokio::pin!(said);
    loop {
        tokio::select! {
            _ = &mut said => break,
            count = stream.read(&mut up) => {
                near.write_all(&up[..count.unwrap()]).await.unwrap();
            }
            count = near.read(&mut down) => {
                let count = count.unwrap();
                carried.extend_from_slice(&down[..count]);
                stream.write_all(&down[..count]).await.unwrap();
            }
        }
    }
    drop((stream, near));
    is_taken_in(&mut world.control).await;
    fs::write(world.enclave.path("go"), "").unwrap();
    let next = world.outgoing.recv().await.unwrap();
    let mut stream = next.reply(Reply::Connected).await;
    let _ = stream.write_all(&carried).await;
    let _ = stream.read_to_end(&mut Vec::new()).await;

    let answers = world.done().await;
    for ((status, body), expected) in answers.iter().zip([
        Some("the route is down"),
        Some("TLS with kms.example.test:443 failed: invalid peer certificate"),
        Some("TLS with kms.example.test:443 failed"),
        None,
        Some("kms.example.test"),
    ]) {
        let Some(expected) = expected else {
            assert_eq!(*status, 200, "{body}");
            continue;
        };
        assert_eq!(
            (*status, &body["__type"]),
            (503, &json!("ServiceUnavailableException")),
            "{body}"
        );
        let text = body["message"].as_str().unwrap();
        assert!(text.contains(expected), "{text}");
    }
    assert_eq!(answers.len(), 5);
}

/// Calls KMS with botocore, whose configuration is the environment alone.
const BOTOCORE: &str = "
import sys
from botocore.exceptions import ClientError
from botocore.session import get_session
kms = get_session().create_client('kms')
key = sys.argv[1]
context = {'purpose': 'test'}
sealed = kms.encrypt(KeyId=key, Plaintext=b'a secret', EncryptionContext=context)['CiphertextBlob']
print(kms.decrypt(CiphertextBlob=sealed, EncryptionContext=context)['Plaintext'].decode())
data = kms.generate_data_key(KeyId=key, KeySpec='AES_256')
opened = kms.decrypt(KeyId=key, CiphertextBlob=data['CiphertextBlob'])
print(opened['Plaintext'] == data['Plaintext'], len(data['Plaintext']), 'CiphertextForRecipient' in data)
print(len(kms.generate_random(NumberOfBytes=8)['Plaintext']), kms.describe_key(KeyId=key)['KeyMetadata']['Arn'] == key)
try:
    kms.decrypt(CiphertextBlob=sealed)
except ClientError as error:
    print(error.response['Error']['Code'])
";

#[tokio::test]
async fn kms_is_called_by_an_unmodified_botocore() {
    let Some(python) = std::env::var_os("ENCLAVE_TEST_PYTHON") else {
        eprintln!("ENCLAVE_TEST_PYTHON is not set: `cargo xtask test` sets it");
        return;
    };
    let mut world = World::new(&["say started", "wait"], &["ASIA1"]).await;
    world.connect(None);
    world.give("ASIA1").await;
    world.enclave.said("started").await;
    let arguments = [BOTOCORE, &world.key];
    let (found, errors) = world
        .enclave
        .python(&python, &arguments, "AWS_ENDPOINT_URL_KMS")
        .await;
    let expected = "a secret\nTrue 32 False\n8 True\nInvalidCiphertextException\n";
    assert_eq!(found, expected, "{errors}");
}
