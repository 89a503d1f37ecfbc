//! The services.

use std::fmt;
use std::str::FromStr;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::partition::Partition;

/// A service of AWS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Service {
    /// Private Certificate Authority.
    AcmPca,
    /// Athena.
    Athena,
    /// The models of Bedrock.
    BedrockRuntime,
    /// DynamoDB.
    DynamoDb,
    /// EC2.
    Ec2,
    /// Elastic Container Registry.
    Ecr,
    /// `EventBridge`.
    Events,
    /// Data Firehose.
    Firehose,
    /// Glue.
    Glue,
    /// Identity and Access Management.
    Iam,
    /// Kinesis Data Streams.
    Kinesis,
    /// Key Management Service.
    Kms,
    /// Lambda.
    Lambda,
    /// CloudWatch Logs.
    Logs,
    /// CloudWatch.
    Monitoring,
    /// S3.
    S3,
    /// Secrets Manager.
    SecretsManager,
    /// Simple Notification Service.
    Sns,
    /// Simple Queue Service.
    Sqs,
    /// Systems Manager.
    Ssm,
    /// Step Functions.
    States,
    /// Security Token Service.
    Sts,
    /// X-Ray.
    Xray,
}

/// A name that is not a known service's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{name}` is not a known service: use {}, or name its hosts one by one", Service::ALL.map(Service::name).join(", "))]
pub struct UnknownService {
    /// The name.
    pub name: String,
}

impl Service {
    /// Every service.
    pub const ALL: [Self; 23] = [
        Self::AcmPca,
        Self::Athena,
        Self::BedrockRuntime,
        Self::DynamoDb,
        Self::Ec2,
        Self::Ecr,
        Self::Events,
        Self::Firehose,
        Self::Glue,
        Self::Iam,
        Self::Kinesis,
        Self::Kms,
        Self::Lambda,
        Self::Logs,
        Self::Monitoring,
        Self::S3,
        Self::SecretsManager,
        Self::Sns,
        Self::Sqs,
        Self::Ssm,
        Self::States,
        Self::Sts,
        Self::Xray,
    ];

    /// Its name, which is the one in its host names and in signatures.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AcmPca => "acm-pca",
            Self::Athena => "athena",
            Self::BedrockRuntime => "bedrock-runtime",
            Self::DynamoDb => "dynamodb",
            Self::Ec2 => "ec2",
            Self::Ecr => "ecr",
            Self::Events => "events",
            Self::Firehose => "firehose",
            Self::Glue => "glue",
            Self::Iam => "iam",
            Self::Kinesis => "kinesis",
            Self::Kms => "kms",
            Self::Lambda => "lambda",
            Self::Logs => "logs",
            Self::Monitoring => "monitoring",
            Self::S3 => "s3",
            Self::SecretsManager => "secretsmanager",
            Self::Sns => "sns",
            Self::Sqs => "sqs",
            Self::Ssm => "ssm",
            Self::States => "states",
            Self::Sts => "sts",
            Self::Xray => "xray",
        }
    }

    /// What its host names begin with.
    pub(crate) const fn host_name(self) -> &'static str {
        match self {
            Self::Ecr => "api.ecr",
            other => other.name(),
        }
    }

    /// Whether it has names for all regions of a partition.
    pub(crate) const fn is_global(self) -> bool {
        matches!(self, Self::Iam | Self::S3 | Self::Sts)
    }

    /// Whether a name of FIPS's is the ordinary one: it is for some services in
    /// the partition of the US government.
    pub(crate) fn has_fips_without_suffix(self, partition: &Partition, dual_stack: bool) -> bool {
        let always = matches!(self, Self::Events | Self::Monitoring);
        let without_ipv6 = matches!(
            self,
            Self::AcmPca
                | Self::DynamoDb
                | Self::Ec2
                | Self::Kinesis
                | Self::Logs
                | Self::Sns
                | Self::Sqs
                | Self::Ssm
                | Self::States
                | Self::Sts
        );
        partition.is_us_gov() && (always || (without_ipv6 && !dual_stack))
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Service {
    type Err = UnknownService;

    fn from_str(name: &str) -> Result<Self, UnknownService> {
        let mut all = Self::ALL.into_iter();
        all.find(|service| service.name() == name)
            .ok_or_else(|| UnknownService {
                name: name.to_owned(),
            })
    }
}

impl Serialize for Service {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

// Parsed inside the visitor, so that an error is about the name's own line and not
// about the list's.
impl<'de> Deserialize<'de> for Service {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;

        impl Visitor<'_> for Name {
            type Value = Service;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a service's name such as \"kms\"")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Service, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Name)
    }
}
