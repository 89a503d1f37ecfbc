//! The services that requests can be signed for.

use std::fmt;

/// A service that requests can be signed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// EC2.
    Ec2,
    /// Elastic Container Registry.
    Ecr,
    /// Lambda.
    Lambda,
    /// CloudWatch Logs.
    Logs,
    /// S3.
    S3,
    /// Systems Manager.
    Ssm,
}

impl Service {
    /// Every service.
    pub const ALL: [Self; 6] = [
        Self::Ec2,
        Self::Ecr,
        Self::Lambda,
        Self::Logs,
        Self::S3,
        Self::Ssm,
    ];

    /// The name in host names and in signatures.
    pub const fn name(self) -> &'static str {
        self.endpoint().name()
    }

    /// The service whose host names it has.
    pub(crate) const fn endpoint(self) -> aws_endpoint::Service {
        use aws_endpoint::Service as Endpoint;
        match self {
            Self::Ec2 => Endpoint::Ec2,
            Self::Ecr => Endpoint::Ecr,
            Self::Lambda => Endpoint::Lambda,
            Self::Logs => Endpoint::Logs,
            Self::S3 => Endpoint::S3,
            Self::Ssm => Endpoint::Ssm,
        }
    }

    /// The name in the configuration of endpoints: `AWS_ENDPOINT_URL_` and this.
    pub(crate) const fn id(self) -> &'static str {
        match self {
            Self::Ec2 => "EC2",
            Self::Ecr => "ECR",
            Self::Lambda => "Lambda",
            Self::Logs => "CloudWatch Logs",
            Self::S3 => "S3",
            Self::Ssm => "SSM",
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ec2 => "EC2",
            Self::Ecr => "ECR",
            Self::Lambda => "Lambda",
            Self::Logs => "CloudWatch Logs",
            Self::S3 => "S3",
            Self::Ssm => "Systems Manager",
        })
    }
}
