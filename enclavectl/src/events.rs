//! What happened to an enclave's last request, in words.

use anyhow::Context;
use aws_sdk_sfn::primitives::{DateTime, DateTimeFormat};
use aws_sdk_sfn::types::HistoryEvent;
use command_output::{out, outln};
use control_plane_model::Failure;
use control_plane_model::caught::Caught;
use serde_json::{Value, json};

use crate::End;
use crate::cloud::Cloud;
use crate::table::columns;
use plain_text::plain;

/// Events that are read, at most.
const MAX: usize = 1000;

/// An event that people want to know of.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    time: String,
    what: String,
}

pub(crate) async fn run(cloud: &Cloud, id: &str, json: bool) -> anyhow::Result<End> {
    let item = cloud.enclave(id).await?;
    let arn = item.execution_arn.with_context(|| {
        format!(
            "nothing has worked on {id} yet, except perhaps an older system: there are no events"
        )
    })?;
    let mut events = Vec::new();
    let mut next = None;
    loop {
        let page = cloud
            .states
            .get_execution_history()
            .execution_arn(&arn)
            .set_next_token(next)
            .send()
            .await
            .map_err(|error| Failure::of_call("GetExecutionHistory", &arn, &error))?;
        events.extend(page.events().iter().filter_map(tell));
        next = page.next_token().map(str::to_owned);
        if next.is_none() || events.len() >= MAX {
            break;
        }
    }
    if json {
        let events: Vec<_> = events
            .iter()
            .map(|event| json!({ "time": event.time, "event": event.what }))
            .collect();
        outln!(
            "{}",
            json!({ "execution_arn": arn, "events": Value::from(events) })
        );
        return Ok(End::Done);
    }
    outln!("{arn}\n");
    let rows: Vec<_> = events
        .into_iter()
        .map(|event| vec![event.time, plain(&event.what)])
        .collect();
    out!("{}", columns(&["TIME", "WHAT"], &rows));
    Ok(End::Done)
}

fn tell(event: &HistoryEvent) -> Option<Told> {
    let time = milliseconds(event.timestamp());
    let failed = |error: Option<&str>, cause: Option<&str>| {
        let caught = Caught {
            error: error.unwrap_or_default().to_owned(),
            cause: cause.unwrap_or_default().to_owned(),
        };
        let explanation = caught.explain();
        format!("{}: {}", explanation.kind, explanation.message)
    };
    let what = if let Some(entered) = event.state_entered_event_details() {
        step(entered.name())?.to_owned()
    } else if let Some(details) = event.task_failed_event_details() {
        format!("that failed: {}", failed(details.error(), details.cause()))
    } else if let Some(details) = event.lambda_function_failed_event_details() {
        format!("that failed: {}", failed(details.error(), details.cause()))
    } else if let Some(details) = event.task_timed_out_event_details() {
        format!(
            "that took too long: {}",
            failed(details.error(), details.cause())
        )
    } else if let Some(details) = event.execution_failed_event_details() {
        format!("ended: {}", failed(details.error(), details.cause()))
    } else if let Some(details) = event.execution_timed_out_event_details() {
        format!(
            "ended, out of time: {}",
            failed(details.error(), details.cause())
        )
    } else if let Some(details) = event.execution_aborted_event_details() {
        format!(
            "stopped by hand: {}",
            failed(details.error(), details.cause())
        )
    } else if event.execution_succeeded_event_details().is_some() {
        "done".to_owned()
    } else {
        return None;
    };
    Some(Told { time, what })
}

/// A time of Step Functions, which has milliseconds; others may have more or none.
fn milliseconds(time: &DateTime) -> String {
    let whole = DateTime::from_secs(time.secs()).fmt(DateTimeFormat::DateTime);
    let whole = whole.unwrap_or_default();
    let milliseconds = time.subsec_nanos() / 1_000_000;
    format!("{}.{milliseconds:03}Z", whole.trim_end_matches('Z'))
}

/// What a state of the workflows does, unless it only chooses the next one or ends
/// what an event of its own tells the end of.
fn step(state: &str) -> Option<&str> {
    Some(match state {
        "Validate" => "checks the request",
        "Claim" => "takes the enclave",
        "RunTerraform" => "runs Terraform",
        "Attest" => "waits for the enclave's attestation",
        "MarkDeployed" | "MarkResumed" => "marks it as deployed",
        "MarkDestroyed" => "marks it as destroyed",
        "RollBack" => "removes what was created",
        "HandleError" | "HandleErrorAndLeftovers" | "MarkFailed" => "says what went wrong",
        "Superseded" => "leaves it: a later request took its place",
        "Reason" | "Attested" | "Unexplained" | "Deployed" | "Destroyed" | "Done" | "Failed" => {
            return None;
        }
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use aws_sdk_sfn::types::{HistoryEventType, StateEnteredEventDetails, TaskFailedEventDetails};

    use super::*;

    fn event() -> aws_sdk_sfn::types::builders::HistoryEventBuilder {
        HistoryEvent::builder()
            .timestamp(DateTime::from_secs(0))
            .r#type(HistoryEventType::TaskStateEntered)
            .id(1)
    }

    #[test]
    fn every_state_of_the_workflows_is_told_or_left_out_on_purpose() {
        for workflow in [
            include_str!("../../terraform/modules/step-functions/deployment.asl.json.tftpl"),
            include_str!("../../terraform/modules/step-functions/cleanup.asl.json.tftpl"),
            include_str!("../../terraform/modules/step-functions/attestation.asl.json.tftpl"),
        ] {
            let states: Vec<_> = workflow
                .lines()
                .filter_map(|line| line.strip_prefix("    \"")?.strip_suffix("\": {"))
                .collect();
            assert!(states.contains(&"Attest") || states.contains(&"RunTerraform"));
            for state in states {
                assert_ne!(step(state), Some(state));
            }
        }
    }

    #[test]
    fn all_times_have_milliseconds() {
        for (nanoseconds, shown) in [
            (0, "1970-01-01T00:00:38.000Z"),
            (165_999_000, "1970-01-01T00:00:38.165Z"),
        ] {
            let time = DateTime::from_secs_and_nanos(38, nanoseconds);
            assert_eq!(milliseconds(&time), shown);
        }
    }

    #[test]
    fn steps_and_failures_are_told_in_words() {
        let entered = StateEnteredEventDetails::builder()
            .name("RunTerraform")
            .build()
            .unwrap();
        let told = tell(
            &event()
                .state_entered_event_details(entered)
                .build()
                .unwrap(),
        )
        .unwrap();
        assert_eq!(told.time, "1970-01-01T00:00:00.000Z");
        assert_eq!(told.what, "runs Terraform");
        let failed = TaskFailedEventDetails::builder()
            .resource_type("ecs")
            .resource("runTask")
            .error("TerraformFailed")
            .cause("no capacity")
            .build()
            .unwrap();
        let told = tell(&event().task_failed_event_details(failed).build().unwrap()).unwrap();
        assert_eq!(told.what, "that failed: TerraformFailed: no capacity");
        assert_eq!(tell(&event().build().unwrap()), None);
    }
}
