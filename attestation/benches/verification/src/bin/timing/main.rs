//! How long verification takes, beside the bare signatures that it cannot avoid
//! and beside the crate `attestation-doc-validation`.
//!
//! `cargo xtask bench attestation` runs it, with a clock that stands at the time
//! of a document that AWS signed: the other crate checks certificates at no
//! other time than the system's. All contestants take turns, so that they see
//! the same machine; times and ratios are medians.

#![forbid(unsafe_code)]
#![allow(
    dead_code,
    reason = "the tests' own documents have more than is used here"
)]

#[path = "../../../../../tests/hostile/cose.rs"]
mod cose;
#[path = "../../../../../tests/hostile/der.rs"]
mod der;
mod table;
#[path = "../../../../../tests/hostile/world.rs"]
mod world;

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use attestation::{AuditTime, Document, Policy, Roots, Verifier};
use attestation_doc_validation::validate_attestation_doc;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_ASN1, UnparsedPublicKey};

use crate::table::{Limit, Table};
use crate::world::{LEAF, Payload, TIME_MS, World};

/// A document that AWS signed on 2024-02-26 at 07:02:01 UTC, and that time in
/// milliseconds since 1970. Ours is told it, so that the false clock, which is
/// slower than a true one, costs it nothing; the other crate looks once in 4 ms.
const DOCUMENT: &[u8] = include_bytes!("../../../../../corpus/aws/3a4a0301e6aa2839.cbor");
const DOCUMENT_TIME: AuditTime = AuditTime::At(1_708_930_921_439);
const ROUNDS: u16 = 61;
/// Runs of a contestant, one after the other, in a round: those of the other
/// crate, of a verification, and of what takes less than a microsecond.
const PEER_RUNS: u16 = 3;
const RUNS: u16 = 10;
const FAST_RUNS: u16 = 1000;
/// How often threads are counted, and for how long each time.
const THREAD_ROUNDS: usize = 7;
const THREAD_PERIOD: Duration = Duration::from_millis(400);

fn main() -> ExitCode {
    if validate_attestation_doc(DOCUMENT).is_err() {
        println!(
            "the system's clock is not at the document's time: run `cargo xtask bench attestation`"
        );
        return ExitCode::FAILURE;
    }
    let policy = Policy::builder()
        .allow_any_image()
        .build()
        .expect("a policy");
    let roots = Roots::aws();
    let verifier = Verifier::new(Roots::aws());
    let mut strangers = Leaves::new();
    let (key, message, signature) = bare_signature();
    let bare = || {
        let key = UnparsedPublicKey::new(&ECDSA_P384_SHA384_ASN1, &key);
        key.verify(black_box(&message), &signature)
            .expect("a signature");
    };
    let cold = || {
        let stranger = Verifier::new(roots.clone());
        let audit = stranger.audit(black_box(DOCUMENT), &policy, DOCUMENT_TIME);
        assert!(audit.outcome.is_ok());
    };
    let leaf_known = || {
        let audit = verifier.audit(black_box(DOCUMENT), &policy, DOCUMENT_TIME);
        assert!(audit.outcome.is_ok());
    };
    let parse = || {
        black_box(Document::parse(black_box(DOCUMENT)).expect("a document"));
    };
    let peer = || validate_attestation_doc(black_box(DOCUMENT)).expect("a document");

    let mut samples = Samples::default();
    for round in 0..=ROUNDS {
        let sample = Sample {
            bare: time(RUNS, bare),
            leaf_known: time(RUNS, leaf_known),
            issuers_known: time(RUNS, || strangers.verify_next()),
            cold: time(RUNS, cold),
            peer: time(PEER_RUNS, peer),
            parse: time(FAST_RUNS, parse),
        };
        // The first round fills caches.
        if round > 0 {
            samples.0.push(sample);
        }
    }

    println!(
        "a document of AWS with {} bytes; medians of {ROUNDS} rounds, in which all take turns",
        DOCUMENT.len()
    );
    let mut table = Table::new(["", "time", "beside", "ratio", "limit"]);
    let time_of = |of: fn(&Sample) -> f64| format!("{:.2} µs", samples.median(of));
    // How fast the other crate is depends on the processor.
    let ratio_of = |of: fn(&Sample) -> f64| format!("{:.2}", samples.median(of));
    table.judge(
        ["parse alone", "", ""],
        samples.median(|sample| sample.parse),
        Limit::below(5.0, "µs"),
    );
    table.show(["one bare verification", &time_of(|sample| sample.bare)]);
    table.judge(
        [
            "leaf known",
            &time_of(|sample| sample.leaf_known),
            "1 bare verification",
        ],
        samples.median(|sample| sample.leaf_known / sample.bare),
        Limit::at_most(1.08),
    );
    table.show([
        "",
        "",
        "the other crate",
        &ratio_of(|sample| sample.peer / sample.leaf_known),
    ]);
    table.judge(
        [
            "issuers known",
            &time_of(|sample| sample.issuers_known),
            "2 bare verifications",
        ],
        samples.median(|sample| sample.issuers_known / (2.0 * sample.bare)),
        Limit::at_most(1.15),
    );
    table.judge(
        [
            "cold",
            &time_of(|sample| sample.cold),
            "5 bare verifications",
        ],
        samples.median(|sample| sample.cold / (5.0 * sample.bare)),
        Limit::at_most(1.10),
    );
    table.show([
        "",
        "",
        "the other crate",
        &ratio_of(|sample| sample.peer / sample.cold),
    ]);
    table.show([
        "attestation-doc-validation 0.10.1",
        &time_of(|sample| sample.peer),
    ]);
    // What the machine itself gives to a second thread is the bound.
    let bare = scaling(&bare);
    let leaf_known = scaling(&leaf_known);
    table.show([
        "bare, 2 threads",
        &format!("{:.0}/s", bare.per_second),
        "1 thread",
        &format!("{:.2}", bare.ratio),
    ]);
    table.judge(
        [
            "leaf known, 2 threads",
            &format!("{:.0}/s", leaf_known.per_second),
            "1 thread",
        ],
        leaf_known.ratio,
        Limit::at_least(1.9),
    );
    print!("{table}");
    if table.all_kept() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// One round's times, in microseconds.
struct Sample {
    parse: f64,
    bare: f64,
    leaf_known: f64,
    issuers_known: f64,
    cold: f64,
    peer: f64,
}

#[derive(Default)]
struct Samples(Vec<Sample>);

impl Samples {
    fn median(&self, of: impl Fn(&Sample) -> f64) -> f64 {
        median(self.0.iter().map(of).collect())
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// How long one of so many runs takes, in microseconds.
fn time(runs: u16, mut run: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..runs {
        run();
    }
    start.elapsed().as_secs_f64() * 1e6 / f64::from(runs)
}

/// A key, a message of a certificate's size and its signature.
fn bare_signature() -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let key = der::Key::of("bare");
    let message = vec![7; 600];
    let signature = key.sign_asn1(&message);
    (key.point().to_vec(), message, signature)
}

/// Documents below one instance, each under a leaf that has not been seen.
struct Leaves {
    documents: std::vec::IntoIter<Vec<u8>>,
    verifier: Verifier,
    policy: Policy,
}

impl Leaves {
    fn new() -> Self {
        let world = World::new();
        let documents: Vec<_> = (0..(ROUNDS + 1) * RUNS)
            .map(|number| {
                let leaf = world.reissue(LEAF, |fields| {
                    let [high, low] = number.to_be_bytes();
                    fields.serial = vec![2, 3, 1, high, low];
                });
                world.document(&Payload::of(&world.replaced(LEAF, leaf)))
            })
            .collect();
        let root = pem(&world.certificates[0]);
        Self {
            documents: documents.into_iter(),
            verifier: Verifier::new(Roots::from_pem(root.as_bytes()).expect("a root")),
            policy: world::policy(),
        }
    }

    fn verify_next(&mut self) {
        let document = self.documents.next().expect("a document for each run");
        let time = AuditTime::At(TIME_MS);
        let audit = self.verifier.audit(&document, &self.policy, time);
        assert!(audit.outcome.is_ok());
    }
}

fn pem(der: &[u8]) -> String {
    use base64::Engine;
    let base64 = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n")
}

/// What two threads do.
struct Scaling {
    per_second: f64,
    /// Beside what one does.
    ratio: f64,
}

fn scaling(run: &(dyn Fn() + Sync)) -> Scaling {
    let rounds: Vec<_> = (0..THREAD_ROUNDS)
        .map(|_| (throughput(1, run), throughput(2, run)))
        .collect();
    Scaling {
        per_second: median(rounds.iter().map(|(_, two)| *two).collect()),
        ratio: median(rounds.iter().map(|(one, two)| two / one).collect()),
    }
}

/// Runs per second on so many threads.
fn throughput(threads: u32, run: &(dyn Fn() + Sync)) -> f64 {
    let start = Instant::now();
    let runs: u32 = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut runs = 0;
                    while start.elapsed() < THREAD_PERIOD {
                        run();
                        runs += 1;
                    }
                    runs
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().expect("a thread"))
            .sum()
    });
    f64::from(runs) / start.elapsed().as_secs_f64()
}
