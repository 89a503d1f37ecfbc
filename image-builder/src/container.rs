//! The parts of an OCI image configuration that decide what runs
//! (OCI image specification, "config.md").

use std::collections::BTreeMap;

use serde::Deserialize;

/// A container image, its layers still unread.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) config: Config,
    /// SHA-256 of the configuration, hex.
    pub(crate) config_digest: String,
    pub(crate) layers: Vec<crate::layer::Layer>,
}

#[derive(Debug, Deserialize)]
#[expect(clippy::struct_field_names, reason = "the specification's name")]
pub(crate) struct Config {
    pub(crate) architecture: String,
    pub(crate) os: String,
    #[serde(default)]
    pub(crate) config: Process,
    pub(crate) rootfs: RootFs,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Process {
    #[serde(default)]
    pub(crate) user: Option<String>,
    #[serde(default)]
    pub(crate) env: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) entrypoint: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) cmd: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) working_dir: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct RootFs {
    pub(crate) diff_ids: Vec<String>,
}

impl Process {
    /// Entrypoint followed by command.
    pub(crate) fn command(&self) -> Vec<String> {
        let parts = [&self.entrypoint, &self.cmd];
        parts.into_iter().flatten().flatten().cloned().collect()
    }

    pub(crate) fn environment(&self) -> BTreeMap<String, String> {
        self.env
            .iter()
            .flatten()
            .filter_map(|variable| variable.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }
}
