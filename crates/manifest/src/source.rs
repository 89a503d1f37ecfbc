//! `enclave.toml` as a person writes it.

use std::io::Read;
use std::path::{Path, PathBuf};

use plain_text::{plain, plain_words};
use serde::Deserialize;
use thiserror::Error;
use toml::de::{DeTable, DeValue};

use crate::attestation::{AttestationError, AttestationSource};
use crate::confinement::Confinement;
use crate::contradiction;
use crate::image::ImageReference;
use crate::keys::KeysSource;
use crate::kms::{KmsSource, check_kms_environment};
use crate::logs::Logs;
use crate::name::EnclaveName;
use crate::network::{Network, NetworkError};
use crate::secrets::{self, SecretSource, SecretTable};
use crate::shape;
use crate::units::{Cpus, MemoryMib};
use crate::workload::WorkloadSource;
use crate::workloads::Workloads;

/// The largest manifest that is read, in bytes.
const MAX_MANIFEST_BYTES: u64 = 256 * 1024;
/// How often the log buffer must fit into the enclave's memory.
const BUFFERS_IN_MEMORY: u64 = 4;

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
    #[error("{} has more than the {MAX_MANIFEST_BYTES} bytes that a manifest may have: is this the right file?", file.display())]
    TooLarge {
        /// The manifest.
        file: PathBuf,
    },
    /// The file is not text.
    #[error("{} is not a text file in UTF-8: is this the right file?", file.display())]
    NotText {
        /// The manifest.
        file: PathBuf,
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    file: PathBuf,
    text: String,
    /// The enclave and its image.
    pub enclave: Enclave,
    /// What runs in it.
    pub workloads: Workloads<WorkloadSource>,
    /// Its network.
    pub network: Network,
    /// Its log policy.
    pub logs: Logs,
    /// What it demands of documents, its own among them.
    pub attestation: AttestationSource,
    /// What the workload may do and use.
    pub confinement: Confinement,
    /// The KMS that the enclave calls for the workload, if any.
    pub kms: Option<KmsSource>,
    /// What it is given that nobody outside knows.
    pub secrets: Vec<SecretSource>,
    /// The keys that it shares with other enclaves, if any.
    pub keys: Option<KeysSource>,
}

/// The `[enclave]` table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enclave {
    /// The enclave's name.
    pub name: EnclaveName,
    /// The application's image.
    pub image: ImageReference,
    /// Virtual CPUs; 2 unless given.
    #[serde(default = "default_cpus")]
    pub cpus: Cpus,
    /// Memory; 1024 MiB unless given.
    #[serde(default = "default_memory")]
    pub memory_mib: MemoryMib,
}

/// The file's tables, before the rules that concern more than one value.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tables {
    enclave: Enclave,
    #[serde(default)]
    workload: Workloads<WorkloadSource>,
    #[serde(default)]
    network: Network,
    #[serde(default)]
    logs: Logs,
    #[serde(default)]
    attestation: AttestationSource,
    #[serde(default)]
    confinement: Confinement,
    kms: Option<KmsSource>,
    #[serde(default)]
    secrets: Vec<SecretTable>,
    keys: Option<KeysSource>,
}

impl Manifest {
    /// Reads and checks the manifest in `file`.
    pub fn load(file: &Path) -> Result<Self, ManifestError> {
        let cannot_read = |source| ManifestError::Read {
            file: file.to_owned(),
            source,
        };
        let mut bytes = Vec::new();
        std::fs::File::open(file)
            .and_then(|open| open.take(MAX_MANIFEST_BYTES + 1).read_to_end(&mut bytes))
            .map_err(cannot_read)?;
        if bytes.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(ManifestError::TooLarge {
                file: file.to_owned(),
            });
        }
        let text = String::from_utf8(bytes).map_err(|_| ManifestError::NotText {
            file: file.to_owned(),
        })?;
        Self::parse(&text, file)
    }

    /// Checks the manifest in `text`; `file` is named in errors, and its folder
    /// is where relative paths start.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ManifestError> {
        // A text that is no TOML is refused below.
        if let Ok(document) = DeTable::parse(text) {
            shape::check(document.get_ref()).map_err(|mismatch| ManifestError::Invalid {
                file: file.to_owned(),
                line: line_at(text, mismatch.offset),
                message: plain(&mismatch.message),
            })?;
        }
        let tables: Tables = toml::from_str(text).map_err(|error| ManifestError::Invalid {
            file: file.to_owned(),
            line: line_at(text, error.span().map_or(0, |span| span.start)),
            message: plain_words(error.message()),
        })?;
        let mut manifest = Self {
            file: file.to_owned(),
            text: text.to_owned(),
            enclave: tables.enclave,
            workloads: tables.workload,
            network: tables.network,
            logs: tables.logs,
            attestation: tables.attestation,
            confinement: tables.confinement,
            kms: tables.kms,
            secrets: Vec::new(),
            keys: tables.keys,
        };
        manifest.secrets =
            secrets::parse(tables.secrets).map_err(|found| manifest.invalid_secret(&found))?;
        if let Some(folder) = file.parent() {
            manifest.enclave.image.join_to(folder);
            manifest.attestation.join_to(folder);
            if let Some(kms) = &mut manifest.kms {
                kms.join_to(folder);
            }
            for secret in &mut manifest.secrets {
                secret.join_to(folder);
            }
            if let Some(keys) = &mut manifest.keys {
                keys.join_to(folder);
            }
        }
        manifest.check_workloads()?;
        manifest.check_network()?;
        manifest.check_log_buffer()?;
        manifest.check_attestation()?;
        manifest.check_confinement()?;
        manifest.check_kms()?;
        manifest.check_secrets()?;
        manifest.check_keys()?;
        contradiction::check(&manifest.workloads, &manifest.confinement).map_err(
            |(path, message)| {
                let path: Vec<&str> = path.iter().map(String::as_str).collect();
                manifest.invalid(&path, message)
            },
        )?;
        Ok(manifest)
    }

    /// An error about the value at `path`, as in `["workload", "command"]`, where
    /// numbers count the elements of arrays. Names the value's line, or the line
    /// of the innermost table on the way that is there.
    pub fn invalid(&self, path: &[&str], message: impl Into<String>) -> ManifestError {
        ManifestError::Invalid {
            file: self.file.clone(),
            line: line_of(&self.text, path),
            message: plain(&message.into()),
        }
    }

    /// An error about `key` of the workload of this place.
    pub fn invalid_workload(
        &self,
        index: usize,
        key: &[&str],
        message: impl Into<String>,
    ) -> ManifestError {
        let path = self.workloads.path(index, key);
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        self.invalid(&path, message)
    }

    /// Whether a workload gets the AWS credentials of the instance.
    pub fn has_credentials(&self) -> bool {
        let mut workloads = self.workloads.iter();
        workloads.any(|workload| workload.aws_credentials)
    }

    fn check_workloads(&self) -> Result<(), ManifestError> {
        self.workloads.check().map_err(|(index, key, error)| {
            self.invalid_workload(index, &[key], error.to_string())
        })?;
        let memory = self.enclave.memory_mib;
        for (index, workload) in self.workloads.iter().enumerate() {
            let limit = workload.limits.memory_mib;
            if let Some(size) = limit.filter(|size| size.bytes() > memory.bytes()) {
                let message = format!(
                    "limits.memory_mib of {size} MiB is more than the enclave's {memory} MiB: lower it, or raise enclave.memory_mib"
                );
                return Err(self.invalid_workload(index, &["limits", "memory_mib"], message));
            }
        }
        Ok(())
    }

    fn check_network(&self) -> Result<(), ManifestError> {
        self.network.check().map_err(|error| {
            let (key, index) = match &error {
                NetworkError::EgressCount(_) => ("egress", String::new()),
                NetworkError::IngressCount(_) => ("ingress", String::new()),
                NetworkError::EgressTwice { index, .. }
                | NetworkError::EgressOwn { index, .. }
                | NetworkError::EgressLoopback { index, .. }
                | NetworkError::EgressNowhere { index, .. } => ("egress", index.to_string()),
                NetworkError::IngressTwice { index, .. } => ("ingress", index.to_string()),
                NetworkError::ServiceTwice { index, .. } => ("aws_services", index.to_string()),
                NetworkError::FipsAlone => ("aws_fips", String::new()),
                NetworkError::ProxyAlone => ("proxy", String::new()),
            };
            self.invalid(&["network", key, &index], error.to_string())
        })
    }

    fn check_confinement(&self) -> Result<(), ManifestError> {
        self.confinement
            .check(Some(self.enclave.memory_mib))
            .map_err(|(key, index, error)| {
                let index = index.map(|index| index.to_string()).unwrap_or_default();
                self.invalid(&["confinement", key, &index], error.to_string())
            })
    }

    fn check_kms(&self) -> Result<(), ManifestError> {
        let Some(kms) = &self.kms else {
            return Ok(());
        };
        kms.check(self.has_credentials(), &self.network)
            .map_err(|(key, error)| self.invalid(&["kms", key], error.to_string()))?;
        for (index, workload) in self.workloads.iter().enumerate() {
            check_kms_environment(&workload.env)
                .map_err(|error| self.invalid_workload(index, &["env"], error.to_string()))?;
        }
        Ok(())
    }

    fn check_attestation(&self) -> Result<(), ManifestError> {
        self.attestation.check().map_err(|error| {
            let index = match &error {
                AttestationError::PeerTwice { index, .. } => index.to_string(),
                _ => String::new(),
            };
            self.invalid(&["attestation", "peers", &index], error.to_string())
        })
    }

    /// Secrets must be within reach, and the only ones to set their variables.
    fn check_secrets(&self) -> Result<(), ManifestError> {
        secrets::check_network(&self.secrets, &self.network)
            .and_then(|()| {
                secrets::check_variables(&self.secrets, &self.workloads, self.kms.is_some())
            })
            .and_then(|()| secrets::check_kms(&self.secrets, self.kms.is_some()))
            .and_then(|()| {
                let changes = self.secrets.iter();
                let changes = changes.map(|secret| secret.on_change.as_ref());
                secrets::check_changes(changes, &self.workloads)
            })
            .map_err(|found| self.invalid_secret(&found))
    }

    fn check_keys(&self) -> Result<(), ManifestError> {
        let Some(keys) = &self.keys else {
            return Ok(());
        };
        let open = &self.attestation.open_registers;
        keys.check(self.kms.is_some(), &self.network, open)
            .map_err(|(key, error)| self.invalid(&["keys", key], error.to_string()))
    }

    fn invalid_secret(&self, (index, key, error): &secrets::Found) -> ManifestError {
        self.invalid(&["secrets", &index.to_string(), key], error.to_string())
    }

    /// The log buffer must leave the workload most of the memory.
    fn check_log_buffer(&self) -> Result<(), ManifestError> {
        let (buffer, memory) = (self.logs.buffer, self.enclave.memory_mib);
        let least = buffer.bytes() as u64 * BUFFERS_IN_MEMORY;
        if least <= memory.bytes() {
            return Ok(());
        }
        Err(self.invalid(
            &["logs", "buffer"],
            format!(
                "a log buffer of {buffer} needs an enclave with {} MiB of memory, this one has {memory}: lower `buffer` or raise `memory_mib`",
                least / (1024 * 1024)
            ),
        ))
    }
}

/// The line, counted from 1, that holds the byte at `offset`.
fn line_at(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    before.split(|&byte| byte == b'\n').count()
}

/// The line of the value at `path`, or of the last part of the path that is there.
fn line_of(text: &str, path: &[&str]) -> usize {
    let Ok(document) = DeTable::parse(text) else {
        return 1;
    };
    let root = DeValue::Table(document.into_inner());
    let mut value = &root;
    let mut offset = 0;
    for key in path {
        let next = match value {
            DeValue::Table(table) => table
                .iter()
                .find(|(name, _)| name.get_ref() == key)
                .map(|(name, value)| (name.span().start, value)),
            DeValue::Array(array) => key
                .parse::<usize>()
                .ok()
                .and_then(|index| array.get(index))
                .map(|value| (value.span().start, value)),
            _ => None,
        };
        let Some((start, next)) = next else { break };
        offset = start;
        value = next.get_ref();
    }
    line_at(text, offset)
}

const fn default_cpus() -> Cpus {
    Cpus::DEFAULT
}

const fn default_memory() -> MemoryMib {
    MemoryMib::DEFAULT
}
