//! How long verification takes, beside the bare signatures that it cannot avoid.
//!
//! `cargo bench -p attestation`. Baseline and candidate take turns, so that both see the
//! same machine; times and ratios are medians.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::print_stdout,
    reason = "a benchmark, with the tests' own documents"
)]

#[path = "../tests/hostile/cose.rs"]
mod cose;
#[path = "../tests/hostile/der.rs"]
mod der;
#[path = "../tests/hostile/world.rs"]
mod world;

use std::hint::black_box;
use std::time::{Duration, Instant};

use attestation::{Document, Policy, Roots, Time, Verifier, verify};
use aws_lc_rs::signature::{ECDSA_P384_SHA384_ASN1, UnparsedPublicKey};
use world::{LEAF, Payload, TIME_MS, World};

const ROUNDS: usize = 301;
/// Runs of what takes microseconds in one measurement.
const FAST_RUNS: usize = 100;

fn main() {
    let document = std::fs::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/vectors/8e5652f3b009e620.cbor"
    ))
    .unwrap();
    let policy = Policy::builder()
        .allow_any_image()
        .allow_debug()
        .build()
        .unwrap();
    let (key, message, signature) = bare();
    let one = || {
        let key = UnparsedPublicKey::new(&ECDSA_P384_SHA384_ASN1, &key);
        key.verify(black_box(&message), &signature).unwrap();
    };

    println!("document of AWS, {} bytes", document.len());
    let mut parse = time(|| {
        for _ in 0..FAST_RUNS {
            black_box(Document::parse(black_box(&document)).unwrap());
        }
    });
    let parse = median((0..ROUNDS).map(|_| parse()).collect()) / FAST_RUNS as f64;
    println!("parse alone                     {parse:8.2} µs");

    let roots = Roots::aws();
    let cold = || {
        let verification = verify(black_box(&document), &roots, &policy, Time::OfDocument);
        assert!(verification.outcome.is_ok());
    };
    compare("cold, of 5 signatures", 5, cold, one);

    // Below the same instance, a leaf that has not been seen.
    let world = World::new();
    let leaves: Vec<Vec<u8>> = (0..=ROUNDS)
        .map(|number| {
            let leaf = world.reissue(LEAF, |fields| {
                let number = u16::try_from(number).unwrap().to_be_bytes();
                fields.serial = vec![2, 3, 1, number[0], number[1]];
            });
            world.document(&Payload::of(&world.replaced(LEAF, leaf)))
        })
        .collect();
    let pem = pem(&world.certificates[0]);
    let known = Verifier::new(Roots::from_pem(pem.as_bytes()).unwrap());
    let of_world = world::policy();
    let mut next = leaves.iter();
    let issuers = || {
        let verification = known.verify(next.next().unwrap(), &of_world, Time::At(TIME_MS));
        assert!(verification.outcome.is_ok());
    };
    compare("issuers known, of 2 signatures", 2, issuers, one);

    let verifier = Verifier::new(Roots::aws());
    let warm = || {
        let verification = verifier.verify(black_box(&document), &policy, Time::OfDocument);
        assert!(verification.outcome.is_ok());
    };
    compare("leaf known, of 1 signature", 1, warm, one);

    // What the machine itself gives to a second thread is the bound.
    for (name, run) in [
        ("bare, per second", &one as &(dyn Fn() + Sync)),
        ("leaf known, per second", &warm),
    ] {
        let (single, double) = (throughput(1, run), throughput(2, run));
        println!(
            "{name:<30} {single:9.0} on 1 thread, {double:.0} on 2: {:.2} x",
            double / single
        );
    }
}

/// A key, a message of a certificate's size and its signature.
fn bare() -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let key = der::Key::generate();
    let message = vec![7; 600];
    let signature = key.sign_asn1(&message);
    (key.point().to_vec(), message, signature)
}

fn pem(der: &[u8]) -> String {
    use base64::Engine;
    let base64 = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n")
}

/// Measures one run in microseconds.
fn time(mut run: impl FnMut()) -> impl FnMut() -> f64 {
    run();
    move || {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64() * 1e6
    }
}

fn compare(name: &str, signatures: usize, candidate: impl FnMut(), mut one: impl FnMut()) {
    let mut candidate = time(candidate);
    let mut baseline = time(|| (0..signatures).for_each(|_| one()));
    let (mut times, mut ratios) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let bare = baseline();
        let taken = candidate();
        times.push(taken);
        ratios.push(taken / bare);
    }
    println!(
        "{name:<30} {:9.2} µs, {:.3} x bare aws-lc-rs",
        median(times),
        median(ratios)
    );
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Runs per second on so many threads.
fn throughput(threads: usize, run: &(dyn Fn() + Sync)) -> f64 {
    const PERIOD: Duration = Duration::from_secs(2);
    let start = Instant::now();
    let runs: usize = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut runs = 0;
                    while start.elapsed() < PERIOD {
                        run();
                        runs += 1;
                    }
                    runs
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .sum()
    });
    runs as f64 / start.elapsed().as_secs_f64()
}
