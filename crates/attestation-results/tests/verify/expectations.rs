//! What is expected, and when.

use std::time::Duration;

use attestation::{Document, Pcr, Policy, Profile};
use attestation_results::{
    Expectations, ExpectationsBuilder, Freshness, NonceSource, ResultRule, Status, verify,
    verify_at,
};
use serde_json::{Value, json};

use crate::world::{DOCUMENT, NONCE, NOW, URL, World, image, pcr, policy, usual};

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
        (
            any().policy("payments").image("payments 1.5"),
            ResultRule::Image,
        ),
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
