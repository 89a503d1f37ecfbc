//! What a relying party accepts, and what it refuses by which rule.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::time::Duration;

use attestation::{Document, Measurements, Nonce, Pcr, Policy, Profile, Roots, Verifier};
use attestation_results::{
    Appraisal, Expectations, ExpectationsBuilder, Freshness, Issuer, Jwks, NonceSource, ResultRule,
    SigningKey, Status, VerifiedResult, verify, verify_at,
};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// Signed by AWS.
const DOCUMENT: &[u8] = include_bytes!("../../../attestation/tests/vectors/3a4a0301e6aa2839.cbor");
const NOW: u64 = 1_700_000_000;
const NONCE: [u8; 32] = [7; 32];
const URL: &str = "https://verifier.example";

struct World {
    key: SigningKey,
    pair: EcdsaKeyPair,
    keys: Jwks,
}

fn pcr(index: usize) -> Pcr {
    let document = Document::parse(DOCUMENT).unwrap();
    Pcr::new(*document.unverified_pcr(index).unwrap())
}

fn image() -> Measurements {
    Measurements {
        pcr0: pcr(0),
        pcr1: pcr(1),
        pcr2: pcr(2),
        pcr8: None,
    }
}

fn policy() -> Policy {
    Policy::builder()
        .image("payments 1.4", image())
        .build()
        .unwrap()
}

impl World {
    fn new() -> Self {
        let (key, pem) = SigningKey::generate().unwrap();
        let der: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let der = STANDARD.decode(der).unwrap();
        Self {
            pair: EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &der).unwrap(),
            keys: Jwks::from_json(json!({ "keys": [key.jwk()] }).to_string().as_bytes()).unwrap(),
            key,
        }
    }

    fn issue(&self, policy: &Policy, nonce: NonceSource<'_>, root_of_aws: bool) -> String {
        let verifier = Verifier::new(Roots::aws());
        let made_ms = Document::parse(DOCUMENT).unwrap().unverified_timestamp_ms();
        let mut verification = verifier.verify_at(DOCUMENT, policy, Nonce::Unchallenged, made_ms);
        if !root_of_aws {
            verification.report.root.as_mut().unwrap().partition = None;
        }
        let issuer = Issuer {
            developer: "Example Ltd".to_owned(),
            url: Some(URL.to_owned()),
            lifetime: Duration::from_secs(300),
        };
        let appraisal = Appraisal {
            report: &verification.report,
            document: DOCUMENT,
            profile: Profile::Enclave,
            policy_ids: &["payments", "sha256:00"],
            nonce,
        };
        issuer.token(&self.key, &appraisal, NOW).unwrap()
    }

    fn good(&self) -> String {
        self.issue(&policy(), NonceSource::Caller(&NONCE), true)
    }

    fn header(&self) -> Value {
        json!({ "alg": "ES384", "kid": self.key.id(), "typ": "eat+jwt" })
    }

    /// These bytes under this header, signed by the key.
    fn sign(&self, header: &str, claims: &str) -> String {
        let message = message(header, claims);
        let signature = self.pair.sign(&SystemRandom::new(), message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.unwrap()))
    }

    /// The good result with another header, signed by the key.
    fn with_header(&self, header: &str) -> String {
        self.sign(header, &claims(&self.good()).to_string())
    }

    /// The good result with other claims, signed by the key.
    fn with_claims(&self, change: impl FnOnce(&mut Value)) -> String {
        let mut claims = claims(&self.good());
        change(&mut claims);
        self.sign(&self.header().to_string(), &claims.to_string())
    }

    fn verify(
        &self,
        token: &str,
        expectations: ExpectationsBuilder,
    ) -> Result<VerifiedResult, ResultRule> {
        let expectations = expectations.build().unwrap();
        verify_at(token, &self.keys, &expectations, NOW).map_err(|error| {
            assert!(!error.to_string().contains(char::is_control), "{error}");
            error.rule
        })
    }

    fn refused(&self, token: &str) -> ResultRule {
        self.verify(token, usual()).unwrap_err()
    }
}

fn message(header: &str, claims: &str) -> String {
    let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part));
    format!("{header}.{claims}")
}

fn claims(token: &str) -> Value {
    let claims = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap()
}

fn usual() -> ExpectationsBuilder {
    Expectations::with_nonce(NONCE)
        .issuer(URL)
        .policy("payments")
}

#[test]
fn a_result_that_is_expected_is_given_with_all_that_it_says() {
    let world = World::new();
    let result = world.verify(&world.good(), usual()).unwrap();
    assert_eq!(result.status, Status::Affirming);
    assert_eq!(result.issuer.as_deref(), Some(URL));
    assert_eq!(result.developer, "Example Ltd");
    assert_eq!((result.issued_at, result.expires_at), (NOW, NOW + 300));
    assert_eq!(result.freshness, Freshness::Caller);
    assert_eq!(result.policy_ids, ["payments", "sha256:00"]);
    assert_eq!(result.image.as_deref(), Some("payments 1.4"));
    assert_eq!(result.trust_vector["executables"], 3);
    assert_eq!(result.document.pcrs[&0], pcr(0));
    let document = Document::parse(DOCUMENT).unwrap();
    assert_eq!(result.document.module_id, document.unverified_module_id());
    assert_eq!(
        result.document.public_key.as_deref(),
        document.unverified_public_key()
    );
    for expected in [
        usual().policy("sha256:00"),
        usual().policy("another").image("payments 1.4"),
        usual().image("another").image("payments 1.4"),
        usual()
            .measurements(image())
            .pcr(0, pcr(0))
            .pcr(0, pcr(1))
            .pcr(9, Pcr::ZERO),
        usual().module_id(document.unverified_module_id()),
        usual().max_age(Duration::ZERO),
        Expectations::without_nonce().allow_any_policy(),
    ] {
        assert!(world.verify(&world.good(), expected).is_ok());
    }
}

#[test]
fn each_expectation_refuses_another_result() {
    let world = World::new();
    let good = world.good();
    let mut other = image();
    other.pcr2 = Pcr::ZERO;
    let mut signed = image();
    signed.pcr8 = Some(pcr(0));
    let any = Expectations::without_nonce;
    for (expected, rule) in [
        (
            Expectations::with_nonce([8; 32]).allow_any_policy(),
            ResultRule::Nonce,
        ),
        (
            any().issuer("https://verifier").allow_any_policy(),
            ResultRule::Issuer,
        ),
        (any().policy("payment"), ResultRule::Policy),
        (any().image("payments 1.5"), ResultRule::Image),
        (any().measurements(other), ResultRule::Image),
        (any().measurements(signed), ResultRule::Image),
        (any().pcr(0, pcr(1)), ResultRule::Pcr),
        (any().pcr(0, pcr(0)).pcr(1, Pcr::ZERO), ResultRule::Pcr),
        (
            any().allow_any_policy().module_id("i-1-enc1"),
            ResultRule::ModuleId,
        ),
        (
            any().policy("payments").profile(Profile::NitroTpm),
            ResultRule::Profile,
        ),
        (
            usual().freshness(Freshness::Challenge),
            ResultRule::Freshness,
        ),
    ] {
        assert_eq!(world.verify(&good, expected).unwrap_err(), rule);
    }
    // A nonce that is repeated, but was not what the document had to carry.
    let stale = world.with_claims(|claims| {
        claims["submods"]["nitro-enclave"]["ear_verifier_claims"]["freshness"] = json!("none");
    });
    assert_eq!(world.refused(&stale), ResultRule::Freshness);
    let none = world.issue(&policy(), NonceSource::None, true);
    assert_eq!(world.refused(&none), ResultRule::Nonce);
    let challenge = world.issue(&policy(), NonceSource::Challenge(&NONCE), true);
    assert!(
        world
            .verify(&challenge, usual().freshness(Freshness::Challenge))
            .is_ok()
    );
}

#[test]
fn a_status_that_is_not_affirming_is_refused_unless_a_warning_is_allowed() {
    let world = World::new();
    let any = Policy::builder().allow_any_image().build().unwrap();
    let warning = world.issue(&any, NonceSource::Caller(&NONCE), true);
    assert_eq!(world.refused(&warning), ResultRule::Status);
    let allowed = world.verify(&warning, usual().allow_warning()).unwrap();
    assert_eq!(allowed.status, Status::Warning);
    // An image that is expected is not one that the policy has not asked for.
    let expected = usual().allow_warning().image("payments 1.4");
    assert_eq!(
        world.verify(&warning, expected).unwrap_err(),
        ResultRule::Image
    );

    let another = Policy::builder().pcr(0, pcr(1)).build().unwrap();
    let rejected = world.issue(&another, NonceSource::Caller(&NONCE), true);
    let refused = world.verify(&rejected, usual().allow_warning());
    assert_eq!(refused.unwrap_err(), ResultRule::Status);

    let test_root = world.issue(&policy(), NonceSource::Caller(&NONCE), false);
    assert_eq!(world.refused(&test_root), ResultRule::Hardware);
    assert!(
        world
            .verify(&test_root, usual().allow_other_roots())
            .is_ok()
    );
}

#[test]
fn a_result_whose_parts_contradict_each_other_is_refused() {
    const VECTOR: &str = "ear_trustworthiness_vector";
    let world = World::new();
    let submod = |change: fn(&mut Value)| {
        world.with_claims(|claims| change(&mut claims["submods"]["nitro-enclave"]))
    };
    for (token, rule) in [
        (
            submod(|it| it["ear_verifier_claims"]["accepted"] = json!(false)),
            ResultRule::Status,
        ),
        (
            submod(|it| it["ear_status"] = json!("warning")),
            ResultRule::Status,
        ),
        (
            submod(|it| it["ear_status"] = json!("contraindicated")),
            ResultRule::Status,
        ),
        (
            world.with_claims(|claims| claims["ear_status"] = json!("warning")),
            ResultRule::Status,
        ),
        (
            submod(|it| it["ear_status"] = json!("none")),
            ResultRule::ClaimsForm,
        ),
        (
            submod(|it| it[VECTOR]["executables"] = json!(33)),
            ResultRule::TrustVector,
        ),
        (
            submod(|it| it[VECTOR]["configuration"] = json!(-97)),
            ResultRule::TrustVector,
        ),
        (
            submod(|it| it[VECTOR]["executables"] = json!(0)),
            ResultRule::TrustVector,
        ),
        (
            submod(|it| it[VECTOR]["instance-identity"] = json!(97)),
            ResultRule::TrustVector,
        ),
        (
            submod(|it| it[VECTOR] = json!({ "executables": 3 })),
            ResultRule::TrustVector,
        ),
        (
            submod(|it| it[VECTOR]["executables"] = json!(128)),
            ResultRule::ClaimsForm,
        ),
        (
            submod(|it| it[VECTOR]["magic"] = json!(2)),
            ResultRule::ClaimsForm,
        ),
        (
            submod(|it| it["ear_attester_claims"] = Value::Null),
            ResultRule::ClaimsForm,
        ),
        (
            world.with_claims(|claims| claims["submods"] = json!({})),
            ResultRule::Profile,
        ),
        (
            world.with_claims(|claims| {
                claims["submods"]["nitro-tpm"] = claims["submods"]["nitro-enclave"].clone();
            }),
            ResultRule::Profile,
        ),
    ] {
        assert_eq!(world.refused(&token), rule);
    }
}

#[test]
fn time_is_compared_with_the_skew_on_both_sides() {
    let world = World::new();
    let good = world.good();
    let starts = world.with_claims(|claims| claims["nbf"] = json!(NOW + 100));
    let rule = |token: &str, expected: ExpectationsBuilder, now: u64| {
        let expected = expected.build().unwrap();
        let result = verify_at(token, &world.keys, &expected, now);
        result.err().map(|error| error.rule)
    };
    let strict = || usual().clock_skew(Duration::ZERO);
    let minute = || usual().max_age(Duration::from_secs(60));
    for (token, expected, now, broken) in [
        (&good, usual(), NOW - 60, None),
        (&good, usual(), NOW - 61, Some(ResultRule::IssuedAt)),
        (&good, strict(), NOW - 1, Some(ResultRule::IssuedAt)),
        (&good, usual(), NOW + 359, None),
        (&good, usual(), NOW + 360, Some(ResultRule::Expires)),
        (&good, strict(), NOW + 299, None),
        (&good, strict(), NOW + 300, Some(ResultRule::Expires)),
        (&good, minute(), NOW + 120, None),
        (&good, minute(), NOW + 121, Some(ResultRule::Age)),
        (&good, usual(), 0, Some(ResultRule::IssuedAt)),
        (&good, usual(), u64::MAX, Some(ResultRule::Expires)),
        (&starts, usual(), NOW + 40, None),
        (&starts, usual(), NOW + 39, Some(ResultRule::NotBefore)),
    ] {
        assert_eq!(rule(token, expected, now), broken, "{now}");
    }
    // Now is long after the result's time.
    let error = verify(&good, &world.keys, &usual().build().unwrap()).unwrap_err();
    assert_eq!(error.rule, ResultRule::Expires);
    for (name, value) in [
        ("exp", json!(NOW - 1)),
        ("exp", json!(1e40)),
        ("exp", Value::Null),
        ("iat", json!("now")),
        ("nbf", json!(-1)),
    ] {
        let token = world.with_claims(|claims| claims[name] = value);
        assert_eq!(world.refused(&token), ResultRule::ClaimsForm, "{name}");
    }
    let forever = world.with_claims(|claims| claims["exp"] = json!(u64::MAX));
    assert_eq!(rule(&forever, usual(), NOW), None);
}

#[test]
fn headers_choose_nothing() {
    let world = World::new();
    let with = |name: &str, value: Value| {
        let mut header = world.header();
        header[name] = value;
        header.to_string()
    };
    let kid = world.key.id();
    for (header, rule) in [
        (with("alg", json!("ES256")), ResultRule::HeaderAlgorithm),
        (with("alg", json!("es384")), ResultRule::HeaderAlgorithm),
        (with("alg", json!("none")), ResultRule::HeaderAlgorithm),
        (with("alg", Value::Null), ResultRule::HeaderAlgorithm),
        (with("typ", json!("JWT")), ResultRule::HeaderType),
        (
            with("typ", json!("application/JWT")),
            ResultRule::HeaderType,
        ),
        (with("typ", Value::Null), ResultRule::HeaderType),
        (with("crit", json!(["exp"])), ResultRule::HeaderCritical),
        (with("crit", json!([])), ResultRule::HeaderCritical),
        (with("crit", Value::Null), ResultRule::HeaderCritical),
        (with("b64", json!(false)), ResultRule::HeaderCritical),
        (with("kid", json!("another")), ResultRule::HeaderKey),
        (with("kid", json!("\u{1b}[2J")), ResultRule::HeaderKey),
        (with("kid", Value::Null), ResultRule::HeaderKey),
        (with("kid", json!(1)), ResultRule::HeaderForm),
        ("[]".to_owned(), ResultRule::HeaderForm),
        (
            format!(r#"{{"alg":"none","alg":"ES384","kid":"{kid}","typ":"eat+jwt"}}"#),
            ResultRule::HeaderForm,
        ),
        (
            format!(r#"{{"alg":"ES384","kid":"{kid}","typ":"eat+jwt","x":[{{"y":1,"y":1}}]}}"#),
            ResultRule::HeaderForm,
        ),
    ] {
        assert_eq!(world.refused(&world.with_header(&header)), rule, "{header}");
    }
    // Keys and addresses of keys in a header are not looked at.
    let (_, other) = (world.key.jwk(), World::new());
    for header in [
        with("typ", json!("application/EAT+JWT")),
        with("jwk", serde_json::to_value(other.key.jwk()).unwrap()),
        with("jku", json!("https://attacker.example/jwks.json")),
    ] {
        assert!(world.verify(&world.with_header(&header), usual()).is_ok());
        let forged = other.sign(&header, &claims(&world.good()).to_string());
        assert_eq!(world.refused(&forged), ResultRule::Signature, "{header}");
    }
}

#[test]
fn a_signature_is_of_the_key_over_all_of_the_token() {
    let world = World::new();
    let good = world.good();
    let [header, body, signature] = good.split('.').collect::<Vec<_>>()[..] else {
        panic!("{good}");
    };
    // The public key as the secret of a MAC.
    let jwk = serde_json::to_string(world.key.jwk()).unwrap();
    let confused = message(
        &json!({ "alg": "HS256", "kid": world.key.id(), "typ": "eat+jwt" }).to_string(),
        &claims(&good).to_string(),
    );
    let key = hmac::Key::new(hmac::HMAC_SHA256, jwk.as_bytes());
    let tag = URL_SAFE_NO_PAD.encode(hmac::sign(&key, confused.as_bytes()));
    let unsigned = message(
        r#"{"alg":"none","typ":"eat+jwt"}"#,
        &claims(&good).to_string(),
    );
    let der = URL_SAFE_NO_PAD.encode([0x30; 104]);
    for (token, rule) in [
        (format!("{confused}.{tag}"), ResultRule::HeaderAlgorithm),
        (format!("{unsigned}."), ResultRule::HeaderAlgorithm),
        (format!("{header}.{body}."), ResultRule::Signature),
        (format!("{header}.{body}.{der}"), ResultRule::Signature),
        (
            format!("{header}.{body}.{}", URL_SAFE_NO_PAD.encode([0; 96])),
            ResultRule::Signature,
        ),
        (
            format!("{header}.{body}.{}", &signature[..124]),
            ResultRule::Signature,
        ),
        (
            format!("{header}.{body}A.{signature}"),
            ResultRule::Signature,
        ),
        (format!("{header}.{body}"), ResultRule::TokenForm),
        (format!("{good}."), ResultRule::TokenForm),
        (format!("{good}.{signature}"), ResultRule::TokenForm),
        (format!("{good}="), ResultRule::TokenForm),
        (format!("{good}\n"), ResultRule::TokenForm),
        (format!(" {good}"), ResultRule::TokenForm),
        (String::new(), ResultRule::TokenForm),
        ("..".to_owned(), ResultRule::HeaderForm),
        ("A".repeat(200_000), ResultRule::TokenForm),
        (
            format!("{}.{body}.{signature}", "A".repeat(5000)),
            ResultRule::TokenForm,
        ),
    ] {
        assert_eq!(world.refused(&token), rule, "{token}");
    }
    for (place, _) in good.match_indices(|character: char| character != '.') {
        let old = good.as_bytes()[place];
        let new = if old == b'A' { "B" } else { "A" };
        let mut forged = good.clone();
        forged.replace_range(place..=place, new);
        assert!(world.verify(&forged, usual()).is_err(), "{place}");
    }
    let other = World::new();
    assert_eq!(other.refused(&good), ResultRule::HeaderKey);
}

#[test]
fn claims_stand_once_and_mean_what_this_version_says() {
    let world = World::new();
    let header = world.header().to_string();
    let text = claims(&world.good()).to_string();
    for twice in [
        format!(r#"{{"exp":1,{}"#, &text[1..]),
        format!(r#"{{"ear_status":"warning",{}"#, &text[1..]),
        format!(r#"{{"more":1,"more":1,{}"#, &text[1..]),
    ] {
        assert_eq!(
            world.refused(&world.sign(&header, &twice)),
            ResultRule::ClaimsForm
        );
    }
    let nested = text.replacen(
        r#""accepted":true"#,
        r#""accepted":false,"accepted":true"#,
        1,
    );
    assert_ne!(nested, text);
    assert_eq!(
        world.refused(&world.sign(&header, &nested)),
        ResultRule::ClaimsForm
    );
    for (name, value, rule) in [
        (
            "eat_profile",
            json!("tag:github.com,2023:veraison/ear"),
            ResultRule::ClaimsProfile,
        ),
        ("aud", json!("another"), ResultRule::Audience),
        ("iss", Value::Null, ResultRule::Issuer),
        ("eat_nonce", json!("???"), ResultRule::ClaimsForm),
        (
            "eat_nonce",
            json!([URL_SAFE_NO_PAD.encode(NONCE)]),
            ResultRule::ClaimsForm,
        ),
        ("submods", json!([]), ResultRule::ClaimsForm),
    ] {
        let token = world.with_claims(|claims| claims[name] = value);
        assert_eq!(world.refused(&token), rule, "{name}");
    }
    for text in ["", "[]", "\"\"", "{", "\u{feff}{}"] {
        assert_eq!(
            world.refused(&world.sign(&header, text)),
            ResultRule::ClaimsForm
        );
    }
    // Claims that others add are theirs.
    let more = world.with_claims(|claims| claims["jti"] = json!("1"));
    assert!(world.verify(&more, usual()).is_ok());
}
