//! Whatever a policy with an addition accepts, the policy alone accepts too.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use attestation::{
    Addition, Binding, ImageMeasurements, Nonce, Policy, PolicyBuilder, Purpose, Roots, Verifier,
};
use measurements::{Measurements, Pcr};
use nsm::{Request, Response};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;
use software_nsm::{Identity, SoftwareNsm, TestRoot};

/// Documents of enclaves that differ in everything that a policy compares.
struct World {
    verifier: Verifier,
    documents: Vec<Vec<u8>>,
    now_ms: u64,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let root = TestRoot::generate().unwrap();
    let (certificate, key) = (root.certificate_pem().to_owned(), root.key_pem());
    let mut documents = Vec::new();
    let measured = [
        None,
        Some(image(1, false)),
        Some(image(1, true)),
        Some(image(2, false)),
    ];
    for measurements in measured {
        let root = TestRoot::from_pem(&certificate, &key).unwrap();
        let identity = Identity {
            instance_id: "i-0123456789abcdef0".to_owned(),
            enclave_id: "enc0123456789abcdef".to_owned(),
            measurements,
        };
        let mut module = SoftwareNsm::new(identity, root).unwrap();
        for (nonce, purpose, key) in [
            (None, Purpose::Workload, None),
            (Some(1), Purpose::RelayedChallenge, Some(1)),
            (Some(2), Purpose::SelfCheck, Some(2)),
        ] {
            let answer = module.answer(Request::Attestation {
                user_data: purpose.user_data().map(Into::into),
                nonce: nonce.map(|nonce| vec![nonce].into()),
                public_key: key.map(|key| vec![key].into()),
            });
            let Response::Attestation { document } = answer else {
                panic!("{answer:?}");
            };
            documents.push(document);
        }
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    World {
        verifier: Verifier::new(Roots::from_pem(certificate.as_bytes()).unwrap()),
        documents,
        now_ms: u64::try_from(now.as_millis()).unwrap(),
    }
});

const fn image(fill: u8, signed: bool) -> Measurements {
    let pcr = Pcr::new([fill; 48]);
    Measurements {
        pcr0: pcr,
        pcr1: pcr,
        pcr2: pcr,
        pcr8: if signed { Some(pcr) } else { None },
    }
}

fn images() -> impl Strategy<Value = Vec<(String, ImageMeasurements)>> {
    let named = (select(vec![1, 2, 3]), any::<bool>()).prop_map(|(fill, signed)| {
        let name = format!("{fill} {signed}");
        (name, image(fill, signed).into())
    });
    vec(named, 0..3)
}

fn pcrs() -> impl Strategy<Value = Vec<(u8, Pcr)>> {
    let value = select(vec![Pcr::ZERO, Pcr::new([1; 48]), Pcr::new([2; 48])]);
    vec((select(vec![0, 1, 2, 8, 15]), value), 0..3)
}

fn nonce() -> impl Strategy<Value = Vec<u8>> {
    vec(1_u8..3, 1)
}

fn purpose() -> impl Strategy<Value = Purpose> {
    select(Purpose::KNOWN.to_vec())
}

fn age() -> impl Strategy<Value = Duration> {
    (30_u64..34).prop_map(Duration::from_secs)
}

prop_compose! {
    fn policies()(
        images in images(),
        pcrs in pcrs(),
        nonce in of(of(nonce())),
        purpose in of(purpose()),
        public_key in of(1_u8..3),
        max_age in of(age()),
        any_image in prop::bool::weighted(0.7),
        debug in any::<bool>(),
    ) -> PolicyBuilder {
        let mut policy = Policy::builder();
        if any_image {
            policy = policy.allow_any_image();
        } else {
            for (name, image) in images {
                policy = policy.image(name, image);
            }
        }
        for (index, value) in pcrs {
            policy = policy.pcr(index, value);
        }
        policy = match nonce {
            None => policy,
            Some(None) => policy.require_nonce(),
            Some(Some(nonce)) => policy.nonce(nonce),
        };
        if let Some(purpose) = purpose {
            policy = policy.purpose(purpose);
        }
        if let Some(key) = public_key {
            policy = policy.bind_public_key(Binding::Prefix(vec![key]));
        }
        if let Some(max_age) = max_age {
            policy = policy.max_age(max_age);
        }
        if debug {
            policy = policy.allow_debug();
        }
        policy
    }
}

prop_compose! {
    fn additions()(
        images in images(),
        pcrs in pcrs(),
        nonce in of(nonce()),
        purpose in of(purpose()),
        max_age in of(age()),
        allow_any_image in prop::bool::weighted(0.2),
        allow_debug in prop::bool::weighted(0.2),
        strict_keys in any::<bool>(),
    ) -> Addition {
        Addition { images, pcrs, nonce, purpose, max_age, strict_keys, allow_any_image, allow_debug }
    }
}

/// Whether the policy accepts a document, if it is given the document's own nonce where it
/// demands one of whoever uses it.
fn accepts(policy: &Policy, document: &[u8], age: u64) -> bool {
    let own = attestation::Document::parse(document).unwrap();
    let nonce = match own.unverified_nonce() {
        Some(nonce) if policy.needs_nonce() => Nonce::Fresh(nonce),
        _ => Nonce::Unchallenged,
    };
    let now_ms = WORLD.now_ms + age * 1000;
    let verification = WORLD.verifier.verify_at(document, policy, nonce, now_ms);
    verification.outcome.is_ok()
}

#[test]
fn an_addition_never_widens_a_policy() {
    let config = ProptestConfig {
        cases: 2000,
        ..ProptestConfig::default()
    };
    let accepted = AtomicUsize::new(0);
    let refused = AtomicUsize::new(0);
    let cases = (policies(), additions(), 29_u64..34);
    let result = TestRunner::new(config).run(&cases, |(policy, addition, age)| {
        let Ok(policy) = policy.build() else {
            return Ok(());
        };
        let Ok(narrow) = policy.with(&addition) else {
            return Ok(());
        };
        // What is accepted under both says as much as what is accepted under the policy.
        prop_assert!(narrow.names_code() || !policy.names_code());
        // What the addition demands, whatever code the policy names.
        let alone = Addition {
            allow_any_image: true,
            allow_debug: true,
            images: Vec::new(),
            ..addition.clone()
        };
        let alone = alone.policy().ok();
        for document in &WORLD.documents {
            let before = accepts(&policy, document, age);
            if !accepts(&narrow, document, age) {
                refused.fetch_add(usize::from(before), Ordering::Relaxed);
                continue;
            }
            accepted.fetch_add(1, Ordering::Relaxed);
            prop_assert!(before, "{policy:?}\n{narrow:?}");
            if let Some(alone) = &alone {
                prop_assert!(accepts(alone, document, age), "{alone:?}\n{narrow:?}");
            }
        }
        let demands = Addition {
            allow_any_image: false,
            allow_debug: false,
            ..addition
        };
        prop_assert_eq!(narrow.with(&demands), Ok(narrow.clone()));
        Ok(())
    });
    result.unwrap();
    // The policies are such that additions matter. How often is left to chance.
    let (accepted, refused) = (accepted.into_inner(), refused.into_inner());
    assert!(accepted > 0 && refused > 0, "{accepted} {refused}");
}
