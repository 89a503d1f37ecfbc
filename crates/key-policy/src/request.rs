//! A call to KMS.

use std::collections::BTreeMap;

use measurements::Pcr;

use crate::action::Action;
use crate::arn::KeyArn;
use crate::context::Value;
use crate::key::ConditionKey;
use crate::principal::Caller;

/// A call to KMS: who makes it, which, on what key, and with what.
#[derive(Debug, Clone)]
pub struct Request {
    pub(crate) caller: Caller,
    pub(crate) action: Action,
    pub(crate) key: KeyArn,
    context: BTreeMap<ConditionKey, Vec<String>>,
}

impl Request {
    /// A call without an attestation document and without an encryption context. Its context
    /// has what follows from its caller and its key: `kms:CallerAccount`,
    /// `aws:PrincipalArn`, `aws:PrincipalAccount`, `aws:PrincipalIsAWSService`,
    /// `aws:ResourceAccount` and `aws:RequestedRegion`.
    pub fn new(caller: Caller, action: Action, key: KeyArn) -> Self {
        let mut context = BTreeMap::new();
        let mut put = |name, value: &str| {
            context.insert(ConditionKey::known(name), vec![value.to_owned()]);
        };
        if let Some(account) = caller.account() {
            put("kms:calleraccount", account);
            put("aws:principalaccount", account);
        }
        if let Some(arn) = caller.arn() {
            put("aws:principalarn", arn);
        }
        let service = if caller.is_service() { "true" } else { "false" };
        put("aws:principalisawsservice", service);
        put("aws:resourceaccount", key.account());
        put("aws:requestedregion", key.region());
        Self {
            caller,
            action,
            key,
            context,
        }
    }

    /// With the registers of an attestation document that has been verified.
    #[must_use]
    pub fn attested(mut self, registers: impl IntoIterator<Item = (u8, Pcr)>) -> Self {
        for (index, value) in registers {
            let value = vec![value.to_string()];
            if index == 0 {
                self.context.insert(ConditionKey::image(), value.clone());
            }
            if let Some(key) = ConditionKey::pcr(index) {
                self.context.insert(key, value);
            }
        }
        self
    }

    /// With an encryption context.
    #[must_use]
    pub fn encryption_context<'a>(
        mut self,
        entries: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let mut names = Vec::new();
        for (name, value) in entries {
            let key = ConditionKey::encryption_context(name);
            self.context.entry(key).or_default().push(value.to_owned());
            names.push(name.to_owned());
        }
        self.with(ConditionKey::known("kms:encryptioncontextkeys"), names)
    }

    /// With a key of the context, in the place of what it was before.
    #[must_use]
    pub fn with(mut self, key: ConditionKey, values: Vec<String>) -> Self {
        self.context.insert(key, values);
        self
    }

    pub(crate) fn value(&self, key: &ConditionKey) -> Value<'_> {
        self.context
            .get(key)
            .map_or(Value::Absent, |values| Value::Known(values))
    }
}
