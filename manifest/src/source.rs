//! `enclave.toml` as a person writes it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;
use thiserror::Error;

use crate::network::{MAX_EGRESS_RULES, MAX_INGRESS_RULES, Network};
use crate::units::Interval;
use crate::workload::{Health, Logs, Restart, UserSource, WorkloadKind};

/// The largest manifest that is read, in bytes.
const MAX_MANIFEST_BYTES: usize = 256 * 1024;
/// The longest enclave name.
const MAX_NAME_BYTES: usize = 63;

/// Why a manifest was refused. Each message names the file, and the line where
/// there is one.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", file.display())]
    Read {
        /// The manifest.
        file: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The file is larger than a manifest can be.
    #[error("{} has {size} bytes, a manifest has at most {MAX_MANIFEST_BYTES}: is this the right file?", file.display())]
    TooLarge {
        /// The manifest.
        file: PathBuf,
        /// Its size in bytes.
        size: usize,
    },
    /// A value is wrong, missing or unknown.
    #[error("{}:{line}: {message}", file.display())]
    Invalid {
        /// The manifest.
        file: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong and what to write instead.
        message: String,
    },
}

/// The whole of `enclave.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The enclave and its image.
    pub enclave: Enclave,
    /// What runs in it.
    #[serde(default)]
    pub workload: WorkloadSource,
    /// Its network.
    #[serde(default)]
    pub network: Network,
    /// Its log policy.
    #[serde(default)]
    pub logs: Logs,
}

/// The `[enclave]` table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enclave {
    /// Lower-case letters, digits and hyphens, at most 63.
    pub name: String,
    /// The application's image.
    pub image: ImageReference,
    /// Virtual CPUs, 1 to 128; 2 unless given.
    #[serde(default = "default_cpus")]
    pub cpus: u32,
    /// Memory in MiB, 64 to 1 TiB; 1024 unless given.
    #[serde(default = "default_memory_mib")]
    pub memory_mib: u32,
}

/// Where the application's image is. Relative paths start at the manifest's folder.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum ImageReference {
    /// `oci:PATH`: an OCI image layout folder.
    OciLayout(PathBuf),
    /// `docker-archive:PATH`: a tar file as `docker save` writes it.
    DockerArchive(PathBuf),
}

/// The `[workload]` table: what is absent comes from the OCI image's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkloadSource {
    /// How the enclave ends; `service` unless given.
    pub kind: WorkloadKind,
    /// Program and arguments; the image's entrypoint and command unless given.
    pub command: Option<Vec<String>>,
    /// Added to the image's environment.
    pub env: BTreeMap<String, String>,
    /// The image's user unless given, root if that has none.
    pub user: Option<UserSource>,
    /// The image's working directory unless given, `/` if that has none.
    pub working_directory: Option<String>,
    /// When it is started again.
    pub restart: Restart,
    /// How its health is probed.
    pub health: Option<Health>,
    /// Between SIGTERM and SIGKILL; `10s` unless given.
    pub stop_grace: Interval,
}

impl Default for WorkloadSource {
    fn default() -> Self {
        Self {
            kind: WorkloadKind::Service,
            command: None,
            env: BTreeMap::new(),
            user: None,
            working_directory: None,
            restart: Restart::default(),
            health: None,
            stop_grace: Interval::DEFAULT_STOP_GRACE,
        }
    }
}

impl Manifest {
    /// Reads and checks the manifest in `file`.
    pub fn load(file: &Path) -> Result<Self, ManifestError> {
        let text = std::fs::read_to_string(file).map_err(|source| ManifestError::Read {
            file: file.to_owned(),
            source,
        })?;
        Self::parse(&text, file)
    }

    /// Checks the manifest in `text`; `file` is named in errors.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ManifestError> {
        if text.len() > MAX_MANIFEST_BYTES {
            return Err(ManifestError::TooLarge {
                file: file.to_owned(),
                size: text.len(),
            });
        }
        let manifest: Self = toml::from_str(text).map_err(|error| ManifestError::Invalid {
            file: file.to_owned(),
            line: line_of(text, error.span().map_or(0, |span| span.start)),
            message: error.message().replace('\n', " "),
        })?;
        manifest.check(text, file)?;
        Ok(manifest)
    }

    /// Rules that concern more than one value's own syntax.
    fn check(&self, text: &str, file: &Path) -> Result<(), ManifestError> {
        let name = &self.enclave.name;
        let broken: Option<(&str, String)> = if !is_enclave_name(name) {
            Some((
                "name",
                format!(
                    "name `{name}` is not allowed: use 1 to {MAX_NAME_BYTES} lower-case letters, digits and hyphens, with a letter or digit at both ends"
                ),
            ))
        } else if !(1..=128).contains(&self.enclave.cpus) {
            Some((
                "cpus",
                format!("cpus = {} is out of range: 1 to 128", self.enclave.cpus),
            ))
        } else if !(64..=1_048_576).contains(&self.enclave.memory_mib) {
            Some((
                "memory_mib",
                format!(
                    "memory_mib = {} is out of range: 64 to 1048576",
                    self.enclave.memory_mib
                ),
            ))
        } else if self.workload.command.as_ref().is_some_and(Vec::is_empty) {
            Some(("command", "command is empty: give the program and its arguments, or leave it out to use the image's own".into()))
        } else if self.network.egress.len() > MAX_EGRESS_RULES {
            Some((
                "egress",
                format!(
                    "egress has {} rules, at most {MAX_EGRESS_RULES} are allowed",
                    self.network.egress.len()
                ),
            ))
        } else if self.network.ingress.len() > MAX_INGRESS_RULES {
            Some((
                "ingress",
                format!(
                    "ingress has {} ports, at most {MAX_INGRESS_RULES} are allowed",
                    self.network.ingress.len()
                ),
            ))
        } else {
            None
        };
        match broken {
            None => Ok(()),
            Some((key, message)) => Err(ManifestError::Invalid {
                file: file.to_owned(),
                line: line_of_key(text, key),
                message,
            }),
        }
    }
}

impl FromStr for ImageReference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("oci", path)) if !path.is_empty() => Ok(Self::OciLayout(path.into())),
            Some(("docker-archive", path)) if !path.is_empty() => {
                Ok(Self::DockerArchive(path.into()))
            }
            _ => Err(format!(
                "image `{text}` is not understood: write `oci:FOLDER` or `docker-archive:FILE`"
            )),
        }
    }
}

impl TryFrom<String> for ImageReference {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

fn is_enclave_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// The line, counted from 1, that holds the byte at `offset`.
fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    1 + before.iter().filter(|&&byte| byte == b'\n').count()
}

/// The line of the first `key = …`, or 1.
fn line_of_key(text: &str, key: &str) -> usize {
    text.lines()
        .position(|line| {
            line.trim_start()
                .strip_prefix(key)
                .is_some_and(|rest| rest.trim_start().starts_with('='))
        })
        .map_or(1, |index| index + 1)
}

const fn default_cpus() -> u32 {
    2
}

const fn default_memory_mib() -> u32 {
    1024
}
