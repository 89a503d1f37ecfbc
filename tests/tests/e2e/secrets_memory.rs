//! Where a secret is while the workload has it: in the enclave, and nowhere on the host.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use enclave_tests::process::descendants;
use enclave_tests::{Agent, Hypervisor, Workload};
use enveloped_data::{Encoding, seal};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use test_support::memory::{Found, find};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::{PROGRAMS, under_both};

under_both!(plaintext_of_kms_is_in_the_enclave_alone);

const HOST: &str = "kms.example";
/// Of the secret, so many bytes in a row are looked for.
const PIECE: usize = 24;
/// What the agent has, and is found in it.
const CREDENTIALS: &str = "the-agents-secret-access-key-of-this-test";

/// A KMS that believes every document: QEMU's have no signature. Gives its root, in PEM.
async fn serve_kms(secret: Vec<u8>) -> (SocketAddr, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([HOST.to_owned()]).unwrap();
    let certificate = certificate.signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let stream = acceptor.accept(stream).await.unwrap();
            let answer = service_fn(|request: Request<Incoming>| {
                let secret = secret.clone();
                async move { decrypt(request, &secret).await }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer);
            // It ends with the enclave.
            let _ = connection.await;
        }
    });
    (address, root)
}

async fn decrypt(
    request: Request<Incoming>,
    secret: &[u8],
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap();
    let document = body["Recipient"]["AttestationDocument"].as_str().unwrap();
    let document = STANDARD.decode(document).unwrap();
    let key = public_key(&document).unwrap();
    let sealed = seal(&key, secret, Encoding::Kms).unwrap();
    let answer = json!({
        "KeyId": "arn:aws:kms:eu-west-1:111122223333:key/a",
        "Plaintext": "",
        "CiphertextForRecipient": STANDARD.encode(sealed),
    });
    Ok(Response::new(Full::from(answer.to_string())))
}

/// What a document has in `public_key`, whoever made it: verifiers do not even read QEMU's.
fn public_key(document: &[u8]) -> Result<Vec<u8>, minicbor::decode::Error> {
    let mut sign1 = minicbor::Decoder::new(document);
    sign1.array()?;
    sign1.bytes()?;
    sign1.skip()?;
    let mut payload = minicbor::Decoder::new(sign1.bytes()?);
    for _ in 0..payload.map()?.expect("a map of known length") {
        if payload.str()? == "public_key" {
            return payload.bytes().map(<[u8]>::to_vec);
        }
        payload.skip()?;
    }
    Err(minicbor::decode::Error::message("no public_key"))
}

/// Where the secret, or its base64, is in each process, by the process's program.
fn processes(agent: &Agent, text: &[u8]) -> BTreeMap<String, Found> {
    let agent = u32::try_from(agent.pid().unwrap().as_raw()).unwrap();
    let encoded = STANDARD.encode(text).into_bytes();
    let mut all = BTreeMap::<String, Found>::new();
    for id in descendants(agent).into_iter().chain([agent]) {
        let program = fs::read_link(format!("/proc/{id}/exe")).unwrap();
        let program = program.file_name().unwrap().to_string_lossy().into_owned();
        let found = all.entry(program).or_default();
        for text in [text, &encoded] {
            let now = find(id, text, PIECE).unwrap();
            found.own |= now.own;
            found.shared |= now.shared;
        }
    }
    all
}

async fn plaintext_of_kms_is_in_the_enclave_alone(hypervisor: Hypervisor) {
    let mut secret = vec![0; 240];
    aws_lc_rs::rand::fill(&mut secret).unwrap();
    let (address, root) = serve_kms(secret.clone()).await;
    let name = format!("secrets-memory-{}", hypervisor.name());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("roots.pem"), root).unwrap();
    let manifest = format!(
        "[enclave]\nname = \"secrets\"\nimage = \"oci:image\"\nmemory_mib = 256\n\n\
         [workload]\naws_credentials = true\n\n\
         [network]\negress = [\"{HOST}:443\"]\ningress = [{{ port = 8080, to = 8080 }}]\n\n\
         [kms]\nendpoint = \"https://{HOST}\"\nregion = \"eu-west-1\"\nroots = \"roots.pem\"\n"
    );
    let image = Workload::build_from(&PROGRAMS, &folder, "test-workload", &[], &manifest).unwrap();
    let destination = format!("{HOST}:443={address}");
    let environment = [
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", CREDENTIALS.to_owned()),
        ("AWS_REGION", "eu-west-1".to_owned()),
    ];
    let mut agent = Agent::start_with(
        &PROGRAMS,
        &image,
        hypervisor,
        "decrypt",
        &["--connect-to", &destination],
        &environment,
    )
    .unwrap();
    agent.line("decrypted").await.unwrap();

    // What the agent has is found.
    let of_agent = agent.pid().unwrap();
    let known = find(of_agent, CREDENTIALS.as_bytes(), PIECE).unwrap();
    assert!(known.own, "{known:?}");
    let found = processes(&agent, &secret);
    let has_own = found.iter().filter(|(_, found)| found.own);
    let has_own: Vec<_> = has_own.map(|(program, _)| program.as_str()).collect();
    let shared = found.iter().filter(|(_, found)| found.shared).count();
    match hypervisor {
        // The workload, and none of agent, guard and init.
        Hypervisor::Sim => {
            assert_eq!(has_own, ["test-workload"], "{found:?}");
            assert!(found.contains_key("init"), "{found:?}");
            assert_eq!(shared, 0, "{found:?}");
        }
        // The enclave's memory, which QEMU and the vsock device have mapped.
        Hypervisor::Qemu => {
            assert_eq!(has_own, [""; 0], "{found:?}");
            assert!(found.len() > 1 && shared > 0, "{found:?}");
        }
    }
    agent.stopped().await.unwrap();
}
