//! Words for registers of an enclave: the parent's role and id, and who signed the image.

use std::convert::Infallible;
use std::path::Path;
use std::str::FromStr;

use measurements::{InstanceId, Pcr, RoleArn};

use crate::document::Profile;
use crate::one_or_many::{OneOrMany, Word};
use crate::policy_error::PolicyError;
#[cfg(feature = "aws-lc-rs")]
use crate::signer::pcr8_of_signer;
use crate::text_file::Folder;

/// How PEM begins.
const PEM: &str = "-----BEGIN";

/// The certificate that an image is signed with: a PEM file's name, or what is in one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signer(String);

impl FromStr for Signer {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl Word for Signer {
    const NAME: &'static str = "a certificate in PEM, or the name of a file with one";
}

/// What a policy says of registers in words.
#[derive(Debug)]
pub(crate) struct RegisterWords {
    pub(crate) role_arn: Option<OneOrMany<RoleArn>>,
    pub(crate) instance_id: Option<OneOrMany<InstanceId>>,
    pub(crate) signer: Option<OneOrMany<Signer>>,
}

/// A word, the register that it is for, and the values that it stands for.
pub(crate) type Register = (&'static str, u8, Vec<Pcr>);

impl RegisterWords {
    /// The registers that the words stand for.
    pub(crate) fn registers(
        self,
        profile: Profile,
        folder: Folder<'_>,
    ) -> Result<Vec<Register>, PolicyError> {
        let mut registers = Vec::new();
        if let Some(OneOrMany(roles)) = self.role_arn {
            let values = roles.iter().map(pcr3).collect::<Result<_, _>>()?;
            registers.push(("role_arn", 3, values));
        }
        if let Some(OneOrMany(instances)) = self.instance_id {
            let values = instances.iter().map(pcr4).collect::<Result<_, _>>()?;
            registers.push(("instance_id", 4, values));
        }
        if let Some(OneOrMany(signers)) = self.signer {
            let values = signers.iter().map(|Signer(text)| {
                if text.trim_start().starts_with(PEM) {
                    pcr8(text).map_err(|reason| PolicyError::Text(format!("signer: {reason}")))
                } else {
                    folder.read(Path::new(text), pcr8)
                }
            });
            registers.push(("signer", 8, values.collect::<Result<_, _>>()?));
        }
        match registers.first() {
            Some((word, ..)) if profile == Profile::NitroTpm => Err(PolicyError::Text(format!(
                "{word} is of enclaves: the registers of a NitroTPM do not say it"
            ))),
            _ => Ok(registers),
        }
    }
}

#[cfg(feature = "aws-lc-rs")]
#[expect(clippy::unnecessary_wraps, reason = "without a digest there is none")]
fn pcr3(role: &RoleArn) -> Result<Pcr, PolicyError> {
    Ok(role.pcr3())
}

#[cfg(feature = "aws-lc-rs")]
#[expect(clippy::unnecessary_wraps, reason = "without a digest there is none")]
fn pcr4(instance: &InstanceId) -> Result<Pcr, PolicyError> {
    Ok(instance.pcr4())
}

#[cfg(feature = "aws-lc-rs")]
fn pcr8(pem: &str) -> Result<Pcr, String> {
    pcr8_of_signer(pem.as_bytes()).map_err(|error| error.to_string())
}

#[cfg(not(feature = "aws-lc-rs"))]
const NO_DIGEST: &str =
    "this program computes no registers: give their values in pcrs, as `attest pcr` prints them";

#[cfg(not(feature = "aws-lc-rs"))]
fn pcr3(_: &RoleArn) -> Result<Pcr, PolicyError> {
    Err(PolicyError::Text(NO_DIGEST.to_owned()))
}

#[cfg(not(feature = "aws-lc-rs"))]
fn pcr4(_: &InstanceId) -> Result<Pcr, PolicyError> {
    Err(PolicyError::Text(NO_DIGEST.to_owned()))
}

#[cfg(not(feature = "aws-lc-rs"))]
fn pcr8(_: &str) -> Result<Pcr, String> {
    Err(NO_DIGEST.to_owned())
}
