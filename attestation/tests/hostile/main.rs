//! The corpus: documents that each break one rule, signed again where the mistake is
//! behind the signature, good ones in every form, and those that AWS signed.
//!
//! `cargo run -p attestation --example corpus` writes the folder `corpus` anew; keys and
//! signatures stay the same, and a test here compares the files.

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
mod rules;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use another::OpenSsl;
use attestation::{
    AuditTime, Check, Document, Outcome, Policy, Profile, Report, Roots, Rule, Verifier,
};
use corpus::{ACCEPTED, AWS_ROOT, CaseFile, TEST_ROOT, folder};
use cose::{map, text};
use world::{CLOCK_SKEW_MS, MAX_AGE_MS, TIME_MS, World, entries, pcrs};

/// A case with what its file names.
struct Loaded {
    case: CaseFile,
    document: Vec<u8>,
    /// None if they cannot be read, and so cannot be pinned.
    roots: Option<Roots>,
    policy: Policy,
}

impl Loaded {
    fn report(&self, verifier: &Verifier) -> Report {
        let time = AuditTime::At(self.case.time_ms);
        verifier.audit(&self.document, &self.policy, time).report
    }
}

fn load() -> Vec<Loaded> {
    let read = |path: &str| std::fs::read(folder().join(path)).unwrap();
    let mut policies = BTreeMap::new();
    corpus::read()
        .into_values()
        .map(|case| Loaded {
            document: read(&case.document),
            roots: Roots::from_pem(&read(&case.root)).ok(),
            policy: policies
                .entry(case.policy.clone())
                .or_insert_with(|| Policy::read(&folder().join(&case.policy)).unwrap())
                .clone(),
            case,
        })
        .collect()
}

const TIME: AuditTime = AuditTime::At(TIME_MS);

fn rule(report: &Report) -> String {
    match &report.rejection {
        None => ACCEPTED.to_owned(),
        Some(rejection) => rejection.rule.to_string(),
    }
}

#[test]
fn every_document_is_refused_by_its_rule() {
    let mut wrong = Vec::new();
    let loaded = load();
    assert!(loaded.len() > 1000, "{}", loaded.len());
    for loaded in &loaded {
        let case = &loaded.case;
        let Some(roots) = &loaded.roots else {
            // A root that cannot be read cannot be pinned in the first place.
            assert_eq!(case.outcome(), "certificate.encoding", "{}", case.name);
            assert!(case.may_be_declined);
            continue;
        };
        let report = loaded.report(&Verifier::new(roots.clone()));
        if rule(&report) != case.outcome() {
            let found = report.rejection.map(|rejection| rejection.to_string());
            wrong.push(format!(
                "{}: {} expected, found {found:?}",
                case.name,
                case.outcome()
            ));
            continue;
        }
        // One short line that no terminal obeys.
        if let Some(rejection) = &report.rejection {
            let line = rejection.to_string();
            assert!(line.len() < 2500, "{}: {} bytes", case.name, line.len());
            assert!(!line.contains(char::is_control), "{}: {line:?}", case.name);
        }
        assert_eq!(report.accepted, case.rule.is_none());
        let broken = report
            .checks
            .iter()
            .filter(|check| Some(check.rule.to_string()) == case.rule);
        assert!(
            broken.count() == usize::from(case.rule.is_some()),
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
fn a_verifier_that_knows_the_chain_refuses_the_same() {
    let loaded = load();
    for root in [TEST_ROOT, AWS_ROOT] {
        let of_root: Vec<_> = loaded
            .iter()
            .filter(|loaded| loaded.case.root == root)
            .collect();
        let verifier = Verifier::new(of_root[0].roots.clone().unwrap());
        let good = of_root
            .iter()
            .find(|loaded| loaded.case.rule.is_none())
            .unwrap();
        for _ in 0..2 {
            for loaded in &of_root {
                let report = loaded.report(&verifier);
                assert_eq!(rule(&report), loaded.case.outcome(), "{}", loaded.case.name);
                assert!(good.report(&verifier).accepted);
            }
        }
    }
}

#[test]
fn another_cryptography_refuses_the_same() {
    for loaded in load() {
        let Some(roots) = &loaded.roots else {
            continue;
        };
        let ours = Verifier::new(roots.clone());
        let theirs = Verifier::with_crypto(roots.clone(), &OpenSsl);
        for _ in 0..2 {
            let (ours, theirs) = (loaded.report(&ours), loaded.report(&theirs));
            assert_eq!(theirs, ours, "{}", loaded.case.name);
        }
    }
}

#[test]
fn the_folder_holds_what_is_generated() {
    let made = cases::generate();
    let mut different = BTreeSet::new();
    for path in corpus::paths() {
        if !made.contains_key(&path) {
            different.insert(path);
        }
    }
    for (path, content) in &made {
        if std::fs::read(folder().join(path)).ok().as_ref() != Some(content) {
            different.insert(path.clone());
        }
    }
    assert!(
        different.is_empty(),
        "write them anew with `cargo run -p attestation --example corpus`: {different:?}"
    );
}

#[test]
fn every_rule_and_every_name_is_there_once() {
    let mut names = BTreeSet::new();
    let mut rules = BTreeMap::new();
    let loaded = load();
    for Loaded { case, .. } in &loaded {
        assert!(names.insert(&case.name), "{} twice", case.name);
        *rules.entry(case.outcome()).or_insert(0) += 1;
    }
    let good = loaded
        .iter()
        .find(|loaded| loaded.case.name == "the good document")
        .unwrap();
    let report = good.report(&Verifier::new(good.roots.clone().unwrap()));
    assert!(report.accepted, "{:?}", report.rejection);
    // What a good document is held against is all there is.
    let demanded = |check: &&Check| check.outcome != Outcome::NotChecked;
    for check in report.checks.iter().filter(demanded) {
        let rule = check.rule.to_string();
        assert!(rules.contains_key(rule.as_str()), "no case for {rule}");
    }
}

#[test]
fn the_roots_of_the_corpus_include_aws() {
    let pem = std::fs::read(folder().join(AWS_ROOT)).unwrap();
    let verifier = Verifier::new(Roots::from_pem(&pem).unwrap());
    let aws = Verifier::new(Roots::aws());
    for loaded in load() {
        if loaded.case.root == AWS_ROOT {
            assert_eq!(loaded.report(&verifier), loaded.report(&aws));
        }
    }
}

/// The expectations state the defaults of policies.
#[test]
fn the_expectations_are_the_defaults() {
    let any = || Policy::builder().allow_any_image();
    let stated = any()
        .max_age(Duration::from_millis(MAX_AGE_MS))
        .clock_skew(Duration::from_millis(CLOCK_SKEW_MS));
    assert_eq!(stated.build().unwrap(), any().build().unwrap());
}

#[test]
fn unknown_keys_are_reported_and_refused_by_a_strict_policy() {
    let world = World::new();
    let pem = std::fs::read(folder().join(TEST_ROOT)).unwrap();
    let verifier = Verifier::new(Roots::from_pem(&pem).unwrap());
    let lenient = world::policy();
    let strict = lenient.to_builder().strict_keys().build().unwrap();
    for (keys, shown) in [
        (vec![], "none"),
        (vec!["region"], "region"),
        (vec!["region", "\u{1b}[2J"], "region, \\u{1b}[2J"),
    ] {
        let mut payload = world.payload();
        let entries = keys.iter().map(|key| (text(key), text("value")));
        payload.0.extend(entries);
        let document = world.document(&payload);
        let lenient = verifier.audit(&document, &lenient, TIME).report;
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
    let pem = std::fs::read(folder().join(TEST_ROOT)).unwrap();
    let verifier = Verifier::new(Roots::from_pem(&pem).unwrap());
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
