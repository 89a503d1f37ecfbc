//! `attest result verify`: what a relying party accepts of a service's results.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::results::claims;
use crate::server::{Server, World};

const ISSUER: &str = "https://verifier.example";

/// A result of a running service, and what its relying party knows.
struct Issued {
    world: World,
    server: Server,
    token: String,
    nonce: Vec<u8>,
}

impl Issued {
    fn new() -> Self {
        let world = World::new();
        let server = world.start(&["--issuer", ISSUER]);
        let nonce = server.challenge(&json!({}));
        let reply = server.verify(&world.enclave.attest(&nonce), &nonce);
        let token = reply.json()["ear"].as_str().unwrap().to_owned();
        Self {
            world,
            server,
            token,
            nonce,
        }
    }

    fn key_set_url(&self) -> String {
        format!("http://{}/.well-known/jwks.json", self.server.address)
    }

    /// Verifies a token with what is usual, and these options.
    fn verify(&self, token: &str, options: &[&str]) -> Output {
        let (url, nonce) = (self.key_set_url(), hex::encode(&self.nonce));
        let usual = [
            ("--jwks", url.as_str()),
            ("--nonce", &nonce),
            ("--issuer", ISSUER),
            ("--policy", "payments"),
        ];
        let mut command = Command::new(env!("CARGO_BIN_EXE_attest"));
        command.args(["result", "verify", token, "--allow-other-roots"]);
        for (name, value) in usual {
            if !options.contains(&name) {
                command.args([name, value]);
            }
        }
        command.args(options).output().unwrap()
    }

    /// The key that the service signs with.
    fn key(&self) -> EcdsaKeyPair {
        let mut keys = fs::read_dir(self.world.data().join("keys")).unwrap();
        let pem = fs::read_to_string(keys.next().unwrap().unwrap().path()).unwrap();
        let der: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let der = STANDARD.decode(der).unwrap();
        EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &der).unwrap()
    }

    fn header(&self) -> Value {
        let header = self.token.split('.').next().unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap()
    }
}

fn message(header: &Value, claims: &Value) -> String {
    let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
    format!("{header}.{claims}")
}

fn signed(key: &EcdsaKeyPair, header: &Value, claims: &Value) -> String {
    let message = message(header, claims);
    let signature = key.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn with(value: &Value, name: &str, other: Value) -> Value {
    let mut value = value.clone();
    value[name] = other;
    value
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn result_verify_accepts_what_the_service_issued_and_says_what_it_is() {
    let issued = Issued::new();
    let output = issued.verify(&issued.token, &["--freshness", "challenge", "--json"]);
    assert_eq!(code(&output), 0, "{output:?}");
    let outcome = json_of(&output);
    assert_eq!(
        (&outcome["schema"], &outcome["accepted"]),
        (&json!(1), &json!(true))
    );
    assert_eq!(outcome["rejection"], Value::Null);
    let result = &outcome["result"];
    assert_eq!(result["status"], "affirming");
    assert_eq!(result["freshness"], "challenge");
    assert_eq!(result["image"], "payments 1.4");
    assert_eq!(result["policy_ids"][0], "payments");
    assert_eq!(result["document"]["public_key"], hex::encode("public key"));
    assert_eq!(result["document"]["pcrs"]["0"], hex::encode([1; 48]));

    // From files, and as text.
    let file = |name: &str, text: &str| {
        let path = issued.world.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let token = file("token.jwt", &format!("{}\n", issued.token));
    let keys = file(
        "jwks.json",
        &issued.server.get("/.well-known/jwks.json").body,
    );
    let digest = result["policy_ids"][1].as_str().unwrap();
    let measurements = issued.world.policies().join("images/payments.json");
    let measurements = measurements.display().to_string();
    let output = issued.verify(
        &token,
        &[
            "--jwks",
            &keys,
            "--policy",
            digest,
            "--measurements",
            &measurements,
        ],
    );
    assert_eq!(code(&output), 0, "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("freshness   challenge\n"), "{text}");
    assert!(
        text.ends_with("accepted    i-0123456789abcdef0-enc0123456789abcdef\n"),
        "{text}"
    );
}

#[test]
fn result_verify_at_another_time_is_an_audit_and_says_so() {
    let issued = Issued::new();
    let iat = claims(&issued.token)["iat"].as_i64().unwrap();
    let made = OffsetDateTime::from_unix_timestamp(iat).unwrap();
    let made = made.format(&Rfc3339).unwrap();
    for (options, mode, end) in [
        (&[][..], "live", "\naccepted    i-"),
        (&["--time", &made], "audit", "\nwas good    i-"),
    ] {
        let output = issued.verify(&issued.token, options);
        assert_eq!(code(&output), 0, "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(end), "{text}");
        let output = issued.verify(&issued.token, &[options, &["--json"]].concat());
        assert_eq!(json_of(&output)["mode"], mode);
    }
}

#[test]
fn result_verify_refuses_by_the_rule_and_ends_with_1() {
    let issued = Issued::new();
    for (options, rule) in [
        (&["--nonce", "0001020304050607"][..], "nonce"),
        (&["--issuer", "https://another.example"], "issuer"),
        (&["--policy", "any"], "policy"),
        (&["--image", "payments 1.5"], "image"),
        (&["--module-id", "i-1-enc1"], "module-id"),
        (&["--profile", "nitro-tpm"], "profile"),
        (&["--time", "2020-01-01T00:00:00Z"], "time.issued"),
        (&["--time", "2100-01-01T00:00:00Z"], "time.expires"),
    ] {
        let output = issued.verify(&issued.token, &[options, &["--json"]].concat());
        assert_eq!(code(&output), 1, "{output:?}");
        let outcome = json_of(&output);
        assert_eq!(outcome["rejection"]["rule"], rule, "{outcome}");
        assert_eq!(outcome["result"], Value::Null);
        let output = issued.verify(&issued.token, options);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.starts_with(&format!("rejected    {rule}: ")), "{text}");
    }
    // What a service with a root of its own says is not about AWS's hardware.
    let output = Command::new(env!("CARGO_BIN_EXE_attest"))
        .args(["result", "verify", &issued.token, "--no-nonce"])
        .args(["--jwks", &issued.key_set_url(), "--policy", "payments"])
        .output()
        .unwrap();
    assert_eq!(code(&output), 1, "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("rejected    hardware: "));
}

#[test]
fn result_verify_says_what_is_wrong_with_its_use_and_its_input() {
    let issued = Issued::new();
    let folder = issued.world.folder.path();
    let path = |name: &str| folder.join(name).display().to_string();
    fs::write(folder.join("empty"), r#"{"keys":[]}"#).unwrap();
    fs::write(folder.join("large"), " ".repeat(300_000)).unwrap();
    let (empty, large, missing) = (path("empty"), path("large"), path("missing"));
    for (token, options, expected_code, expected) in [
        (&*issued.token, &["--nonce", "00"][..], 2, "8 to 64"),
        (&issued.token, &["--pcr", "32=00"], 2, "--pcr"),
        (
            &issued.token,
            &["--jwks", "http://192.0.2.1/jwks.json"],
            2,
            "not https",
        ),
        (&issued.token, &["--jwks", "https://"], 2, "cannot be used"),
        (
            &issued.token,
            &["--jwks", "http://127.0.0.1:1/"],
            3,
            "cannot be reached",
        ),
        (&issued.token, &["--jwks", &missing], 3, "missing"),
        (
            &issued.token,
            &["--jwks", &empty],
            3,
            "no key that signs results",
        ),
        (&issued.token, &["--jwks", &large], 3, "more than"),
        (&large, &[], 3, "more than"),
        (&missing, &[], 3, "missing"),
    ] {
        let output = issued.verify(token, options);
        let message = String::from_utf8(output.stderr.clone()).unwrap();
        assert_eq!(code(&output), expected_code, "{options:?}: {output:?}");
        assert!(message.contains(expected), "{options:?}: {message}");
    }
    // What has to be said is asked for.
    let attest = |options: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_attest"))
            .args(["result", "verify", &issued.token, "--jwks", &empty])
            .args(options)
            .output()
            .unwrap();
        assert_eq!(code(&output), 2, "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(attest(&["--policy", "payments"]).contains("--no-nonce"));
    for silent in [
        &["--no-nonce"][..],
        &["--no-nonce", "--image", "payments 1.4"],
    ] {
        assert!(attest(silent).contains("what may run in the enclave"));
    }
    assert!(attest(&["--no-nonce", "--nonce", "00"]).contains("cannot be used"));
}

/// Tokens, and whether they are to be accepted.
fn variants(issued: &Issued) -> Vec<(&'static str, String, bool)> {
    let (key, header, claims) = (issued.key(), issued.header(), claims(&issued.token));
    let other = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
    let iat = claims["iat"].as_u64().unwrap();
    let sign = |name: &str, value: Value| signed(&key, &header, &with(&claims, name, value));
    let sign_header = |name: &str, value: Value| signed(&key, &with(&header, name, value), &claims);
    let mac_header = with(&header, "alg", json!("HS256"));
    let jwks = issued.server.get("/.well-known/jwks.json").body;
    let mac = hmac::Key::new(hmac::HMAC_SHA256, jwks.as_bytes());
    let confused = message(&mac_header, &claims);
    let tag = URL_SAFE_NO_PAD.encode(hmac::sign(&mac, confused.as_bytes()));
    let (signed_part, signature) = issued.token.rsplit_once('.').unwrap();
    let unsigned = message(&with(&header, "alg", json!("none")), &claims);
    vec![
        ("as issued", issued.token.clone(), true),
        ("signed again", signed(&key, &header, &claims), true),
        ("another claim", sign("jti", json!("1")), true),
        ("another parameter", sign_header("x", json!(1)), true),
        ("another key", signed(&other, &header, &claims), false),
        (
            "another key's name",
            sign_header("kid", json!("other")),
            false,
        ),
        ("no key's name", sign_header("kid", Value::Null), false),
        ("no signature", format!("{signed_part}."), false),
        (
            "a zero signature",
            format!("{signed_part}.{}", URL_SAFE_NO_PAD.encode([0; 96])),
            false,
        ),
        ("alg none", format!("{unsigned}."), false),
        (
            "alg none with a signature",
            format!("{unsigned}.{signature}"),
            false,
        ),
        ("a MAC", format!("{confused}.{tag}"), false),
        ("alg ES256", sign_header("alg", json!("ES256")), false),
        ("expired within the skew", sign("exp", json!(iat)), true),
        (
            "long expired",
            signed(
                &key,
                &header,
                &with(
                    &with(&claims, "iat", json!(iat - 1000)),
                    "exp",
                    json!(iat - 500),
                ),
            ),
            false,
        ),
        ("no expiry", sign("exp", Value::Null), false),
        ("not yet", sign("nbf", json!(iat + 3600)), false),
        (
            "issued later",
            signed(
                &key,
                &header,
                &with(
                    &with(&claims, "iat", json!(iat + 3600)),
                    "exp",
                    json!(iat + 7200),
                ),
            ),
            false,
        ),
        (
            "another issuer",
            sign("iss", json!("https://another.example")),
            false,
        ),
        (
            "another audience",
            sign("aud", json!("https://another.example")),
            false,
        ),
        (
            "another nonce",
            sign("eat_nonce", json!("AAAAAAAAAAA")),
            false,
        ),
        (
            "another profile",
            sign("eat_profile", json!("tag:example.com")),
            false,
        ),
        (
            "too many parts",
            format!("{}.{signature}", issued.token),
            false,
        ),
    ]
}

/// `PyJWT`, an independent reader, and `attest` take the same tokens. `cargo xtask
/// test` names a Python that has it.
#[test]
fn result_verify_and_pyjwt_agree() {
    let Some(python) = std::env::var_os("ENCLAVE_TEST_PYTHON") else {
        println!("not checked: ENCLAVE_TEST_PYTHON names no Python; run cargo xtask test");
        return;
    };
    let script = Path::new("tests/service/verify_ear.py");
    let issued = Issued::new();
    for (what, token, accepted) in variants(&issued) {
        let ours = issued.verify(&token, &[]);
        assert_eq!(code(&ours) == 0, accepted, "{what}: {ours:?}");
        let theirs = Command::new(&python)
            .arg(script)
            .args([&issued.key_set_url(), &token])
            .args([ISSUER, &URL_SAFE_NO_PAD.encode(&issued.nonce)])
            .output()
            .unwrap();
        assert_eq!(theirs.status.success(), accepted, "{what}: {theirs:?}");
    }
}
