//! Header, signature and claims, whoever expects what.

use attestation_results::ResultRule;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::world::{NONCE, World, claims, message, usual};

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
