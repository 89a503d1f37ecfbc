//! Amazon resource names.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::error::shown;

/// Digits of an account's number.
const ACCOUNT_DIGITS: usize = 12;

/// The parts of an ARN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arn<'a> {
    pub(crate) partition: &'a str,
    pub(crate) service: &'a str,
    pub(crate) region: &'a str,
    pub(crate) account: &'a str,
    pub(crate) resource: &'a str,
}

impl<'a> Arn<'a> {
    /// Reads an ARN without wildcards.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.strip_prefix("arn:")?.splitn(5, ':');
        let mut part = || parts.next();
        let (partition, service, region) = (part()?, part()?, part()?);
        let (account, resource) = (part()?, part()?);
        let of_aws = partition == "aws" || partition.starts_with("aws-");
        let plain = text
            .chars()
            .all(|c| c.is_ascii_graphic() && !matches!(c, '*' | '?'));
        (of_aws && plain && !resource.is_empty()).then_some(Self {
            partition,
            service,
            region,
            account,
            resource,
        })
    }

    /// The same, of something in IAM or STS, which has no region.
    pub(crate) fn identity(text: &'a str) -> Option<Self> {
        Self::parse(text).filter(|arn| {
            matches!(arn.service, "iam" | "sts") && arn.region.is_empty() && is_account(arn.account)
        })
    }
}

/// Whether the text is an account's number.
pub(crate) fn is_account(text: &str) -> bool {
    text.len() == ACCOUNT_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The number of an AWS account.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Account(String);

/// A text that is no account's number.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not an account's number, such as 123456789012")]
pub struct AccountError(String);

impl Account {
    /// The number's digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Account {
    type Err = AccountError;

    fn from_str(text: &str) -> Result<Self, AccountError> {
        if is_account(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(AccountError(shown(text)))
        }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The ARN of a KMS key, `arn:aws:kms:eu-west-1:123456789012:key/…`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyArn(String);

/// A text that is no key's ARN.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not a key's ARN, such as arn:aws:kms:eu-west-1:123456789012:key/ID")]
pub struct KeyArnError(String);

impl KeyArn {
    /// The ARN's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The account that owns the key.
    pub fn account(&self) -> &str {
        Arn::parse(&self.0).map_or("", |arn| arn.account)
    }

    /// The region that the key is in.
    pub fn region(&self) -> &str {
        Arn::parse(&self.0).map_or("", |arn| arn.region)
    }
}

impl FromStr for KeyArn {
    type Err = KeyArnError;

    fn from_str(text: &str) -> Result<Self, KeyArnError> {
        Arn::parse(text)
            .filter(|arn| {
                let id = arn.resource.strip_prefix("key/");
                arn.service == "kms"
                    && !arn.region.is_empty()
                    && is_account(arn.account)
                    && id.is_some_and(|id| !id.is_empty())
            })
            .map(|_| Self(text.to_owned()))
            .ok_or_else(|| KeyArnError(shown(text)))
    }
}

impl fmt::Display for KeyArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
