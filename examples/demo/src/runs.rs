//! Runs of the example under `parent-agent`, all in the same folders.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::agent::{Agent, Start};
use crate::prices::{self, Prices};
use crate::screen::Screen;
use crate::{Cli, Hypervisor};

/// The name in the manifest.
const NAME: &str = "price-oracle";
/// The port in the manifest.
const PORT: u16 = 8080;

/// What all runs have in common.
pub(crate) struct Runs<'a> {
    pub(crate) cli: &'a Cli,
    pub(crate) prices: &'a Prices,
    /// The file with the runtime configuration.
    pub(crate) runtime_config: PathBuf,
    /// The folder of the enclaves' folders.
    pub(crate) state: PathBuf,
    /// Where temporary files are.
    pub(crate) temporary: PathBuf,
    /// Where the log spool is.
    pub(crate) kept: PathBuf,
}

impl Runs<'_> {
    /// The arguments of `parent-agent run` for an image.
    pub(crate) fn arguments(&self, hypervisor: Hypervisor, image: &Path) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["run".into(), image.into()];
        arguments.extend(match hypervisor {
            Hypervisor::Sim => vec!["--hypervisor".into(), "sim".into()],
            Hypervisor::Qemu => vec![
                "--hypervisor".into(),
                "qemu".into(),
                "--qemu-binary".into(),
                self.cli.qemu_binary.clone().into(),
                "--vhost-device-vsock".into(),
                self.cli.vhost_device_vsock.clone().into(),
            ],
        });
        arguments.extend([
            "--json".into(),
            "--state-dir".into(),
            self.state.clone().into(),
            "--runtime-config".into(),
            self.runtime_config.clone().into(),
            "--connect-to".into(),
            format!("{}:443={}", prices::HOST, self.prices.address).into(),
            "--publish".into(),
            format!("127.0.0.1:0:{PORT}").into(),
        ]);
        arguments
    }

    /// The arguments of a command for the running enclave.
    pub(crate) fn target(&self, command: &str) -> Vec<OsString> {
        vec![
            command.into(),
            "--name".into(),
            NAME.into(),
            "--state-dir".into(),
            self.state.clone().into(),
        ]
    }

    /// Starts the agent; the enclave's log lines go to the screen, if there is one.
    pub(crate) fn start(
        &self,
        arguments: Vec<OsString>,
        environment: &[(String, String)],
        screen: Option<&Arc<Screen>>,
    ) -> anyhow::Result<Agent> {
        let start = Start {
            arguments,
            environment,
            temporary: &self.temporary,
            kept: &self.kept,
            screen,
        };
        Agent::start(&self.cli.parent_agent, start)
    }
}
