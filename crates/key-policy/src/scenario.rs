//! Calls of which only some things are known.

use measurements::Pcr;

use crate::action::Action;
use crate::context::Value;
use crate::key::ConditionKey;
use crate::principal::Principal;

/// What an attestation document that is not of the right enclave says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Calls {
    WithoutDocument,
    /// PCR0, PCR2 and PCR8 are others; PCR1 (kernel and init) may be the same.
    WithAnotherApplication,
    /// PCR0, PCR1 and PCR8 are others; PCR2 (application) may be the same.
    WithAnotherKernel,
    /// All registers that the hypervisor sets are zero.
    InDebugMode,
}

/// Registers from this one on are the enclave's own to set.
const FIRST_OF_ENCLAVE: u8 = 16;

impl Calls {
    pub(crate) const ALL: [Self; 4] = [
        Self::WithoutDocument,
        Self::WithAnotherApplication,
        Self::WithAnotherKernel,
        Self::InDebugMode,
    ];
}

/// A call by whom a principal stands for.
pub(crate) struct Scenario {
    calls: Calls,
    account: Option<[String; 1]>,
    arn: Option<[String; 1]>,
    /// What a grant is to allow.
    operations: Option<[String; 1]>,
    zero: [String; 1],
}

impl Scenario {
    pub(crate) fn new(principal: &Principal, calls: Calls) -> Self {
        let arn = match principal {
            Principal::Identity(name) if !name.contains(":assumed-role/") => Some([name.clone()]),
            _ => None,
        };
        Self {
            calls,
            account: principal.account().map(|account| [account.to_owned()]),
            arn,
            operations: None,
            zero: [Pcr::ZERO.to_string()],
        }
    }

    /// A call that puts a grant for another call on the key.
    pub(crate) fn granting(principal: &Principal, action: &Action) -> Self {
        let operation = action.as_str().trim_start_matches("kms:").to_owned();
        Self {
            operations: Some([operation]),
            ..Self::new(principal, Calls::WithoutDocument)
        }
    }

    pub(crate) fn value(&self, key: &ConditionKey) -> Value<'_> {
        match key.as_str() {
            "kms:calleraccount" | "aws:principalaccount" => known(self.account.as_ref()),
            "aws:principalarn" => known(self.arn.as_ref()),
            "kms:grantoperations" => known(self.operations.as_ref()),
            _ if key.is_attestation() => self.register(key.register()),
            _ => Value::Unknown,
        }
    }

    /// The register of an enclave; `None` is one of another platform, whose documents have
    /// no others.
    fn register(&self, index: Option<u8>) -> Value<'_> {
        match (self.calls, index) {
            (Calls::WithoutDocument, _) | (_, None) => Value::Absent,
            (_, Some(FIRST_OF_ENCLAVE..)) => Value::Unknown,
            (Calls::InDebugMode, Some(_)) => Value::Known(&self.zero),
            (_, Some(0 | 8))
            | (Calls::WithAnotherApplication, Some(2))
            | (Calls::WithAnotherKernel, Some(1)) => Value::Other,
            (_, Some(_)) => Value::Unknown,
        }
    }
}

fn known(value: Option<&[String; 1]>) -> Value<'_> {
    value.map_or(Value::Unknown, |value| Value::Known(value))
}
