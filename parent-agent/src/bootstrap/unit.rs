//! Step `unit`: how systemd runs an enclave, and with which configuration.

use enclave_host::hypervisor::HypervisorKind;

use super::{Check, Outcome, Setup};

/// The unit, an instance of which is an enclave.
const UNIT: &str = "/etc/systemd/system/enclave@.service";
const UNIT_TEMPLATE: &str = include_str!("enclave@.service");
/// What the unit waits for and what it may not do; only on Nitro, where enclaves
/// are no processes.
const NITRO: &str = "/etc/systemd/system/enclave@.service.d/nitro.conf";
const NITRO_TEXT: &str = include_str!("nitro.conf");
/// What a boot takes away: memory and CPUs are reserved again before the enclaves.
const RESOURCES: &str = "/etc/systemd/system/enclave-resources.service";
const RESOURCES_TEMPLATE: &str = include_str!("enclave-resources.service");
/// Who listens for the connections of all enclaves.
const VSOCK: &str = "/etc/systemd/system/enclave-vsock.service";
const VSOCK_TEMPLATE: &str = include_str!("enclave-vsock.service");
/// The configuration as it was read, so that a restart needs nobody else.
pub(super) const CONFIG: &str = "/var/lib/enclaves/config.json";
const CONFIG_TOML: &str = "/var/lib/enclaves/config.toml";

pub(super) fn check(setup: &Setup<'_>) -> Outcome<Check> {
    let mut different = Vec::new();
    for (path, text, _) in files(setup) {
        if setup.host.read(path)?.as_deref() != Some(text.trim_end()) {
            different.push(path);
        }
    }
    if different.is_empty() {
        return Ok(Check::Done(format!("{UNIT} is in place")));
    }
    Ok(Check::Todo(format!("write {}", different.join(", "))))
}

pub(super) fn apply(setup: &Setup<'_>) -> Outcome<()> {
    // The configuration may have been of the other kind.
    for path in [CONFIG, CONFIG_TOML] {
        if path != config_path(&setup.text) {
            setup.host.remove(path)?;
        }
    }
    for (path, text, is_private) in files(setup) {
        if setup.host.read(path)?.as_deref() != Some(text.trim_end()) {
            setup.host.put(path, &text, is_private)?;
        }
    }
    Ok(())
}

pub(super) fn undo(setup: &Setup<'_>) -> Outcome<String> {
    for path in [UNIT, NITRO, RESOURCES, VSOCK, CONFIG, CONFIG_TOML] {
        setup.host.remove(path)?;
    }
    Ok(format!("removed {UNIT} and the configuration's copy"))
}

/// Each with its text, and whether only its owner may read it.
fn files(setup: &Setup<'_>) -> Vec<(&'static str, String, bool)> {
    let (config, hypervisor) = (config_path(&setup.text), name(setup.hypervisor));
    let mut arguments = format!(
        "--config {} --name %i --hypervisor {hypervisor}",
        setup.host.path(config).display()
    );
    let folders = [
        ("--image-dir", &setup.image_dir),
        ("--state-dir", &setup.state_dir),
    ];
    for (option, folder) in folders {
        if let Some(folder) = folder {
            arguments = format!("{arguments} {option} {}", folder.display());
        }
    }
    let agent = setup.agent.display().to_string();
    let mut files = vec![
        (config, setup.text.clone(), true),
        (UNIT, render(&agent, &arguments), false),
    ];
    if setup.hypervisor == HypervisorKind::Nitro {
        let resources = RESOURCES_TEMPLATE
            .replace("{agent}", &agent)
            .replace("{config}", &setup.host.path(config).display().to_string());
        files.push((RESOURCES, resources, false));
        files.push((VSOCK, VSOCK_TEMPLATE.replace("{agent}", &agent), false));
        files.push((NITRO, NITRO_TEXT.to_owned(), false));
    }
    files
}

fn config_path(text: &str) -> &'static str {
    if text.trim_start().starts_with('{') {
        CONFIG
    } else {
        CONFIG_TOML
    }
}

const fn name(hypervisor: HypervisorKind) -> &'static str {
    match hypervisor {
        HypervisorKind::Nitro => "nitro",
        HypervisorKind::Qemu => "qemu",
        HypervisorKind::Sim => "sim",
    }
}

fn render(agent: &str, arguments: &str) -> String {
    UNIT_TEMPLATE
        .replace("{agent}", agent)
        .replace("{arguments}", arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_shows_the_unit_that_is_written() {
        let page = include_str!("../../../docs/agent-restarts.md");
        let (_, rest) = page.split_once("```ini\n").unwrap();
        let (unit, _) = rest.split_once("```").unwrap();
        let arguments = "/var/lib/enclaves/%i.eif --name %i --hypervisor qemu";
        assert_eq!(unit, render("/usr/local/bin/parent-agent", arguments));
        let page = include_str!("../../../docs/bootstrap.md");
        assert!(page.contains(NITRO_TEXT));
        assert!(page.contains(&VSOCK_TEMPLATE.replace("{agent}", "/usr/local/bin/parent-agent")));
    }
}
