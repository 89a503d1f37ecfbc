//! The claims of a result, as they are read.

use std::collections::BTreeMap;

use attestation::{Pcr, Profile};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize};

use crate::freshness::Freshness;
use crate::issuer::submod_name;
use crate::rule::{ResultError, ResultRule, shown};
use crate::strict_json;
use crate::trust::Status;

/// Names of the claims that AR4SI defines for a vector (section 2.3.2).
const VECTOR: [&str; 8] = [
    "configuration",
    "executables",
    "file-system",
    "hardware",
    "instance-identity",
    "runtime-opaque",
    "sourced-data",
    "storage-opaque",
];

#[derive(Debug, Deserialize)]
pub(crate) struct Claims {
    pub(crate) eat_profile: String,
    pub(crate) iss: Option<String>,
    #[serde(default)]
    pub(crate) aud: serde_json::Value,
    pub(crate) iat: u64,
    pub(crate) nbf: Option<u64>,
    pub(crate) exp: u64,
    pub(crate) ear_verifier_id: VerifierId,
    pub(crate) ear_status: Status,
    eat_nonce: Option<Base64Url>,
    submods: BTreeMap<String, Submod>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct VerifierId {
    pub(crate) developer: String,
    pub(crate) build: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Submod {
    #[serde(rename = "ear_status")]
    pub(crate) status: Status,
    #[serde(rename = "ear_trustworthiness_vector")]
    pub(crate) vector: BTreeMap<String, i8>,
    #[serde(rename = "ear_appraisal_policy_ids", default)]
    pub(crate) policy_ids: Vec<String>,
    #[serde(rename = "ear_attester_claims")]
    pub(crate) attester_claims: Option<AttesterClaims>,
    #[serde(rename = "ear_verifier_claims")]
    pub(crate) verifier_claims: VerifierClaims,
}

/// What the document holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AttesterClaims {
    /// What it was made for, in the words of the report; none of a NitroTPM's.
    pub purpose: Option<String>,
    /// Who made it.
    pub module_id: String,
    /// When, in milliseconds since 1970.
    pub timestamp_ms: u64,
    /// The registers that are not zero.
    pub pcrs: BTreeMap<u8, Pcr>,
    /// Its nonce.
    #[serde(default, with = "hexadecimal")]
    pub nonce: Option<Vec<u8>>,
    /// What the software in the enclave says.
    #[serde(default, with = "hexadecimal")]
    pub user_data: Option<Vec<u8>>,
    /// The key that the software in the enclave holds, usually.
    #[serde(default, with = "hexadecimal")]
    pub public_key: Option<Vec<u8>>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct VerifierClaims {
    pub(crate) accepted: bool,
    pub(crate) checked_at_ms: Option<u64>,
    /// Absent from results of issuers that do not say.
    #[serde(default)]
    pub(crate) freshness: Freshness,
    pub(crate) image: Option<String>,
    pub(crate) rejection: Option<Rejection>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Rejection {
    pub(crate) rule: String,
    pub(crate) reason: String,
}

#[derive(Debug)]
struct Base64Url(Vec<u8>);

impl<'de> Deserialize<'de> for Base64Url {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = URL_SAFE_NO_PAD.decode(text);
        bytes.map(Self).map_err(serde::de::Error::custom)
    }
}

mod hexadecimal {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::ref_option, reason = "the signature that serde calls")]
    pub(super) fn serialize<S: Serializer>(
        bytes: &Option<Vec<u8>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        bytes.as_ref().map(hex::encode).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(hex::decode)
            .transpose()
            .map_err(serde::de::Error::custom)
    }
}

impl Claims {
    pub(crate) fn parse(json: &[u8]) -> Result<Self, ResultError> {
        let malformed = |reason: String| ResultError::new(ResultRule::ClaimsForm, reason);
        let claims: Self = strict_json::parse(json).map_err(malformed)?;
        if claims.exp < claims.iat {
            return Err(malformed("it expires before it was issued".to_owned()));
        }
        for submod in claims.submods.values() {
            if let Some(name) = submod
                .vector
                .keys()
                .find(|name| !VECTOR.contains(&name.as_str()))
            {
                return Err(malformed(format!("AR4SI defines no claim {}", shown(name))));
            }
        }
        Ok(claims)
    }

    pub(crate) fn nonce(&self) -> Option<&[u8]> {
        self.eat_nonce.as_ref().map(|Base64Url(nonce)| &**nonce)
    }

    /// The only appraisal, if it is of documents of this kind.
    pub(crate) fn only_submod(&mut self, profile: Profile) -> Result<Submod, ResultError> {
        let expected = submod_name(profile);
        let names: Vec<_> = self
            .submods
            .keys()
            .map(|name| format!("{name:?}"))
            .collect();
        match (self.submods.remove(expected), names.len()) {
            (Some(submod), 1) => Ok(submod),
            _ => Err(ResultError::new(
                ResultRule::Profile,
                format!(
                    "it is about {}, not about one {expected:?}",
                    shown(&names.join(" and "))
                ),
            )),
        }
    }
}
