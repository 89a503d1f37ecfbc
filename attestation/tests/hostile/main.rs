//! The hostile corpus: documents that each break one rule, signed again where
//! the mistake is behind the signature, and good ones in every form.
//!
//! `cargo run -p attestation --example hostile_corpus` writes `cases.json` anew, under
//! new keys; the names and the rules stay the same, which a test here checks.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    clippy::expect_used,
    reason = "a test fails by panicking, and cases are long tables"
)]

mod another;
mod cases;
mod corpus;
mod cose;
mod der;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use another::OpenSsl;
use attestation::{
    AuditTime, Check, Document, Outcome, Policy, Profile, Report, Roots, RootsError, Rule, Verifier,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use corpus::{ACCEPTED, Corpus};
use cose::{map, text};
use world::{TIME_MS, World, entries, pcrs};

fn roots(der: &[u8]) -> Result<Roots, RootsError> {
    let base64 = STANDARD.encode(der);
    let pem = format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n");
    Roots::from_pem(pem.as_bytes())
}

const TIME: AuditTime = AuditTime::At(TIME_MS);

fn rule(report: &Report) -> String {
    match &report.rejection {
        None => ACCEPTED.to_owned(),
        Some(rejection) => rejection.rule.to_string(),
    }
}

fn check_all(corpus: &Corpus) {
    let policy = world::policy();
    let mut wrong = Vec::new();
    for case in &corpus.cases {
        let Ok(roots) = roots(case.root.as_ref().unwrap_or(&corpus.root)) else {
            // A root that cannot be read cannot be pinned in the first place.
            assert_eq!(case.rule, "certificate.encoding", "{}", case.name);
            continue;
        };
        let report = Verifier::new(roots)
            .audit(&case.document, &policy, TIME)
            .report;
        if rule(&report) != case.rule {
            let found = report.rejection.map(|rejection| rejection.to_string());
            wrong.push(format!(
                "{}: {} expected, found {found:?}",
                case.name, case.rule
            ));
            continue;
        }
        // One short line that no terminal obeys.
        if let Some(rejection) = &report.rejection {
            let line = rejection.to_string();
            assert!(line.len() < 2500, "{}: {} bytes", case.name, line.len());
            assert!(!line.contains(char::is_control), "{}: {line:?}", case.name);
        }
        assert_eq!(report.accepted, case.rule == ACCEPTED);
        let passed = report
            .checks
            .iter()
            .filter(|check| check.rule.to_string() == case.rule);
        assert!(
            passed.count() == usize::from(case.rule != ACCEPTED),
            "{}",
            case.name
        );
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn every_document_is_refused_by_its_rule() {
    let corpus = Corpus::read();
    assert!(corpus.cases.len() > 500, "{}", corpus.cases.len());
    check_all(&corpus);
}

#[test]
fn a_verifier_that_knows_the_chain_refuses_the_same() {
    let corpus = Corpus::read();
    let policy = world::policy();
    let verifier = Verifier::new(roots(&corpus.root).unwrap());
    for _ in 0..2 {
        for case in corpus.cases.iter().filter(|case| case.root.is_none()) {
            let report = verifier.audit(&case.document, &policy, TIME).report;
            assert_eq!(rule(&report), case.rule, "{}", case.name);
            let good = verifier.audit(&corpus.base, &policy, TIME);
            assert!(good.outcome.is_ok());
        }
    }
}

#[test]
fn another_cryptography_refuses_the_same() {
    let corpus = Corpus::read();
    let policy = world::policy();
    for case in &corpus.cases {
        let Ok(roots) = roots(case.root.as_ref().unwrap_or(&corpus.root)) else {
            continue;
        };
        let ours = Verifier::new(roots.clone());
        let theirs = Verifier::with_crypto(roots, &OpenSsl);
        for _ in 0..2 {
            let ours = ours.audit(&case.document, &policy, TIME);
            let theirs = theirs.audit(&case.document, &policy, TIME);
            assert_eq!(theirs.report, ours.report, "{}", case.name);
        }
    }
}

#[test]
fn the_generator_makes_the_same_cases_under_new_keys() {
    let (stored, made) = (Corpus::read(), cases::generate());
    let rules = |corpus: &Corpus| -> Vec<(String, String)> {
        let cases = corpus.cases.iter();
        cases
            .map(|case| (case.name.clone(), case.rule.clone()))
            .collect()
    };
    assert_eq!(rules(&stored), rules(&made));
    assert_ne!(stored.root, made.root);
    check_all(&made);
}

#[test]
fn the_file_holds_what_was_made() {
    let made = cases::generate();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cases.json");
    std::fs::write(&path, made.to_text()).unwrap();
    let read = Corpus::read_from(&path);
    assert_eq!(read.root, made.root);
    assert_eq!(read.base, made.base);
    for (read, made) in read.cases.iter().zip(&made.cases) {
        assert_eq!(read.document, made.document, "{}", made.name);
        assert_eq!(read.root, made.root);
    }
}

#[test]
fn every_rule_and_every_name_is_there_once() {
    let corpus = Corpus::read();
    let mut names = BTreeSet::new();
    let mut rules = BTreeMap::new();
    for case in &corpus.cases {
        assert!(names.insert(&case.name), "{} twice", case.name);
        *rules.entry(case.rule.as_str()).or_insert(0) += 1;
    }
    let verifier = Verifier::new(roots(&corpus.root).unwrap());
    let report = verifier.audit(&corpus.base, &world::policy(), TIME).report;
    assert!(report.accepted, "{:?}", report.rejection);
    // What a good document is held against is all there is.
    let demanded = |check: &&Check| check.outcome != Outcome::NotChecked;
    for check in report.checks.iter().filter(demanded) {
        let rule = check.rule.to_string();
        assert!(rules.contains_key(rule.as_str()), "no case for {rule}");
    }
}

#[test]
fn unknown_keys_are_reported_and_refused_by_a_strict_policy() {
    let world = World::new();
    let verifier = Verifier::new(roots(&world.certificates[0]).unwrap());
    let strict = world::policy().to_builder().strict_keys().build().unwrap();
    for (keys, shown) in [
        (vec![], "none"),
        (vec!["region"], "region"),
        (vec!["region", "\u{1b}[2J"], "region, \\u{1b}[2J"),
    ] {
        let mut payload = world.payload();
        let entries = keys.iter().map(|key| (text(key), text("value")));
        payload.0.extend(entries);
        let document = world.document(&payload);
        let lenient = verifier.audit(&document, &world::policy(), TIME).report;
        assert!(lenient.accepted, "{:?}", lenient.rejection);
        let found = lenient.document.unwrap().unknown_keys;
        assert_eq!(found.len(), keys.len());
        let checks = lenient.checks.iter();
        let check = checks
            .filter(|check| check.rule == Rule::PolicyStrictKeys)
            .collect::<Vec<_>>();
        assert_eq!(check.len(), 1);
        assert_eq!(check[0].outcome, Outcome::NotChecked);
        assert_eq!(check[0].actual.as_deref(), Some(shown));
        let outcome = verifier.audit(&document, &strict, TIME).outcome;
        let refused = outcome.err().map(|rejection| rejection.rule);
        let expected = (!keys.is_empty()).then_some(Rule::PolicyStrictKeys);
        assert_eq!(refused, expected, "{keys:?}");
    }
}

#[test]
fn a_nitro_tpm_is_accepted_by_a_policy_for_one_only() {
    let world = World::new();
    let mut payload = world.payload();
    let position = payload.position("pcrs");
    payload.0[position] = (text("nitrotpm_pcrs"), map(&entries(&pcrs())));
    payload.set("module_id", text("i-0123456789abcdef0-tpm0123456789abcdef"));
    let document = world.document(&payload);
    let verifier = Verifier::new(roots(&world.certificates[0]).unwrap());
    let any = Policy::builder().allow_any_image();
    let audit = |policy: &Policy| verifier.audit(&document, policy, TIME).outcome;
    let of_tpm = any.clone().profile(Profile::NitroTpm).build().unwrap();
    let accepted = audit(&of_tpm).expect("the policy is for it");
    assert_eq!(accepted.profile(), Profile::NitroTpm);
    let refused = audit(&any.build().unwrap()).unwrap_err();
    assert_eq!(refused.rule, Rule::PolicyProfile);
    assert_eq!(
        Document::parse(&document).unwrap().unverified_profile(),
        Profile::NitroTpm
    );
}
