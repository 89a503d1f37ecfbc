//! The `[[secrets]]` tables as they are parsed.

use std::path::PathBuf;

use serde::Deserialize;

use super::source::{CiphertextSource, OriginSource, SealedSource, SecretSource};
use super::{
    Ciphertext, CiphertextBlob, EncryptionContext, Found, KeyArn, KmsEncrypted, OnChange,
    OnFailure, Outline, SecretError, SecretFile, SecretMode, SecretPath, StoredAt, VariableName,
    check_outlines,
};
use crate::name::EnclaveName;
use crate::units::Interval;

/// A table, before the rules that concern more than one value: an error about one of
/// these names the table's line, and the parser knows only the list's.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SecretTable {
    name: EnclaveName,
    kms: Option<KmsTable>,
    sealed: Option<SealedTable>,
    encryption_context: Option<EncryptionContext>,
    key_id: Option<KeyArn>,
    wait: Option<Interval>,
    file: Option<SecretPath>,
    env: Option<VariableName>,
    #[serde(default)]
    api: bool,
    mode: Option<SecretMode>,
    refresh: Option<Interval>,
    on_change: Option<OnChange>,
    on_failure: Option<OnFailure>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SealedTable {
    sender: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KmsTable {
    ciphertext: Option<CiphertextBlob>,
    file: Option<PathBuf>,
    ssm: Option<String>,
    secretsmanager: Option<String>,
    s3: Option<String>,
}

impl KmsTable {
    fn ciphertext(self) -> Result<CiphertextSource, SecretError> {
        let Self {
            ciphertext,
            file,
            ssm,
            secretsmanager,
            s3,
        } = self;
        let stored = |place| CiphertextSource::Measured(Ciphertext::Stored(place));
        match (ciphertext, file, ssm, secretsmanager, s3) {
            (Some(blob), None, None, None, None) => {
                Ok(CiphertextSource::Measured(Ciphertext::Inline(blob)))
            }
            (None, Some(path), None, None, None) if !path.as_os_str().is_empty() => {
                Ok(CiphertextSource::File(path))
            }
            (None, None, Some(name), None, None) => StoredAt::ssm(name).map(stored),
            (None, None, None, Some(name), None) => StoredAt::secretsmanager(name).map(stored),
            (None, None, None, None, Some(address)) => StoredAt::s3(&address).map(stored),
            _ => Err(SecretError::Place),
        }
    }
}

impl SecretTable {
    /// The secret; an error names the key.
    fn parse(mut self) -> Result<SecretSource, (&'static str, SecretError)> {
        if self.file.is_none() && self.mode.is_some() {
            return Err(("mode", SecretError::ModeAlone));
        }
        let origin = match (self.kms.take(), self.sealed.take()) {
            (Some(kms), None) => self.kms(kms)?,
            (None, Some(sealed)) => self.sealed(sealed)?,
            _ => return Err(("name", SecretError::Origin)),
        };
        let is_awaited = match &origin {
            OriginSource::Kms(_) => true,
            OriginSource::Sealed(sealed) => sealed.wait.is_some(),
        };
        if !is_awaited && self.on_failure.is_some() {
            return Err(("on_failure", SecretError::ForApi("on_failure")));
        }
        let mode = self.mode.unwrap_or_default();
        Ok(SecretSource {
            name: self.name,
            origin,
            file: self.file.map(|path| SecretFile { path, mode }),
            env: self.env,
            api: self.api,
            refresh: self.refresh,
            on_change: self.on_change,
            on_failure: self.on_failure.unwrap_or(if is_awaited {
                OnFailure::Stop
            } else {
                OnFailure::Continue
            }),
        })
    }

    fn kms(&mut self, kms: KmsTable) -> Result<OriginSource, (&'static str, SecretError)> {
        if self.wait.is_some() {
            return Err(("wait", SecretError::WaitForKms));
        }
        let ciphertext = kms.ciphertext().map_err(|error| ("kms", error))?;
        Ok(OriginSource::Kms(KmsEncrypted {
            ciphertext,
            encryption_context: self.encryption_context.take().unwrap_or_default(),
            key_id: self.key_id.take(),
        }))
    }

    fn sealed(&self, sealed: SealedTable) -> Result<OriginSource, (&'static str, SecretError)> {
        for (key, is_given) in [
            ("encryption_context", self.encryption_context.is_some()),
            ("key_id", self.key_id.is_some()),
        ] {
            if is_given {
                return Err((key, SecretError::OfKms(key)));
            }
        }
        let is_for_start = self.file.is_some() || self.env.is_some();
        Ok(OriginSource::Sealed(SealedSource {
            sender: sealed.sender,
            wait: self
                .wait
                .or_else(|| is_for_start.then_some(Interval::DEFAULT_WAIT)),
        }))
    }
}

/// The secrets of these tables.
pub(crate) fn parse(tables: Vec<SecretTable>) -> Result<Vec<SecretSource>, Found> {
    let sources = tables
        .into_iter()
        .enumerate()
        .map(|(index, table)| table.parse().map_err(|(key, error)| (index, key, error)));
    let sources = sources.collect::<Result<Vec<_>, Found>>()?;
    check_outlines(sources.iter().map(|source| Outline {
        name: &source.name,
        kind: source.kind(),
        file: source.file.as_ref().map(|file| &file.path),
        env: source.env.as_ref(),
        api: source.api,
        refresh: source.refresh,
        has_on_change: source.on_change.is_some(),
        on_failure: source.on_failure,
    }))?;
    Ok(sources)
}
