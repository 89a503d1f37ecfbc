//! Condition keys.

use std::fmt;
use std::str::FromStr;

use measurements::{PCR_COUNT, TPM_PCR_COUNT};

use crate::error::{Problem, shown};

/// Keys that are there as they are (AWS, "Condition keys for AWS KMS" and "AWS global
/// condition context keys"), in lower case.
const KNOWN: [&str; 90] = [
    "aws:assumedroot",
    "aws:calledvia",
    "aws:calledviaawsmcp",
    "aws:calledviafirst",
    "aws:calledvialast",
    "aws:chatbotsourcearn",
    "aws:currenttime",
    "aws:ec2instancesourceprivateipv4",
    "aws:ec2instancesourcevpc",
    "aws:epochtime",
    "aws:federatedprovider",
    "aws:ismcpserviceaction",
    "aws:multifactorauthage",
    "aws:multifactorauthpresent",
    "aws:principalaccount",
    "aws:principalarn",
    "aws:principalisawsservice",
    "aws:principalorgid",
    "aws:principalorgpaths",
    "aws:principalservicename",
    "aws:principalservicenameslist",
    "aws:principaltype",
    "aws:referer",
    "aws:requestedregion",
    "aws:resourceaccount",
    "aws:resourceorgid",
    "aws:resourceorgpaths",
    "aws:securetransport",
    "aws:sourceaccount",
    "aws:sourcearn",
    "aws:sourceidentity",
    "aws:sourceip",
    "aws:sourceorgid",
    "aws:sourceorgpaths",
    "aws:sourceowner",
    "aws:sourcevpc",
    "aws:sourcevpcarn",
    "aws:sourcevpce",
    "aws:tagkeys",
    "aws:tokenissuetime",
    "aws:useragent",
    "aws:userid",
    "aws:username",
    "aws:viaawsmcpservice",
    "aws:viaawsservice",
    "aws:vpceaccount",
    "aws:vpceorgid",
    "aws:vpceorgpaths",
    "aws:vpcsourceip",
    "ec2:roledelivery",
    "ec2:sourceinstancearn",
    "kms:bypasspolicylockoutsafetycheck",
    "kms:calleraccount",
    "kms:customermasterkeyspec",
    "kms:customermasterkeyusage",
    "kms:datakeypairspec",
    "kms:encryptionalgorithm",
    "kms:encryptioncontextkeys",
    "kms:expirationmodel",
    "kms:grantconstraintsourcearn",
    "kms:grantconstrainttype",
    "kms:granteeprincipal",
    "kms:granteeserviceprincipal",
    "kms:grantisforawsresource",
    "kms:grantoperations",
    "kms:keyagreementalgorithm",
    "kms:keyorigin",
    "kms:keyspec",
    "kms:keyusage",
    "kms:macalgorithm",
    "kms:messagetype",
    "kms:multiregion",
    "kms:multiregionkeytype",
    "kms:primaryregion",
    "kms:reencryptonsamekey",
    "kms:replicaregion",
    "kms:requestalias",
    "kms:resourcealiases",
    "kms:retiringprincipal",
    "kms:retiringserviceprincipal",
    "kms:rotationperiodindays",
    "kms:schedulekeydeletionpendingwindowindays",
    "kms:signingalgorithm",
    "kms:trailingdayswithoutkeyusage",
    "kms:validto",
    "kms:viaservice",
    "kms:wrappingalgorithm",
    "kms:wrappingkeyspec",
    "lambda:sourcefunctionarn",
    "ssm:sourceinstancearn",
];
/// What keys begin with whose end their user chooses, in lower case.
const FAMILIES: [&str; 4] = [
    "aws:principaltag/",
    "aws:requesttag/",
    "aws:resourcetag/",
    "kms:encryptioncontext:",
];
const ATTESTATION: &str = "kms:recipientattestation:";
const IMAGE: &str = "imagesha384";

/// The name of a condition key. Case does not distinguish two (IAM, "Condition").
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConditionKey(String);

impl ConditionKey {
    /// Of the image that an enclave runs, `kms:RecipientAttestation:ImageSha384`: PCR0.
    pub fn image() -> Self {
        Self(format!("{ATTESTATION}{IMAGE}"))
    }

    /// Of a register of an enclave, `kms:RecipientAttestation:PCR8`; `None` for one that
    /// enclaves do not have.
    pub fn pcr(index: u8) -> Option<Self> {
        (usize::from(index) < PCR_COUNT).then(|| Self(format!("{ATTESTATION}pcr{index}")))
    }

    /// Of an entry in the encryption context.
    pub fn encryption_context(name: &str) -> Self {
        Self(format!("kms:encryptioncontext:{name}").to_lowercase())
    }

    /// One that this crate itself names, in lower case.
    pub(crate) fn known(name: &'static str) -> Self {
        Self(name.to_owned())
    }

    /// The register of an enclave that the key is about.
    pub fn register(&self) -> Option<u8> {
        match self.0.strip_prefix(ATTESTATION)? {
            IMAGE => Some(0),
            name => number(name.strip_prefix("pcr")?, PCR_COUNT),
        }
    }

    /// Whether the key is there only in calls with an attestation document, of whatever
    /// platform.
    pub(crate) fn is_attestation(&self) -> bool {
        self.0.starts_with(ATTESTATION)
    }

    /// The name in lower case.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ConditionKey {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let name = text.to_lowercase();
        let known = match name.strip_prefix(ATTESTATION) {
            Some(IMAGE) => true,
            Some(register) => match register.strip_prefix("nitrotpmpcr") {
                Some(index) => number(index, TPM_PCR_COUNT).is_some(),
                None => register
                    .strip_prefix("pcr")
                    .is_some_and(|index| number(index, PCR_COUNT).is_some()),
            },
            None => {
                KNOWN.contains(&name.as_str())
                    || FAMILIES
                        .iter()
                        .any(|family| name.strip_prefix(family).is_some_and(|end| !end.is_empty()))
            }
        };
        if known {
            Ok(Self(name))
        } else {
            Err(Problem::ConditionKey(shown(text)))
        }
    }
}

impl fmt::Display for ConditionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.register() {
            Some(0) if self.0.ends_with(IMAGE) => {
                f.write_str("kms:RecipientAttestation:ImageSha384")
            }
            Some(index) => write!(f, "kms:RecipientAttestation:PCR{index}"),
            None => f.write_str(&self.0),
        }
    }
}

/// A register's number, written as KMS does: without zeros before it.
fn number(text: &str, count: usize) -> Option<u8> {
    let index: u8 = text.parse().ok()?;
    (usize::from(index) < count && index.to_string() == text).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn condition_keys_are_those_that_aws_has() {
        for text in [
            "kms:RecipientAttestation:ImageSha384",
            "KMS:recipientattestation:PCR31",
            "kms:RecipientAttestation:NitroTPMPCR23",
            "kms:EncryptionContext:aws:logs:arn",
            "aws:PrincipalTag/team",
            "kms:ViaService",
        ] {
            let key: ConditionKey = text.parse().unwrap();
            assert_eq!(key.as_str(), text.to_lowercase());
        }
        for text in [
            "",
            "kms:RecipientAttestation:ImageSHA256",
            "kms:RecipientAttestation:PCR32",
            "kms:RecipientAttestation:PCR08",
            "kms:RecipientAttestation:PCR",
            "kms:RecipientAttestation:NitroTPMPCR24",
            "kms:RecipientAttestation",
            "kms:EncryptionContext:",
            "aws:PrincipalTag",
            "s3:prefix",
            "kms:Via Service",
        ] {
            assert!(text.parse::<ConditionKey>().is_err(), "{text}");
        }
    }

    #[test]
    fn condition_keys_of_registers_are_shown_as_aws_writes_them() {
        for text in [
            "kms:RecipientAttestation:ImageSha384",
            "kms:RecipientAttestation:PCR8",
        ] {
            let key: ConditionKey = text.to_lowercase().parse().unwrap();
            assert_eq!(key.to_string(), text);
        }
        assert_eq!(ConditionKey::image().register(), Some(0));
        assert_eq!(ConditionKey::pcr(32), None);
    }
}
