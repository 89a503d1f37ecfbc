//! The keys that the enclaves of a family share.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use aws_endpoint::Service;
use measurements::{Pcr, RoleArn};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::attestation::OpenRegisters;
use crate::name::EnclaveName;
use crate::network::Network;
use crate::secrets::KeyArn;
use crate::units::Interval;

/// The longest name of a parameter in bytes, as Systems Manager takes it.
const MAX_PARAMETER_BYTES: usize = 1011;
/// Hexadecimal digits of a seed's fingerprint.
pub const FINGERPRINT_DIGITS: usize = 32;
/// The register that family and generation are measured into.
pub const FAMILY_REGISTER: u8 = 31;

/// Why the `[keys]` table was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeysError {
    /// No name of a parameter.
    #[error(
        "`{0}` is not the name of a parameter: write letters, digits, `.`, `-`, `_` and `/`, a `/` first, as in `/payments/seed`"
    )]
    Parameter(String),
    /// No fingerprint of a seed.
    #[error(
        "`{0}` is not a seed's fingerprint: write the {FINGERPRINT_DIGITS} hexadecimal digits that `parent-agent keys create` prints"
    )]
    Fingerprint(String),
    /// Nothing says where the seed comes from, or two things do.
    #[error(
        "a seed comes from one place: write either `kms`, whose key wraps it, or `siblings`, the enclaves that hand it over"
    )]
    Origin,
    /// Nothing unwraps the seed.
    #[error(
        "the seed is KMS's to unwrap, and nothing says which KMS: add a table [kms], as in `endpoint = \"https://kms.eu-central-1.amazonaws.com\"`"
    )]
    NoKms,
    /// What has the wrapped seed cannot be reached.
    #[error(
        "the parameter {parameter} of Systems Manager is out of reach: write `aws_services = [\"{service}\"]` in [network], or name the service's host in `egress`",
        service = Service::Ssm
    )]
    OutOfReach {
        /// The parameter.
        parameter: String,
    },
    /// The register of images that were signed by nobody.
    #[error(
        "the signer is zero, as PCR8 is of images that nobody has signed: name the certificate under which the family's images are signed"
    )]
    Signer,
    /// A later generation accepts any seed, also one that a retired image has made.
    #[error(
        "`siblings` of generation {0} has no `fingerprint`: write the one of the family's seed, which `parent-agent keys create` printed and which the log and `GET /v1/keys` of its enclaves have. A family begins with generation 1: where no seed was made yet, build that one first"
    )]
    Unpinned(NonZeroU32),
    /// The workload could measure another family.
    #[error(
        "the family and its generation are measured into register {FAMILY_REGISTER}, and `open_registers` leaves it to the workload: choose another one"
    )]
    OpenRegister,
}

/// The `[keys]` table: whose seed the enclave has, and how it gets it. `P` is what stands
/// for the signer of its siblings: PCR8, as it is measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    try_from = "Table<P>",
    into = "Table<P>",
    bound(
        serialize = "P: Clone + Serialize",
        deserialize = "P: Deserialize<'de>"
    )
)]
pub struct Keys<P = Pcr> {
    /// The family.
    pub family: EnclaveName,
    /// Where the seed comes from.
    pub origin: SeedOrigin<P>,
}

/// The table as a person writes it, with the file of the siblings' certificate. In a
/// [`Manifest`](crate::Manifest), a relative path has been joined to the manifest's folder.
pub type KeysSource = Keys<PathBuf>;

/// Where a seed comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeedOrigin<P = Pcr> {
    /// KMS unwraps the family's seed for attested enclaves.
    Kms(WrappedSeed),
    /// Enclaves of the family hand it over.
    Siblings(Siblings<P>),
}

/// A seed that a key of KMS wraps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrappedSeed {
    /// The key.
    pub key_id: KeyArn,
    /// The parameter of Systems Manager in which the wrapped seed is.
    pub ssm: ParameterName,
}

/// The enclaves that hand the seed over, and take it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Siblings<P = Pcr> {
    /// Whose signature their images have: PCR8.
    pub signer: P,
    /// Which role their parents have (PCR3), if that is demanded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<RoleArn>,
    /// Which generation of the family the image is of: it gives to the same and higher ones,
    /// and takes from the same and lower ones.
    pub generation: NonZeroU32,
    /// What the only seed that is accepted is known by. The first generation, where the seed
    /// is made, can do without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<SeedFingerprint>,
    /// How long the workload's start waits for a seed.
    #[serde(default = "default_wait")]
    pub wait: Interval,
}

/// What a seed is known by: 32 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SeedFingerprint(String);

/// The keys of the table.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table<P> {
    family: EnclaveName,
    #[serde(skip_serializing_if = "Option::is_none")]
    kms: Option<WrappedSeed>,
    #[serde(skip_serializing_if = "Option::is_none")]
    siblings: Option<Siblings<P>>,
}

/// The name of a parameter that can be created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ParameterName(String);

impl<P> Keys<P> {
    /// Checks the table beside the others. The error is about this key of the table.
    pub(crate) fn check(
        &self,
        has_kms: bool,
        network: &Network,
        open: &OpenRegisters,
    ) -> Result<(), (&'static str, KeysError)> {
        match &self.origin {
            SeedOrigin::Kms(_) if !has_kms => Err(("kms", KeysError::NoKms)),
            SeedOrigin::Kms(wrapped) if !network.reaches(Service::Ssm) => {
                let parameter = wrapped.ssm.to_string();
                Err(("kms", KeysError::OutOfReach { parameter }))
            }
            SeedOrigin::Siblings(_) if open.contains(&FAMILY_REGISTER) => {
                Err(("siblings", KeysError::OpenRegister))
            }
            SeedOrigin::Kms(_) | SeedOrigin::Siblings(_) => Ok(()),
        }
    }
}

impl Keys {
    /// Refuses a signer that no image has.
    pub(crate) fn check_signer(&self) -> Result<(), KeysError> {
        match &self.origin {
            SeedOrigin::Siblings(siblings) if siblings.signer == Pcr::ZERO => {
                Err(KeysError::Signer)
            }
            SeedOrigin::Siblings(_) | SeedOrigin::Kms(_) => Ok(()),
        }
    }
}

impl KeysSource {
    /// The table as it is measured; `signer` reads the certificate that it names.
    pub fn measured<E>(&self, signer: impl FnOnce(&Path) -> Result<Pcr, E>) -> Result<Keys, E> {
        let origin = match &self.origin {
            SeedOrigin::Kms(wrapped) => SeedOrigin::Kms(wrapped.clone()),
            SeedOrigin::Siblings(siblings) => SeedOrigin::Siblings(Siblings {
                signer: signer(&siblings.signer)?,
                role: siblings.role.clone(),
                generation: siblings.generation,
                fingerprint: siblings.fingerprint.clone(),
                wait: siblings.wait,
            }),
        };
        Ok(Keys {
            family: self.family.clone(),
            origin,
        })
    }

    pub(crate) fn join_to(&mut self, folder: &Path) {
        if let SeedOrigin::Siblings(siblings) = &mut self.origin {
            siblings.signer = folder.join(&siblings.signer);
        }
    }
}

impl<P> TryFrom<Table<P>> for Keys<P> {
    type Error = KeysError;

    fn try_from(table: Table<P>) -> Result<Self, KeysError> {
        let origin = match (table.kms, table.siblings) {
            (Some(wrapped), None) => SeedOrigin::Kms(wrapped),
            (None, Some(siblings)) => {
                let generation = siblings.generation;
                if generation > NonZeroU32::MIN && siblings.fingerprint.is_none() {
                    return Err(KeysError::Unpinned(generation));
                }
                SeedOrigin::Siblings(siblings)
            }
            (None, None) | (Some(_), Some(_)) => return Err(KeysError::Origin),
        };
        Ok(Self {
            family: table.family,
            origin,
        })
    }
}

impl<P> From<Keys<P>> for Table<P> {
    fn from(keys: Keys<P>) -> Self {
        let (kms, siblings) = match keys.origin {
            SeedOrigin::Kms(wrapped) => (Some(wrapped), None),
            SeedOrigin::Siblings(siblings) => (None, Some(siblings)),
        };
        Self {
            family: keys.family,
            kms,
            siblings,
        }
    }
}

const fn default_wait() -> Interval {
    Interval::DEFAULT_WAIT
}

impl TryFrom<String> for SeedFingerprint {
    type Error = KeysError;

    fn try_from(text: String) -> Result<Self, KeysError> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == FINGERPRINT_DIGITS && text.bytes().all(is_digit) {
            Ok(Self(text))
        } else {
            Err(KeysError::Fingerprint(text))
        }
    }
}

impl From<SeedFingerprint> for String {
    fn from(fingerprint: SeedFingerprint) -> Self {
        fingerprint.0
    }
}

impl std::ops::Deref for SeedFingerprint {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ParameterName {
    type Error = KeysError;

    fn try_from(text: String) -> Result<Self, KeysError> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_/".contains(&byte);
        let is_name = (2..=MAX_PARAMETER_BYTES).contains(&text.len())
            && text.starts_with('/')
            && text.bytes().all(is_allowed);
        if is_name {
            Ok(Self(text))
        } else {
            Err(KeysError::Parameter(text))
        }
    }
}

impl From<ParameterName> for String {
    fn from(name: ParameterName) -> Self {
        name.0
    }
}

impl std::ops::Deref for ParameterName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use super::*;
    use crate::source::Manifest;

    fn wrapped() -> Value {
        json!({
            "family": "payments",
            "kms": {
                "key_id": "arn:aws:kms:eu-central-1:111122223333:key/1",
                "ssm": "/payments/seed"
            }
        })
    }

    fn handed_over() -> Value {
        json!({
            "family": "payments",
            "siblings": {
                "signer": "01".repeat(48),
                "role": "arn:aws:iam::111122223333:role/payments",
                "generation": 3,
                "fingerprint": "e9903d08a8b5bf5439229e7432653e04",
                "wait": "30m"
            }
        })
    }

    #[test]
    fn keys_are_measured_as_they_are_read() {
        for value in [wrapped(), handed_over()] {
            let keys: Keys = serde_json::from_value(value.clone()).unwrap();
            assert_eq!(keys.check_signer(), Ok(()));
            assert_eq!(serde_json::to_value(keys).unwrap(), value);
        }
    }

    #[test]
    fn keys_of_siblings_have_the_register_of_their_signer() {
        let mut value = handed_over();
        value["siblings"] = json!({"signer": "signer.pem", "generation": 1});
        let mut source: KeysSource = serde_json::from_value(value).unwrap();
        source.join_to(Path::new("/project"));
        let read = |path: &Path| {
            assert_eq!(path, Path::new("/project/signer.pem"));
            Ok::<_, KeysError>(Pcr::new([1; 48]))
        };
        let measured = serde_json::to_value(source.measured(read).unwrap()).unwrap();
        let expected = json!({"signer": "01".repeat(48), "generation": 1, "wait": "10m"});
        assert_eq!(measured["siblings"], expected);
        let error = source.measured(|_| Err(KeysError::Signer));
        assert_eq!(error, Err(KeysError::Signer));
        let zero = source.measured(|_| Ok::<_, KeysError>(Pcr::ZERO)).unwrap();
        assert_eq!(zero.check_signer(), Err(KeysError::Signer));
    }

    #[test]
    fn keys_have_names_that_can_be_used() {
        let with = |mut value: Value, pointer: &str, part: Value| {
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            value.pointer_mut(parent).unwrap()[name] = part;
            value
        };
        let mut unpinned = handed_over();
        let siblings = unpinned["siblings"].as_object_mut().unwrap();
        siblings.remove("fingerprint");
        for (value, message) in [
            (unpinned.clone(), "generation 3 has no `fingerprint`: write"),
            (
                with(unpinned, "/siblings/generation", json!(2)),
                "A family begins with generation 1",
            ),
            (json!({"family": "a"}), "write either `kms`"),
            (
                with(wrapped(), "/siblings", handed_over()["siblings"].clone()),
                "write either `kms`",
            ),
            (
                with(handed_over(), "/siblings/generation", json!(0)),
                "expected a nonzero u32",
            ),
            (
                with(
                    handed_over(),
                    "/siblings/generation",
                    json!(4_294_967_296_u64),
                ),
                "expected a nonzero u32",
            ),
            (
                with(handed_over(), "/siblings/fingerprint", json!("E9")),
                "`E9` is not a seed's fingerprint",
            ),
            (
                with(handed_over(), "/siblings/role", json!("payments")),
                "is not a role's ARN",
            ),
            (
                with(handed_over(), "/siblings/signer", json!("signer.pem")),
                "a PCR value has 96 hexadecimal digits",
            ),
            (with(wrapped(), "/family", json!("A")), "name `A`"),
            (
                with(wrapped(), "/kms/ssm", json!("seed")),
                "`seed` is not the name of a parameter",
            ),
            (
                with(wrapped(), "/kms/ssm", json!("/a b")),
                "is not the name of a parameter",
            ),
            (
                with(wrapped(), "/kms/key_id", json!("alias/a")),
                "is not the ARN of a key",
            ),
            (with(wrapped(), "/more", json!(1)), "unknown field `more`"),
        ] {
            let error = serde_json::from_value::<Keys>(value).unwrap_err();
            assert!(error.to_string().contains(message), "{error}");
        }
    }

    #[test]
    fn keys_agree_with_the_other_tables() {
        let read = |tables: &str| {
            let text = format!("[enclave]\nname = \"a\"\nimage = \"oci:x\"\n{tables}\n");
            Manifest::parse(&text, Path::new("/e.toml")).map_err(|error| error.to_string())
        };
        let wrapped = "[keys]
family = \"payments\"
kms = { key_id = \"arn:aws:kms:eu-central-1:111122223333:key/1\", ssm = \"/payments/seed\" }";
        let kms = "[workload]
aws_credentials = true
[kms]
endpoint = \"https://kms.eu-central-1.amazonaws.com\"
[network]";
        let services = format!("{kms}\naws_services = [\"kms\", \"ssm\"]\n{wrapped}");
        assert!(read(&services).unwrap().keys.is_some());
        let egress = [
            "egress = [\"kms.eu-central-1.amazonaws.com:443\", \"ssm.eu-central-1.amazonaws.com:443\"]",
            "egress = [\"*.amazonaws.com:443\"]",
        ];
        for egress in egress {
            assert!(read(&format!("{kms}\n{egress}\n{wrapped}")).is_ok());
        }
        let siblings = "[keys]
family = \"payments\"
siblings = { signer = \"signer.pem\", generation = 1 }";
        assert!(read(siblings).is_ok());
        let later = siblings.replace("generation = 1", "generation = 2");
        let error = read(&later).unwrap_err();
        assert!(error.starts_with("/e.toml:"), "{error}");
        assert!(error.contains("`fingerprint`: write"), "{error}");
        let pin = "generation = 2, fingerprint = \"e9903d08a8b5bf5439229e7432653e04\"";
        assert!(read(&later.replace("generation = 2", pin)).is_ok());
        assert!(read(&format!("{siblings}\n[attestation]\nopen_registers = [30]")).is_ok());
        for (tables, message) in [
            (
                format!("{siblings}\n[attestation]\nopen_registers = [17, 31]"),
                "/e.toml:6: the family and its generation are measured into register 31",
            ),
            (wrapped.to_owned(), "/e.toml:6: the seed is KMS's to unwrap"),
            (
                format!("{kms}\naws_services = [\"kms\"]\n{wrapped}"),
                "/payments/seed of Systems Manager is out of reach",
            ),
        ] {
            let error = read(&tables).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
    }
}
