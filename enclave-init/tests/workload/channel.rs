//! A channel between two enclaves, each of which knows what the other runs: both
//! send a document that carries their key and the other's nonce, have the init
//! verify what they receive, and derive the channel's keys from the two.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{self, EphemeralPrivateKey, UnparsedPublicKey, X25519};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::rand::SystemRandom;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::network::ask;

const NONCE_BYTES: usize = 32;
const MAX_MESSAGE: u32 = 64 * 1024;

/// Which of the two this end is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Client,
    Server,
}

/// Answers each channel's message with the same in capitals.
pub(crate) fn serve(port: u16, peer: &str) {
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    println!("channels on {port}");
    loop {
        let (mut stream, _) = listener.accept().unwrap();
        match establish(&mut stream, End::Server, peer) {
            Ok(channel) => {
                let heard = receive(&mut stream).and_then(|sealed| channel.open(sealed));
                println!("heard {heard:?}");
                if let Ok(heard) = heard {
                    let answer = channel.seal(&heard.to_uppercase());
                    send(&mut stream, &answer).unwrap();
                }
            }
            Err(reason) => println!("no channel: {reason}"),
        }
    }
}

/// Says something over a channel, and prints the answer.
pub(crate) fn open(name: &str, port: u16, peer: &str) {
    let (_, addresses) = ask(name, 1);
    let mut stream = TcpStream::connect((addresses[0], port)).unwrap();
    match establish(&mut stream, End::Client, peer) {
        Ok(channel) => {
            let said = send(&mut stream, &channel.seal("hello"));
            let answer = said
                .and_then(|()| receive(&mut stream))
                .and_then(|sealed| channel.open(sealed));
            println!("answer {answer:?}");
        }
        Err(reason) => println!("no channel: {reason}"),
    }
}

/// A channel that carries one message each way.
struct Channel {
    ours: LessSafeKey,
    theirs: LessSafeKey,
}

impl Channel {
    fn seal(&self, text: &str) -> Vec<u8> {
        let mut bytes = text.as_bytes().to_vec();
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        self.ours
            .seal_in_place_append_tag(nonce, Aad::empty(), &mut bytes)
            .unwrap();
        bytes
    }

    fn open(&self, mut bytes: Vec<u8>) -> Result<String, String> {
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let text = self
            .theirs
            .open_in_place(nonce, Aad::empty(), &mut bytes)
            .map_err(|_| "it was not sealed with the channel's key".to_owned())?;
        Ok(String::from_utf8(text.to_vec()).unwrap())
    }
}

fn establish(stream: &mut TcpStream, end: End, peer: &str) -> Result<Channel, String> {
    let nonce = api("GET", &format!("/v1/random?bytes={NONCE_BYTES}"), "").1;
    send(stream, &nonce)?;
    let their_nonce = receive(stream)?;

    let private = EphemeralPrivateKey::generate(&X25519, &SystemRandom::new()).unwrap();
    let public = private.compute_public_key().unwrap();
    let wanted = json!({
        "nonce": STANDARD.encode(&their_nonce),
        "public_key": STANDARD.encode(public.as_ref()),
    });
    let (status, document) = api("POST", "/v1/attestation", &wanted.to_string());
    assert_eq!(status, 200);
    send(stream, &document)?;

    let received = receive(stream)?;
    let question = json!({
        "document": STANDARD.encode(&received),
        "peer": peer,
        "nonce": STANDARD.encode(&nonce),
    });
    let (status, verdict) = api("POST", "/v1/verify", &question.to_string());
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&verdict));
    let verdict: Value = serde_json::from_slice(&verdict).unwrap();
    if verdict["accepted"] != true {
        return Err(format!("refused by {}", verdict["rule"].as_str().unwrap()));
    }
    let their_key = STANDARD
        .decode(verdict["public_key"].as_str().ok_or("it names no key")?)
        .unwrap();

    let nonces = match end {
        End::Client => [nonce, their_nonce],
        End::Server => [their_nonce, nonce],
    };
    let salt = Salt::new(HKDF_SHA256, &nonces.concat());
    let their_key = UnparsedPublicKey::new(&X25519, their_key);
    agreement::agree_ephemeral(private, their_key, "its key is none".to_owned(), |secret| {
        let secret = salt.extract(secret);
        let key = |of: &[u8]| {
            let info = [of];
            let key = secret.expand(&info, &AES_256_GCM).unwrap();
            LessSafeKey::new(UnboundKey::from(key))
        };
        let (client, server) = (key(b"client"), key(b"server"));
        let (ours, theirs) = match end {
            End::Client => (client, server),
            End::Server => (server, client),
        };
        Ok(Channel { ours, theirs })
    })
}

fn send(stream: &mut TcpStream, bytes: &[u8]) -> Result<(), String> {
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    stream
        .write_all(&length)
        .and_then(|()| stream.write_all(bytes))
        .map_err(|error| format!("the other end is gone: {:?}", error.kind()))
}

fn receive(stream: &mut TcpStream) -> Result<Vec<u8>, String> {
    let gone = |error: std::io::Error| format!("the other end is gone: {:?}", error.kind());
    let mut length = [0; 4];
    stream.read_exact(&mut length).map_err(gone)?;
    let length = u32::from_be_bytes(length);
    assert!(length <= MAX_MESSAGE);
    let mut bytes = vec![0; length.try_into().unwrap()];
    stream.read_exact(&mut bytes).map_err(gone)?;
    Ok(bytes)
}

/// A request to the local API: status and body of its answer.
fn api(method: &str, path: &str, body: &str) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect("198.18.0.1:7070").unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: 198.18.0.1:7070\r\nEnclave-Api: 1\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap();
    let status = std::str::from_utf8(&answer[9..12]).unwrap();
    (status.parse().unwrap(), answer.split_off(end + 4))
}
