//! The documents that AWS signed: accepted at their own time with the
//! right policy, refused otherwise.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::path::{Path, PathBuf};

use attestation::{
    Audit, AuditTime, Document, Nonce, Partition, Policy, PolicyError, Roots, Rule, Verifier,
};
use measurements::{InstanceId, Pcr};
use serde_json::Value;

struct Vector {
    bytes: Vec<u8>,
    facts: Value,
}

impl Vector {
    fn debug(&self) -> bool {
        self.facts["pcrs"]["0"] == "00".repeat(48)
    }

    /// Every register that the document has.
    fn policy(&self) -> attestation::PolicyBuilder {
        let mut policy = Policy::builder();
        for (index, value) in self.facts["pcrs"].as_object().unwrap() {
            let value: Pcr = value.as_str().unwrap().parse().unwrap();
            policy = policy.pcr(index.parse().unwrap(), value);
        }
        if self.debug() {
            policy.allow_any_image().allow_debug()
        } else {
            policy
        }
    }

    fn rule(&self, policy: attestation::PolicyBuilder, time: AuditTime) -> Option<Rule> {
        let audit = audit(&self.bytes, &policy.build().unwrap(), time);
        audit.outcome.err().map(|rejection| rejection.rule)
    }
}

/// By a verifier that knows no chain.
fn audit<'a>(bytes: &'a [u8], policy: &Policy, time: AuditTime) -> Audit<'a> {
    Verifier::new(Roots::aws()).audit(bytes, policy, time)
}

/// What `corpus` says of each document that AWS signed.
fn vectors() -> Vec<Vector> {
    let corpus = Path::new("corpus");
    let mut paths: Vec<_> = std::fs::read_dir(corpus.join("aws"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().ends_with("-at-its-own-time.json"))
        .collect();
    paths.sort();
    assert_eq!(paths.len(), 12);
    let read = |path: PathBuf| -> Value {
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    };
    paths
        .into_iter()
        .map(|path| {
            let case = read(path);
            Vector {
                bytes: std::fs::read(corpus.join(case["document"].as_str().unwrap())).unwrap(),
                facts: case["claims"].clone(),
            }
        })
        .collect()
}

#[test]
fn accepted_at_their_own_time() {
    for vector in vectors() {
        let policy = vector.policy().build().unwrap();
        let accepted = audit(&vector.bytes, &policy, AuditTime::OfDocument);
        let accepted = accepted.outcome.unwrap();
        assert_eq!(accepted.module_id(), vector.facts["module_id"]);
        assert_eq!(accepted.timestamp_ms(), vector.facts["timestamp_ms"]);
        for (field, found) in [
            ("nonce", accepted.nonce()),
            ("user_data", accepted.user_data()),
            ("public_key", accepted.public_key()),
        ] {
            assert_eq!(
                vector.facts[field].as_str(),
                found.map(hex::encode).as_deref()
            );
        }
    }
}

#[test]
fn pcr4_is_computed_of_the_instances_id() {
    for vector in vectors() {
        let module_id = vector.facts["module_id"].as_str().unwrap();
        let (instance, _) = module_id.rsplit_once("-enc").unwrap();
        let pcr4 = instance.parse::<InstanceId>().unwrap().pcr4();
        assert_eq!(vector.facts["pcrs"]["4"], pcr4.to_string());
    }
}

#[test]
fn refused_now_and_before_they_were_made() {
    for vector in vectors() {
        let policy = vector.policy().build().unwrap();
        let verifier = Verifier::new(Roots::aws());
        let now = verifier.verify(&vector.bytes, &policy, Nonce::Unchallenged);
        assert_eq!(now.outcome.unwrap_err().rule, Rule::CertificateValidity);
        let made = vector.facts["timestamp_ms"].as_u64().unwrap();
        let a_day = 24 * 60 * 60 * 1000;
        assert_eq!(
            vector.rule(vector.policy(), AuditTime::At(made - a_day)),
            Some(Rule::CertificateValidity)
        );
    }
}

#[test]
fn freshness_is_judged_at_the_stated_time() {
    for vector in vectors() {
        let made = vector.facts["timestamp_ms"].as_u64().unwrap();
        assert_eq!(
            vector.rule(vector.policy(), AuditTime::At(made + 300_000)),
            None
        );
        assert_eq!(
            vector.rule(vector.policy(), AuditTime::At(made + 300_001)),
            Some(Rule::FreshnessAge)
        );
        let soon_after_the_leaf = 2_000;
        assert_eq!(
            vector.rule(
                vector.policy().clock_skew(std::time::Duration::ZERO),
                AuditTime::At(made - soon_after_the_leaf)
            ),
            Some(Rule::FreshnessFuture)
        );
    }
}

#[test]
fn refused_with_a_wrong_register_or_nonce() {
    for vector in vectors() {
        let wrong = Pcr::new([7; 48]);
        let policy = Policy::builder().pcr(0, wrong).allow_debug();
        assert_eq!(
            vector.rule(policy, AuditTime::OfDocument),
            Some(Rule::PolicyPcr(0))
        );
        let absent = vector.policy().pcr(31, Pcr::ZERO);
        assert_eq!(
            vector.rule(absent, AuditTime::OfDocument),
            Some(Rule::PolicyPcr(31))
        );
        let nonce = vector.policy().nonce(b"another".to_vec());
        assert_eq!(
            vector.rule(nonce, AuditTime::OfDocument),
            Some(Rule::PolicyNonce)
        );
    }
}

#[test]
fn a_debug_enclave_is_refused_unless_allowed_by_name() {
    let vectors = vectors();
    let debug: Vec<_> = vectors.iter().filter(|vector| vector.debug()).collect();
    assert_eq!(debug.len(), 2);
    let any = Policy::builder().allow_any_image();
    let zero = any.clone().pcr(0, Pcr::ZERO);
    assert_eq!(zero.clone().build(), Err(PolicyError::ZeroRegister(0)));
    for vector in debug {
        let refused = vector.rule(any.clone(), AuditTime::OfDocument);
        assert_eq!(refused, Some(Rule::PolicyDebug));
        let allowed = zero.clone().allow_debug();
        assert_eq!(vector.rule(allowed, AuditTime::OfDocument), None);
    }
}

#[test]
fn refused_under_another_root() {
    let other = attestation_test_root();
    for vector in vectors() {
        let policy = vector.policy().build().unwrap();
        let verifier = Verifier::new(other.clone());
        let audit = verifier.audit(&vector.bytes, &policy, AuditTime::OfDocument);
        assert_eq!(audit.outcome.unwrap_err().rule, Rule::ChainRoot);
    }
}

fn attestation_test_root() -> Roots {
    let root = software_nsm::TestRoot::generate().unwrap();
    Roots::from_pem(root.certificate_pem().as_bytes()).unwrap()
}

#[test]
fn a_policy_without_a_measurement_is_refused() {
    let policy = Policy::builder().nonce(vec![1]).build();
    assert_eq!(policy.unwrap_err(), PolicyError::NoCode);
    let policy = Policy::builder().pcr(32, Pcr::ZERO).build();
    assert_eq!(
        policy.unwrap_err(),
        PolicyError::NoSuchPcr {
            index: 32,
            last: 31
        }
    );
}

/// No bit is free. What the document's signature does not cover has one form
/// only: the outer array, the headers, the lengths, no tag and no byte behind.
/// The signature itself has a second form, `s` replaced by the order minus `s`,
/// which is no flip of one bit; real documents have either.
#[test]
fn every_flipped_bit_is_refused() {
    let vectors = vectors();
    let vector = vectors
        .iter()
        .min_by_key(|vector| vector.bytes.len())
        .unwrap();
    let policy = vector.policy().build().unwrap();
    let made = vector.facts["timestamp_ms"].as_u64().unwrap();
    let threads = std::thread::available_parallelism().unwrap().get();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let policy = &policy;
            scope.spawn(move || {
                let mut bytes = vector.bytes.clone();
                for bit in (thread..8 * bytes.len()).step_by(threads) {
                    bytes[bit / 8] ^= 1 << (bit % 8);
                    let outcome = audit(&bytes, policy, AuditTime::At(made)).outcome;
                    assert!(outcome.is_err(), "bit {} of byte {}", bit % 8, bit / 8);
                    bytes[bit / 8] ^= 1 << (bit % 8);
                }
            });
        }
    });
}

/// Whoever forges a document may hope that what was remembered is not compared.
#[test]
fn every_flipped_byte_is_refused_by_a_verifier_that_knows_the_chain() {
    for vector in vectors() {
        let policy = vector.policy().build().unwrap();
        let made = vector.facts["timestamp_ms"].as_u64().unwrap();
        let verifier = Verifier::new(Roots::aws());
        let accepted = |bytes: &[u8], time| verifier.audit(bytes, &policy, time).outcome.is_ok();
        let mut bytes = vector.bytes.clone();
        for index in (0..bytes.len()).step_by(7) {
            bytes[index] ^= 0x10;
            assert!(!accepted(&bytes, AuditTime::At(made)), "byte {index}");
            bytes[index] ^= 0x10;
            if index % 70 == 0 {
                assert!(accepted(&bytes, AuditTime::At(made)));
            }
        }
        // Its memory does not outlive a certificate.
        let a_day_later = AuditTime::At(made + 24 * 60 * 60 * 1000);
        assert!(!accepted(&bytes, a_day_later));
    }
}

#[test]
fn a_verifier_reports_the_same_whether_it_knows_the_chain_or_not() {
    for vector in vectors() {
        let policy = vector.policy().build().unwrap();
        let verifier = Verifier::new(Roots::aws());
        for _ in 0..2 {
            let unknown = audit(&vector.bytes, &policy, AuditTime::OfDocument);
            let known = verifier.audit(&vector.bytes, &policy, AuditTime::OfDocument);
            assert_eq!(known.report, unknown.report);
            assert!(known.outcome.is_ok());
        }
        // A leaf that is not known, below authorities that are.
        let leaf = Document::parse(&vector.bytes)
            .unwrap()
            .unverified_certificates()
            .last()
            .unwrap()
            .to_vec();
        let at = vector
            .bytes
            .windows(leaf.len())
            .position(|window| window == leaf)
            .unwrap();
        let mut forged = vector.bytes.clone();
        forged[at + leaf.len() - 1] ^= 1;
        let rule = |audit: Audit<'_>| audit.outcome.unwrap_err().rule;
        assert_eq!(
            rule(verifier.audit(&forged, &policy, AuditTime::OfDocument)),
            rule(audit(&forged, &policy, AuditTime::OfDocument)),
        );
    }
}

/// AWS makes leaves on demand: most begin a few seconds before their document.
#[test]
fn clock_skew_is_kept_for_every_document_and_its_certificates() {
    for vector in vectors() {
        let made = vector.facts["timestamp_ms"].as_u64().unwrap();
        let policy = vector.policy().build().unwrap();
        let verifier = Verifier::new(Roots::aws());
        let behind = |milliseconds| {
            let now_ms = made - milliseconds;
            let bytes = &vector.bytes;
            let verification = verifier.verify_at(bytes, &policy, Nonce::Unchallenged, now_ms);
            verification.outcome.err()
        };
        // Whether the verifier knows the chain or not.
        for _ in 0..2 {
            let rejection = behind(61_000).unwrap();
            let reason = &rejection.reason;
            assert!(reason.contains("the clock is "), "{reason}");
            assert!(reason.contains(" s behind"), "{reason}");
            assert_eq!(behind(59_000), None);
            assert_eq!(behind(60_000), None);
        }
        assert!(behind(60_001).is_some());
    }
}

/// What one policy has a clock be wrong by is not remembered for the next.
#[test]
fn clock_skew_of_one_policy_is_not_that_of_another() {
    let vector = vector_of_the_leaf();
    let verifier = Verifier::new(Roots::aws());
    // A minute before the leaf begins.
    let time = AuditTime::At(LEAF_BEGINS - 60_000);
    let policy = |skew| {
        let skew = std::time::Duration::from_secs(skew);
        vector.policy().clock_skew(skew).build().unwrap()
    };
    for _ in 0..2 {
        for (skew, refused) in [(600, None), (59, Some(Rule::CertificateValidity))] {
            let policy = policy(skew);
            let audit = verifier.audit(&vector.bytes, &policy, time);
            let rule = audit.outcome.err().map(|rejection| rejection.rule);
            assert_eq!(rule, refused, "{skew}");
        }
    }
}

/// The document whose leaf is valid from [`LEAF_BEGINS`] to [`LEAF_ENDS`].
fn vector_of_the_leaf() -> Vector {
    let id = "i-0df237f0418feb41e-enc018d1c7ef94eb110";
    let is_it = |vector: &Vector| vector.facts["module_id"] == id;
    vectors().into_iter().find(is_it).unwrap()
}

/// From 2024-02-26T06:59:33Z to 09:59:36Z.
const LEAF_BEGINS: u64 = 1_708_930_773_000;
const LEAF_ENDS: u64 = 1_708_941_576_000;

/// The bounds themselves are within the time of validity (RFC 5280, section
/// 4.1.2.5), and nothing beyond them and what the clock may be wrong by, to the
/// millisecond.
#[test]
fn a_leaf_is_valid_to_the_millisecond() {
    let vector = vector_of_the_leaf();
    for skew_ms in [0, 600_000] {
        let policy = || {
            vector
                .policy()
                .max_age(std::time::Duration::from_secs(86_400))
                .clock_skew(std::time::Duration::from_millis(skew_ms))
        };
        let (first, last) = (LEAF_BEGINS - skew_ms, LEAF_ENDS + skew_ms);
        for (time, rule) in [
            (first - 1, Some(Rule::CertificateValidity)),
            // The document was made two minutes after the leaf begins.
            (first, Some(Rule::FreshnessFuture)),
            (last, None),
            (last + 1, Some(Rule::CertificateValidity)),
            (u64::MAX, Some(Rule::CertificateValidity)),
            (0, Some(Rule::CertificateValidity)),
        ] {
            assert_eq!(vector.rule(policy(), AuditTime::At(time)), rule, "{time}");
        }
    }
}

#[test]
fn the_root_that_matched_is_reported_and_one_of_another_partition_is_named() {
    let all = Roots::partition(Partition::AwsUsGov).and(Roots::aws());
    for vector in vectors() {
        let policy = vector.policy().build().unwrap();
        let verifier = Verifier::new(all.clone());
        for _ in 0..2 {
            let audit = verifier.audit(&vector.bytes, &policy, AuditTime::OfDocument);
            let root = audit.report.root.unwrap();
            assert_eq!(root.partition, Some(Partition::Aws));
            assert_eq!(root.sha256, Partition::Aws.fingerprint());
            assert_eq!(*audit.outcome.unwrap().root(), root);
        }
        let of_gov = Verifier::new(Roots::partition(Partition::AwsUsGov));
        let audit = of_gov.audit(&vector.bytes, &policy, AuditTime::OfDocument);
        assert_eq!(audit.report.root, None);
        let rejection = audit.outcome.unwrap_err();
        assert_eq!(rejection.rule, Rule::ChainRoot);
        assert!(
            rejection.reason.contains("AWS's partition aws, "),
            "{rejection}"
        );
    }
}

#[test]
fn every_truncation_is_refused() {
    for vector in vectors() {
        for length in 0..vector.bytes.len() {
            assert!(
                Document::parse(&vector.bytes[..length]).is_err(),
                "{length}"
            );
        }
        let mut longer = vector.bytes.clone();
        longer.push(0);
        assert_eq!(
            Document::parse(&longer).unwrap_err().rule,
            Rule::CborTrailing
        );
    }
}
