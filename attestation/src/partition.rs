//! AWS's partitions, each of which has a root of its own.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// A partition of AWS whose root AWS publishes.
///
/// The roots of other partitions could not be found in AWS's public documentation, which
/// says that each partition has its own: those of `aws-cn` (China), `aws-eusc` (the
/// European Sovereign Cloud) and `aws-iso*`. Who has such a root from AWS pins it with
/// [`Roots::from_pem`](crate::Roots::from_pem).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Partition {
    /// `aws`: the commercial regions.
    Aws,
    /// `aws-us-gov`: the regions of AWS's cloud for the government of the US.
    AwsUsGov,
}

impl Partition {
    /// Every partition whose root AWS publishes.
    pub const ALL: [Self; 2] = [Self::Aws, Self::AwsUsGov];

    /// Partitions whose roots could not be found in public text of AWS.
    pub const UNPUBLISHED: [&'static str; 3] = ["aws-cn", "aws-eusc", "aws-iso*"];

    /// Its name, as in ARNs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aws => "aws",
            Self::AwsUsGov => "aws-us-gov",
        }
    }

    /// Its root, DER.
    pub const fn certificate(self) -> &'static [u8] {
        match self {
            Self::Aws => include_bytes!("aws-nitro-root.der"),
            Self::AwsUsGov => include_bytes!("aws-us-gov-nitro-root.der"),
        }
    }

    /// Its root, PEM.
    pub const fn pem(self) -> &'static str {
        match self {
            Self::Aws => include_str!("aws-nitro-root.pem"),
            Self::AwsUsGov => include_str!("aws-us-gov-nitro-root.pem"),
        }
    }

    /// SHA-256 of its root's DER, in hexadecimal.
    pub const fn fingerprint(self) -> &'static str {
        match self {
            Self::Aws => "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b",
            Self::AwsUsGov => "20bcd30a3e168ea03789e1c45912bc123c4de3c977b8a6e1c125c7929d668b3b",
        }
    }

    /// Where AWS publishes it.
    pub const fn source(self) -> &'static str {
        match self {
            Self::Aws => "https://docs.aws.amazon.com/enclaves/latest/user/verify-root.html",
            Self::AwsUsGov => {
                "https://docs.aws.amazon.com/govcloud-us/latest/UserGuide/govcloud-ec2.html"
            }
        }
    }

    /// The partition whose root a certificate is.
    pub(crate) fn of(der: &[u8]) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|partition| partition.certificate() == der)
    }
}

/// Its name.
impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A partition by its name.
impl FromStr for Partition {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let mut all = Self::ALL.into_iter();
        all.find(|partition| partition.name() == name)
            .ok_or_else(|| {
                let known = Self::ALL.map(Self::name).join(" and ");
                format!(
                    "{name:?} is no partition whose root AWS publishes, as {known} are: if you have its root from AWS, give it in a PEM file"
                )
            })
    }
}

/// Its name.
impl Serialize for Partition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(all(test, feature = "aws-lc-rs"))]
mod tests {
    use super::*;
    use crate::aws_lc::AwsLcRs;
    use crate::crypto::Crypto;

    #[test]
    fn partition_roots_are_those_that_aws_publishes() {
        for partition in Partition::ALL {
            let sha256 = hex::encode(AwsLcRs.sha256(&[partition.certificate()]));
            assert_eq!(sha256, partition.fingerprint());
            let pem = partition.pem().as_bytes();
            let (_, pem) = x509_parser::pem::parse_x509_pem(pem).unwrap();
            assert_eq!(pem.contents, partition.certificate());
            assert_eq!(Partition::of(partition.certificate()), Some(partition));
            assert_eq!(partition.name().parse(), Ok(partition));
        }
    }

    #[test]
    fn partition_names_that_are_not_known_are_refused() {
        for name in ["", "AWS", "aws-cn", "us-gov", "aws-us-gov "] {
            let error = name.parse::<Partition>().unwrap_err();
            assert!(error.contains("aws and aws-us-gov"), "{error}");
        }
    }
}
