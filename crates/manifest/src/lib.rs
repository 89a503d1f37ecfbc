//! `enclave.toml` and the two configurations derived from it.
//!
//! A person writes a [`Manifest`]. `image-builder` combines it with the OCI
//! image's own configuration and writes two documents into the enclave image:
//!
//! * [`MeasuredConfig`] goes into the application ramdisk, at
//!   [`MEASURED_CONFIG_PATH`], so PCR2 covers it: an attested image proves its
//!   own command line, user, egress allowlist and log policy. `enclave-init`
//!   reads it.
//! * [`HostConfig`] goes into the EIF's metadata section, which nothing
//!   measures. It holds only what the parent instance needs to start the image
//!   and to carry its traffic. `parent-agent` reads it.
//!
//! Values are parsed once, here: a port is a [`Port`], a length of time an
//! [`Interval`], an allowed destination an [`EgressRule`], and a [`Command`] has
//! a program.

#![forbid(unsafe_code)]

mod addresses;
mod attestation;
mod capability;
mod config;
mod confinement;
mod contradiction;
mod egress;
mod groups;
mod health;
mod image;
mod keys;
mod kms;
mod limits;
mod logs;
mod memory;
mod name;
mod network;
mod process;
mod secrets;
mod shape;
mod source;
mod stop_signal;
mod text;
mod units;
mod workload;
mod workloads;

pub use addresses::{
    API_PORT, CREDENTIALS_ADDRESS, INIT_ADDRESS, NAME_SERVER_PORT, OWN_NETWORK, PROXY_PORT,
    WORKLOAD_ADDRESS,
};
pub use attestation::{
    Attestation, AttestationError, AttestationSource, FREE_REGISTERS, MAX_PEERS, MAX_ROOT_BYTES,
    OpenRegisters, Peer, PeerSource, Root, RootSource, SelfCheck,
};
/// A service of AWS.
pub use aws_endpoint::Service as AwsService;
pub use capability::{Capability, CapabilityError, capability_name};
pub use config::{
    CONFIG_SCHEMA, ConfigError, HOST_CONFIG_KEY, HostConfig, MAX_CONFIG_BYTES,
    MEASURED_CONFIG_PATH, MeasuredConfig,
};
pub use confinement::{Allowance, Confinement, ConfinementError, Mebibytes, Pids, Profile};
pub use contradiction::check_credentials;
pub use egress::{
    EgressError, EgressRule, HostPattern, Protocol, host_spelling, is_host_name, service_host,
};
pub use groups::{Groups, GroupsError};
pub use health::{
    DEFAULT_FAILURES, Health, HealthError, HealthProbe, HealthSource, HealthUrl, MAX_FAILURES,
    OnUnhealthy,
};
pub use image::{ImageChoice, ImageError, ImageKind, ImageReference};
pub use keys::{
    FAMILY_REGISTER, FINGERPRINT_DIGITS, Keys, KeysError, KeysSource, ParameterName,
    SeedFingerprint, SeedOrigin, Siblings, WrappedSeed,
};
pub use kms::{
    HttpsEndpoint, Kms, KmsError, KmsSource, MAX_TLS_ROOTS_BYTES, Region, TlsRoots,
    check_kms_environment,
};
pub use limits::{CpuWeight, Limits};
pub use logs::{
    Compression, FieldPath, LogBuffer, LogRelease, Logs, LogsError, MAX_JSON_FIELDS,
    MAX_REDACTIONS, Multiline, Pattern, Redaction, Redactions, WhenFull,
};
pub use memory::needed_mib;
pub use name::{EnclaveName, NameError, WorkloadName};
pub use network::{IngressRule, MAX_EGRESS_RULES, MAX_INGRESS_RULES, Network, NetworkError};
pub use process::{
    Command, Environment, MAX_ARGUMENT_BYTES, NameOrId, ProcessError, UserSource, Words,
    WorkingDirectory,
};
pub use secrets::{
    ChangeSignal, Ciphertext, CiphertextBlob, CiphertextSource, EncryptionContext, KeyArn,
    KmsEncrypted, MAX_CIPHERTEXT_BYTES, MAX_SECRETS, OnChange, OnFailure, OriginSource, Reaction,
    SECRETS_FOLDER, Sealed, SealedSource, Secret, SecretError, SecretFile, SecretMode,
    SecretOrigin, SecretPath, SecretSource, StoredAt, VariableName,
};
pub use source::{Enclave, Manifest, ManifestError};
pub use stop_signal::{StopSignal, StopSignalError};
pub use units::{Backoff, Cpus, Interval, MemoryMib, Port, UnitError};
pub use workload::{Restart, RestartPolicy, User, Workload, WorkloadKind, WorkloadSource};
pub use workloads::{Broken, MAX_STOP_GRACE, MAX_WORKLOADS, Member, Workloads, WorkloadsError};
