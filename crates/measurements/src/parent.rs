//! The parent instance of an enclave: whose role it has, and which one it is.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

#[cfg(feature = "extend")]
use crate::Pcr;

/// Longest path of a role together with its name, in characters (IAM, "IAM and STS
/// quotas").
const MAX_ROLE: usize = 512 + 64;
/// Characters of a text that are shown where it is refused.
const MAX_SHOWN: usize = 128;
/// Digits of an AWS account's number.
const ACCOUNT_DIGITS: usize = 12;
/// Digits of an instance's id, and of one that was made before 2016.
const INSTANCE_DIGITS: [usize; 2] = [17, 8];

/// The ARN of an IAM role, as IAM shows it: with the role's path, if it has one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RoleArn(String);

/// The id of an EC2 instance, `i-0123456789abcdef0`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct InstanceId(String);

/// Why a text names no parent instance's role or id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParentError {
    /// A session of a role, as STS names it.
    #[error(
        "\"{0}\" is a session of a role: give the role that the instance has, arn:aws:iam::123456789012:role/NAME, as `aws iam get-role` shows it"
    )]
    AssumedRole(String),
    /// What holds a role for instances.
    #[error(
        "\"{0}\" is an instance profile, and PCR3 is of the role in it: give that, arn:aws:iam::123456789012:role/NAME"
    )]
    InstanceProfile(String),
    /// No role at all.
    #[error("\"{0}\" is not a role's ARN, such as arn:aws:iam::123456789012:role/NAME")]
    Role(String),
    /// No instance.
    #[error("\"{0}\" is not an instance's id, such as i-0123456789abcdef0")]
    Instance(String),
}

impl RoleArn {
    /// The ARN's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The register of an enclave whose parent instance has this role: its text is
    /// measured as it is (AWS, "Cryptographic attestation", PCR3).
    #[cfg(feature = "extend")]
    pub fn pcr3(&self) -> Pcr {
        Pcr::ZERO.extend(self.0.as_bytes())
    }
}

impl InstanceId {
    /// The id's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The register of an enclave on this instance: its text is measured as it is (AWS,
    /// "Cryptographic attestation", PCR4).
    #[cfg(feature = "extend")]
    pub fn pcr4(&self) -> Pcr {
        Pcr::ZERO.extend(self.0.as_bytes())
    }
}

impl FromStr for RoleArn {
    type Err = ParentError;

    fn from_str(text: &str) -> Result<Self, ParentError> {
        let mut parts = text.splitn(6, ':');
        let mut part = || parts.next().unwrap_or_default();
        let (arn, partition, service, region) = (part(), part(), part(), part());
        let (account, resource) = (part(), part());
        let of_aws = arn == "arn"
            && (partition == "aws" || partition.starts_with("aws-"))
            && partition.bytes().all(|byte| byte == b'-' || is_lower(byte))
            && region.is_empty()
            && account.len() == ACCOUNT_DIGITS
            && account.bytes().all(|byte| byte.is_ascii_digit());
        let refused = || shown(text);
        match resource.split_once('/') {
            Some(("role", role)) if of_aws && service == "iam" && is_role(role) => {
                Ok(Self(text.to_owned()))
            }
            Some(("assumed-role", _)) if of_aws && service == "sts" => {
                Err(ParentError::AssumedRole(refused()))
            }
            Some(("instance-profile", _)) if of_aws && service == "iam" => {
                Err(ParentError::InstanceProfile(refused()))
            }
            _ => Err(ParentError::Role(refused())),
        }
    }
}

impl TryFrom<String> for RoleArn {
    type Error = ParentError;

    fn try_from(text: String) -> Result<Self, ParentError> {
        text.parse()
    }
}

impl From<RoleArn> for String {
    fn from(role: RoleArn) -> Self {
        role.0
    }
}

impl FromStr for InstanceId {
    type Err = ParentError;

    fn from_str(text: &str) -> Result<Self, ParentError> {
        let digits = text.strip_prefix("i-").unwrap_or_default();
        let hexadecimal = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if INSTANCE_DIGITS.contains(&digits.len()) && digits.bytes().all(hexadecimal) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParentError::Instance(shown(text)))
        }
    }
}

impl fmt::Display for RoleArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What is shown of a text that is not what it should be.
fn shown(text: &str) -> String {
    plain_text::plain_start(text, MAX_SHOWN)
}

const fn is_lower(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// A role's path and name, without the slash before it (IAM, "IAM and STS quotas").
fn is_role(role: &str) -> bool {
    let (path, name) = role.rsplit_once('/').unwrap_or(("", role));
    let of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"+=,.@-_".contains(&byte);
    role.len() <= MAX_ROLE
        && !name.is_empty()
        && name.bytes().all(of_name)
        && path.bytes().all(|byte| byte.is_ascii_graphic())
        && !role.split('/').any(str::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_what_iam_calls_one() {
        for text in [
            "arn:aws:iam::123456789012:role/Webserver",
            "arn:aws:iam::123456789012:role/service/team-1/Web_server.2@x",
            "arn:aws-cn:iam::123456789012:role/Webserver",
            "arn:aws-us-gov:iam::123456789012:role/aws-service-role/x.amazonaws.com/Y",
        ] {
            assert_eq!(text.parse::<RoleArn>().unwrap().as_str(), text);
        }
        for text in [
            "",
            "Webserver",
            "arn:aws:iam::123456789012:user/Webserver",
            "arn:aws:iam::123456789012:role/",
            "arn:aws:iam::123456789012:role//Webserver",
            "arn:aws:iam::123456789012:role/path/",
            "arn:aws:iam::12345678901:role/Webserver",
            "arn:aws:iam:eu-west-1:123456789012:role/Webserver",
            "arn:aws:sts::123456789012:role/Webserver",
            "arn:azure:iam::123456789012:role/Webserver",
            " arn:aws:iam::123456789012:role/Webserver",
            "arn:aws:iam::123456789012:role/Webserver\n",
            "arn:aws:iam::123456789012:role/Web server",
            "arn:aws:iam::123456789012:role/*",
        ] {
            let error = text.parse::<RoleArn>().unwrap_err();
            assert_eq!(error, ParentError::Role(text.replace('\n', "\\n")));
        }
        let long = "r\u{1b}".repeat(MAX_SHOWN).parse::<RoleArn>();
        let error = long.unwrap_err().to_string();
        assert!(error.starts_with(r#""r\u{1b}r\u{1b}"#), "{error}");
        assert!(error.contains("…\" is not a role"), "{error}");
    }

    #[test]
    fn a_role_that_is_named_otherwise_gets_advice() {
        let session = "arn:aws:sts::123456789012:assumed-role/Webserver/i-0123456789abcdef0";
        let error = session.parse::<RoleArn>().unwrap_err();
        assert_eq!(error, ParentError::AssumedRole(session.to_owned()));
        assert!(error.to_string().contains("get-role"), "{error}");
        let profile = "arn:aws:iam::123456789012:instance-profile/Webserver";
        let error = profile.parse::<RoleArn>().unwrap_err();
        assert_eq!(error, ParentError::InstanceProfile(profile.to_owned()));
    }

    #[test]
    fn an_instance_is_what_ec2_calls_one() {
        for text in ["i-0123456789abcdef0", "i-01234567"] {
            assert_eq!(text.parse::<InstanceId>().unwrap().as_str(), text);
        }
        for text in [
            "",
            "i-",
            "0123456789abcdef0",
            "i-0123456789abcdef",
            "i-0123456789ABCDEF0",
            "i-0123456789abcdef0-enc0123456789abcdef",
            "i-0123456789abcdef0 ",
        ] {
            let error = text.parse::<InstanceId>().unwrap_err();
            assert_eq!(error, ParentError::Instance(text.to_owned()));
        }
    }

    /// The values beside AWS's own commands, which its manual prints (AWS, "Cryptographic
    /// attestation").
    #[cfg(feature = "extend")]
    #[test]
    fn pcr3_and_pcr4_are_those_of_awss_commands() {
        let role: RoleArn = "arn:aws:iam::123456789012:role/Webserver".parse().unwrap();
        assert_eq!(
            role.pcr3().to_string(),
            "78fce75db17cd4e0a3fb8dad3ad128ca5e77edbb2b2c7f75329dccd99aa5f6ef4fc1f1a452e315b9e98f9e312e6921e6"
        );
        // (printf '%096d' 0 | xxd -r -p; printf i-1234567890abcdef0) | sha384sum
        let instance: InstanceId = "i-1234567890abcdef0".parse().unwrap();
        assert_eq!(
            instance.pcr4().to_string(),
            "08f996b5d43e047a9eb51e7f548bfee7e164fd7dc8f65541f2ac09d6545ac812719327281c401a67a10fcba87ae79ce0"
        );
    }
}
