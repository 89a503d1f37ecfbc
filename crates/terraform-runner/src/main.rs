//! The Terraform runner of the ECS task: see the library. Everything it
//! needs is in its environment; `docs/terraform-runner.md` lists it, and
//! `docs/exit-codes.md` its exit codes.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::process::ExitCode;

use control_plane_model::clients::sdk_config;
use control_plane_model::log;
use terraform_runner::{Assignment, Callback, Failure, Progress, Report, Settings, Stop};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info};

/// Where the container image has the stack.
const STACK: &str = "/opt/enclave-stack";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    log::start();
    match run().await {
        Ok(report) => {
            info!(event = "reported", action = report.action.name(), "done");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            error!(
                event = "failed",
                error_type = failure.name(),
                exit_code = failure.exit_code(),
                "{failure}"
            );
            ExitCode::from(failure.exit_code())
        }
    }
}

async fn run() -> Result<Report, Failure> {
    let stop = stop_on_signals()?;
    let variables: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let variable = |name: &str| variables.get(name).filter(|value| !value.is_empty());
    let settings = Settings::new(
        variable("TERRAFORM")
            .map_or("terraform", String::as_str)
            .into(),
        variable("STACK_DIR").map_or(STACK, String::as_str).into(),
    );
    let config = sdk_config().await;
    let callback = variable("TASK_TOKEN").map(|token| {
        let client = aws_sdk_sfn::Client::new(&config);
        Callback::new(client, token.clone(), settings.answer_pause)
    });
    let assignment = match Assignment::from_environment(&variables) {
        Ok(assignment) => assignment,
        Err(problems) => {
            let failure = Failure::from(problems);
            if let Some(callback) = callback
                && let Err(unreported) = callback.fail(&failure).await
            {
                error!(event = "unreported", "{unreported}");
            }
            return Err(failure);
        }
    };
    let progress = match (&assignment.table, &assignment.execution_arn) {
        (Some(table), Some(execution)) => Progress::on_item(
            aws_sdk_dynamodb::Client::new(&config),
            table.clone(),
            assignment.enclave_id.to_string(),
            execution.clone(),
        ),
        _ => Progress::nowhere(),
    };
    terraform_runner::run(&assignment, &settings, callback, progress, stop).await
}

/// Set when ECS, or somebody at a terminal, wants the task to stop.
fn stop_on_signals() -> Result<watch::Sender<Option<Stop>>, Failure> {
    let unavailable = |error| Failure::Host(format!("signals cannot be awaited: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(unavailable)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(unavailable)?;
    let stop = watch::Sender::new(None);
    let sender = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        sender.send_replace(Some(Stop::Signal));
    });
    Ok(stop)
}
