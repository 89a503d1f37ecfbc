//! How the workload gets a declared secret, and what follows a change or a failure.

use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Serialize};

use super::error::SecretError;
use crate::name::WorkloadName;
use crate::process::Command;

/// The folder of secrets that are delivered as files.
pub const SECRETS_FOLDER: &str = "/run/secrets";
/// The longest name of a file (Linux: `NAME_MAX`).
const MAX_FILE_NAME_BYTES: usize = 255;
/// The longest name of an environment variable in bytes.
const MAX_VARIABLE_BYTES: usize = 255;
/// What a mode of a secret's file may be.
const MODES: [(&str, u32); 3] = [("0400", 0o400), ("0440", 0o440), ("0444", 0o444)];

/// A file directly in [`SECRETS_FOLDER`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretPath(String);

impl SecretPath {
    /// The file's name in [`SECRETS_FOLDER`]: it does not begin with a dot.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }
}

impl TryFrom<String> for SecretPath {
    type Error = SecretError;

    fn try_from(text: String) -> Result<Self, SecretError> {
        let name = text
            .strip_prefix(SECRETS_FOLDER)
            .and_then(|rest| rest.strip_prefix('/'))
            .unwrap_or_default();
        let is_name = (1..=MAX_FILE_NAME_BYTES - 1).contains(&name.len())
            && !name.starts_with('.')
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if is_name {
            Ok(Self(text))
        } else {
            Err(SecretError::Path(text))
        }
    }
}

impl From<SecretPath> for String {
    fn from(path: SecretPath) -> Self {
        path.0
    }
}

impl fmt::Display for SecretPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The mode of a secret's file: nobody writes to it, and nobody executes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretMode(u32);

impl SecretMode {
    /// The bits.
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl Default for SecretMode {
    /// Readable for its owner alone.
    fn default() -> Self {
        Self(0o400)
    }
}

impl TryFrom<String> for SecretMode {
    type Error = SecretError;

    fn try_from(text: String) -> Result<Self, SecretError> {
        let known = MODES.iter().find(|(name, _)| *name == text);
        known
            .map(|&(_, bits)| Self(bits))
            .ok_or(SecretError::Mode(text))
    }
}

impl From<SecretMode> for String {
    fn from(mode: SecretMode) -> Self {
        format!("{:04o}", mode.0)
    }
}

/// The name of an environment variable: letters, digits and underscores, no digit first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VariableName(String);

impl TryFrom<String> for VariableName {
    type Error = SecretError;

    fn try_from(text: String) -> Result<Self, SecretError> {
        let is_name = (1..=MAX_VARIABLE_BYTES).contains(&text.len())
            && !text.starts_with(|first: char| first.is_ascii_digit())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if is_name {
            Ok(Self(text))
        } else {
            Err(SecretError::Variable(text))
        }
    }
}

impl From<VariableName> for String {
    fn from(name: VariableName) -> Self {
        name.0
    }
}

impl Deref for VariableName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// What the workload's main process is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChangeSignal {
    /// By convention: read the configuration again.
    #[serde(rename = "SIGHUP")]
    Hangup,
    /// To end: the restart policy applies.
    #[serde(rename = "SIGINT")]
    Interrupt,
    /// To end: the restart policy applies.
    #[serde(rename = "SIGTERM")]
    Terminate,
    /// Of the workload's own meaning.
    #[serde(rename = "SIGUSR1")]
    User1,
    /// Of the workload's own meaning.
    #[serde(rename = "SIGUSR2")]
    User2,
}

/// What follows a change of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ChangeTable", into = "ChangeTable")]
pub struct OnChange {
    /// What follows.
    pub reaction: Reaction,
    /// Which of several workloads it is for. Unless given, a signal is for all of them, and
    /// a command is run beside the first.
    pub workload: Option<WorkloadName>,
}

/// What a workload gets when a secret has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reaction {
    /// Sent to its main process.
    Signal(ChangeSignal),
    /// Run beside it.
    Command(Command),
}

/// The table as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeTable {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signal: Option<ChangeSignal>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    command: Option<Command>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    workload: Option<WorkloadName>,
}

impl TryFrom<ChangeTable> for OnChange {
    type Error = SecretError;

    fn try_from(table: ChangeTable) -> Result<Self, SecretError> {
        let reaction = match (table.signal, table.command) {
            (Some(signal), None) => Reaction::Signal(signal),
            (None, Some(command)) => Reaction::Command(command),
            _ => return Err(SecretError::OnChange),
        };
        Ok(Self {
            reaction,
            workload: table.workload,
        })
    }
}

impl From<OnChange> for ChangeTable {
    fn from(change: OnChange) -> Self {
        let (signal, command) = match change.reaction {
            Reaction::Signal(signal) => (Some(signal), None),
            Reaction::Command(command) => (None, Some(command)),
        };
        Self {
            signal,
            command,
            workload: change.workload,
        }
    }
}

/// What follows if a secret cannot be had before the workload starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// The enclave ends.
    #[default]
    Stop,
    /// The workload is started without the secret.
    Continue,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn read<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, String> {
        serde_json::from_value(value).map_err(|error| error.to_string())
    }

    #[test]
    fn secret_deliveries_that_cannot_be_used_are_refused_with_what_can() {
        let long = "x".repeat(MAX_FILE_NAME_BYTES);
        for path in [
            "",
            "/run/secrets",
            "/run/secrets/",
            "/run/secrets/a/b",
            "/run/secrets/..",
            "/run/secrets/.hidden",
            "/run/secretsx",
            "/tmp/x",
            "run/secrets/x",
            "/run/secrets/a b",
            &format!("/run/secrets/{long}"),
        ] {
            let error = read::<SecretPath>(json!(path)).unwrap_err();
            assert!(error.contains("`/run/secrets/NAME`"), "{path}: {error}");
        }
        for mode in ["400", "0600", "0644", "0777", "4400", "0o400", ""] {
            let error = read::<SecretMode>(json!(mode)).unwrap_err();
            assert!(error.contains("`0400`, `0440` or `0444`"), "{error}");
        }
        for name in ["", "1A", "A=B", "A-B", "A\0", &"A".repeat(256)] {
            let error = read::<VariableName>(json!(name)).unwrap_err();
            assert!(error.contains("letters, digits and underscores"), "{error}");
        }
        let error = read::<OnChange>(json!({"signal": "SIGKILL"})).unwrap_err();
        assert!(error.contains("`SIGHUP`"), "{error}");
        for both_or_none in [
            json!({}),
            json!({"signal": "SIGHUP", "command": ["/reload"]}),
        ] {
            let error = read::<OnChange>(both_or_none).unwrap_err();
            assert!(error.contains("write one of `signal = "), "{error}");
        }
    }

    #[test]
    fn secret_deliveries_are_written_as_they_are_read() {
        fn same<T: serde::de::DeserializeOwned + Serialize>(value: &Value) {
            let read: T = read(value.clone()).unwrap();
            assert_eq!(&serde_json::to_value(&read).unwrap(), value);
        }
        same::<SecretPath>(&json!("/run/secrets/tls.key_1-a"));
        for (mode, _) in MODES {
            same::<SecretMode>(&json!(mode));
        }
        same::<VariableName>(&json!("_DATABASE_1"));
        same::<OnChange>(&json!({"signal": "SIGUSR1"}));
        same::<OnChange>(&json!({"command": ["/reload", "-q"]}));
        same::<OnFailure>(&json!("continue"));
    }

    proptest! {
        #[test]
        fn secret_paths_stay_in_their_folder(text in "/run/secrets/\\PC{0,20}") {
            if let Ok(path) = SecretPath::try_from(text.clone()) {
                let name = path.file_name();
                prop_assert_eq!(format!("{SECRETS_FOLDER}/{name}"), text);
                prop_assert!(!name.starts_with('.') && !name.is_empty());
            }
        }
    }
}
