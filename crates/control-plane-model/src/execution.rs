//! Executions of the state machines: their names, and what they are given.

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

/// Digits that a stream record's sequence number is filled up to, so that the
/// order of the numbers is that of their texts (DynamoDB allows 40).
const SEQUENCE_DIGITS: usize = 40;
/// Characters of the enclave's id in an execution's name.
const ID_CHARACTERS: usize = 40;
/// Bytes of the digest in it.
const DIGEST_BYTES: usize = 8;

/// What a client asks for, and a workflow does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// `PENDING_DEPLOY` to `DEPLOYED`.
    Deploy,
    /// `PENDING_DESTROY` to `DESTROYED`.
    Destroy,
}

impl Action {
    /// Its name in inputs, names and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deploy => "deploy",
            Self::Destroy => "destroy",
        }
    }
}

/// The input of the state machines `deployment` and `cleanup`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// Whose item.
    pub enclave_id: String,
    /// What to do.
    pub action: Action,
    /// The item's attribute `request` while this execution may claim it:
    /// [`sequence`] of the record that asked.
    pub sequence_number: String,
}

impl Input {
    /// The execution's name.
    pub fn execution_name(&self) -> String {
        execution_name(self.action.name(), &self.enclave_id, &self.sequence_number)
    }
}

/// Why an enclave attests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reason {
    /// It was deployed.
    Deploy,
    /// It came back from a pause.
    Resume,
    /// It does from time to time.
    Schedule,
}

impl Reason {
    /// Its name in inputs, names and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deploy => "deploy",
            Self::Resume => "resume",
            Self::Schedule => "schedule",
        }
    }
}

/// A sequence number whose order is that of its text.
pub fn sequence(number: &str) -> String {
    format!("{number:0>SEQUENCE_DIGITS$}")
}

/// A name that is the same for the same three values, and no other: Step Functions
/// starts no second execution of it.
pub fn execution_name(kind: &str, enclave_id: &str, distinction: &str) -> String {
    let hash = digest(
        &SHA256,
        format!("{kind}\0{enclave_id}\0{distinction}").as_bytes(),
    );
    let hash = hash
        .as_ref()
        .get(..DIGEST_BYTES)
        .expect("a SHA-256 digest is longer");
    let safe: String = enclave_id
        .chars()
        .take(ID_CHARACTERS)
        .map(|character| match character {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_' => character,
            _ => '-',
        })
        .collect();
    format!("{kind}-{safe}-{}", hex::encode(hash))
}

/// The ARN of a state machine's execution.
pub fn execution_arn(state_machine_arn: &str, name: &str) -> String {
    format!(
        "{}:{name}",
        state_machine_arn.replacen(":stateMachine:", ":execution:", 1)
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_tells_people_what_and_which() {
        assert!(execution_name("deploy", "payments", "1").starts_with("deploy-payments-"));
        assert_eq!(
            execution_arn("arn:aws:states:us-west-2:1:stateMachine:s", "n"),
            "arn:aws:states:us-west-2:1:execution:s:n"
        );
    }

    proptest! {
        #[test]
        fn a_name_is_one_that_step_functions_takes(id in "\\PC{0,200}", number in "[0-9]{1,40}") {
            let name = execution_name("destroy", &id, &sequence(&number));
            prop_assert!(name.len() <= 80, "{name}");
            prop_assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
        }

        #[test]
        fn sequence_numbers_keep_their_order(first in 0..u128::MAX, second in 0..u128::MAX) {
            let texts = (sequence(&first.to_string()), sequence(&second.to_string()));
            prop_assert_eq!(first.cmp(&second), texts.0.cmp(&texts.1));
        }

        #[test]
        fn different_requests_have_different_names(id in "[a-z.]{1,60}", other in "[a-z.]{1,60}") {
            prop_assume!(id != other);
            prop_assert_ne!(execution_name("deploy", &id, "1"), execution_name("deploy", &other, "1"));
            prop_assert_ne!(execution_name("deploy", &id, "1"), execution_name("destroy", &id, "1"));
        }
    }
}
