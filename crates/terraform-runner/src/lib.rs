//! The Terraform runner: what the ECS task runs for one enclave.
//!
//! It turns its environment into types ([`assignment`]), lays out a private
//! folder with the stack, its variables and its backend, runs `init`, `plan` and
//! `apply` of the saved plan, and answers the workflow with the task token
//! ([`Callback`]).
//!
//! While it works it sends heartbeats. They also tell it when nobody waits for it
//! any more: it then stops Terraform in order, so that the state's lock is
//! released before somebody else needs it.

#![forbid(unsafe_code)]

pub mod assignment;
mod callback;
mod failure;
mod lines;
mod lock;
mod message;
mod progress;
mod terraform;
mod variables;
mod workspace;

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

pub use assignment::{Action, Assignment};
pub use callback::Callback;
pub use failure::{Failure, exit_code};
pub use lock::Held;
pub use message::{Changes, Diagnostic, Outputs};
pub use progress::Progress;

use terraform::{Outcome, Terraform};
use workspace::Workspace;

/// Where things are, and how long they may take.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The `terraform` program.
    pub terraform: PathBuf,
    /// The folder of the per-enclave stack.
    pub stack: PathBuf,
    /// How long Terraform has between SIGTERM and SIGKILL. ECS gives the task
    /// 120 s (`stopTimeout`), of which the answer to the workflow needs some.
    pub stop_grace: Duration,
    /// Between two heartbeats.
    pub heartbeat_interval: Duration,
    /// After how long without one successful heartbeat the runner gives up.
    pub heartbeat_loss: Duration,
    /// How long to wait for the state's lock. Longer than a runner that lost its
    /// workflow holds it, so that a lock that is older has no owner.
    pub lock_wait: Duration,
    /// The first pause between two attempts to answer the workflow; it doubles.
    pub answer_pause: Duration,
    /// The pause before a state that Terraform could not write is tried again.
    pub rescue_pause: Duration,
}

impl Settings {
    /// The settings of the container image.
    pub fn new(terraform: PathBuf, stack: PathBuf) -> Self {
        Self {
            terraform,
            stack,
            stop_grace: Duration::from_secs(100),
            heartbeat_interval: Duration::from_secs(20),
            heartbeat_loss: Duration::from_secs(120),
            lock_wait: Duration::from_secs(270),
            answer_pause: Duration::from_secs(1),
            rescue_pause: Duration::from_secs(10),
        }
    }
}

/// Why the runner must stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// SIGTERM or SIGINT.
    Signal,
    /// The workflow does not wait any more, or cannot be reached.
    Abandoned(String),
}

/// What was done; the output of the workflow's task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What was asked for.
    pub action: Action,
    /// Terraform's outputs that are strings and not sensitive.
    pub outputs: Outputs,
    /// How many resources were changed, or would be.
    pub changes: Changes,
}

/// Does what is assigned, and answers the workflow if there is a token.
///
/// `stop` is for the caller's signal handler; the runner sets it too, when the
/// workflow is gone.
pub async fn run(
    assignment: &Assignment,
    settings: &Settings,
    callback: Option<Callback>,
    progress: Progress,
    stop: watch::Sender<Option<Stop>>,
) -> Result<Report, Failure> {
    let heartbeat = callback
        .clone()
        .map(|callback| Heartbeat::start(callback, settings, stop.clone()));
    let result = work(assignment, settings, &progress, stop.subscribe()).await;
    drop(heartbeat);
    progress.finish().await;
    let Some(callback) = callback else {
        return result;
    };
    match result {
        Ok(report) => {
            callback.succeed(&report).await?;
            Ok(report)
        }
        // Nobody is there to be told.
        Err(failure @ Failure::Abandoned(_)) => Err(failure),
        Err(failure) => {
            if let Err(unreported) = callback.fail(&failure).await {
                warn!(enclave_id = %assignment.enclave_id, event = "unreported", "{unreported}");
            }
            Err(failure)
        }
    }
}

async fn work(
    assignment: &Assignment,
    settings: &Settings,
    progress: &Progress,
    stop: watch::Receiver<Option<Stop>>,
) -> Result<Report, Failure> {
    let workspace = Workspace::create(assignment, settings).await?;
    let mut terraform = Terraform::new(assignment, settings, &workspace, progress, stop);
    progress.say("preparing Terraform");
    terraform
        .run("init", &["-input=false", "-no-color", "-json"])
        .await?;
    let planned = plan(assignment, settings, &mut terraform).await?;
    let mut report = Report {
        action: assignment.action,
        outputs: Outputs::new(),
        changes: planned.changes.unwrap_or_default(),
    };
    if assignment.action == Action::Plan {
        return Ok(report);
    }
    let lock_timeout = format!("-lock-timeout={}s", settings.lock_wait.as_secs());
    let applied = terraform
        .run(
            "apply",
            &["-input=false", "-no-color", "-json", &lock_timeout, PLAN],
        )
        .await;
    if applied.is_err() {
        terraform.push_rescued_state(&workspace).await;
    }
    let applied = applied?;
    report.outputs = applied.outputs;
    if let Some(changes) = applied.changes {
        report.changes = changes;
    }
    info!(
        enclave_id = %assignment.enclave_id,
        event = "done",
        action = assignment.action.name(),
        add = report.changes.add,
        change = report.changes.change,
        remove = report.changes.remove,
        "Terraform is done"
    );
    Ok(report)
}

/// The saved plan, in the work folder.
const PLAN: &str = "plan.tfplan";

/// Plans, once more if the state's lock has no owner any more.
async fn plan(
    assignment: &Assignment,
    settings: &Settings,
    terraform: &mut Terraform<'_>,
) -> Result<Outcome, Failure> {
    let lock_timeout = format!("-lock-timeout={}s", settings.lock_wait.as_secs());
    let out = format!("-out={PLAN}");
    let mut arguments = vec!["-input=false", "-no-color", "-json", &lock_timeout, &out];
    if assignment.action == Action::Destroy {
        arguments.push("-destroy");
    }
    let failure = match terraform.run("plan", &arguments).await {
        Err(Failure::Locked(held)) => held,
        other => return other,
    };
    // The workflow runs one task at a time for an enclave, and a task that lost its
    // workflow has stopped by now: see `Settings::lock_wait`. By hand there is no
    // such rule, so a person decides.
    let Held { id: Some(id), .. } = &failure else {
        return Err(Failure::Locked(failure));
    };
    if assignment.by_hand || !failure.is_older_than(settings.lock_wait) {
        return Err(Failure::Locked(failure));
    }
    warn!(
        enclave_id = %assignment.enclave_id,
        event = "lock-broken",
        lock_id = %id,
        "the state's lock was left by a task that is gone: {failure}"
    );
    terraform.run("force-unlock", &["-force", id]).await?;
    terraform.run("plan", &arguments).await
}

/// Sends heartbeats until it is dropped.
struct Heartbeat(JoinHandle<()>);

impl Heartbeat {
    fn start(callback: Callback, settings: &Settings, stop: watch::Sender<Option<Stop>>) -> Self {
        let (interval, loss) = (settings.heartbeat_interval, settings.heartbeat_loss);
        Self(tokio::spawn(async move {
            let reason = callback.beat(interval, loss).await;
            stop.send_if_modified(|stop| {
                let first = stop.is_none();
                if first {
                    *stop = Some(Stop::Abandoned(reason));
                }
                first
            });
        }))
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_outlives_the_wait_for_it_only_if_its_owner_is_gone() {
        let settings = Settings::new("terraform".into(), "stack".into());
        assert!(
            settings.lock_wait
                > settings.heartbeat_interval + settings.heartbeat_loss + settings.stop_grace
        );
    }

    #[test]
    fn a_report_is_what_the_workflow_reads() {
        let report = Report {
            action: Action::Deploy,
            outputs: Outputs::from([("instance_id".to_owned(), "i-1".to_owned())]),
            changes: Changes {
                add: 3,
                change: 0,
                remove: 1,
            },
        };
        assert_eq!(
            serde_json::to_value(report).unwrap(),
            serde_json::json!({
                "action": "deploy",
                "outputs": {"instance_id": "i-1"},
                "changes": {"add": 3, "change": 0, "remove": 1}
            })
        );
    }
}
