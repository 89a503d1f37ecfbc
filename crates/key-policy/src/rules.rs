//! The key policy of a workload whose secrets only its enclave reads.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use measurements::{Measurements, Pcr};
use serde::Serialize;
use thiserror::Error;

use crate::action::Action;
use crate::arn::Arn;
use crate::key::ConditionKey;
use crate::policy::{MAX_POLICY_BYTES, VERSION};
use crate::principal::Principal;

/// The calls that take an attestation document and need the key.
const ATTESTED: [Action; 4] = [
    Action::DECRYPT,
    Action::DERIVE_SHARED_SECRET,
    Action::GENERATE_DATA_KEY,
    Action::GENERATE_DATA_KEY_PAIR,
];
/// Those of them that an enclave needs for a seed.
const ATTESTED_FOR_SEED: [Action; 2] = [Action::DECRYPT, Action::GENERATE_DATA_KEY];
/// What an administrator does. Nothing of it gives what the key protects; but who may replace
/// the policy may allow that.
const ADMINISTRATION: [&str; 19] = [
    "kms:CancelKeyDeletion",
    "kms:CreateAlias",
    "kms:DeleteAlias",
    "kms:DescribeKey",
    "kms:DisableKey",
    "kms:EnableKey",
    "kms:EnableKeyRotation",
    "kms:GetKeyPolicy",
    "kms:GetKeyRotationStatus",
    "kms:GetPublicKey",
    "kms:ListGrants",
    "kms:ListResourceTags",
    "kms:PutKeyPolicy",
    "kms:RevokeGrant",
    "kms:ScheduleKeyDeletion",
    "kms:TagResource",
    "kms:UntagResource",
    "kms:UpdateAlias",
    "kms:UpdateKeyDescription",
];

/// What an encrypter does, for people.
const ENCRYPTS: &str = "encrypts";

/// What a key policy for enclaves is written from.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The release that runs.
    pub current: Release,
    /// The one that takes its place, while both run.
    pub next: Option<Release>,
    /// PCR3: the role of the parent instance, if that is demanded.
    pub role: Option<Pcr>,
    /// PCR4: the parent instance, if that is demanded.
    pub instance: Option<Pcr>,
    /// Under whose credentials enclaves call KMS.
    pub callers: Vec<Principal>,
    /// Who administers the key. KMS refuses a policy that does not let who puts it put
    /// another.
    pub administrators: Vec<Principal>,
    /// Who encrypts; nobody if the key is for a seed.
    pub encrypters: Vec<Principal>,
    /// Whether the key wraps the seed of a family of enclaves, and nothing else: whoever
    /// could encrypt with it would choose the seed.
    pub is_for_seed: bool,
}

/// The measurements of an image that may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Release {
    /// PCR0, the image.
    pub image: Pcr,
    /// PCR8, its signer, if that is demanded.
    pub signer: Option<Pcr>,
}

impl From<&Measurements> for Release {
    fn from(measurements: &Measurements) -> Self {
        Self {
            image: measurements.pcr0,
            signer: measurements.pcr8,
        }
    }
}

/// Why no policy can be written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RulesError {
    /// A register is zero.
    #[error(
        "PCR{0} is zero, which it is in every enclave in debug mode: take the measurements of an image, as `image-builder build` prints them"
    )]
    Zero(u8),
    /// Nobody in a role that somebody must have.
    #[error("the policy names nobody who {0}: name at least one principal")]
    Nobody(&'static str),
    /// Somebody encrypts with a key that is for a seed.
    #[error(
        "{0} is to encrypt with a key that wraps the enclaves' seed, and so could choose it: name no encrypter"
    )]
    Encrypter(Principal),
    /// A principal that can have no part in the policy.
    #[error("{principal} cannot be who {part}: name an account, a user or a role")]
    Principal {
        /// The principal.
        principal: Principal,
        /// What it was to do.
        part: &'static str,
    },
    /// The parent instance, which has these credentials too, could replace the policy.
    #[error(
        "{0} is both who administers the key and whom enclaves call KMS as: their parent instance has those credentials, and could replace the policy"
    )]
    Administrator(Principal),
    /// Principals of two partitions.
    #[error("the principals are of several partitions, {0} and {1}")]
    Partitions(String, String),
    /// More than KMS takes.
    #[error(
        "the policy would have {bytes} bytes, and KMS takes no more than {limit}: name fewer principals"
    )]
    TooLong {
        /// The policy's bytes.
        bytes: usize,
        /// KMS's limit.
        limit: usize,
    },
}

/// A policy that has been written. [`Display`](fmt::Display) gives its JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenPolicy(String);

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    version: &'static str,
    statement: Vec<Statement>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Statement {
    sid: &'static str,
    effect: &'static str,
    principal: Named,
    action: Vec<Action>,
    resource: &'static str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    condition: BTreeMap<&'static str, BTreeMap<String, Values>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Named {
    Everybody(&'static str),
    Listed(BTreeMap<&'static str, BTreeSet<String>>),
}

#[derive(Serialize)]
#[serde(untagged)]
enum Values {
    Registers(Vec<Pcr>),
    Present(&'static str),
}

impl Rules {
    /// Writes the policy:
    ///
    /// * administrators manage the key, and neither decrypt nor let others do so by a grant;
    /// * encrypters encrypt; if the key is for a seed, that is denied to everybody;
    /// * callers decrypt and make data keys with the document of an enclave of one of the
    ///   releases;
    /// * without such a document, those calls are denied to everybody, whatever else is
    ///   allowed by IAM policies or grants.
    ///
    /// Whoever may replace the policy (`kms:PutKeyPolicy`) may lift all that.
    pub fn write(&self) -> Result<WrittenPolicy, RulesError> {
        self.check()?;
        let partition = self.partition()?;
        let registers = [(3, self.role), (4, self.instance)];
        let releases = self.releases();
        let mut statements = vec![allow(
            "Administration",
            listed(&self.administrators, partition),
            ADMINISTRATION.map(Action::known).to_vec(),
        )];
        if !self.is_for_seed {
            statements.push(allow(
                "Encryption",
                listed(&self.encrypters, partition),
                vec![Action::DESCRIBE_KEY, Action::ENCRYPT],
            ));
        }
        let attested = if self.is_for_seed {
            ATTESTED_FOR_SEED.to_vec()
        } else {
            ATTESTED.to_vec()
        };
        for (sid, release) in ["CurrentRelease", "NextRelease"].into_iter().zip(&releases) {
            let demanded = [(0, Some(release.image)), (8, release.signer)];
            let demanded = demanded.into_iter().chain(registers);
            let demanded = demanded.filter_map(|(index, pcr)| Some((name(index)?, vec![pcr?])));
            let callers = listed(&self.callers, partition);
            let mut statement = allow(sid, callers, attested.clone());
            statement.condition = condition("StringEqualsIgnoreCase", demanded);
            statements.push(statement);
        }

        let mut without = deny("WithoutAttestation");
        without.condition = BTreeMap::from([(
            "Null",
            BTreeMap::from([(name(0).unwrap_or_default(), Values::Present("true"))]),
        )]);
        statements.push(without);
        // A negated condition holds in a call without the key, too.
        let images = releases.iter().map(|release| Some(release.image)).collect();
        let signers = releases.iter().map(|release| release.signer).collect();
        let denied: [(&str, u8, Option<Vec<Pcr>>); 4] = [
            ("OtherImages", 0, images),
            ("OtherSigners", 8, signers),
            ("OtherRoles", 3, self.role.map(|pcr| vec![pcr])),
            ("OtherInstances", 4, self.instance.map(|pcr| vec![pcr])),
        ];
        for (sid, index, accepted) in denied {
            if let (Some(accepted), Some(name)) = (accepted, name(index)) {
                let mut statement = deny(sid);
                statement.condition = condition("StringNotEqualsIgnoreCase", [(name, accepted)]);
                statements.push(statement);
            }
        }
        if self.is_for_seed {
            let mut statement = deny("ChosenSeeds");
            statement.action = Action::CHOOSING.to_vec();
            statements.push(statement);
        }
        let document = Document {
            version: VERSION,
            statement: statements,
        };
        written(&document)
    }

    fn releases(&self) -> Vec<Release> {
        let next = self.next.filter(|next| *next != self.current);
        std::iter::once(self.current).chain(next).collect()
    }

    fn check(&self) -> Result<(), RulesError> {
        let releases = self.releases().into_iter();
        let of_releases =
            releases.flat_map(|release| [(0, Some(release.image)), (8, release.signer)]);
        let registers = of_releases.chain([(3, self.role), (4, self.instance)]);
        for (index, pcr) in registers {
            if pcr == Some(Pcr::ZERO) {
                return Err(RulesError::Zero(index));
            }
        }
        if let (true, Some(encrypter)) = (self.is_for_seed, self.encrypters.first()) {
            return Err(RulesError::Encrypter(encrypter.clone()));
        }
        for (part, principals) in [
            ("administers the key", &self.administrators),
            (ENCRYPTS, &self.encrypters),
            ("calls KMS for the enclave", &self.callers),
        ] {
            let may_be_nobody = self.is_for_seed && part == ENCRYPTS;
            if principals.is_empty() && !may_be_nobody {
                return Err(RulesError::Nobody(part));
            }
            for principal in principals {
                if !matches!(principal, Principal::Account(_) | Principal::Identity(_)) {
                    let principal = principal.clone();
                    return Err(RulesError::Principal { principal, part });
                }
            }
        }
        let both = |caller: &&Principal| {
            matches!(caller, Principal::Identity(_)) && self.administrators.contains(caller)
        };
        match self.callers.iter().find(both) {
            Some(caller) => Err(RulesError::Administrator(caller.clone())),
            None => Ok(()),
        }
    }

    /// The partition of the principals that say one.
    fn partition(&self) -> Result<&str, RulesError> {
        let principals = self.callers.iter();
        let principals = principals
            .chain(&self.administrators)
            .chain(&self.encrypters);
        let mut partitions = principals.filter_map(|principal| match principal {
            Principal::Identity(name) => Arn::identity(name).map(|arn| arn.partition),
            _ => None,
        });
        let partition = partitions.next().unwrap_or("aws");
        match partitions.find(|other| *other != partition) {
            Some(other) => Err(RulesError::Partitions(
                partition.to_owned(),
                other.to_owned(),
            )),
            None => Ok(partition),
        }
    }
}

impl fmt::Display for WrittenPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn written(document: &Document) -> Result<WrittenPolicy, RulesError> {
    // Nothing in it is of a type that JSON does not have.
    let text = serde_json::to_string_pretty(document).unwrap_or_default();
    if text.len() > MAX_POLICY_BYTES {
        return Err(RulesError::TooLong {
            bytes: text.len(),
            limit: MAX_POLICY_BYTES,
        });
    }
    Ok(WrittenPolicy(text))
}

fn allow(sid: &'static str, principal: Named, action: Vec<Action>) -> Statement {
    Statement {
        sid,
        effect: "Allow",
        principal,
        action,
        resource: "*",
        condition: BTreeMap::new(),
    }
}

fn deny(sid: &'static str) -> Statement {
    Statement {
        sid,
        effect: "Deny",
        principal: Named::Everybody("*"),
        action: Action::READING.to_vec(),
        resource: "*",
        condition: BTreeMap::new(),
    }
}

fn listed(principals: &[Principal], partition: &str) -> Named {
    let name = |principal: &Principal| match principal {
        Principal::Account(account) => format!("arn:{partition}:iam::{account}:root"),
        other => other.to_string(),
    };
    let names: BTreeSet<String> = principals.iter().map(name).collect();
    Named::Listed(BTreeMap::from([("AWS", names)]))
}

fn condition(
    operator: &'static str,
    registers: impl IntoIterator<Item = (String, Vec<Pcr>)>,
) -> BTreeMap<&'static str, BTreeMap<String, Values>> {
    let keys = registers
        .into_iter()
        .map(|(name, accepted)| (name, Values::Registers(accepted)))
        .collect();
    BTreeMap::from([(operator, keys)])
}

/// How conditions name a register; PCR0 is the image.
fn name(index: u8) -> Option<String> {
    let key = match index {
        0 => Some(ConditionKey::image()),
        _ => ConditionKey::pcr(index),
    };
    key.map(|key| key.to_string())
}
