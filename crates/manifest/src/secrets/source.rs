//! The `[[secrets]]` of a manifest, and what they need of its other tables.

use std::path::{Path, PathBuf};

use super::{
    Ciphertext, CiphertextBlob, Found, Kind, KmsEncrypted, OnChange, OnFailure, Sealed, Secret,
    SecretError, SecretFile, SecretOrigin, StoredAt, VariableName,
};
use crate::name::EnclaveName;
use crate::network::Network;
use crate::units::Interval;
use crate::workload::WorkloadSource;

/// Variables that the init sets.
const OF_THE_INIT: [&str; 5] = [
    "ENCLAVE_API",
    "ENCLAVE_RUNTIME_CONFIG",
    "HOSTNAME",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
];

/// A declared secret as a person writes it. In a [`Manifest`](crate::Manifest), relative
/// paths have been joined to the manifest's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretSource {
    /// What it is called in messages.
    pub name: EnclaveName,
    /// Where it comes from.
    pub origin: OriginSource,
    /// The file that it is delivered as.
    pub file: Option<SecretFile>,
    /// The environment variable that it is delivered in.
    pub env: Option<VariableName>,
    /// Whether the local API answers it.
    pub api: bool,
    /// How often another ciphertext is looked for where it is stored.
    pub refresh: Option<Interval>,
    /// What follows a change.
    pub on_change: Option<OnChange>,
    /// What follows if it cannot be had before the workload starts.
    pub on_failure: OnFailure,
}

/// Where a secret comes from, as a person writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OriginSource {
    /// KMS decrypts it.
    Kms(KmsEncrypted<CiphertextSource>),
    /// Somebody seals it.
    Sealed(SealedSource),
}

/// Who seals a secret, as a person writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedSource {
    /// The PEM file with the sender's public key, which is read when the image is built.
    pub sender: PathBuf,
    /// How long the workload's start waits for it; absent if it does not.
    pub wait: Option<Interval>,
}

/// The ciphertext, or where it is, as a person writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CiphertextSource {
    /// In a file, which is read when the image is built.
    File(PathBuf),
    /// As it is measured.
    Measured(Ciphertext),
}

impl SecretSource {
    /// The secret as it is measured; `ciphertext` and `sender` read the files that it
    /// names.
    pub fn measured<E>(
        &self,
        ciphertext: impl FnOnce(&Path) -> Result<CiphertextBlob, E>,
        sender: impl FnOnce(&Path) -> Result<String, E>,
    ) -> Result<Secret, E> {
        let origin = match &self.origin {
            OriginSource::Kms(encrypted) => SecretOrigin::Kms(KmsEncrypted {
                ciphertext: match &encrypted.ciphertext {
                    CiphertextSource::File(path) => Ciphertext::Inline(ciphertext(path)?),
                    CiphertextSource::Measured(ciphertext) => ciphertext.clone(),
                },
                encryption_context: encrypted.encryption_context.clone(),
                key_id: encrypted.key_id.clone(),
            }),
            OriginSource::Sealed(sealed) => SecretOrigin::Sealed(Sealed {
                sender: sender(&sealed.sender)?,
                wait: sealed.wait,
            }),
        };
        Ok(Secret {
            name: self.name.clone(),
            origin,
            file: self.file.clone(),
            env: self.env.clone(),
            api: self.api,
            refresh: self.refresh,
            on_change: self.on_change.clone(),
            on_failure: self.on_failure,
        })
    }

    /// The key that names where it comes from.
    pub fn origin_key(&self) -> &'static str {
        match self.origin {
            OriginSource::Kms(_) => "kms",
            OriginSource::Sealed(_) => "sealed",
        }
    }

    pub(crate) fn join_to(&mut self, folder: &Path) {
        match &mut self.origin {
            OriginSource::Kms(KmsEncrypted {
                ciphertext: CiphertextSource::File(path),
                ..
            }) => *path = folder.join(&*path),
            OriginSource::Sealed(sealed) => sealed.sender = folder.join(&sealed.sender),
            OriginSource::Kms(_) => {}
        }
    }

    fn stored_at(&self) -> Option<&StoredAt> {
        match &self.origin {
            OriginSource::Kms(KmsEncrypted {
                ciphertext: CiphertextSource::Measured(Ciphertext::Stored(place)),
                ..
            }) => Some(place),
            OriginSource::Kms(_) | OriginSource::Sealed(_) => None,
        }
    }

    pub(super) fn kind(&self) -> Kind {
        match &self.origin {
            OriginSource::Sealed(sealed) => Kind::Sealed {
                is_awaited: sealed.wait.is_some(),
            },
            OriginSource::Kms(_) if self.stored_at().is_some() => Kind::Stored,
            OriginSource::Kms(_) => Kind::Inline,
        }
    }
}

/// Refuses secrets of KMS's where nothing says which KMS.
pub(crate) fn check_kms(secrets: &[SecretSource], has_kms: bool) -> Result<(), Found> {
    let is_kms = |secret: &SecretSource| matches!(secret.origin, OriginSource::Kms(_));
    match secrets.iter().position(is_kms) {
        Some(index) if !has_kms => Err((index, "kms", SecretError::NoKms)),
        _ => Ok(()),
    }
}

/// Refuses ciphertexts that are stored where the enclave cannot connect to.
pub(crate) fn check_network(secrets: &[SecretSource], network: &Network) -> Result<(), Found> {
    for (index, secret) in secrets.iter().enumerate() {
        let Some(place) = secret.stored_at() else {
            continue;
        };
        let service = place.service();
        if !network.reaches(service) {
            let place = place.to_string();
            let error = SecretError::OutOfReach { place, service };
            return Err((index, "kms", error));
        }
    }
    Ok(())
}

/// Refuses variables that the environment has already.
pub(crate) fn check_variables(
    secrets: &[SecretSource],
    workloads: &[WorkloadSource],
    has_kms: bool,
) -> Result<(), Found> {
    let has_credentials = workloads.iter().any(|workload| workload.aws_credentials);
    let has_variable = |name: &str| {
        let mut environments = workloads.iter().map(|workload| &workload.env);
        environments.any(|environment| environment.contains_key(name))
    };
    for (index, secret) in secrets.iter().enumerate() {
        let Some(name) = &secret.env else { continue };
        let by = if has_variable(name) {
            "workload.env"
        } else if OF_THE_INIT.contains(&&**name) {
            "the enclave itself"
        } else if has_credentials && crate::contradiction::is_of_credentials(name) {
            "workload.aws_credentials, or overrides what it gives"
        } else if has_kms && crate::kms::is_of_endpoint(name) {
            "the enclave itself, or has AWS's SDKs call another KMS than that of [kms]"
        } else {
            continue;
        };
        let name = name.to_string();
        return Err((index, "env", SecretError::VariableTaken { name, by }));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::source::Manifest;

    use super::*;

    /// What a secret needs besides, with this network.
    fn kms(network: &str) -> String {
        format!(
            "[workload]\naws_credentials = true\n[kms]\nendpoint = \"https://kms.eu-central-1.amazonaws.com\"\n[network]\n{network}"
        )
    }

    fn manifest(tables: &str) -> Result<Manifest, String> {
        let text = format!("[enclave]\nname = \"a\"\nimage = \"oci:x\"\n{tables}\n");
        Manifest::parse(&text, Path::new("/project/e.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn secrets_of_every_place_are_read() {
        let manifest = manifest(
            "
[network]
aws_services = [\"kms\", \"ssm\", \"secretsmanager\", \"s3\"]
[workload]
aws_credentials = true
[kms]
endpoint = \"https://kms.eu-west-1.amazonaws.com\"
[[secrets]]
name = \"inline\"
kms = { ciphertext = \"AQID\" }
env = \"INLINE\"
[[secrets]]
name = \"file\"
kms = { file = \"password.kms\" }
encryption_context = { app = \"demo\" }
key_id = \"arn:aws:kms:eu-central-1:111122223333:key/1\"
file = \"/run/secrets/file\"
[[secrets]]
name = \"parameter\"
kms = { ssm = \"/app/password\" }
file = \"/run/secrets/parameter\"
mode = \"0440\"
refresh = \"10m\"
on_change = { signal = \"SIGHUP\" }
on_failure = \"continue\"
[[secrets]]
name = \"secret\"
kms = { secretsmanager = \"app/password\" }
env = \"SECRET\"
[[secrets]]
name = \"object\"
kms = { s3 = \"s3://bucket/app/password\" }
env = \"OBJECT\"
refresh = \"1h\"
on_change = { signal = \"SIGUSR1\" }
",
        )
        .unwrap();
        let [inline, file, parameter, ..] = &manifest.secrets[..] else {
            panic!("{:?}", manifest.secrets);
        };
        assert_eq!(inline.on_failure, OnFailure::Stop);
        assert_eq!(file.file.as_ref().unwrap().mode.bits(), 0o400);
        assert_eq!(parameter.file.as_ref().unwrap().mode.bits(), 0o440);
        let read = |path: &Path| {
            assert_eq!(path, Path::new("/project/password.kms"));
            CiphertextBlob::try_from(vec![7])
        };
        let measured = file.measured(read, |_| unreachable!()).unwrap();
        let SecretOrigin::Kms(measured) = measured.origin else {
            panic!("{measured:?}");
        };
        assert!(matches!(measured.ciphertext, Ciphertext::Inline(blob) if *blob == [7]));
        assert_eq!(manifest.secrets.len(), 5);
    }

    #[test]
    fn secrets_that_are_sealed_are_read() {
        let manifest = manifest(
            "
[[secrets]]
name = \"file\"
sealed = { sender = \"operator.pem\" }
file = \"/run/secrets/file\"
[[secrets]]
name = \"late\"
sealed = { sender = \"operator.pem\" }
env = \"LATE\"
api = true
wait = \"30s\"
on_change = { signal = \"SIGHUP\" }
on_failure = \"continue\"
[[secrets]]
name = \"asked\"
sealed = { sender = \"operator.pem\" }
api = true
",
        )
        .unwrap();
        let measured = manifest.secrets.iter().map(|secret| {
            let sender = |path: &Path| {
                assert_eq!(path, Path::new("/project/operator.pem"));
                Ok::<_, SecretError>("key".to_owned())
            };
            secret.measured(|_| unreachable!(), sender).unwrap()
        });
        let measured: Vec<_> = measured.collect();
        let waits = measured.iter().map(|secret| match &secret.origin {
            SecretOrigin::Sealed(sealed) => sealed.wait.map(|wait| wait.to_string()),
            SecretOrigin::Kms(_) => panic!("{secret:?}"),
        });
        let waits: Vec<_> = waits.collect();
        assert_eq!(
            waits,
            [Some("10m".to_owned()), Some("30s".to_owned()), None]
        );
        let on_failure: Vec<_> = measured.iter().map(|secret| secret.on_failure).collect();
        let (stop, go_on) = (OnFailure::Stop, OnFailure::Continue);
        assert_eq!(on_failure, [stop, go_on, go_on]);
        assert_eq!(super::super::check(&measured, false), Ok(()));
    }

    #[test]
    fn secrets_that_are_wrong_are_named_with_their_line() {
        let kms = "kms = { ciphertext = \"AQID\" }";
        let sealed = "sealed = { sender = \"operator.pem\" }";
        for (lines, message) in [
            (format!("{kms}\nenv = \"A\""), "4: missing field `name`"),
            (
                "name = \"a\"\nenv = \"A\"".to_owned(),
                "5: a secret comes from one place",
            ),
            (
                format!("name = \"a\"\n{kms}\n{sealed}\nenv = \"A\""),
                "5: a secret comes from one place",
            ),
            (
                format!(
                    "name = \"a\"\n{sealed}\nenv = \"A\"\nkey_id = \"arn:aws:kms:eu-central-1:111122223333:key/1\""
                ),
                "8: `key_id` is that of a ciphertext of KMS's",
            ),
            (
                format!("name = \"a\"\n{sealed}\nenv = \"A\"\nencryption_context = {{}}"),
                "8: `encryption_context` is that of a ciphertext of KMS's",
            ),
            (
                format!("name = \"a\"\n{sealed}\nenv = \"A\"\nrefresh = \"1m\""),
                "8: refresh looks for another ciphertext, and this secret is sealed",
            ),
            (
                format!(
                    "name = \"a\"\n{sealed}\nenv = \"A\"\non_change = {{ signal = \"SIGHUP\" }}"
                ),
                "8: on_change would never happen",
            ),
            (
                format!("name = \"a\"\n{sealed}\napi = true\nwait = \"1m\""),
                "8: `wait` is for secrets that the workload's start waits for",
            ),
            (
                format!("name = \"a\"\n{sealed}\napi = true\non_failure = \"stop\""),
                "8: `on_failure` is for secrets that the workload's start waits for",
            ),
            (
                format!("name = \"a\"\n{kms}\napi = true\nwait = \"1m\""),
                "8: `wait` is for sealed secrets",
            ),
            (
                "name = \"a\"\nsealed = {}\nenv = \"A\"".to_owned(),
                "6: missing field `sender`",
            ),
            (
                "name = \"a\"\nkms = {}\nenv = \"A\"".to_owned(),
                "6: kms needs one place",
            ),
            (
                "name = \"a\"\nkms = { file = \"\" }\nenv = \"A\"".to_owned(),
                "6: kms needs one place",
            ),
            (
                "name = \"a\"\nkms = { ciphertext = \"?\" }\nenv = \"A\"".to_owned(),
                "6: the ciphertext is not base64",
            ),
            (
                "name = \"a\"\nkms = { ssm = \"a b\" }\nenv = \"A\"".to_owned(),
                "6: `a b` is not the name of a stored ciphertext",
            ),
            (format!("name = \"a\"\n{kms}"), "5: the workload would not"),
            (
                format!("name = \"a\"\n{kms}\nenv = \"A\"\nmode = \"0400\""),
                "8: mode is that of `file`",
            ),
            (
                format!("name = \"a\"\n{kms}\nfile = \"/run/secrets/a\"\nmode = \"0600\""),
                "8: mode `0600` is not one of a secret",
            ),
            (
                format!("name = \"a\"\n{kms}\nfile = \"/etc/a\""),
                "7: `/etc/a` is not a place for a secret",
            ),
            (
                format!("name = \"a\"\n{kms}\nenv = \"A\"\nrefresh = \"1m\""),
                "8: refresh looks for another ciphertext",
            ),
            (
                format!("name = \"a\"\n{kms}\nenv = \"A\"\non_change = {{ signal = \"SIGHUP\" }}"),
                "8: on_change would never happen",
            ),
            (
                format!("name = \"a\"\n{kms}\nenv = \"A\"\nkey_id = \"alias/app\""),
                "8: `alias/app` is not the ARN of a key",
            ),
        ] {
            let error = manifest(&format!("[[secrets]]\n{lines}")).unwrap_err();
            assert!(error.contains(message), "{lines}: {error}");
        }
    }

    #[test]
    fn secrets_that_another_table_contradicts_are_named_with_their_line() {
        let kms = "kms = { ciphertext = \"AQID\" }";
        for (lines, message) in [
            (
                format!("name = \"a\"\n{kms}\nenv = \"HOSTNAME\""),
                "7: the environment variable `HOSTNAME` is set by the enclave itself",
            ),
            (
                format!("name = \"a\"\n{kms}\nenv = \"A\"\n[workload]\nenv = {{ A = \"\" }}"),
                "7: the environment variable `A` is set by workload.env",
            ),
            (
                format!(
                    "name = \"a\"\n{kms}\nenv = \"AWS_SESSION_TOKEN\"\n[workload]\naws_credentials = true"
                ),
                "7: the environment variable `AWS_SESSION_TOKEN` is set by workload.aws_credentials",
            ),
            (
                format!(
                    "name = \"a\"\n{kms}\nenv = \"AWS_ENDPOINT_URL_KMS\"\n[workload]\naws_credentials = true\n[network]\naws_services = [\"kms\"]\n[kms]\nendpoint = \"https://kms.eu-central-1.amazonaws.com\""
                ),
                "7: the environment variable `AWS_ENDPOINT_URL_KMS` is set by the enclave itself, or has AWS's SDKs call another KMS",
            ),
            (
                "name = \"a\"\nkms = { ssm = \"/a\" }\nenv = \"A\"".to_owned(),
                "6: the parameter /a of Systems Manager is out of reach: write `aws_services = [\"ssm\"]` in [network]",
            ),
            (
                "name = \"a\"\nkms = { ssm = \"/a\" }\nenv = \"A\"\n[network]\negress = [\"s3.eu-central-1.amazonaws.com:443\"]".to_owned(),
                "as in `egress = [\"ssm.eu-central-1.amazonaws.com:443\"]`",
            ),
            (
                "name = \"a\"\nkms = { s3 = \"s3://bucket/a\" }\nenv = \"A\"\n[network]\negress = [\"bucket.s3.eu-central-1.amazonaws.com:443\"]".to_owned(),
                "6: the object s3://bucket/a is out of reach: write `aws_services = [\"s3\"]`",
            ),
            (
                format!("name = \"a\"\n{kms}\nenv = \"A\""),
                "6: the secret is KMS's to decrypt, and nothing says which KMS: add a table [kms]",
            ),
            (
                format!("name = \"a\"\n{kms}\nenv = \"A\"\n[[secrets]]\nname = \"b\"\n{kms}\nenv = \"A\""),
                "11: the environment variable `A` is another secret's",
            ),
        ] {
            let error = manifest(&format!("[[secrets]]\n{lines}")).unwrap_err();
            assert!(error.contains(message), "{lines}: {error}");
        }
    }

    #[test]
    fn secrets_are_reached_by_a_service_a_host_or_a_pattern() {
        for network in [
            "aws_services = [\"kms\", \"ssm\"]",
            "aws_services = [\"kms\"]\negress = [\"ssm.eu-central-1.amazonaws.com:443\"]",
            "egress = [\"*.eu-central-1.amazonaws.com:443\"]",
        ] {
            let secret = "[[secrets]]\nname = \"a\"\nkms = { ssm = \"/a\" }\nenv = \"A\"";
            manifest(&format!("{secret}\n{}", kms(network))).unwrap();
        }
    }
}
