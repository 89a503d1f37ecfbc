//! What the enclave demands of its own document, and of its peers'.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::name::EnclaveName;

/// Most peers whose policies an image carries.
pub const MAX_PEERS: usize = 16;
/// Largest root certificate, as PEM, in bytes.
pub const MAX_ROOT_BYTES: usize = 8 * 1024;
/// Registers that are neither the platform's nor the runtime configuration's.
pub const FREE_REGISTERS: std::ops::RangeInclusive<u8> = 17..=31;

/// The values of `root` that stand for certificates of AWS: its partitions' names.
const AWS: &str = "aws";
const AWS_US_GOV: &str = "aws-us-gov";
/// How a certificate in PEM begins.
const PEM_START: &str = "-----BEGIN CERTIFICATE-----";

/// Why a value of the `[attestation]` table was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AttestationError {
    /// A register that is not the workload's to have.
    #[error(
        "register {0} cannot be left open: write {first} to {last}, because 0 to 15 are the platform's and 16 holds the runtime configuration",
        first = FREE_REGISTERS.start(),
        last = FREE_REGISTERS.end()
    )]
    Register(i64),
    /// A register that is named twice.
    #[error("register {0} is named twice: name it once")]
    RegisterTwice(u8),
    /// No file is named.
    #[error(
        "a file's name is empty: write `aws`, `aws-us-gov`, or the name of a PEM file beside the manifest"
    )]
    NoFile,
    /// The measured root is neither AWS's nor a certificate.
    #[error(
        "the root is neither `{AWS}`, `{AWS_US_GOV}` nor a certificate in PEM of at most {MAX_ROOT_BYTES} bytes"
    )]
    Root,
    /// More peers than are allowed.
    #[error("{0} peers are more than the {MAX_PEERS} that are allowed")]
    PeerCount(usize),
    /// Two peers have one name.
    #[error("the peer `{name}` is named twice: give each its own name")]
    PeerTwice {
        /// The second one's place in the list.
        index: usize,
        /// The name.
        name: EnclaveName,
    },
}

/// The `[attestation]` table as a person writes it. In a
/// [`Manifest`](crate::Manifest), relative paths have been joined to the
/// manifest's folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AttestationSource {
    /// What follows if the enclave's own document is refused.
    pub self_check: SelfCheck,
    /// The root that documents must lead to.
    pub root: RootSource,
    /// Whether the enclave may run in debug mode.
    pub allow_debug: bool,
    /// Registers that the workload may extend and lock.
    pub open_registers: OpenRegisters,
    /// The enclaves whose documents the workload may have verified.
    pub peers: Vec<PeerSource>,
}

/// Where the root certificate is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum RootSource {
    /// AWS's for the commercial regions, which every program here has.
    #[default]
    Aws,
    /// AWS's for its cloud for the government of the US, likewise.
    AwsUsGov,
    /// In a PEM file.
    File(PathBuf),
}

impl TryFrom<String> for RootSource {
    type Error = AttestationError;

    fn try_from(text: String) -> Result<Self, AttestationError> {
        match text.as_str() {
            AWS => Ok(Self::Aws),
            AWS_US_GOV => Ok(Self::AwsUsGov),
            "" => Err(AttestationError::NoFile),
            _ => Ok(Self::File(text.into())),
        }
    }
}

/// A peer as a person writes it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerSource {
    /// What the workload calls it.
    pub name: EnclaveName,
    /// The file with the policy that its documents must satisfy.
    pub policy: PathBuf,
}

impl AttestationSource {
    /// Checks what concerns more than one peer.
    pub(crate) fn check(&self) -> Result<(), AttestationError> {
        check_peers(self.peers.iter().map(|peer| &peer.name))
    }

    pub(crate) fn join_to(&mut self, folder: &Path) {
        if let RootSource::File(path) = &mut self.root {
            *path = folder.join(&*path);
        }
        for peer in &mut self.peers {
            peer.policy = folder.join(&peer.policy);
        }
    }
}

/// The `[attestation]` table as it is measured: the content of the files that it
/// names instead of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Attestation {
    /// What follows if the enclave's own document is refused.
    pub self_check: SelfCheck,
    /// The root that documents must lead to.
    pub root: Root,
    /// Whether the enclave may run in debug mode.
    pub allow_debug: bool,
    /// Registers that the workload may extend and lock.
    pub open_registers: OpenRegisters,
    /// The enclaves whose documents the workload may have verified.
    pub peers: Vec<Peer>,
}

impl Attestation {
    pub(crate) fn check(&self) -> Result<(), AttestationError> {
        check_peers(self.peers.iter().map(|peer| &peer.name))
    }
}

/// What follows if the enclave's own document is refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SelfCheck {
    /// The enclave ends before its workload is started.
    #[default]
    Required,
    /// The parent is told, and the workload is started.
    Report,
}

/// The root that documents must lead to: `aws`, `aws-us-gov`, or a certificate in PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Root {
    /// AWS's for the commercial regions.
    #[default]
    Aws,
    /// AWS's for its cloud for the government of the US.
    AwsUsGov,
    /// This certificate. It has the marks of PEM; whether it is a certificate is
    /// for whoever verifies with it to find out.
    Pem(String),
}

impl TryFrom<String> for Root {
    type Error = AttestationError;

    fn try_from(text: String) -> Result<Self, AttestationError> {
        match text.as_str() {
            AWS => Ok(Self::Aws),
            AWS_US_GOV => Ok(Self::AwsUsGov),
            _ if text.starts_with(PEM_START) && text.len() <= MAX_ROOT_BYTES => Ok(Self::Pem(text)),
            _ => Err(AttestationError::Root),
        }
    }
}

impl From<Root> for String {
    fn from(root: Root) -> Self {
        match root {
            Root::Aws => AWS.to_owned(),
            Root::AwsUsGov => AWS_US_GOV.to_owned(),
            Root::Pem(text) => text,
        }
    }
}

/// An enclave whose documents the workload may have verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// What the workload calls it.
    pub name: EnclaveName,
    /// The policy that its documents must satisfy: the JSON text of crate
    /// `attestation`, which whoever verifies with it parses.
    pub policy: String,
}

/// Registers that are left open, each of [`FREE_REGISTERS`] at most once, in
/// ascending order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<i64>")]
pub struct OpenRegisters(Vec<u8>);

impl TryFrom<Vec<i64>> for OpenRegisters {
    type Error = AttestationError;

    fn try_from(numbers: Vec<i64>) -> Result<Self, AttestationError> {
        let mut registers = BTreeSet::new();
        for number in numbers {
            let register = u8::try_from(number)
                .ok()
                .filter(|register| FREE_REGISTERS.contains(register))
                .ok_or(AttestationError::Register(number))?;
            if !registers.insert(register) {
                return Err(AttestationError::RegisterTwice(register));
            }
        }
        Ok(Self(registers.into_iter().collect()))
    }
}

impl Deref for OpenRegisters {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

fn check_peers<'a>(
    names: impl ExactSizeIterator<Item = &'a EnclaveName>,
) -> Result<(), AttestationError> {
    if names.len() > MAX_PEERS {
        return Err(AttestationError::PeerCount(names.len()));
    }
    let mut seen = BTreeSet::new();
    for (index, name) in names.enumerate() {
        if !seen.insert(name) {
            let name = name.clone();
            return Err(AttestationError::PeerTwice { index, name });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, String> {
        serde_json::from_value(value).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_absent_has_its_default_and_is_written_the_same() {
        let measured: Attestation = read(json!({})).unwrap();
        assert_eq!(measured, Attestation::default());
        assert_eq!(
            serde_json::to_value(&measured).unwrap(),
            json!({
                "self_check": "required",
                "root": "aws",
                "allow_debug": false,
                "open_registers": [],
                "peers": [],
            })
        );
        let source: AttestationSource = read(json!({})).unwrap();
        assert_eq!(source.root, RootSource::Aws);
    }

    #[test]
    fn every_key_reads_back() {
        let value = json!({
            "self_check": "report",
            "root": format!("{PEM_START}\nAA==\n-----END CERTIFICATE-----\n"),
            "allow_debug": true,
            "open_registers": [17, 31],
            "peers": [{"name": "oracle", "policy": "{}"}],
        });
        let measured: Attestation = read(value.clone()).unwrap();
        assert_eq!(serde_json::to_value(&measured).unwrap(), value);
        assert_eq!(*measured.open_registers, [17, 31]);
    }

    #[test]
    fn a_partition_of_aws_stands_for_its_root() {
        for (name, from, to) in [
            ("aws", RootSource::Aws, Root::Aws),
            ("aws-us-gov", RootSource::AwsUsGov, Root::AwsUsGov),
        ] {
            let source: AttestationSource = read(json!({ "root": name })).unwrap();
            assert_eq!(source.root, from);
            let measured: Attestation = read(json!({ "root": name })).unwrap();
            assert_eq!(measured.root, to);
            assert_eq!(serde_json::to_value(&measured).unwrap()["root"], name);
        }
    }

    #[test]
    fn files_are_looked_for_beside_the_manifest() {
        let mut source: AttestationSource = read(json!({
            "root": "root.pem",
            "peers": [{"name": "a", "policy": "a.toml"}, {"name": "b", "policy": "/etc/b.toml"}],
        }))
        .unwrap();
        source.join_to(Path::new("/project"));
        assert_eq!(source.root, RootSource::File("/project/root.pem".into()));
        let files: Vec<_> = source.peers.iter().map(|peer| &*peer.policy).collect();
        assert_eq!(
            files,
            [Path::new("/project/a.toml"), Path::new("/etc/b.toml")]
        );
    }

    #[test]
    fn open_registers_are_sorted_and_the_workloads_own() {
        let open: OpenRegisters = read(json!([31, 17])).unwrap();
        assert_eq!(*open, [17, 31]);
        for (registers, message) in [
            (json!([16]), "register 16 cannot be left open"),
            (json!([0]), "register 0 cannot be left open"),
            (json!([32]), "write 17 to 31"),
            (json!([-1]), "register -1"),
            (json!([300]), "register 300"),
            (json!([17, 18, 17]), "register 17 is named twice"),
            (json!(["17"]), "invalid type"),
        ] {
            let error = read::<OpenRegisters>(registers).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_the_reason() {
        for (value, message) in [
            (json!({"self_check": "maybe"}), "unknown variant `maybe`"),
            (json!({"root": "other"}), "neither `aws`, `aws-us-gov` nor"),
            (
                json!({"root": format!("{PEM_START}{}", "A".repeat(MAX_ROOT_BYTES))}),
                "of at most 8192 bytes",
            ),
            (json!({"peers": [{"name": "a"}]}), "missing field `policy`"),
            (json!({"peers": [{"name": "A", "policy": ""}]}), "name `A`"),
            (json!({"registers": []}), "unknown field `registers`"),
        ] {
            let error = read::<Attestation>(value.clone()).unwrap_err();
            assert!(error.contains(message), "{value}: {error}");
        }
        assert!(read::<AttestationSource>(json!({"root": ""})).is_err());
    }

    #[test]
    fn peers_are_few_and_have_names_of_their_own() {
        let peers = |names: &[String]| Attestation {
            peers: names
                .iter()
                .map(|name| Peer {
                    name: name.parse().unwrap(),
                    policy: String::new(),
                })
                .collect(),
            ..Attestation::default()
        };
        let names: Vec<_> = (0..=MAX_PEERS).map(|index| format!("p{index}")).collect();
        assert_eq!(peers(&names[1..]).check(), Ok(()));
        assert_eq!(
            peers(&names).check(),
            Err(AttestationError::PeerCount(MAX_PEERS + 1))
        );
        let twice = peers(&["a", "b", "a"].map(str::to_owned)).check();
        assert!(matches!(
            twice,
            Err(AttestationError::PeerTwice { index: 2, .. })
        ));
    }
}
