//! Terraform, as a process.

use std::collections::VecDeque;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{error, info, warn};

use crate::assignment::Assignment;
use crate::failure::Failure;
use crate::lines::Lines;
use crate::lock::Held;
use crate::message::{Changes, Diagnostic, Level, Message, Outputs};
use crate::progress::Progress;
use crate::workspace::{BACKEND, Workspace};
use crate::{Settings, Stop};

/// Most lines of one command that are logged; later ones are only counted.
const MAX_LOGGED: u64 = 20_000;
/// Most errors of one command that are kept.
const MAX_DIAGNOSTICS: usize = 20;
/// Most lines without a diagnostic that are kept, as the last words of a crash.
const MAX_LAST_WORDS: usize = 5;
/// How long the output may go on after the process has ended: a provider that it
/// left behind may hold the pipe open.
const DRAIN: Duration = Duration::from_secs(2);
/// How often a state that could not be written is tried.
const PUSHES: u32 = 3;

/// Variables that Terraform does not get: what is only for the runner, and what
/// would change how Terraform behaves.
fn is_withheld(variable: &str) -> bool {
    const RUNNERS: [&str; 4] = [
        "TASK_TOKEN",
        "CONFIGURATION",
        "WALLET_ADDRESS",
        "EXECUTION_ARN",
    ];
    RUNNERS.contains(&variable) || (variable.starts_with("TF_") && variable != "TF_CLI_CONFIG_FILE")
}

/// What a command said.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) changes: Option<Changes>,
    pub(super) outputs: Outputs,
    diagnostics: Vec<Diagnostic>,
    last_words: VecDeque<String>,
    lines: u64,
    done: u64,
}

/// Runs Terraform's commands in a work folder, one after another.
pub(super) struct Terraform<'a> {
    assignment: &'a Assignment,
    settings: &'a Settings,
    folder: &'a Path,
    progress: &'a Progress,
    stop: watch::Receiver<Option<Stop>>,
    planned: u64,
}

impl<'a> Terraform<'a> {
    pub(super) fn new(
        assignment: &'a Assignment,
        settings: &'a Settings,
        workspace: &'a Workspace,
        progress: &'a Progress,
        stop: watch::Receiver<Option<Stop>>,
    ) -> Self {
        Self {
            assignment,
            settings,
            folder: workspace.path(),
            progress,
            stop,
            planned: 0,
        }
    }

    /// Runs one command to its end. When it is to stop, Terraform is told once, and
    /// has its time to release the state's lock before it is killed.
    pub(super) async fn run(
        &mut self,
        command: &'static str,
        arguments: &[&str],
    ) -> Result<Outcome, Failure> {
        if let Some(stop) = self.stop.borrow().clone() {
            return Err(stopped(command, stop));
        }
        info!(
            enclave_id = %self.assignment.enclave_id,
            event = "terraform",
            action = self.assignment.action.name(),
            "terraform {command}"
        );
        let child = self.spawn(command, arguments)?;
        let (outcome, status, end) = self.follow(command, child).await?;
        if outcome.lines > MAX_LOGGED {
            warn!(
                enclave_id = %self.assignment.enclave_id,
                event = "output-cut",
                "terraform {command} wrote {} lines, of which {MAX_LOGGED} were logged",
                outcome.lines
            );
        }
        match end {
            End::Killed(Stop::Signal) => return Err(Failure::Killed { command }),
            End::Killed(stop @ Stop::Abandoned(_)) => return Err(stopped(command, stop)),
            // It was done before it heard of the stop: what it did counts.
            End::Asked(stop) if !status.success() => return Err(stopped(command, stop)),
            End::Asked(_) | End::ByItself => {}
        }
        if status.success() {
            return Ok(outcome);
        }
        Err(failed(command, status, outcome))
    }

    /// Tries to save a state that Terraform could not write when it was done, since
    /// what it made would be forgotten otherwise.
    pub(super) async fn push_rescued_state(&mut self, workspace: &Workspace) {
        let Some(state) = workspace.rescued_state() else {
            return;
        };
        let state = state.to_string_lossy().into_owned();
        for _ in 0..PUSHES {
            sleep(self.settings.rescue_pause).await;
            match self.run("state", &["push", &state]).await {
                Ok(_) => {
                    warn!(
                        enclave_id = %self.assignment.enclave_id,
                        event = "state-rescued",
                        "the state could be written at a later attempt"
                    );
                    return;
                }
                Err(failure) => error!(
                    enclave_id = %self.assignment.enclave_id,
                    event = "state-lost",
                    "the state could not be written, so resources may be unknown to it: {failure}"
                ),
            }
        }
    }

    fn spawn(&self, command: &'static str, arguments: &[&str]) -> Result<Child, Failure> {
        let mut process = Command::new(&self.settings.terraform);
        process.arg(command);
        if command == "init" {
            process.arg(format!("-backend-config={BACKEND}"));
        }
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_none_or(is_withheld) {
                process.env_remove(name);
            }
        }
        process
            .args(arguments)
            .env("TF_IN_AUTOMATION", "1")
            .env("TF_INPUT", "0")
            .env("CHECKPOINT_DISABLE", "1")
            .current_dir(self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Providers are its children: they end with it.
            .process_group(0)
            .kill_on_drop(true);
        process.spawn().map_err(|error| {
            Failure::Host(format!(
                "{} cannot be started: {error}; is TERRAFORM right?",
                self.settings.terraform.display()
            ))
        })
    }

    async fn follow(
        &mut self,
        command: &'static str,
        mut child: Child,
    ) -> Result<(Outcome, ExitStatus, End), Failure> {
        let group = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .map(Pid::from_raw);
        let (Some(group), Some(stdout), Some(stderr)) =
            (group, child.stdout.take(), child.stderr.take())
        else {
            return Err(Failure::Host("terraform has no pipes".to_owned()));
        };
        let (mut stdout, mut stderr) = (Lines::new(stdout), Lines::new(stderr));
        let (mut stdout_open, mut stderr_open) = (true, true);
        let mut stop = self.stop.clone();
        let mut outcome = Outcome::default();
        let mut end = End::ByItself;
        let mut deadline = None;
        let status = loop {
            tokio::select! {
                line = stdout.next(), if stdout_open => match line {
                    Some(line) => self.take(&mut outcome, &line),
                    None => stdout_open = false,
                },
                line = stderr.next(), if stderr_open => match line {
                    Some(line) => self.take(&mut outcome, &line),
                    None => stderr_open = false,
                },
                status = child.wait() => break status,
                asked = asked(&mut stop), if deadline.is_none() => {
                    warn!(
                        enclave_id = %self.assignment.enclave_id,
                        event = "stopping",
                        "terraform {command} is told to stop: {}",
                        match &asked {
                            Stop::Signal => "the task was told to stop",
                            Stop::Abandoned(reason) => reason,
                        }
                    );
                    // Once: at a second signal Terraform leaves without its state.
                    let _ = kill(group, Signal::SIGTERM);
                    deadline = Some(Instant::now() + self.settings.stop_grace);
                    end = End::Asked(asked);
                }
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    let _ = killpg(group, Signal::SIGKILL);
                    if let End::Asked(stop) = end {
                        end = End::Killed(stop);
                    }
                    break child.wait().await;
                }
            }
        };
        let status = status
            .map_err(|error| Failure::Host(format!("terraform cannot be awaited: {error}")))?;
        let drain = async {
            while let Some(line) = stdout.next().await {
                self.take(&mut outcome, &line);
            }
            while let Some(line) = stderr.next().await {
                self.take(&mut outcome, &line);
            }
        };
        if timeout(DRAIN, drain).await.is_err() {
            // Whoever still writes is a provider that was left behind.
            let _ = killpg(group, Signal::SIGKILL);
        }
        Ok((outcome, status, end))
    }

    fn take(&mut self, outcome: &mut Outcome, line: &str) {
        if line.trim().is_empty() {
            return;
        }
        outcome.lines += 1;
        let message = Message::parse(line);
        if outcome.lines <= MAX_LOGGED {
            self.log(&message);
        }
        match message {
            // Data sources are read while nothing is counted yet.
            Message::Started { address, action } if self.planned > 0 => {
                self.progress.say(format!(
                    "{} {address} ({} of {})",
                    in_words(&action),
                    (outcome.done + 1).min(self.planned),
                    self.planned
                ));
            }
            Message::Continues {
                address,
                action,
                seconds,
            } => {
                self.progress
                    .say(format!("{} {address}, for {seconds} s", in_words(&action)));
            }
            Message::Done { .. } => outcome.done += 1,
            Message::Changes { changes, text } => {
                self.planned = changes.add + changes.change + changes.remove;
                self.progress.say(text.trim_end_matches('.'));
                outcome.changes = Some(changes);
            }
            Message::Outputs(outputs) => outcome.outputs = outputs,
            Message::Diagnostic(diagnostic) if diagnostic.error => {
                if outcome.diagnostics.len() < MAX_DIAGNOSTICS {
                    outcome.diagnostics.push(diagnostic);
                }
            }
            Message::Other { text, .. } => {
                if outcome.last_words.len() == MAX_LAST_WORDS {
                    outcome.last_words.pop_front();
                }
                outcome.last_words.push_back(text);
            }
            Message::Started { .. } | Message::Failed { .. } | Message::Diagnostic(_) => {}
        }
    }

    fn log(&self, message: &Message) {
        let enclave_id = self.assignment.enclave_id.as_str();
        match message {
            Message::Started { address, action } => info!(
                enclave_id,
                event = "resource-started",
                address = address.as_str(),
                action = action.as_str(),
                "{} {address}",
                in_words(action)
            ),
            Message::Continues {
                address,
                action,
                seconds,
            } => info!(
                enclave_id,
                event = "resource-continues",
                address = address.as_str(),
                action = action.as_str(),
                seconds,
                "{} {address}, for {seconds} s",
                in_words(action)
            ),
            Message::Done {
                address,
                action,
                seconds,
            } => info!(
                enclave_id,
                event = "resource-done",
                address = address.as_str(),
                action = action.as_str(),
                seconds,
                "{address} is done"
            ),
            Message::Failed { address, action } => error!(
                enclave_id,
                event = "resource-failed",
                address = address.as_str(),
                action = action.as_str(),
                "{address} failed"
            ),
            Message::Changes { changes, text } => info!(
                enclave_id,
                event = "changes",
                add = changes.add,
                change = changes.change,
                remove = changes.remove,
                "{text}"
            ),
            Message::Outputs(outputs) => {
                let names: Vec<&str> = outputs.keys().map(String::as_str).collect();
                info!(
                    enclave_id,
                    event = "outputs",
                    "outputs: {}",
                    names.join(", ")
                );
            }
            Message::Diagnostic(diagnostic) => {
                let address = diagnostic.address.as_deref().unwrap_or_default();
                let (summary, detail) = (&diagnostic.summary, diagnostic.detail.as_str());
                if diagnostic.error {
                    error!(
                        enclave_id,
                        event = "diagnostic",
                        address,
                        detail,
                        "{summary}"
                    );
                } else {
                    warn!(
                        enclave_id,
                        event = "diagnostic",
                        address,
                        detail,
                        "{summary}"
                    );
                }
            }
            Message::Other { level, text } => match level {
                Level::Error => error!(enclave_id, event = "terraform-says", "{text}"),
                Level::Warn => warn!(enclave_id, event = "terraform-says", "{text}"),
                Level::Info | Level::Debug => {
                    info!(enclave_id, event = "terraform-says", "{text}");
                }
            },
        }
    }
}

/// How a command ended.
enum End {
    ByItself,
    Asked(Stop),
    Killed(Stop),
}

/// Waits until the runner must stop.
async fn asked(stop: &mut watch::Receiver<Option<Stop>>) -> Stop {
    let asked = stop.wait_for(Option::is_some).await;
    match asked.ok().and_then(|stop| stop.clone()) {
        Some(stop) => stop,
        // Nobody is left who could ask.
        None => std::future::pending().await,
    }
}

fn stopped(command: &'static str, stop: Stop) -> Failure {
    match stop {
        Stop::Signal => Failure::Stopped { command },
        Stop::Abandoned(reason) => Failure::Abandoned(reason),
    }
}

fn failed(command: &'static str, status: ExitStatus, mut outcome: Outcome) -> Failure {
    let held = outcome
        .diagnostics
        .iter()
        .find_map(|diagnostic| Held::from_diagnostic(&diagnostic.summary, &diagnostic.detail));
    if let Some(held) = held {
        return Failure::Locked(held);
    }
    if outcome.diagnostics.is_empty() {
        outcome
            .diagnostics
            .extend(outcome.last_words.into_iter().map(|summary| Diagnostic {
                error: true,
                summary,
                detail: String::new(),
                address: None,
            }));
    }
    Failure::Terraform {
        command,
        code: status.code(),
        diagnostics: outcome.diagnostics,
    }
}

/// Terraform's name of an action, for people.
fn in_words(action: &str) -> &str {
    match action {
        "create" => "creating",
        "read" => "reading",
        "update" => "updating",
        "delete" => "destroying",
        "replace" => "replacing",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terraform_gets_neither_the_token_nor_what_changes_its_behaviour() {
        for name in [
            "TASK_TOKEN",
            "CONFIGURATION",
            "TF_LOG",
            "TF_CLI_ARGS_apply",
            "TF_VAR_image",
        ] {
            assert!(is_withheld(name), "{name}");
        }
        for name in [
            "PATH",
            "AWS_REGION",
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
            "TF_CLI_CONFIG_FILE",
        ] {
            assert!(!is_withheld(name), "{name}");
        }
    }
}
