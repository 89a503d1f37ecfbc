//! KMS's actions.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use thiserror::Error;

use crate::error::{Problem, shown};
use crate::pattern::{self, Token};

/// What every action of KMS begins with.
const PREFIX: &str = "kms:";

/// A call to KMS, `kms:Decrypt`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Action(Cow<'static, str>);

/// A text that is no call to KMS.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is no call to KMS, such as kms:Decrypt")]
pub struct ActionError(String);

impl Action {
    /// Puts a grant on a key, which allows its grantee calls whatever the policy's statements
    /// that allow say.
    pub const CREATE_GRANT: Self = Self(Cow::Borrowed("kms:CreateGrant"));
    /// Opens a ciphertext.
    pub const DECRYPT: Self = Self(Cow::Borrowed("kms:Decrypt"));
    /// Derives a secret from a public key.
    pub const DERIVE_SHARED_SECRET: Self = Self(Cow::Borrowed("kms:DeriveSharedSecret"));
    /// Reads what a key is.
    pub const DESCRIBE_KEY: Self = Self(Cow::Borrowed("kms:DescribeKey"));
    /// Encrypts.
    pub const ENCRYPT: Self = Self(Cow::Borrowed("kms:Encrypt"));
    /// Makes a data key, in plaintext and encrypted.
    pub const GENERATE_DATA_KEY: Self = Self(Cow::Borrowed("kms:GenerateDataKey"));
    /// Makes a pair of keys, in plaintext and encrypted.
    pub const GENERATE_DATA_KEY_PAIR: Self = Self(Cow::Borrowed("kms:GenerateDataKeyPair"));
    /// Replaces a key's policy.
    pub const PUT_KEY_POLICY: Self = Self(Cow::Borrowed("kms:PutKeyPolicy"));
    /// Opens a ciphertext, to encrypt it with another key.
    pub const RE_ENCRYPT_FROM: Self = Self(Cow::Borrowed("kms:ReEncryptFrom"));
    /// Encrypts with this key what another key has encrypted.
    pub const RE_ENCRYPT_TO: Self = Self(Cow::Borrowed("kms:ReEncryptTo"));
    /// Copies a multi-Region key to another region, under a policy of the caller's choice.
    pub const REPLICATE_KEY: Self = Self(Cow::Borrowed("kms:ReplicateKey"));

    /// The calls that give what the key protects: to their caller, or for `ReEncryptFrom` to
    /// who may decrypt with the other key. All but that one take an attestation document.
    pub const READING: [Self; 5] = [
        Self::DECRYPT,
        Self::DERIVE_SHARED_SECRET,
        Self::GENERATE_DATA_KEY,
        Self::GENERATE_DATA_KEY_PAIR,
        Self::RE_ENCRYPT_FROM,
    ];

    /// The calls by which somebody makes a ciphertext of what somebody chose.
    pub const CHOOSING: [Self; 2] = [Self::ENCRYPT, Self::RE_ENCRYPT_TO];

    /// One that this crate itself names.
    pub(crate) const fn known(text: &'static str) -> Self {
        Self(Cow::Borrowed(text))
    }

    /// The text, `kms:Decrypt`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Action {
    type Err = ActionError;

    fn from_str(text: &str) -> Result<Self, ActionError> {
        let name = text.strip_prefix(PREFIX).unwrap_or_default();
        if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            Ok(Self(Cow::Owned(text.to_owned())))
        } else {
            Err(ActionError(shown(text)))
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for Action {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// Actions as policies name them, with wildcards; case does not distinguish them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ActionPattern(Vec<Token>);

impl ActionPattern {
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        let name = match text.get(..PREFIX.len()) {
            Some(prefix) if prefix.eq_ignore_ascii_case(PREFIX) => text.get(PREFIX.len()..),
            _ => None,
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'*' | b'?');
        let of_kms = name.is_some_and(|name| !name.is_empty() && name.bytes().all(plain));
        if of_kms || text == "*" {
            Ok(Self(pattern::wildcards(text)))
        } else {
            Err(Problem::Action(shown(text)))
        }
    }

    pub(crate) fn matches(&self, action: &Action) -> bool {
        pattern::matches(&self.0, action.as_str(), pattern::ignoring_case)
    }
}
