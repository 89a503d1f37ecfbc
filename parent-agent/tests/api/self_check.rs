//! What an enclave found when it verified its own document: shown, kept for the
//! next agent, and passed on to the gate.

use std::fs;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use link::control::{CheckOutcome, FromInit};
use link::{Bytes, Text};

use crate::agent::{Agent, Init, command, output, until};
use crate::fake_aws::FakeAws;
use crate::gate;

fn told(outcome: CheckOutcome, rule: &str, detail: &str) -> FromInit {
    FromInit::SelfCheck {
        outcome,
        rule: Text::new(rule),
        detail: Text::new(detail),
        document: Bytes::new(*b"document").unwrap(),
    }
}

#[tokio::test]
async fn self_check_is_an_event_and_in_status_and_metrics() {
    let mut agent = Agent::start(&[]).await;
    let mut init = Init::connect(&agent, 1).await;
    init.send(told(CheckOutcome::Failed, "chain.root", "another\nroot"))
        .await;
    let event = agent.event("self_check").await;
    assert_eq!(event["outcome"], "failed");
    assert_eq!(event["rule"], "chain.root");
    let status = agent.status().await["self_check"].clone();
    assert_eq!(status["outcome"], "failed");
    assert_eq!(status["detail"], "another\nroot");
    assert_eq!(status["document"], STANDARD.encode("document"));
    let table = output(command(agent.folder.path(), "status")).await;
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(
        table.contains("self-check  failed: chain.root: another\\nroot\n"),
        "{table}"
    );
    let (_, metrics) = agent.request("GET", "/metrics", "").await;
    let metrics = String::from_utf8(metrics).unwrap();
    for sample in [
        "enclave_self_check{outcome=\"passed\"} 0\n",
        "enclave_self_check{outcome=\"failed\"} 1\n",
        "enclave_self_check{outcome=\"unsigned\"} 0\n",
    ] {
        assert!(metrics.contains(sample), "{sample} in\n{metrics}");
    }

    // The init tells it on every connection; it is news only if it differs.
    drop(init);
    let mut init = Init::connect(&agent, 1).await;
    for outcome in [CheckOutcome::Failed, CheckOutcome::Passed] {
        let rule = if outcome == CheckOutcome::Failed {
            ("chain.root", "another\nroot")
        } else {
            ("", "")
        };
        init.send(told(outcome, rule.0, rule.1)).await;
    }
    assert_eq!(agent.event("self_check").await["outcome"], "passed");
    agent.end_init(0).await;
    agent.ended().await;
}

#[tokio::test]
async fn self_check_is_known_to_the_next_agent() {
    let keep = ["--keep-for", "60s"];
    let mut agent = Agent::start(&keep).await;
    let mut init = agent.boot().await;
    init.send(told(CheckOutcome::Unsigned, "", "nobody signs"))
        .await;
    agent.event("self_check").await;
    let record = agent.directory().join("enclave.json");
    until(|| fs::read_to_string(&record).is_ok_and(|record| record.contains("unsigned"))).await;
    let folder = agent.killed().await;
    let mut agent = Agent::again(folder, &keep);
    agent.event("attached").await;
    // Before the init is back.
    let status = agent.status().await;
    assert_eq!(status["self_check"]["outcome"], "unsigned");
    assert_eq!(status["self_check"]["detail"], "nobody signs");
    let _init = Init::connect(&agent, 1).await;
    agent.end_init(0).await;
    agent.ended().await;
}

#[tokio::test]
async fn self_check_is_told_to_the_gate() {
    let aws = FakeAws::start().await;
    let (mut agent, mut init) = gate::start(&aws).await;
    init.send(told(CheckOutcome::Passed, "", "")).await;
    agent.event("self_check").await;
    aws.state().nonce = Some("00ff".to_owned());
    gate::answer(&mut init).await;
    agent.event("gate").await;
    let asked = aws.state().asked.clone();
    let document = asked
        .iter()
        .find(|asked| asked["action"] == "document")
        .unwrap();
    assert_eq!(document["self_check"]["outcome"], "passed");
    assert_eq!(
        document["self_check"]["document"],
        STANDARD.encode("document")
    );
    agent.end_init(0).await;
    agent.ended().await;
}
