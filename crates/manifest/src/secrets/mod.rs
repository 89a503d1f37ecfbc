//! Secrets that the image declares: where each comes from, and how the workload gets it.

mod source;
mod value;

use std::collections::BTreeSet;

use aws_endpoint::Service;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use self::source::{CiphertextSource, SecretSource};
pub(crate) use self::source::{SecretTable, check_network, check_variables, parse};
pub use self::value::{
    ChangeSignal, CiphertextBlob, EncryptionContext, KeyArn, MAX_CIPHERTEXT_BYTES, OnChange,
    OnFailure, SECRETS_FOLDER, SecretMode, SecretPath, StoredAt, VariableName,
};
use crate::name::EnclaveName;
use crate::units::Interval;

/// Most secrets of an image.
pub const MAX_SECRETS: usize = 64;

/// Why a secret was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SecretError {
    /// More than [`MAX_SECRETS`].
    #[error("{0} secrets are more than the {MAX_SECRETS} that are allowed")]
    Count(usize),
    /// Two secrets have one name.
    #[error("the secret `{0}` is declared twice: give each its own name")]
    NameTwice(EnclaveName),
    /// Nothing says where it comes from.
    #[error(
        "nothing says where the secret comes from: write `kms = {{ ciphertext = \"BASE64\" }}`, or one of `file`, `ssm` and `secretsmanager` instead of `ciphertext`"
    )]
    NoOrigin,
    /// More places than one for a ciphertext, or none.
    #[error(
        "kms needs one place of the ciphertext: write one of `ciphertext`, `file`, `ssm` and `secretsmanager`, as in `kms = {{ file = \"password.kms\" }}`"
    )]
    Place,
    /// It would not be delivered.
    #[error(
        "the workload would not get the secret: write `file = \"{SECRETS_FOLDER}/NAME\"`, `env = \"NAME\"`, or both"
    )]
    NoDelivery,
    /// Two secrets go to one file.
    #[error("the file `{0}` is another secret's, too: give each its own")]
    FileTwice(SecretPath),
    /// Two secrets go to one variable.
    #[error("the environment variable `{}` is another secret's, too: give each its own", &**.0)]
    VariableTwice(VariableName),
    /// A variable that the workload's environment has from elsewhere.
    #[error("the environment variable `{name}` is set by {by}: give the secret another `env`")]
    VariableTaken {
        /// The variable.
        name: String,
        /// What sets it.
        by: &'static str,
    },
    /// A mode of no file.
    #[error("mode is that of `file`, which is not given: add `file`, or remove `mode`")]
    ModeAlone,
    /// Nothing outside the image could change.
    #[error(
        "refresh looks for another ciphertext where it is stored, and this one is part of the image: use `ssm` or `secretsmanager`, or remove `refresh`"
    )]
    RefreshOfImage,
    /// Shorter than is allowed.
    #[error("refresh of {0} is too often: write at least `1s`")]
    RefreshTooOften(Interval),
    /// Nothing would be noticed to change.
    #[error(
        "on_change follows a refresh, and there is none: add `refresh`, as in `refresh = \"10m\"`, or remove `on_change`"
    )]
    ChangeWithoutRefresh,
    /// What has the ciphertext cannot be reached.
    #[error(
        "{place} is out of reach: write `aws_services = [\"{service}\"]` in [network], or name the service's host in `egress`, as in `egress = [\"{}:443\"]`",
        service.host("eu-central-1", aws_endpoint::Variant::default())
    )]
    OutOfReach {
        /// Where the ciphertext is.
        place: String,
        /// The service.
        service: Service,
    },
    /// Nothing opens it.
    #[error(
        "the secret is KMS's to decrypt, and nothing says which KMS: add a table [kms], as in `endpoint = \"https://kms.eu-central-1.amazonaws.com\"`"
    )]
    NoKms,
    /// Not base64.
    #[error(
        "the ciphertext is not base64: write the `CiphertextBlob` that `aws kms encrypt` prints, without spaces and line ends"
    )]
    Base64,
    /// Nothing, or more than KMS takes.
    #[error(
        "a ciphertext of {0} bytes cannot be KMS's, which is one of 1 to {MAX_CIPHERTEXT_BYTES} bytes"
    )]
    CiphertextSize(usize),
    /// No name of a parameter or a secret.
    #[error(
        "`{0}` is not the name of a stored ciphertext: write the name or the ARN, at most 2048 visible characters without spaces"
    )]
    StoredName(String),
    /// Not an ARN of a key.
    #[error(
        "`{0}` is not the ARN of a key: write what KMS says that it used, as in `arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab`; an alias is not told by KMS"
    )]
    KeyArn(String),
    /// An encryption context with an empty name, or more than fits.
    #[error("encryption_context has names that are not empty, and at most {0} bytes in all")]
    Context(usize),
    /// A file elsewhere.
    #[error(
        "`{0}` is not a place for a secret: write `{SECRETS_FOLDER}/NAME` with letters, digits, `.`, `_` and `-`, no dot first, and at most 254 of them"
    )]
    Path(String),
    /// Another mode.
    #[error(
        "mode `{0}` is not one of a secret: write `0400`, `0440` or `0444`, because nobody writes to the file or executes it"
    )]
    Mode(String),
    /// No name of a variable.
    #[error(
        "`{0}` is not a name for a secret's environment variable: use 1 to 255 letters, digits and underscores, and no digit first"
    )]
    Variable(String),
}

/// A declared secret as it is measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secret {
    /// What it is called in messages.
    pub name: EnclaveName,
    /// Where it comes from.
    pub origin: SecretOrigin,
    /// The file that it is delivered as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<SecretFile>,
    /// The environment variable that it is delivered in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<VariableName>,
    /// How often another ciphertext is looked for where it is stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh: Option<Interval>,
    /// What follows a change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_change: Option<OnChange>,
    /// What follows if it cannot be had before the workload starts.
    pub on_failure: OnFailure,
}

/// Where a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum SecretOrigin {
    /// KMS decrypts it for the attested enclave.
    Kms(KmsEncrypted<Ciphertext>),
}

/// What KMS decrypts; `C` is how the ciphertext is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KmsEncrypted<C> {
    /// The ciphertext, or where it is.
    pub ciphertext: C,
    /// What it is bound to.
    #[serde(default, skip_serializing_if = "EncryptionContext::is_empty")]
    pub encryption_context: EncryptionContext,
    /// The key that KMS must have used, if it is to be checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<KeyArn>,
}

/// The ciphertext, or where it is, as it is measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Place", into = "Place")]
pub enum Ciphertext {
    /// Part of the image.
    Inline(CiphertextBlob),
    /// Fetched.
    Stored(StoredAt),
}

/// A file in [`SECRETS_FOLDER`], which the workload's user owns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretFile {
    /// Where it is.
    pub path: SecretPath,
    /// Who may read it.
    pub mode: SecretMode,
}

/// A measured place as it is written.
#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Place {
    #[serde(skip_serializing_if = "Option::is_none")]
    inline: Option<CiphertextBlob>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ssm: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secretsmanager: Option<String>,
}

impl TryFrom<Place> for Ciphertext {
    type Error = SecretError;

    fn try_from(place: Place) -> Result<Self, SecretError> {
        match (place.inline, place.ssm, place.secretsmanager) {
            (Some(blob), None, None) => Ok(Self::Inline(blob)),
            (None, Some(name), None) => StoredAt::ssm(name).map(Self::Stored),
            (None, None, Some(name)) => StoredAt::secretsmanager(name).map(Self::Stored),
            _ => Err(SecretError::Place),
        }
    }
}

impl From<Ciphertext> for Place {
    fn from(ciphertext: Ciphertext) -> Self {
        let mut place = Self::default();
        match ciphertext {
            Ciphertext::Inline(blob) => place.inline = Some(blob),
            Ciphertext::Stored(StoredAt::Ssm(name)) => place.ssm = Some(name),
            Ciphertext::Stored(StoredAt::SecretsManager(name)) => place.secretsmanager = Some(name),
        }
        place
    }
}

/// What the rules for more than one value look at.
struct Outline<'a> {
    name: &'a EnclaveName,
    is_stored: bool,
    file: Option<&'a SecretPath>,
    env: Option<&'a VariableName>,
    refresh: Option<Interval>,
    on_change: Option<OnChange>,
}

/// Which secret is wrong, counted from zero, at which key.
pub(crate) type Found = (usize, &'static str, SecretError);

/// Checks measured secrets.
pub(crate) fn check(secrets: &[Secret], has_kms: bool) -> Result<(), SecretError> {
    if !has_kms && !secrets.is_empty() {
        return Err(SecretError::NoKms);
    }
    let outlines = secrets.iter().map(|secret| {
        let SecretOrigin::Kms(encrypted) = &secret.origin;
        Outline {
            name: &secret.name,
            is_stored: matches!(encrypted.ciphertext, Ciphertext::Stored(_)),
            file: secret.file.as_ref().map(|file| &file.path),
            env: secret.env.as_ref(),
            refresh: secret.refresh,
            on_change: secret.on_change,
        }
    });
    check_outlines(outlines).map_err(|(_, _, error)| error)
}

fn check_outlines<'a>(secrets: impl ExactSizeIterator<Item = Outline<'a>>) -> Result<(), Found> {
    if secrets.len() > MAX_SECRETS {
        return Err((MAX_SECRETS, "name", SecretError::Count(secrets.len())));
    }
    let (mut names, mut files, mut variables) = Default::default();
    for (index, secret) in secrets.enumerate() {
        check_outline(&secret).map_err(|(key, error)| (index, key, error))?;
        if !is_new(&mut names, secret.name) {
            let error = SecretError::NameTwice(secret.name.clone());
            return Err((index, "name", error));
        }
        if let Some(file) = secret.file.filter(|file| !is_new(&mut files, *file)) {
            return Err((index, "file", SecretError::FileTwice(file.clone())));
        }
        if let Some(name) = secret.env.filter(|name| !is_new(&mut variables, *name)) {
            return Err((index, "env", SecretError::VariableTwice(name.clone())));
        }
    }
    Ok(())
}

fn is_new<T: Ord>(seen: &mut BTreeSet<T>, value: T) -> bool {
    seen.insert(value)
}

/// Checks what concerns one secret alone; an error names the key.
fn check_outline(secret: &Outline<'_>) -> Result<(), (&'static str, SecretError)> {
    if secret.file.is_none() && secret.env.is_none() {
        return Err(("name", SecretError::NoDelivery));
    }
    match (secret.refresh, secret.on_change) {
        (Some(_), _) if !secret.is_stored => Err(("refresh", SecretError::RefreshOfImage)),
        (Some(interval), _) if interval < Interval::SHORTEST_REFRESH => {
            Err(("refresh", SecretError::RefreshTooOften(interval)))
        }
        (None, Some(_)) => Err(("on_change", SecretError::ChangeWithoutRefresh)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn complete() -> Value {
        json!({
            "name": "database-password",
            "origin": {"kms": {
                "ciphertext": {"ssm": "/app/password"},
                "encryption_context": {"app": "demo"},
                "key_id": "arn:aws:kms:eu-central-1:111122223333:key/1"
            }},
            "file": {"path": "/run/secrets/password", "mode": "0400"},
            "env": "DATABASE_PASSWORD",
            "refresh": "10m",
            "on_change": {"signal": "SIGHUP"},
            "on_failure": "stop"
        })
    }

    fn read(value: Value) -> Result<Vec<Secret>, String> {
        let secrets: Vec<Secret> =
            serde_json::from_value(value).map_err(|error| error.to_string())?;
        check(&secrets, true).map_err(|error| error.to_string())?;
        Ok(secrets)
    }

    #[test]
    fn secrets_are_measured_as_they_are_read() {
        let mut inline = complete();
        for place in [
            json!({"ssm": "/app/password"}),
            json!({"secretsmanager": "app/password"}),
        ] {
            inline["origin"]["kms"]["ciphertext"] = place;
            let secrets = read(json!([inline])).unwrap();
            assert_eq!(serde_json::to_value(&secrets).unwrap(), json!([inline]));
        }
        let least = json!({
            "name": "a",
            "origin": {"kms": {"ciphertext": {"inline": "AQID"}}},
            "env": "A",
            "on_failure": "continue"
        });
        let secrets = read(json!([least])).unwrap();
        assert_eq!(serde_json::to_value(&secrets).unwrap(), json!([least]));
    }

    #[test]
    fn secrets_that_contradict_themselves_or_others_are_refused() {
        let with = |pointer: &str, value: Value| {
            let mut secret = complete();
            match value {
                Value::Null => drop(secret.as_object_mut().unwrap().remove(&pointer[1..])),
                value => *secret.pointer_mut(pointer).unwrap() = value,
            }
            secret
        };
        let twice = |pointer: &str| {
            // All but this are the second one's own.
            let mut second = complete();
            second["name"] = json!("b");
            second["file"]["path"] = json!("/run/secrets/b");
            second["env"] = json!("B");
            let same = complete().pointer(pointer).unwrap().clone();
            *second.pointer_mut(pointer).unwrap() = same;
            json!([complete(), second])
        };
        for (secrets, message) in [
            (twice("/name"), "`database-password` is declared twice"),
            (twice("/file/path"), "`/run/secrets/password` is another"),
            (twice("/env"), "`DATABASE_PASSWORD` is another secret's"),
            (
                json!([with("/origin/kms/ciphertext", json!({}))]),
                "needs one place",
            ),
            (
                json!([with(
                    "/origin/kms/ciphertext",
                    json!({"ssm": "a", "secretsmanager": "b"})
                )]),
                "needs one place",
            ),
            (
                json!([with("/origin/kms/ciphertext", json!({"inline": "AQID"}))]),
                "part of the image",
            ),
            (json!([with("/refresh", json!("999ms"))]), "too often"),
            (json!([with("/refresh", Value::Null)]), "there is none"),
            (
                json!([with("/origin", json!({"other": {}}))]),
                "unknown variant",
            ),
            (
                json!([{"name": "a", "origin": complete()["origin"], "on_failure": "stop"}]),
                "would not get the secret",
            ),
        ] {
            let error = read(secrets.clone()).unwrap_err();
            assert!(error.contains(message), "{secrets}: {error}");
        }
        let secrets: Vec<Secret> = serde_json::from_value(json!([complete()])).unwrap();
        assert_eq!(check(&secrets, false), Err(SecretError::NoKms));
        assert_eq!(check(&[], false), Ok(()));
        let many = |count: usize| -> Value {
            let secret = |index| {
                json!({
                    "name": format!("s{index}"),
                    "origin": {"kms": {"ciphertext": {"inline": "AQID"}}},
                    "env": format!("S{index}"),
                    "on_failure": "stop"
                })
            };
            (0..count).map(secret).collect()
        };
        assert!(read(many(MAX_SECRETS)).is_ok());
        let error = read(many(MAX_SECRETS + 1)).unwrap_err();
        assert!(error.contains("65 secrets are more"), "{error}");
    }
}
