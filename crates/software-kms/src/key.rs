//! Keys and their policies.

use std::time::SystemTime;

use aws_lc_rs::error::Unspecified;
use key_policy::{Action, KeyArn, KeyArnError, Policy};
use thiserror::Error;

use crate::agreement::{AgreementKey, Curve, ECDH};
use crate::error::{Kind, Refusal};
use crate::key_id::KeyId;
use crate::symmetric::{SYMMETRIC_DEFAULT, SymmetricKey};

/// Where the material of every key comes from.
pub(crate) const ORIGIN: &str = "AWS_KMS";

/// Why there is no key.
#[derive(Debug, Error)]
pub enum KeyError {
    /// AWS-LC made none.
    #[error("a key cannot be made: the random number generator fails")]
    Random(#[from] Unspecified),
    /// The key would have no name.
    #[error("the KMS's region cannot be part of a key's ARN: {0}")]
    Region(#[from] KeyArnError),
}

/// What a key is for, and its algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeySpec {
    /// `SYMMETRIC_DEFAULT`, which encrypts and decrypts.
    SymmetricDefault,
    /// `ECC_NIST_P256`, on which secrets are agreed.
    EccNistP256,
    /// `ECC_NIST_P384`, on which secrets are agreed.
    EccNistP384,
}

impl KeySpec {
    /// The kind of key that a request wants.
    pub(crate) fn parse(spec: Option<&str>, usage: Option<&str>) -> Result<Self, Refusal> {
        let spec = match spec {
            None => Self::SymmetricDefault,
            Some(name) => Self::ALL
                .into_iter()
                .find(|spec| spec.name() == name)
                .ok_or_else(|| {
                    let names = Self::ALL.map(Self::name).join(", ");
                    Refusal::constraint("keySpec", &format!("satisfy enum value set: [{names}]"))
                })?,
        };
        match usage {
            Some(usage) if usage == spec.usage() => Ok(spec),
            None if spec == Self::SymmetricDefault => Ok(spec),
            Some(usage) => Err(Refusal::new(
                Kind::Validation,
                format!(
                    "KeyUsage {usage} is not compatible with KeySpec {}",
                    spec.name()
                ),
            )),
            None => Err(Refusal::new(
                Kind::Validation,
                "You must specify a KeyUsage value for all KMS keys except for symmetric encryption keys.",
            )),
        }
    }

    const ALL: [Self; 3] = [Self::SymmetricDefault, Self::EccNistP256, Self::EccNistP384];

    /// As KMS names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::SymmetricDefault => SYMMETRIC_DEFAULT,
            Self::EccNistP256 => "ECC_NIST_P256",
            Self::EccNistP384 => "ECC_NIST_P384",
        }
    }

    /// What KMS lets keys be used for.
    pub(crate) fn usage(self) -> &'static str {
        match self {
            Self::SymmetricDefault => "ENCRYPT_DECRYPT",
            Self::EccNistP256 | Self::EccNistP384 => "KEY_AGREEMENT",
        }
    }

    pub(crate) fn encryption_algorithms(self) -> Option<&'static [&'static str]> {
        (self == Self::SymmetricDefault).then_some(&[SYMMETRIC_DEFAULT])
    }

    pub(crate) fn key_agreement_algorithms(self) -> Option<&'static [&'static str]> {
        (self != Self::SymmetricDefault).then_some(&[ECDH])
    }
}

/// A key and its policy.
pub(crate) struct Key {
    pub(crate) id: KeyId,
    pub(crate) arn: KeyArn,
    pub(crate) policy: Policy,
    pub(crate) created: SystemTime,
    pub(crate) spec: KeySpec,
    material: Material,
}

enum Material {
    Symmetric(SymmetricKey),
    Agreement(AgreementKey),
}

impl Key {
    /// A new key, whose ARN begins with `prefix`.
    pub(crate) fn generate(
        prefix: &str,
        spec: KeySpec,
        policy: Policy,
        created: SystemTime,
    ) -> Result<Self, KeyError> {
        let id = KeyId::random()?;
        let agreement = |curve| AgreementKey::generate(curve).map(Material::Agreement);
        let material = match spec {
            KeySpec::SymmetricDefault => SymmetricKey::generate(id).map(Material::Symmetric),
            KeySpec::EccNistP256 => agreement(Curve::P256),
            KeySpec::EccNistP384 => agreement(Curve::P384),
        };
        Ok(Self {
            id,
            arn: format!("{prefix}:key/{id}").parse()?,
            policy,
            created,
            spec,
            material: material?,
        })
    }

    /// The key, if it can do what a call wants of a symmetric one.
    pub(crate) fn symmetric(&self, call: &Action) -> Result<&SymmetricKey, Refusal> {
        match &self.material {
            Material::Symmetric(key) => Ok(key),
            Material::Agreement(_) => Err(self.not_valid_for(call)),
        }
    }

    /// The key, if it can do what a call wants of one for agreements.
    pub(crate) fn agreement(&self, call: &Action) -> Result<&AgreementKey, Refusal> {
        match &self.material {
            Material::Agreement(key) => Ok(key),
            Material::Symmetric(_) => Err(self.not_valid_for(call)),
        }
    }

    /// `SubjectPublicKeyInfo`, DER, of a key that has a public half.
    pub(crate) fn public_key(&self) -> Option<&[u8]> {
        match &self.material {
            Material::Agreement(key) => Some(&key.public_key),
            Material::Symmetric(_) => None,
        }
    }

    fn not_valid_for(&self, call: &Action) -> Refusal {
        let call = call.as_str().trim_start_matches("kms:");
        let usage = self.spec.usage();
        Refusal::new(
            Kind::InvalidKeyUsage,
            format!(
                "{} key usage is {usage} which is not valid for {call}.",
                self.arn
            ),
        )
    }
}
