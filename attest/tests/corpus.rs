//! The corpus, judged by `attest verify` through the corpus's runner.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;

use serde_json::Value;

#[test]
fn verify_is_right_about_every_case_of_the_corpus() {
    let corpus = Path::new("../attestation/corpus");
    let verifier = format!(
        "{} verify {{document}} --root {{root}} --time {{time}} --policy {{policy}}",
        env!("CARGO_BIN_EXE_attest")
    );
    let output = Command::new("python3")
        .arg(corpus.join("run.py"))
        .args(["--json", "-", "--verifier", &verifier])
        .output()
        .unwrap();
    let results: Value = serde_json::from_slice(&output.stdout).unwrap();
    let wrong: Vec<_> = results["results"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|result| result["outcome"] != "right")
        .collect();
    assert!(wrong.is_empty(), "{} wrong: {wrong:#?}", wrong.len());
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(results["judged"], results["cases"]);
    assert!(
        results["cases"].as_u64() > Some(1300),
        "{}",
        results["cases"]
    );
}

/// The runner itself finds a verifier out that accepts everything, or nothing, or dies.
#[test]
fn the_runner_finds_out_verifiers_that_do_not_look() {
    let runner = Path::new("../attestation/corpus/run.py");
    let run = |verifier: &str| {
        let output = Command::new("python3")
            .arg(runner)
            .args(["--json", "-", "--verifier", verifier, "3a4a0301e6aa2839"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{verifier}");
        let results: Value = serde_json::from_slice(&output.stdout).unwrap();
        let mut outcomes: Vec<_> = results["results"]
            .as_array()
            .unwrap()
            .iter()
            .map(|result| {
                let text = |field: &str| result[field].as_str().unwrap().to_owned();
                (text("expected"), text("outcome"))
            })
            .collect();
        outcomes.sort();
        outcomes.dedup();
        outcomes
    };
    let pairs = |accepted: &str, refused: &str| {
        [("accepted", accepted), ("refused", refused)]
            .map(|(expected, outcome)| (expected.to_owned(), outcome.to_owned()))
            .to_vec()
    };
    let told = "{document} {root} {time} {policy}";
    assert_eq!(run(&format!("true {told}")), pairs("right", "missed"));
    assert_eq!(
        run(&format!("false {told}")),
        pairs("good refused", "right")
    );
    let script = |script: &str| format!("sh -c '{script}' {told}");
    assert_eq!(run(&script("exit 101")), pairs("error", "error"));
    assert_eq!(run(&script("kill -9 $$")), pairs("crash", "crash"));
}
