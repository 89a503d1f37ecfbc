//! Key policies of AWS KMS: parse, evaluate, write for enclaves, and check.
//!
//! A [`Policy`] is read strictly: what AWS's policy language does not have is refused, with
//! its place, and nothing is skipped. It is evaluated as AWS documents it ("Policy
//! evaluation logic", "Condition operators"), for a [`Request`] whose [`Caller`], action and
//! context are known:
//!
//! ```
//! use key_policy::{Action, Caller, Decision, KeyArn, Policy, Request};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let policy: Policy = r#"{
//!     "Version": "2012-10-17",
//!     "Statement": {
//!         "Sid": "Enclave",
//!         "Effect": "Allow",
//!         "Principal": {"AWS": "arn:aws:iam::123456789012:role/Enclave"},
//!         "Action": "kms:Decrypt",
//!         "Resource": "*",
//!         "Condition": {"StringEqualsIgnoreCase": {
//!             "kms:RecipientAttestation:ImageSha384": "0a0a0a"
//!         }}
//!     }
//! }"#.parse()?;
//! let caller: Caller = "arn:aws:iam::123456789012:role/Enclave".parse()?;
//! let key: KeyArn = "arn:aws:kms:eu-west-1:123456789012:key/example".parse()?;
//! let request = Request::new(caller, Action::DECRYPT, key);
//! assert_eq!(policy.evaluate(&request), Decision::ImplicitDeny);
//! # Ok(())
//! # }
//! ```
//!
//! What the key policy does not say is not known here: IAM policies, grants, policies of
//! organisations and of VPC endpoints.

#![forbid(unsafe_code)]

mod action;
mod arn;
mod condition;
mod context;
mod error;
mod json;
mod key;
mod operand;
mod operator;
mod pattern;
mod policy;
mod principal;
mod request;
mod review;
mod rules;
mod scenario;
mod statement;
mod truth;

pub use action::{Action, ActionError};
pub use arn::{Account, AccountError, KeyArn, KeyArnError};
pub use condition::WrittenCondition;
pub use error::{PolicyError, Problem};
pub use key::ConditionKey;
pub use policy::{Decision, MAX_POLICY_BYTES, Policy, StatementId};
pub use principal::{Caller, CallerError, Principal};
pub use request::Request;
pub use review::{Attested, Hole, Note, Replacing, Review, Way};
pub use rules::{Release, Rules, RulesError, WrittenPolicy};
