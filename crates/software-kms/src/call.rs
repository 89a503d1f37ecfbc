//! A call: who makes it, and what he may do with which key.

use std::collections::BTreeMap;
use std::time::SystemTime;

use key_policy::{Account, Action, Decision, Policy};

use crate::error::{Kind, Refusal};
use crate::key::{Key, ORIGIN};
use crate::key_id::KeyId;
use crate::recipient::{DocumentVerifier, Enclave};
use crate::signature::Client;
use crate::wire::{Blob, Context, Recipient};

/// A call of somebody who is known.
pub(crate) struct Call<'a> {
    pub(crate) region: &'a str,
    pub(crate) account: &'a Account,
    pub(crate) documents: &'a DocumentVerifier,
    pub(crate) client: &'a Client,
    pub(crate) keys: &'a BTreeMap<KeyId, Key>,
    pub(crate) now: SystemTime,
}

/// How the caller has chosen a key.
#[derive(Clone, Copy)]
pub(crate) enum Chosen {
    ByName,
    ByCiphertext,
}

/// What a call wants to do with a key, for the key's policy.
pub(crate) struct Wanted<'a> {
    pub(crate) action: &'a Action,
    pub(crate) context: &'a Context,
    pub(crate) enclave: Option<&'a Enclave>,
    pub(crate) chosen: Chosen,
    /// Condition keys that calls of this kind have, and their values.
    pub(crate) conditions: &'a [(&'static str, &'a str)],
}

impl<'a> Wanted<'a> {
    /// Nothing but the action, with a key that the caller has named.
    pub(crate) fn new(action: &'a Action) -> Self {
        const NONE: &Context = &Context::new();
        Self {
            action,
            context: NONE,
            enclave: None,
            chosen: Chosen::ByName,
            conditions: &[],
        }
    }
}

impl Call<'_> {
    /// The enclave that the answer is for, if it is for one.
    pub(crate) fn enclave(
        &self,
        recipient: Option<&Recipient>,
    ) -> Result<Option<Enclave>, Refusal> {
        recipient
            .map(|recipient| self.documents.verify(recipient, self.now))
            .transpose()
    }

    /// The key of this identifier or ARN.
    pub(crate) fn key(&self, member: &str, name: Option<&str>) -> Result<&Key, Refusal> {
        let Some(name) = name else {
            return Err(Refusal::constraint(member, "not be null"));
        };
        let is_named = |key: &&Key| key.arn.as_str() == name || key.id.to_string() == name;
        self.keys.values().find(is_named).ok_or_else(|| {
            let arn = if name.starts_with("arn:") {
                name.to_owned()
            } else {
                format!("arn:aws:kms:{}:{}:key/{name}", self.region, self.account)
            };
            Refusal::new(Kind::NotFound, format!("Key '{arn}' does not exist"))
        })
    }

    /// Refuses what the key's policy does not allow.
    pub(crate) fn authorise(&self, key: &Key, wanted: &Wanted<'_>) -> Result<(), Refusal> {
        let action = wanted.action;
        let why = match self.decision(&key.policy, key, wanted) {
            Decision::Allow(_) => return Ok(()),
            Decision::LeftToIam(_) => {
                format!("because no identity-based policy allows the {action} action")
            }
            // Whether there is such a key is nothing that a stranger learns.
            _ if matches!(wanted.chosen, Chosen::ByCiphertext) => return Err(self.hidden(action)),
            Decision::ExplicitDeny(_) => {
                "with an explicit deny in a resource-based policy".to_owned()
            }
            Decision::ImplicitDeny => {
                format!("because no resource-based policy allows the {action} action")
            }
        };
        Err(Refusal::new(
            Kind::AccessDenied,
            format!(
                "User: {} is not authorized to perform: {action} on resource: {} {why}",
                self.client.arn(),
                key.arn
            ),
        ))
    }

    /// What a policy says of the call, if it is the key's.
    pub(crate) fn decision(&self, policy: &Policy, key: &Key, wanted: &Wanted<'_>) -> Decision {
        let (caller, action) = (self.client.caller.clone(), wanted.action.clone());
        let context = wanted.context.iter();
        let context = context.map(|(name, value)| (name.as_str(), value.as_str()));
        let registers = wanted.enclave.into_iter();
        let registers = registers.flat_map(|enclave| &enclave.registers);
        let mut request = key_policy::Request::new(caller, action, key.arn.clone())
            .encryption_context(context)
            .attested(registers.copied());
        let of_key = [
            ("kms:KeySpec", key.spec.name()),
            ("kms:KeyUsage", key.spec.usage()),
            ("kms:KeyOrigin", ORIGIN),
        ];
        for (name, value) in wanted.conditions.iter().copied().chain(of_key) {
            let name = name.parse().expect("a condition key of KMS");
            request = request.with(name, vec![value.to_owned()]);
        }
        policy.evaluate(&request)
    }

    /// That a ciphertext's key is none that the caller may use, or is not there.
    pub(crate) fn hidden(&self, action: &Action) -> Refusal {
        Refusal::new(
            Kind::AccessDenied,
            format!(
                "User: {} is not authorized to perform: {action} on the resource associated with this ciphertext because the resource does not exist in this Region, no resource-based policies allow access, or a resource-based policy explicitly denies access",
                self.client.arn()
            ),
        )
    }
}

/// A secret for the caller, or for the enclave that it speaks for: the first or the second.
pub(crate) fn revealed(
    secret: Vec<u8>,
    enclave: Option<&Enclave>,
) -> Result<(Option<Blob>, Option<Blob>), Refusal> {
    Ok(match enclave {
        Some(enclave) => (None, Some(enclave.encrypt(&secret)?)),
        None => (Some(Blob(secret)), None),
    })
}

/// A parameter that has to be there, of a size that the service's model admits.
pub(crate) fn sized<'a>(
    member: &str,
    blob: Option<&'a Blob>,
    most: usize,
) -> Result<&'a [u8], Refusal> {
    match blob {
        None => Err(Refusal::constraint(member, "not be null")),
        Some(Blob(bytes)) if bytes.is_empty() => Err(Refusal::constraint(
            member,
            "have length greater than or equal to 1",
        )),
        Some(Blob(bytes)) if bytes.len() > most => Err(Refusal::constraint(
            member,
            &format!("have length less than or equal to {most}"),
        )),
        Some(Blob(bytes)) => Ok(bytes),
    }
}
