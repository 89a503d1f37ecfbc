//! Secrets that the image declares: where each comes from, and how the workload gets it.

mod ciphertext;
mod delivery;
mod error;
mod source;
mod table;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

pub use self::ciphertext::{
    CiphertextBlob, EncryptionContext, KeyArn, MAX_CIPHERTEXT_BYTES, StoredAt,
};
pub use self::delivery::{
    ChangeSignal, OnChange, OnFailure, Reaction, SECRETS_FOLDER, SecretMode, SecretPath,
    VariableName,
};
pub use self::error::SecretError;
pub use self::source::{CiphertextSource, OriginSource, SealedSource, SecretSource};
pub(crate) use self::source::{check_kms, check_network, check_variables};
pub(crate) use self::table::{SecretTable, parse};
use crate::name::EnclaveName;
use crate::units::Interval;
use crate::workloads::{Member, Workloads};

/// Most secrets of an image.
pub const MAX_SECRETS: usize = 64;

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
    /// Whether the local API answers it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub api: bool,
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
    /// Somebody seals it to the enclave while it runs.
    Sealed(Sealed),
}

/// What is sealed to a boot of the enclave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sealed {
    /// The Ed25519 key of whoever seals it: a `SubjectPublicKeyInfo` in DER, in base64.
    /// Whether it is one is for whoever verifies with it to find out.
    pub sender: String,
    /// How long the workload's start waits for it; absent if it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<Interval>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    s3: Option<String>,
}

impl TryFrom<Place> for Ciphertext {
    type Error = SecretError;

    fn try_from(place: Place) -> Result<Self, SecretError> {
        match (place.inline, place.ssm, place.secretsmanager, place.s3) {
            (Some(blob), None, None, None) => Ok(Self::Inline(blob)),
            (None, Some(name), None, None) => StoredAt::ssm(name).map(Self::Stored),
            (None, None, Some(name), None) => StoredAt::secretsmanager(name).map(Self::Stored),
            (None, None, None, Some(address)) => StoredAt::s3(&address).map(Self::Stored),
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
            Ciphertext::Stored(StoredAt::S3(object)) => place.s3 = Some(object.to_string()),
        }
        place
    }
}

/// What the rules for more than one value look at.
struct Outline<'a> {
    name: &'a EnclaveName,
    kind: Kind,
    file: Option<&'a SecretPath>,
    env: Option<&'a VariableName>,
    api: bool,
    refresh: Option<Interval>,
    has_on_change: bool,
    on_failure: OnFailure,
}

/// Where a secret comes from, as far as rules tell origins apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Its ciphertext is part of the image.
    Inline,
    /// Its ciphertext is stored elsewhere.
    Stored,
    /// It is sealed, and the workload's start waits for it, or does not.
    Sealed { is_awaited: bool },
}

/// Refuses what follows changes for workloads that are not there, or that are not named where
/// there are several.
pub(crate) fn check_changes<'a, W: Member>(
    changes: impl Iterator<Item = Option<&'a OnChange>>,
    workloads: &Workloads<W>,
) -> Result<(), Found> {
    for (index, change) in changes.enumerate() {
        let Some(change) = change else { continue };
        let error = match (&change.workload, workloads) {
            (None, Workloads::One(_)) => continue,
            (None, Workloads::Several(several)) => {
                let first = several.iter().find(|workload| !workload.is_batch());
                match first.or(several.first()).and_then(Member::name) {
                    Some(name) => SecretError::ChangeOfAny(name.clone()),
                    None => continue,
                }
            }
            (Some(name), _) => match workloads.place(name).and_then(|place| workloads.get(place)) {
                None => SecretError::ChangeOfNobody(name.clone()),
                Some(workload) if workload.is_batch() => SecretError::ChangeOfBatch(name.clone()),
                Some(_) => continue,
            },
        };
        return Err((index, "on_change", error));
    }
    Ok(())
}

/// Which secret is wrong, counted from zero, at which key.
pub(crate) type Found = (usize, &'static str, SecretError);

/// Checks measured secrets.
pub(crate) fn check(secrets: &[Secret], has_kms: bool) -> Result<(), SecretError> {
    let is_kms = |secret: &Secret| matches!(secret.origin, SecretOrigin::Kms(_));
    if !has_kms && secrets.iter().any(is_kms) {
        return Err(SecretError::NoKms);
    }
    let outlines = secrets.iter().map(|secret| Outline {
        name: &secret.name,
        kind: match &secret.origin {
            SecretOrigin::Kms(encrypted) => match encrypted.ciphertext {
                Ciphertext::Inline(_) => Kind::Inline,
                Ciphertext::Stored(_) => Kind::Stored,
            },
            SecretOrigin::Sealed(Sealed { wait, .. }) => Kind::Sealed {
                is_awaited: wait.is_some(),
            },
        },
        file: secret.file.as_ref().map(|file| &file.path),
        env: secret.env.as_ref(),
        api: secret.api,
        refresh: secret.refresh,
        has_on_change: secret.on_change.is_some(),
        on_failure: secret.on_failure,
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
    let is_for_start = secret.file.is_some() || secret.env.is_some();
    if !is_for_start && !secret.api {
        return Err(("name", SecretError::NoDelivery));
    }
    match (secret.kind, secret.refresh) {
        (Kind::Sealed { .. }, Some(_)) => return Err(("refresh", SecretError::RefreshOfSealed)),
        (Kind::Inline, Some(_)) => return Err(("refresh", SecretError::RefreshOfImage)),
        (_, Some(interval)) if interval < Interval::SHORTEST_REFRESH => {
            return Err(("refresh", SecretError::RefreshTooOften(interval)));
        }
        _ => {}
    }
    let may_change = match secret.kind {
        Kind::Sealed { .. } => secret.on_failure == OnFailure::Continue,
        Kind::Inline | Kind::Stored => secret.refresh.is_some(),
    };
    if secret.has_on_change && !may_change {
        return Err(("on_change", SecretError::NoChange));
    }
    match secret.kind {
        Kind::Sealed { is_awaited } if is_awaited && !is_for_start => {
            Err(("wait", SecretError::ForApi("wait")))
        }
        Kind::Sealed { is_awaited } if !is_awaited && is_for_start => {
            Err(("wait", SecretError::NoWait))
        }
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

    fn sealed(wait: Option<&str>) -> Value {
        let mut sealed = json!({"sender": "a2V5"});
        if let Some(wait) = wait {
            sealed["wait"] = wait.into();
        }
        json!({ "sealed": sealed })
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
            json!({"s3": "s3://bucket/app/password"}),
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
        let sealed = json!({
            "name": "b",
            "origin": sealed(Some("10m")),
            "file": {"path": "/run/secrets/b", "mode": "0444"},
            "api": true,
            "on_failure": "stop"
        });
        let secrets = read(json!([least, sealed])).unwrap();
        assert_eq!(
            serde_json::to_value(&secrets).unwrap(),
            json!([least, sealed])
        );
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
            (json!([with("/refresh", Value::Null)]), "would never happen"),
            (
                json!([{"name": "a", "origin": sealed(None), "env": "A", "on_failure": "stop"}]),
                "has no `wait`",
            ),
            (
                json!([{"name": "a", "origin": sealed(Some("1m")), "api": true, "on_failure": "stop"}]),
                "remove `wait`",
            ),
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
