//! The parts of an OCI image configuration that decide what runs
//! (OCI image specification, "config.md").

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::digest::Digest;

#[derive(Debug, Deserialize)]
#[expect(clippy::struct_field_names, reason = "the specification's name")]
pub(crate) struct Config {
    pub(crate) architecture: String,
    pub(crate) os: String,
    #[serde(default)]
    pub(crate) variant: Option<String>,
    #[serde(default)]
    pub(crate) config: Option<Process>,
    pub(crate) rootfs: RootFs,
}

/// Absent and `null` are the same: Go writes either for what is empty.
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
    #[serde(default)]
    pub(crate) stop_signal: Option<String>,
    #[serde(default)]
    pub(crate) volumes: Option<BTreeMap<String, Value>>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct RootFs {
    #[serde(default)]
    pub(crate) diff_ids: Option<Vec<Digest>>,
}

impl Process {
    /// The variables; of one that is there twice, the last. A text without `=`
    /// is none.
    pub(crate) fn environment(&self) -> BTreeMap<String, String> {
        self.env
            .iter()
            .flatten()
            .filter_map(|variable| variable.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }
}
