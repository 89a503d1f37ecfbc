//! `preflight` and `doctor`: what would hinder a bootstrap, and what is wrong
//! with an instance that should be running.

use aws_clients::Client;
use enclave_host::state::StateDir;
use tokio::runtime::Runtime;

use super::finding::{Finding, Findings, State};
use super::{BootstrapError, Check, HostArgs, STEPS, Setup, service};
use crate::client;
use crate::crash::LastEnd;
use crate::enclave::Phase;
use crate::exit::Exit;

/// Looks at everything; a problem of one thing hides no other.
pub(super) fn examine(
    host: HostArgs,
    is_running: bool,
    runtime: &Runtime,
    findings: &mut Findings,
) -> Result<Exit, BootstrapError> {
    let state = host.state.state_dir.clone();
    let setup = match Setup::new(host, runtime) {
        Ok(setup) => setup,
        Err(error) => {
            findings.add(Finding::new("config", State::Fail, error.to_string()))?;
            return Ok(error.exit());
        }
    };
    let names = setup.config.names();
    findings.add(Finding::new("config", State::Ok, format!("names {names}")))?;
    let mut exit = Exit::Success;
    for step in STEPS
        .into_iter()
        .filter(|step| step.is_for(setup.hypervisor))
    {
        let (state, detail) = match step.check(&setup) {
            Ok(Check::Done(detail)) => (State::Ok, detail),
            // On a running instance everything should have been done.
            Ok(Check::Todo(detail)) if is_running => (
                State::Fail,
                format!("this is to do: {detail}; run `parent-agent bootstrap`"),
            ),
            Ok(Check::Todo(detail)) => (State::Todo, detail),
            Err(reason) => (State::Fail, reason),
        };
        if state == State::Fail && exit == Exit::Success {
            exit = step.exit();
        }
        findings.add(Finding::new(step.name(), state, detail))?;
    }
    findings.add(aws(&setup))?;
    if !is_running {
        return Ok(exit);
    }
    for (enclave, unit) in setup.config.enclaves.iter().zip(service::units(&setup)) {
        let finding = enclave_state(&setup, enclave.name.clone(), state.clone(), &unit);
        if finding.state == State::Fail && exit == Exit::Success {
            exit = Exit::NoService;
        }
        findings.add(finding)?;
    }
    Ok(exit)
}

/// Whether there are credentials, where something needs them.
fn aws(setup: &Setup<'_>) -> Finding {
    let finding = |state, detail: String| Finding::new("aws", state, detail);
    let needs_aws = setup.config.enclaves.iter().any(|enclave| {
        enclave.gate.is_some()
            || enclave.log_group.is_some()
            || matches!(enclave.image.location, image_fetch::Location::S3(_))
    });
    if !needs_aws {
        return finding(State::Ok, "nothing needs it".to_owned());
    }
    let region = setup.config.region.as_deref();
    let checked = setup.runtime.block_on(async {
        let client = Client::new(region)
            .await
            .map_err(|error| error.to_string())?;
        client.check_credentials().await?;
        Ok(client.region().to_owned())
    });
    match checked {
        Ok(region) => finding(State::Ok, format!("credentials are there, region {region}")),
        Err(reason) => finding(State::Warn, reason),
    }
}

/// What an enclave's agent says of it.
fn enclave_state(
    setup: &Setup<'_>,
    name: manifest::EnclaveName,
    state: Option<std::path::PathBuf>,
    unit: &str,
) -> Finding {
    let label = name.to_string();
    let last = LastEnd::read(&name);
    let target = StateDir::new(state.clone()).map(|state| state.target(&name));
    let status = setup.runtime.block_on(client::read_status(name, state));
    match status {
        Ok(status) if status.state == Phase::Ready => {
            let gate = status
                .gate
                .map_or_else(String::new, |gate| format!(", gate {}", gate.line()));
            Finding::new(
                &label,
                State::Ok,
                format!("ready, {}{gate}", status.health.state),
            )
        }
        Ok(status) => Finding::new(
            &label,
            State::Warn,
            match target {
                Ok(target) => format!(
                    "{}; `parent-agent status {target}` shows its boot",
                    status.state
                ),
                Err(error) => format!("{}; {error}", status.state),
            },
        ),
        Err(error) => {
            let ended = last.map_or_else(String::new, |last| {
                let crash = last
                    .crash
                    .map_or_else(String::new, |crash| format!("{crash}, "));
                let code = last
                    .code
                    .map_or_else(String::new, |code| format!(" ({code})"));
                format!(
                    "; its last end: {crash}{}{code}: {}",
                    last.cause, last.detail
                )
            });
            Finding::new(
                &label,
                State::Fail,
                format!("{error}{ended}; `journalctl -u {unit}` shows more"),
            )
        }
    }
}
