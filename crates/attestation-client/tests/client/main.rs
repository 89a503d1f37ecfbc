//! The client of live enclaves, against servers of every kind.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod server;

use std::sync::Arc;
use std::time::Duration;

use attestation::{Binding, Policy, PolicyError, Purpose, Rule, Verifier};
use attestation_client::{Attestation, Client, FetchError, NONCE_BYTES, TlsServer, Trust};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use server::{Answer, Enclave, IMAGE, Pace, Tls, ok, serve};

fn policy() -> Policy {
    Policy::builder().measurements(IMAGE).build().unwrap()
}

fn client(enclave: &Enclave) -> Client {
    Client::new(Verifier::new(enclave.roots()))
}

async fn attest(client: &Client, url: &str) -> Result<Attestation, FetchError> {
    client.attest(&url.parse().unwrap(), &policy()).await
}

fn rule(attestation: Result<Attestation, FetchError>) -> Rule {
    attestation.unwrap().outcome.unwrap_err().rule
}

/// An enclave's service, in one of the encodings.
fn service(enclave: &Enclave, encode: fn(Vec<u8>) -> Vec<u8>) -> Answer {
    let enclave = enclave.clone();
    Arc::new(move |nonce| ok(encode(enclave.document(nonce, None))))
}

#[tokio::test]
async fn a_policy_that_fixes_a_nonce_is_refused_before_anybody_is_asked() {
    let enclave = Enclave::new();
    let policy = policy().to_builder().nonce(vec![1]).build().unwrap();
    let endpoint = "http://127.0.0.1:1/attestation".parse().unwrap();
    let refused = client(&enclave).attest(&endpoint, &policy).await;
    assert!(matches!(
        refused,
        Err(FetchError::Policy(PolicyError::FixedNonce))
    ));
}

#[tokio::test]
async fn tls_errors_show_the_names_in_a_certificate_as_text() {
    let enclave = Enclave::new();
    let tls = Tls::self_signed_for("a\u{1b}[31m.example");
    let port = tls.serve(service(&enclave, |document| document)).await;
    let trust = Trust::from_pem(tls.authority_pem.as_bytes()).unwrap();
    let url = format!("https://127.0.0.1:{port}");
    let error = attest(&client(&enclave).trust(trust), &url).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains(r"a\u{1b}[31m"), "{error:?}");
    assert!(!error.contains(char::is_control), "{error:?}");
}

#[tokio::test]
async fn bind_tls_with_a_purpose_whose_documents_hold_no_key_is_refused_before_anybody_is_asked() {
    let enclave = Enclave::new();
    let endpoint = "https://127.0.0.1:1/attestation".parse().unwrap();
    for purpose in [Purpose::SelfCheck, Purpose::Clock] {
        let policy = policy().to_builder().purpose(purpose).build().unwrap();
        let client = client(&enclave).trust(Trust::attested_key());
        let refused = client.attest(&endpoint, &policy).await;
        assert!(matches!(
            refused,
            Err(FetchError::Policy(PolicyError::KeyOfTheInit(_)))
        ));
    }
}

#[tokio::test]
async fn a_live_enclave_is_accepted_in_every_encoding() {
    let enclave = Enclave::new();
    let client = client(&enclave);
    let encodings: [fn(Vec<u8>) -> Vec<u8>; 5] = [
        |document| document,
        |document| hex::encode(document).into_bytes(),
        |document| STANDARD.encode(document).into_bytes(),
        |document| {
            let base64 = STANDARD.encode(document);
            format!("-----BEGIN ATTESTATION-----\n{base64}\n-----END ATTESTATION-----\n").into()
        },
        |document| {
            let base64 = STANDARD.encode(document);
            format!(r#"{{"enclave": "payments", "document": "{base64}"}}"#).into()
        },
    ];
    let mut nonces = Vec::new();
    for encode in encodings {
        let port = serve(service(&enclave, encode), Pace::AtOnce).await;
        let url = format!("http://127.0.0.1:{port}/attestation?format=any");
        let attestation = attest(&client, &url).await.unwrap();
        let claims = attestation.outcome.unwrap();
        assert!(attestation.report.accepted);
        assert_eq!(
            claims.module_id(),
            "i-0123456789abcdef0-enc0123456789abcdef"
        );
        assert_eq!(claims.nonce(), Some(attestation.nonce.as_slice()));
        assert_eq!(claims.pcr(0), Some(IMAGE.pcr0));
        assert_eq!(claims.pcrs().count(), 16);
        assert_eq!(attestation.nonce.len(), NONCE_BYTES);
        nonces.push(attestation.nonce);
    }
    nonces.sort();
    nonces.dedup();
    assert_eq!(nonces.len(), encodings.len());
}

#[tokio::test]
async fn one_client_serves_many_tasks() {
    let enclave = Enclave::new();
    let port = serve(service(&enclave, |document| document), Pace::AtOnce).await;
    let client = Arc::new(client(&enclave));
    let tasks: Vec<_> = (0..32)
        .map(|_| {
            let client = Arc::clone(&client);
            tokio::spawn(async move { attest(&client, &format!("http://127.0.0.1:{port}")).await })
        })
        .collect();
    for task in tasks {
        assert!(task.await.unwrap().unwrap().outcome.is_ok());
    }
}

#[tokio::test]
async fn another_nonce_and_a_replay_are_refused() {
    let enclave = Enclave::new();
    let client = client(&enclave);
    let stale = enclave.document(&[7; NONCE_BYTES], None);
    let port = serve(Arc::new(move |_| ok(&stale)), Pace::AtOnce).await;
    let url = format!("http://127.0.0.1:{port}");
    assert_eq!(rule(attest(&client, &url).await), Rule::PolicyNonce);

    // The first answer is good, and is given to everybody after it.
    let (first, good) = (std::sync::OnceLock::new(), enclave.clone());
    let replay: Answer =
        Arc::new(move |nonce| ok(first.get_or_init(|| good.document(nonce, None))));
    let port = serve(replay, Pace::AtOnce).await;
    let url = format!("http://127.0.0.1:{port}");
    assert!(attest(&client, &url).await.unwrap().outcome.is_ok());
    assert_eq!(rule(attest(&client, &url).await), Rule::PolicyNonce);
}

#[tokio::test]
async fn an_enclave_under_another_root_or_of_another_image_is_refused() {
    let (enclave, other) = (Enclave::new(), Enclave::new());
    let port = serve(service(&enclave, |document| document), Pace::AtOnce).await;
    let url = format!("http://127.0.0.1:{port}");
    assert_eq!(rule(attest(&client(&other), &url).await), Rule::ChainRoot);

    let mut image = IMAGE;
    image.pcr2 = IMAGE.pcr0;
    let policy = Policy::builder().measurements(image).build().unwrap();
    let attestation = client(&enclave)
        .attest(&url.parse().unwrap(), &policy)
        .await;
    assert_eq!(rule(attestation), Rule::PolicyImage);
}

#[tokio::test]
async fn a_tls_server_is_believed_if_its_authority_is_named() {
    let enclave = Enclave::new();
    let tls = Tls::new();
    let port = tls.serve(service(&enclave, |document| document)).await;
    let trust = |pem: &str| Trust::from_pem(pem.as_bytes()).unwrap();
    let trusting = client(&enclave).trust(trust(&tls.authority_pem));
    for host in ["127.0.0.1", "localhost"] {
        let attestation = attest(&trusting, &format!("https://{host}:{port}/")).await;
        assert!(attestation.unwrap().outcome.is_ok());
    }

    let url = format!("https://127.0.0.1:{port}/");
    for (trust, reason) in [
        (trust(&Tls::new().authority_pem), "invalid peer certificate"),
        (Trust::system(), ""),
    ] {
        let error = attest(&client(&enclave).trust(trust), &url).await;
        match error.unwrap_err() {
            FetchError::Tls { reason: found, .. } => assert!(found.contains(reason), "{found}"),
            other => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn a_certificate_of_another_host_is_refused() {
    let enclave = Enclave::new();
    let tls = Tls::self_signed();
    let port = tls.serve(service(&enclave, |document| document)).await;
    let trusting = client(&enclave).trust(Trust::from_pem(tls.authority_pem.as_bytes()).unwrap());
    let error = attest(&trusting, &format!("https://127.0.0.1:{port}/")).await;
    assert!(matches!(error.unwrap_err(), FetchError::Tls { .. }));
}

#[tokio::test]
async fn an_attested_key_vouches_for_a_tls_server_and_for_no_relay() {
    let enclave = Enclave::new();
    let tls = Tls::self_signed();
    let spki = tls.spki();
    let with_key = |key: Vec<u8>| -> Answer {
        let enclave = enclave.clone();
        Arc::new(move |nonce| ok(enclave.document(nonce, Some(&key))))
    };
    let client = client(&enclave).trust(Trust::attested_key());
    let port = tls.serve(with_key(spki.clone())).await;
    let attestation = attest(&client, &format!("https://127.0.0.1:{port}/"))
        .await
        .unwrap();
    assert_eq!(
        attestation.outcome.unwrap().public_key(),
        Some(spki.as_slice())
    );

    // A relay has the enclave's documents, but not its key.
    let port = Tls::self_signed().serve(with_key(spki)).await;
    let url = format!("https://127.0.0.1:{port}/");
    assert_eq!(rule(attest(&client, &url).await), Rule::PolicyPublicKey);
    // And a document without a key binds none.
    let port = tls.serve(service(&enclave, |document| document)).await;
    let url = format!("https://127.0.0.1:{port}/");
    assert_eq!(rule(attest(&client, &url).await), Rule::PolicyPublicKey);
    let error = attest(&client, "http://127.0.0.1:1/").await.unwrap_err();
    assert!(matches!(error, FetchError::NoTls(_)), "{error}");
}

#[tokio::test]
async fn an_attested_key_is_one_that_the_policy_allows() {
    let enclave = Enclave::new();
    let tls = Tls::self_signed();
    let key = tls.spki();
    let with_key: Answer = {
        let (enclave, key) = (enclave.clone(), key.clone());
        Arc::new(move |nonce| ok(enclave.document(nonce, Some(&key))))
    };
    let client = client(&enclave).trust(Trust::attested_key());
    let port = tls.serve(with_key).await;
    let endpoint = format!("https://127.0.0.1:{port}/").parse().unwrap();
    let ask = async |binding| {
        let policy = policy().to_builder().bind_public_key(binding);
        client.attest(&endpoint, &policy.build().unwrap()).await
    };
    let begins = Binding::Prefix(key[..8].to_vec());
    assert!(ask(begins).await.unwrap().outcome.is_ok());
    for other in [
        Binding::Equal(vec![1]),
        Binding::Prefix([key.as_slice(), &[0]].concat()),
        Binding::Sha256Of(key.clone()),
    ] {
        let error = ask(other).await.unwrap_err();
        assert!(matches!(error, FetchError::OtherKey(_)), "{error}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let enclave = Enclave::new();
    let there = serve(service(&enclave, |document| document), Pace::AtOnce).await;
    let answer = format!(
        "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{there}/\r\nContent-Length: 0\r\n\r\n"
    );
    let port = serve(Arc::new(move |_| answer.clone().into()), Pace::AtOnce).await;
    let error = attest(&client(&enclave), &format!("http://127.0.0.1:{port}/")).await;
    match error.unwrap_err() {
        FetchError::Redirected { location, .. } => {
            assert_eq!(location, format!("http://127.0.0.1:{there}/"));
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_refusal_is_shown_without_what_a_terminal_obeys() {
    let enclave = Enclave::new();
    let body = "{\"error\": \"\\u001b[31mno NSM\\nfor you\"}";
    let answer = format!(
        "HTTP/1.1 503 Busy\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let port = serve(Arc::new(move |_| answer.clone().into()), Pace::AtOnce).await;
    let error = attest(&client(&enclave), &format!("http://127.0.0.1:{port}/")).await;
    assert_eq!(
        error.unwrap_err().to_string(),
        format!("http://127.0.0.1:{port}/ refused with status 503: \\u{{1b}}[31mno NSM\\nfor you")
    );
}

#[tokio::test]
async fn answers_without_end_are_cut() {
    let enclave = Enclave::new();
    let client = client(&enclave);
    let chunk = [b"4000\r\n", [b'A'; 0x4000].as_slice(), b"\r\n"].concat();
    let chunked = [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        chunk.repeat(8).as_slice(),
    ]
    .concat();
    for (answer, pace) in [
        // Said to be large.
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n".to_vec(),
            Pace::AtOnce,
        ),
        (chunked, Pace::AtOnce),
        // Without a length: until the connection ends.
        (
            [b"HTTP/1.1 200 OK\r\n\r\n", b"A".repeat(70_000).as_slice()].concat(),
            Pace::Endless,
        ),
    ] {
        let port = serve(Arc::new(move |_| answer.clone()), pace).await;
        match attest(&client, &format!("http://127.0.0.1:{port}/")).await {
            Err(FetchError::TooLarge { .. } | FetchError::Exchange { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    let endless_head: Answer = Arc::new(|_| b"HTTP/1.1 200 OK\r\nX: y\r\n".repeat(100));
    let port = serve(endless_head, Pace::Endless).await;
    let error = attest(&client, &format!("http://127.0.0.1:{port}/")).await;
    assert!(matches!(error.unwrap_err(), FetchError::Exchange { .. }));
}

#[tokio::test]
async fn a_server_that_is_slow_or_silent_is_left() {
    let enclave = Enclave::new();
    let client = client(&enclave).timeout(Duration::from_millis(300));
    let service = service(&enclave, |document| document);
    for pace in [Pace::Slow, Pace::Silent] {
        let port = serve(service.clone(), pace).await;
        // A silent server says nothing in TLS either.
        for scheme in ["http", "https"] {
            if scheme == "https" && pace == Pace::Slow {
                continue;
            }
            let error = attest(&client, &format!("{scheme}://127.0.0.1:{port}/")).await;
            let error = error.unwrap_err();
            assert!(matches!(error, FetchError::TimedOut { .. }), "{error}");
            assert!(error.to_string().ends_with("within 0.3 s"), "{error}");
        }
    }
}

#[tokio::test]
async fn answers_that_are_no_documents_are_refused_in_one_line() {
    let enclave = Enclave::new();
    let client = client(&enclave);
    for answer in [
        b"".to_vec(),
        b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort".to_vec(),
        b"HTTP/1.1 304 Not Modified\r\n\r\n".to_vec(),
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
        ok(""),
        ok("<html>"),
        ok("{}"),
        ok(r#"{"document": "?"}"#),
    ] {
        let shown = String::from_utf8_lossy(&answer).into_owned();
        let port = serve(Arc::new(move |_| answer.clone()), Pace::AtOnce).await;
        let error = attest(&client, &format!("http://127.0.0.1:{port}/")).await;
        let error = error.unwrap_err().to_string();
        assert!(!error.contains(char::is_control), "{shown}: {error}");
    }
    // What is not text is taken for a document, and refused as one.
    let port = serve(Arc::new(|_| ok([0x84, 0x44])), Pace::AtOnce).await;
    let attestation = attest(&client, &format!("http://127.0.0.1:{port}/")).await;
    assert_eq!(rule(attestation), Rule::Cbor);
}

#[tokio::test]
async fn nobody_there_is_said_so() {
    let enclave = Enclave::new();
    let client = client(&enclave);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    for endpoint in [
        format!("http://127.0.0.1:{port}/"),
        "unix:/nonexistent/control.sock".to_owned(),
    ] {
        let error = attest(&client, &endpoint).await.unwrap_err();
        assert!(matches!(error, FetchError::Connect { .. }), "{error}");
    }
    let error = attest(&client, "nsm:/nonexistent/nsm").await.unwrap_err();
    assert!(matches!(error, FetchError::Nsm(_)), "{error}");
}

/// An agent's control socket in a folder, for an enclave whose identity key is this.
fn agent(folder: &std::path::Path, enclave: &Enclave, identity: Option<Vec<u8>>) -> String {
    let socket = folder.join("control.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let enclave = enclave.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let mut length = 0;
            while !request[..length].ends_with(b"}") {
                length += stream.read(&mut request[length..]).await.unwrap();
            }
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            assert!(request.starts_with("POST /v1/attest HTTP/1.1\r\n"));
            let (_, body) = request.split_once("\r\n\r\n").unwrap();
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            // The agent takes a nonce and nothing else.
            assert_eq!(body.as_object().unwrap().len(), 1);
            let nonce = STANDARD.decode(body["nonce"].as_str().unwrap()).unwrap();
            let document = enclave.relayed(&nonce, identity.as_deref());
            stream.write_all(&ok(document)).await.unwrap();
        }
    });
    format!("unix:{}", socket.display())
}

#[tokio::test]
async fn an_agent_is_asked_on_its_control_socket() {
    let enclave = Enclave::new();
    let folder = tempfile::tempdir().unwrap();
    let agent = agent(folder.path(), &enclave, Some(b"identity".to_vec()));
    let attestation = attest(&client(&enclave), &agent).await.unwrap();
    let claims = attestation.outcome.unwrap();
    assert_eq!(claims.purpose(), Some(Purpose::RelayedChallenge));
    assert_eq!(claims.public_key(), Some(b"identity".as_slice()));
}

#[tokio::test]
async fn bind_tls_holds_an_agents_document_against_the_enclaves_tls_server() {
    let enclave = Enclave::new();
    let tls = Tls::self_signed();
    let port = tls.serve(service(&enclave, |document| document)).await;
    let server = || format!("127.0.0.1:{port}").parse::<TlsServer>().unwrap();
    let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let [named, other, none] = [
        (&folders[0], Some(tls.spki())),
        (&folders[1], Some(Tls::self_signed().spki())),
        (&folders[2], None),
    ]
    .map(|(folder, key)| agent(folder.path(), &enclave, key));
    let bound = client(&enclave).bind_tls(server());
    let claims = attest(&bound, &named).await.unwrap().outcome.unwrap();
    assert_eq!(claims.public_key(), Some(tls.spki().as_slice()));
    assert_eq!(rule(attest(&bound, &other).await), Rule::PolicyPublicKey);
    assert_eq!(rule(attest(&bound, &none).await), Rule::PolicyPublicKey);
    // An https endpoint is the server itself.
    let error = attest(&bound, &format!("https://127.0.0.1:{port}/")).await;
    assert!(matches!(error, Err(FetchError::TwoServers(_))), "{error:?}");
    // Without a server there is nothing to bind.
    let unbound = client(&enclave).trust(Trust::attested_key());
    let error = attest(&unbound, &named).await;
    assert!(matches!(error, Err(FetchError::NoTls(_))), "{error:?}");
    // And a port that does not speak TLS is none.
    let port = serve(service(&enclave, |document| document), Pace::Silent).await;
    let silent = format!("127.0.0.1:{port}").parse().unwrap();
    let silent = client(&enclave)
        .bind_tls(silent)
        .timeout(Duration::from_millis(300));
    let error = attest(&silent, &named).await;
    assert!(
        matches!(error, Err(FetchError::TimedOut { .. })),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_software_nsm_that_promises_too_much_or_nothing_is_left() {
    let enclave = Enclave::new();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("nsm");
    let listener = UnixListener::bind(&socket).unwrap();
    let client = client(&enclave).timeout(Duration::from_millis(300));
    tokio::spawn(async move {
        let (mut first, _) = listener.accept().await.unwrap();
        first.write_u32(u32::MAX).await.unwrap();
        let (mut second, _) = listener.accept().await.unwrap();
        second.write_all(&[0, 0, 0, 1, 0xff]).await.unwrap();
        let _third = listener.accept().await.unwrap();
        std::future::pending::<()>().await;
    });
    let endpoint = format!("nsm:{}", socket.display());
    for _ in 0..2 {
        let error = attest(&client, &endpoint).await.unwrap_err();
        assert!(matches!(error, FetchError::Nsm(_)), "{error}");
    }
    let error = attest(&client, &endpoint).await.unwrap_err();
    assert!(matches!(error, FetchError::TimedOut { .. }), "{error}");
}
