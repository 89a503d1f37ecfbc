//! The keys that the enclaves of a family share.

use aws_endpoint::Service;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::name::EnclaveName;
use crate::network::Network;
use crate::secrets::KeyArn;

/// The longest name of a parameter in bytes, as Systems Manager takes it.
const MAX_PARAMETER_BYTES: usize = 1011;

/// Why the `[keys]` table was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeysError {
    /// No name of a parameter.
    #[error(
        "`{0}` is not the name of a parameter: write letters, digits, `.`, `-`, `_` and `/`, a `/` first, as in `/payments/seed`"
    )]
    Parameter(String),
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
}

/// The `[keys]` table: whose seed the enclave has, and how it gets it. It is measured as it
/// is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// The family.
    pub family: EnclaveName,
    /// KMS unwraps the family's seed for attested enclaves.
    pub kms: WrappedSeed,
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

/// The name of a parameter that can be created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ParameterName(String);

impl Keys {
    /// Checks the table beside the others.
    pub(crate) fn check(&self, has_kms: bool, network: &Network) -> Result<(), KeysError> {
        if !has_kms {
            return Err(KeysError::NoKms);
        }
        if !network.reaches(Service::Ssm) {
            let parameter = self.kms.ssm.to_string();
            return Err(KeysError::OutOfReach { parameter });
        }
        Ok(())
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

    #[test]
    fn keys_are_measured_as_they_are_read() {
        let keys: Keys = serde_json::from_value(wrapped()).unwrap();
        assert_eq!(serde_json::to_value(keys).unwrap(), wrapped());
    }

    #[test]
    fn keys_have_names_that_can_be_used() {
        let with = |mut value: Value, pointer: &str, part: Value| {
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            value.pointer_mut(parent).unwrap()[name] = part;
            value
        };
        for (value, message) in [
            (json!({"family": "a"}), "missing field `kms`"),
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
        for (tables, message) in [
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
