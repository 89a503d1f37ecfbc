//! The two documents that an enclave image carries.

use aws_endpoint::Service;
use plain_text::plain;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use thiserror::Error;

use crate::attestation::{Attestation, AttestationError};
use crate::confinement::{Confinement, ConfinementError};
use crate::egress::EgressRule;
use crate::keys::{Keys, KeysError};
use crate::kms::{Kms, KmsError};
use crate::logs::Logs;
use crate::name::EnclaveName;
use crate::network::{
    IngressRule, Network, NetworkError, check_egress, check_ingress, check_services,
};
use crate::secrets::{self, Secret, SecretError};
use crate::units::{Cpus, MemoryMib};
use crate::workload::Workload;
use crate::workloads::{Workloads, WorkloadsError};

/// Where the measured configuration lies in the application ramdisk.
pub const MEASURED_CONFIG_PATH: &str = "enclave/config.json";
/// The key of the host configuration in the EIF's `CustomMetadata`.
pub const HOST_CONFIG_KEY: &str = "Host";
/// The version that both documents carry.
pub const CONFIG_SCHEMA: u32 = 1;
/// The largest document that is read.
pub const MAX_CONFIG_BYTES: usize = 256 * 1024;

/// Why a configuration in an image could not be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// Larger than [`MAX_CONFIG_BYTES`].
    #[error(
        "the image's configuration has {0} bytes, more than the {MAX_CONFIG_BYTES} that are allowed"
    )]
    TooLarge(usize),
    /// Not the JSON that this version writes.
    #[error(
        "the image's configuration cannot be read: {}; build the image again with this version's image-builder",
        plain(&.0.to_string())
    )]
    Malformed(#[from] serde_json::Error),
    /// Written by another version.
    #[error(
        "the image's configuration has schema {found}, this program knows {CONFIG_SCHEMA}: use an image-builder and a program of the same release"
    )]
    Schema {
        /// The version found.
        found: u32,
    },
    /// Its lists of rules break a limit.
    #[error("the image's configuration cannot be used: {0}")]
    Network(#[from] NetworkError),
    /// Its list of peers breaks a limit.
    #[error("the image's configuration cannot be used: {0}")]
    Attestation(#[from] AttestationError),
    /// Its confinement contradicts itself.
    #[error("the image's configuration cannot be used: confinement.{key}: {reason}")]
    Confinement {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        reason: ConfinementError,
    },
    /// The KMS cannot be called.
    #[error("the image's configuration cannot be used: kms: {0}")]
    Kms(#[from] KmsError),
    /// Its workloads cannot be told apart or ordered.
    #[error("the image's configuration cannot be used: {0}")]
    Workloads(#[from] WorkloadsError),
    /// Its secrets contradict each other.
    #[error("the image's configuration cannot be used: {0}")]
    Secrets(#[from] SecretError),
    /// Its keys cannot be had.
    #[error("the image's configuration cannot be used: keys: {0}")]
    Keys(#[from] KeysError),
}

/// What the enclave is bound to do: part of the application ramdisk, so PCR0
/// and PCR2 cover it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredConfig {
    /// [`CONFIG_SCHEMA`].
    pub schema: u32,
    /// The enclave's name.
    pub name: EnclaveName,
    /// What runs.
    #[serde(rename = "workload")]
    pub workloads: Workloads<Workload>,
    /// Its network.
    pub network: Network,
    /// Its log policy.
    pub logs: Logs,
    /// What it demands of documents, its own among them.
    #[serde(default)]
    pub attestation: Attestation,
    /// What the workload may do and use; as tight as it can be unless given.
    #[serde(default)]
    pub confinement: Confinement,
    /// The KMS that the enclave calls for the workload, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms: Option<Kms>,
    /// What it is given that nobody outside knows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<Secret>,
    /// The keys that it shares with other enclaves, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Keys>,
}

impl MeasuredConfig {
    /// Reads the document from the bytes of [`MEASURED_CONFIG_PATH`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, ConfigError> {
        check_size(bytes)?;
        let config = read(bytes, |config: &Self| config.schema)?;
        config.network.check()?;
        config.attestation.check()?;
        config.workloads.check().map_err(|(_, _, error)| error)?;
        secrets::check(&config.secrets, config.kms.is_some())?;
        let changes = config.secrets.iter();
        let changes = changes.map(|secret| secret.on_change.as_ref());
        secrets::check_changes(changes, &config.workloads).map_err(|(_, _, error)| error)?;
        config
            .confinement
            .check(None)
            .map_err(|(key, _, reason)| ConfigError::Confinement { key, reason })?;
        if let Some(kms) = &config.kms {
            kms.check(config.has_credentials(), &config.network)?;
        }
        if let Some(keys) = &config.keys {
            let open = &config.attestation.open_registers;
            keys.check(config.kms.is_some(), &config.network, open)
                .map_err(|(_, error)| error)?;
            keys.check_signer()?;
        }
        Ok(config)
    }

    /// Whether a workload gets the AWS credentials of the instance.
    pub fn has_credentials(&self) -> bool {
        let mut workloads = self.workloads.iter();
        workloads.any(|workload| workload.aws_credentials)
    }

    /// Whether a secret is delivered as a file.
    pub fn has_secret_files(&self) -> bool {
        self.secrets.iter().any(|secret| secret.file.is_some())
    }

    /// The table that takes most of the document, for whoever is to shorten it.
    pub fn largest_table(&self) -> &'static str {
        let size =
            |part: &dyn Fn() -> serde_json::Result<Vec<u8>>| part().map_or(0, |bytes| bytes.len());
        let sizes = [
            ("workload", size(&|| serde_json::to_vec(&self.workloads))),
            ("network", size(&|| serde_json::to_vec(&self.network))),
            ("logs", size(&|| serde_json::to_vec(&self.logs))),
            (
                "attestation",
                size(&|| serde_json::to_vec(&self.attestation)),
            ),
            ("kms", size(&|| serde_json::to_vec(&self.kms))),
            ("secrets", size(&|| serde_json::to_vec(&self.secrets))),
        ];
        let largest = sizes.into_iter().max_by_key(|(_, size)| *size);
        largest.map_or("workload", |(table, _)| table)
    }

    /// The bytes to write at [`MEASURED_CONFIG_PATH`]; the same for equal values.
    pub fn to_json(&self) -> Result<Vec<u8>, ConfigError> {
        let bytes = serde_json::to_vec(self)?;
        check_size(&bytes)?;
        Ok(bytes)
    }
}

/// What the parent instance needs to know of an image. Not measured: it must
/// never be trusted inside the enclave, or by a verifier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostConfig {
    /// [`CONFIG_SCHEMA`].
    pub schema: u32,
    /// The enclave's name.
    pub name: EnclaveName,
    /// Virtual CPUs to start it with.
    pub cpus: Cpus,
    /// Memory to start it with.
    pub memory_mib: MemoryMib,
    /// What the image's files take of the memory when the kernel has unpacked them:
    /// whole pages, and an inode for each. With the image's size it says how much
    /// memory is [enough to start](crate::needed_mib); 0 if the builder did not say.
    #[serde(default)]
    pub unpacked_bytes: u64,
    /// Ports to open for it.
    pub ingress: Vec<IngressRule>,
    /// Destinations to connect it to.
    pub egress: Vec<EgressRule>,
    /// Services of AWS to connect it to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aws_services: Vec<Service>,
    /// Whether only FIPS's hosts of these are meant.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub aws_fips: bool,
    /// Whether to hand it the AWS credentials of the instance.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub aws_credentials: bool,
}

impl HostConfig {
    /// Reads the document from an image's custom metadata, where it is the value
    /// under [`HOST_CONFIG_KEY`]; `None` if there is none.
    pub fn from_metadata(text: &str) -> Result<Option<Self>, ConfigError> {
        check_size(text.as_bytes())?;
        match serde_json::from_str(text) {
            Ok(CustomMetadata { host: Some(host) }) => {
                Self::from_json(host.get().as_bytes()).map(Some)
            }
            // Another builder's metadata may be anything.
            Ok(CustomMetadata { host: None }) | Err(_) => Ok(None),
        }
    }

    /// Reads the document itself.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ConfigError> {
        check_size(bytes)?;
        let config = read(bytes, |config: &Self| config.schema)?;
        check_egress(&config.egress)?;
        check_services(&config.aws_services)?;
        check_ingress(&config.ingress)?;
        Ok(config)
    }
}

/// An image's custom metadata, of which the rest is not looked at.
#[derive(Deserialize)]
struct CustomMetadata<'t> {
    #[serde(borrow, rename = "Host")]
    host: Option<&'t RawValue>,
}

/// What every version's documents have.
#[derive(Deserialize)]
struct Schema {
    schema: u32,
}

fn check_size(bytes: &[u8]) -> Result<(), ConfigError> {
    if bytes.len() > MAX_CONFIG_BYTES {
        return Err(ConfigError::TooLarge(bytes.len()));
    }
    Ok(())
}

/// Reads a document. One of another version is refused for that, and not for what is
/// new in it.
fn read<T: DeserializeOwned>(bytes: &[u8], schema: fn(&T) -> u32) -> Result<T, ConfigError> {
    match serde_json::from_slice(bytes) {
        Ok(config) => check_schema(schema(&config)).map(|()| config),
        Err(error) => {
            let Schema { schema } = serde_json::from_slice(bytes)?;
            check_schema(schema)?;
            Err(error.into())
        }
    }
}

fn check_schema(found: u32) -> Result<(), ConfigError> {
    if found == CONFIG_SCHEMA {
        Ok(())
    } else {
        Err(ConfigError::Schema { found })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn measured() -> Value {
        json!({
            "schema": 1,
            "name": "payments",
            "workload": {
                "kind": "service",
                "command": ["/app/server"],
                "env": {"RUST_LOG": "info"},
                "working_directory": "/srv",
                "user": {"uid": 1000, "gid": 1000},
                "groups": [27, 50],
                "restart": {"policy": "on-failure", "max": 5, "backoff": "1s..30s"},
                "health": {
                    "tcp": 8080,
                    "interval": "30s",
                    "timeout": "5s",
                    "failures": 3,
                    "ready_within": "10m",
                    "on_unhealthy": "report"
                },
                "stop_signal": "SIGQUIT",
                "stop_grace": "10s",
                "aws_credentials": true
            },
            "network": {
                "egress": ["*.example.com:443", "kms.eu-west-1.amazonaws.com:443"],
                "aws_services": ["ssm"],
                "ingress": [{"port": 8080, "to": 80}]
            },
            "logs": {
                "release": "always",
                "when_full": "drop-oldest",
                "buffer": "4MiB",
                "compression": "none",
                "multiline": {"start": "^[^ ]"},
                "redact": [
                    {"pattern": "[0-9]{16}", "with": "***"},
                    {"json_fields": ["password"]}
                ]
            },
            "attestation": {
                "self_check": "required",
                "root": "aws",
                "allow_debug": false,
                "open_registers": [17],
                "peers": [{"name": "oracle", "policy": "{}"}]
            },
            "confinement": {
                "profile": "container",
                "capabilities": ["NET_BIND_SERVICE"],
                "allow": ["io-uring"],
                "read_only_root": true,
                "memory_mib": 512,
                "pids": 1000
            },
            "kms": {
                "endpoint": "https://kms.eu-west-1.amazonaws.com",
                "region": "eu-west-1"
            },
            "secrets": [{
                "name": "password",
                "origin": {"kms": {"ciphertext": {"inline": "AQID"}}},
                "file": {"path": "/run/secrets/password", "mode": "0400"},
                "on_failure": "stop"
            }],
            "keys": {
                "family": "payments",
                "kms": {
                    "key_id": "arn:aws:kms:eu-west-1:111122223333:key/1",
                    "ssm": "/payments/seed"
                }
            }
        })
    }

    fn host() -> Value {
        json!({
            "schema": 1,
            "name": "payments",
            "cpus": 2,
            "memory_mib": 1024,
            "ingress": [{"port": 8080, "to": 80}],
            "egress": ["*.example.com:443"]
        })
    }

    fn read(value: &Value) -> Result<MeasuredConfig, ConfigError> {
        MeasuredConfig::from_json(&serde_json::to_vec(value).unwrap())
    }

    fn read_host(value: &Value) -> Result<HostConfig, ConfigError> {
        HostConfig::from_json(&serde_json::to_vec(value).unwrap())
    }

    /// The error for `value` after the part at `pointer` has been replaced.
    fn with<T>(
        mut value: Value,
        read: impl Fn(&Value) -> Result<T, ConfigError>,
        pointer: &str,
        part: Value,
    ) -> String {
        *value.pointer_mut(pointer).unwrap() = part;
        read(&value).err().unwrap().to_string()
    }

    #[test]
    fn the_measured_document_reads_back() {
        let config = read(&measured()).unwrap();
        assert_eq!(config.workloads[0].command.program(), "/app/server");
        let bytes = config.to_json().unwrap();
        assert_eq!(MeasuredConfig::from_json(&bytes).unwrap(), config);
        assert_eq!(
            serde_json::from_slice::<Value>(&bytes).unwrap(),
            measured(),
            "nothing is added or left out"
        );
    }

    #[test]
    fn the_measured_document_is_checked_when_it_is_read() {
        for (pointer, part, message) in [
            ("/name", json!("A"), "name `A` is not allowed"),
            ("/workload/command", json!([]), "command is empty"),
            ("/workload/env", json!({"A=": ""}), "environment variable"),
            (
                "/workload/working_directory",
                json!("srv"),
                "not an absolute path",
            ),
            (
                "/workload/groups",
                json!((0..2000).collect::<Vec<_>>()),
                "the user is in 2000 groups",
            ),
            ("/workload/health", json!({}), "needs one probe"),
            ("/workload/stop_grace", json!("0s"), "out of range"),
            (
                "/workload/stop_signal",
                json!("SIGSTOPPED"),
                "`SIGSTOPPED` is not a signal",
            ),
            ("/network/egress", json!(["a.com:1", "a.com:1"]), "twice"),
            ("/network/ingress/0/port", json!(0), "`0` is not a port"),
            ("/network/ingress/0/to", json!(0), "`0` is not a port"),
            ("/network/egress", json!(["198.18.0.1:1"]), "own network"),
            ("/logs", json!({"level": 1}), "unknown field `level`"),
            ("/logs/redact/0/pattern", json!("("), "unclosed group"),
            (
                "/attestation/root",
                json!("x"),
                "neither `aws`, `aws-us-gov` nor",
            ),
            (
                "/attestation/open_registers",
                json!([16]),
                "register 16 cannot be left open",
            ),
            (
                "/attestation/peers",
                json!([{"name": "a", "policy": ""}, {"name": "a", "policy": ""}]),
                "the peer `a` is named twice",
            ),
            ("/confinement/profile", json!("none"), "not a known profile"),
            (
                "/confinement/capabilities/0",
                json!("SYS_ADMIN"),
                "no workload may have",
            ),
            (
                "/confinement/allow",
                json!(["ptrace", "ptrace"]),
                "confinement.allow: `ptrace` is listed twice",
            ),
            ("/confinement/pids", json!(0), "not a number of processes"),
            (
                "/secrets/0/file/path",
                json!("/tmp/password"),
                "`/tmp/password` is not a place for a secret",
            ),
            (
                "/keys/kms/ssm",
                json!("seed"),
                "`seed` is not the name of a parameter",
            ),
            (
                "/secrets/0/origin/kms/ciphertext",
                json!({}),
                "needs one place",
            ),
        ] {
            let error = with(measured(), read, pointer, part);
            assert!(error.contains(message), "{pointer}: {error}");
        }
    }

    #[test]
    fn the_host_document_is_checked_when_it_is_read() {
        assert_eq!(read_host(&host()).unwrap().memory_mib.bytes(), 1 << 30);
        for (pointer, part, message) in [
            ("/cpus", json!(0), "0 is not a number of CPUs"),
            ("/memory_mib", json!(1), "1 is not a size of memory"),
            ("/ingress/0/port", json!(70000), "`70000` is not a port"),
            ("/egress", json!(["x"]), "has no port"),
            ("/egress", json!(["a:1", "a:1"]), "twice"),
        ] {
            let error = with(host(), read_host, pointer, part);
            assert!(error.contains(message), "{pointer}: {error}");
        }
    }

    #[test]
    fn the_host_document_is_found_in_an_images_metadata() {
        let metadata = json!({ "Other": [1], HOST_CONFIG_KEY: host(), "More": {} });
        let found = HostConfig::from_metadata(&metadata.to_string()).unwrap();
        assert_eq!(found, Some(read_host(&host()).unwrap()));
        for without in ["null", "[]", "{}", r#"{"Host":null}"#, "1"] {
            assert_eq!(
                HostConfig::from_metadata(without).unwrap(),
                None,
                "{without}"
            );
        }
        let bad = json!({ HOST_CONFIG_KEY: { "schema": 2 } }).to_string();
        assert!(HostConfig::from_metadata(&bad).is_err());
    }

    #[test]
    fn an_error_about_a_hostile_document_is_one_line_without_control_characters() {
        let hostile = json!({"schema": 1, "na\u{1b}[31m\nme": "x"});
        for error in [
            read(&hostile).unwrap_err().to_string(),
            read_host(&hostile).unwrap_err().to_string(),
        ] {
            assert!(error.contains(r"`na\u{1b}[31m\nme`"), "{error}");
        }
        let error = with(measured(), read, "/name", json!("\u{7}"));
        assert!(error.contains(r"name `\u{7}` is not allowed"), "{error}");
    }

    #[test]
    fn another_version_is_named_before_anything_else() {
        let newer = json!({"schema": 2, "new": true});
        assert!(matches!(
            read(&newer),
            Err(ConfigError::Schema { found: 2 })
        ));
        assert!(matches!(
            read_host(&newer),
            Err(ConfigError::Schema { found: 2 })
        ));
    }

    #[test]
    fn a_document_has_a_largest_size() {
        let mut value = measured();
        value["workload"]["command"] = json!(["/a", "x".repeat(100_000), "x".repeat(100_000)]);
        let mut config = read(&value).unwrap();
        let text = "x".repeat(100_000);
        let Workloads::One([workload]) = &mut config.workloads else {
            panic!("one workload");
        };
        workload.env.set("A".into(), text).unwrap();
        assert!(matches!(config.to_json(), Err(ConfigError::TooLarge(_))));
        let bytes = vec![b' '; MAX_CONFIG_BYTES + 1];
        assert!(matches!(
            MeasuredConfig::from_json(&bytes),
            Err(ConfigError::TooLarge(_))
        ));
    }

    proptest! {
        #[test]
        fn damaged_documents_do_not_panic(position: prop::sample::Index, byte: u8) {
            let mut bytes = serde_json::to_vec(&measured()).unwrap();
            let position = position.index(bytes.len());
            bytes[position] = byte;
            if let Ok(config) = MeasuredConfig::from_json(&bytes) {
                let again = MeasuredConfig::from_json(&config.to_json().unwrap());
                prop_assert_eq!(again.unwrap(), config);
            }
        }
    }
}
