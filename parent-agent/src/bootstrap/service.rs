//! Step `service`: systemd starts the enclaves, now and at every boot.

use super::unit;
use super::{Check, Outcome, Setup};
use crate::state::StateDir;

/// What the enclaves were started with last, to know when they must start anew.
const STARTED: &str = "/var/lib/enclaves/started";

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
    for unit in units(setup) {
        systemctl(&["enable", &unit])?;
        if is_changed && is_active(setup, &unit) {
            systemctl(&["restart", &unit])?;
        } else {
            systemctl(&["start", &unit])?;
        }
    }
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
