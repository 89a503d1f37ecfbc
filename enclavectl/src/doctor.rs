//! Whether the control plane is whole.

use aws_sdk_dynamodb::types::TableStatus;
use aws_sdk_sfn::types::StateMachineStatus;
use bytes::Bytes;
use command_output::outln;
use control_plane_model::status::Status;
use serde_json::{Value, json};
use std::time::Duration;
use time::OffsetDateTime;

use crate::End;
use crate::cli::Installation;
use crate::cloud::Cloud;
use crate::list::enclaves;
use plain_text::plain;

/// After this long without a write an enclave in motion is worth a look.
const STUCK: Duration = Duration::from_secs(45 * 60);
const INVOKE_TIMEOUT: Duration = Duration::from_secs(30);

/// A check and how it went.
#[derive(Debug)]
struct Finding {
    what: String,
    /// What is wrong and what to do, if something is.
    problem: Option<String>,
}

pub(crate) async fn run(installation: &Installation, json: bool) -> anyhow::Result<End> {
    let mut findings = Vec::new();
    let mut find = |what: &str, problem: Option<String>| {
        findings.push(Finding {
            what: what.to_owned(),
            problem,
        });
    };
    match Cloud::connect(installation).await {
        Err(error) => find("the control plane's parameter", Some(format!("{error:#}"))),
        Ok(cloud) => {
            find("the control plane's parameter", None);
            find("the table of enclaves", enclaves_table(&cloud).await);
            find(
                "the table of images",
                table(&cloud, &cloud.parts.tables.images).await,
            );
            let machines = &cloud.parts.state_machines;
            for (what, arn) in [
                ("the workflow deployment", &machines.deployment),
                ("the workflow cleanup", &machines.cleanup),
                ("the workflow attestation", &machines.attestation),
            ] {
                find(what, state_machine(&cloud, arn).await);
            }
            find("the attestation gate", gate(&cloud).await);
            find("enclaves in motion", stuck(&cloud).await);
        }
    }
    let healthy = findings.iter().all(|finding| finding.problem.is_none());
    if json {
        let checks: Vec<_> = findings
            .iter()
            .map(|finding| json!({ "check": finding.what, "problem": finding.problem }))
            .collect();
        outln!(
            "{}",
            json!({ "healthy": healthy, "checks": Value::from(checks) })
        );
    } else {
        for finding in &findings {
            match &finding.problem {
                None => outln!("ok    {}", finding.what),
                Some(problem) => outln!("FAIL  {}: {}", finding.what, plain(problem)),
            }
        }
    }
    Ok(if healthy { End::Done } else { End::Failed })
}

async fn enclaves_table(cloud: &Cloud) -> Option<String> {
    let name = &cloud.parts.tables.enclaves;
    let output = match cloud
        .dynamodb
        .describe_table()
        .table_name(name)
        .send()
        .await
    {
        Ok(output) => output,
        Err(error) => return Some(service(&error)),
    };
    let table = output.table()?;
    let index = &cloud.parts.status_index;
    let has_index = table
        .global_secondary_indexes()
        .iter()
        .any(|found| found.index_name() == Some(index));
    let stream = table
        .stream_specification()
        .is_some_and(aws_sdk_dynamodb::types::StreamSpecification::stream_enabled);
    if table.table_status() != Some(&TableStatus::Active) {
        return Some(format!("{name} is not active"));
    }
    if !stream {
        return Some(format!(
            "{name} has no stream, so nothing sees a request: enable it with new and old images"
        ));
    }
    (!has_index).then(|| {
        format!("{name} has no index {index}, so the monitor sees nothing: add it, or set `status_index_name`")
    })
}

async fn table(cloud: &Cloud, name: &str) -> Option<String> {
    let result = cloud
        .dynamodb
        .describe_table()
        .table_name(name)
        .send()
        .await;
    result.err().map(|error| service(&error))
}

async fn state_machine(cloud: &Cloud, arn: &str) -> Option<String> {
    let call = cloud.states.describe_state_machine().state_machine_arn(arn);
    match call.send().await {
        Ok(output) => match output.status() {
            Some(StateMachineStatus::Deleting) => Some(format!("{arn} is being deleted")),
            _ => None,
        },
        Err(error) => Some(service(&error)),
    }
}

/// The gate answers a question about an enclave that does not exist.
async fn gate(cloud: &Cloud) -> Option<String> {
    let Some(function) = cloud.parts.functions.get("attestation-gate") else {
        return Some(
            "the parameter does not name it: apply the root configuration again".to_owned(),
        );
    };
    let payload = json!({ "action": "challenge", "enclave_id": " " }).to_string();
    let call = cloud
        .aws
        .lambda()
        .invoke(function, Bytes::from(payload), true, INVOKE_TIMEOUT);
    match call.await {
        Ok(_) => None,
        Err(aws_request::lambda::InvokeError::Function { kind, .. })
            if kind == "UnknownEnclave" =>
        {
            None
        }
        Err(error) => Some(error.to_string()),
    }
}

async fn stuck(cloud: &Cloud) -> Option<String> {
    let items = match enclaves(cloud, &Status::WATCHED).await {
        Ok(items) => items,
        Err(error) => return Some(format!("{error:#}")),
    };
    let now = OffsetDateTime::now_utc();
    let stuck: Vec<_> = items
        .iter()
        .filter(|item| item.is_older(STUCK, now))
        .map(|item| item.id.as_str())
        .collect();
    (!stuck.is_empty()).then(|| {
        format!(
            "nothing was written for 45 minutes about {}: `enclavectl events ID` says what happened",
            stuck.join(", ")
        )
    })
}

fn service<E: std::error::Error>(error: &E) -> String {
    aws_sdk_dynamodb::error::DisplayErrorContext(error).to_string()
}
