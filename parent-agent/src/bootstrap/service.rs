//! Step `service`: systemd starts the enclaves, now and at every boot.

use std::time::Duration;

use enclave_host::hypervisor::HypervisorKind;
use enclave_host::state::StateDir;

use super::{Check, Outcome, Setup, program, unit};

/// What the enclaves were started with last, to know when they must start anew.
const STARTED: &str = "/var/lib/enclaves/started";
/// Who takes the connections of all enclaves; started by their units.
const VSOCK: &str = "enclave-vsock.service";
/// How long enclaves may take until they are ready, and those before them until
/// they have stopped.
const START_TIMEOUT: Duration = Duration::from_secs(600);

pub(super) fn check(setup: &Setup<'_>) -> Outcome<Check> {
    let inactive: Vec<_> = units(setup)
        .into_iter()
        .filter(|unit| !is_active(setup, unit))
        .collect();
    if !inactive.is_empty() {
        return Ok(Check::Todo(format!("start {}", inactive.join(", "))));
    }
    if setup.host.read(STARTED)?.as_deref() != Some(setup.text.trim_end()) {
        return Ok(Check::Todo(
            "restart the enclaves: their configuration has changed".to_owned(),
        ));
    }
    Ok(Check::Done(format!("{} run", units(setup).join(", "))))
}

pub(super) fn apply(setup: &Setup<'_>) -> Outcome<()> {
    let systemctl = |arguments: &[&str]| {
        setup.run("systemctl", arguments).map_err(|error| {
            format!(
                "{error}; without systemd run each enclave with `parent-agent run --config {} --name NAME`",
                unit::CONFIG
            )
        })
    };
    systemctl(&["daemon-reload"])?;
    let is_changed = setup
        .host
        .read(STARTED)?
        .is_some_and(|started| started != setup.text.trim_end());
    let units = units(setup);
    let with = |verb| -> Vec<&str> {
        let names = units.iter().map(String::as_str);
        std::iter::once(verb).chain(names).collect()
    };
    systemctl(&with("enable"))?;
    // At once: one that fails leaves the others alone.
    let arguments = with(if is_changed { "restart" } else { "start" });
    program::run(setup.runtime, "systemctl", &arguments, START_TIMEOUT).map_err(|error| {
        format!("{error}; systemd keeps trying, and `parent-agent doctor` says what prevents it")
    })?;
    // Last: one that was killed before this restarts them again.
    setup.host.put(STARTED, &setup.text, true)
}

pub(super) fn undo(setup: &Setup<'_>) -> Outcome<String> {
    let units = units(setup);
    for unit in &units {
        if is_active(setup, unit) {
            setup.run("systemctl", &["stop", unit])?;
        }
        setup.run("systemctl", &["disable", unit])?;
    }
    if setup.hypervisor == HypervisorKind::Nitro && is_active(setup, VSOCK) {
        setup.run("systemctl", &["stop", VSOCK])?;
    }
    setup.host.remove(STARTED)?;
    Ok(format!("stopped {}", units.join(", ")))
}

/// Whether systemd runs one of the enclaves.
pub(super) fn any_active(setup: &Setup<'_>) -> bool {
    // A guard keeps an enclave whose agent is about to be started again.
    let is_kept = StateDir::new(setup.state_dir.clone()).is_ok_and(|state| {
        let mut enclaves = setup.config.enclaves.iter();
        enclaves.any(|enclave| state.is_running(&enclave.name))
    });
    is_kept || units(setup).iter().any(|unit| is_active(setup, unit))
}

pub(super) fn is_active(setup: &Setup<'_>, unit: &str) -> bool {
    // It answers with an exit code, which says no also where there is no systemd.
    setup
        .run("systemctl", &["is-active", "--quiet", unit])
        .is_ok()
}

pub(super) fn units(setup: &Setup<'_>) -> Vec<String> {
    let names = setup.config.enclaves.iter();
    names
        .map(|enclave| format!("enclave@{}.service", enclave.name))
        .collect()
}
