//! Where a service is found.
//!
//! Source of the names: the endpoint rules that AWS publishes with its SDKs.

use std::fmt;

/// A service that requests can be signed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// EC2.
    Ec2,
    /// Elastic Container Registry.
    Ecr,
    /// Key Management Service.
    Kms,
    /// Lambda.
    Lambda,
    /// CloudWatch Logs.
    Logs,
    /// S3.
    S3,
    /// Secrets Manager.
    SecretsManager,
    /// Systems Manager.
    Ssm,
}

impl Service {
    /// Every service.
    pub const ALL: [Self; 8] = [
        Self::Ec2,
        Self::Ecr,
        Self::Kms,
        Self::Lambda,
        Self::Logs,
        Self::S3,
        Self::SecretsManager,
        Self::Ssm,
    ];

    /// The name in signatures, and in most host names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ec2 => "ec2",
            Self::Ecr => "ecr",
            Self::Kms => "kms",
            Self::Lambda => "lambda",
            Self::Logs => "logs",
            Self::S3 => "s3",
            Self::SecretsManager => "secretsmanager",
            Self::Ssm => "ssm",
        }
    }

    /// The name in the configuration of endpoints: `AWS_ENDPOINT_URL_` and this.
    pub(crate) const fn id(self) -> &'static str {
        match self {
            Self::Ec2 => "EC2",
            Self::Ecr => "ECR",
            Self::Kms => "KMS",
            Self::Lambda => "Lambda",
            Self::Logs => "CloudWatch Logs",
            Self::S3 => "S3",
            Self::SecretsManager => "Secrets Manager",
            Self::Ssm => "SSM",
        }
    }

    /// Whether the ordinary name is the FIPS one in the partition of the US
    /// government.
    const fn is_fips_in_us_gov(self) -> bool {
        matches!(self, Self::Ec2 | Self::Logs | Self::Ssm)
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ec2 => "EC2",
            Self::Ecr => "ECR",
            Self::Kms => "KMS",
            Self::Lambda => "Lambda",
            Self::Logs => "CloudWatch Logs",
            Self::S3 => "S3",
            Self::SecretsManager => "Secrets Manager",
            Self::Ssm => "Systems Manager",
        })
    }
}

/// What the name of a region begins with in a partition, and the partition's
/// domains, without and with IPv6.
const PARTITIONS: [(&str, &str, &str); 7] = [
    ("cn-", CHINA_DOMAIN, "api.amazonwebservices.com.cn"),
    ("us-iso-", "c2s.ic.gov", "api.aws.ic.gov"),
    ("us-isob-", "sc2s.sgov.gov", "api.aws.scloud"),
    ("us-isof-", "csp.hci.ic.gov", "api.aws.hci.ic.gov"),
    ("eu-isoe-", "cloud.adc-e.uk", "api.cloud-aws.adc-e.uk"),
    ("eusc-", "amazonaws.eu", "api.amazonwebservices.eu"),
    ("", DOMAIN, "api.aws"),
];
/// The domain of the public regions outside China and the European sovereign cloud.
const DOMAIN: &str = "amazonaws.com";
const CHINA_DOMAIN: &str = "amazonaws.com.cn";
/// What the regions of the US government begin with.
const US_GOV: &str = "us-gov-";

/// Which of a service's names is wanted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Variant {
    pub(crate) fips: bool,
    pub(crate) dual_stack: bool,
}

/// The host name of a service in a region.
pub(crate) fn host(service: Service, region: &str, variant: Variant) -> String {
    let name = service.name();
    let (domain, dual_stack_domain) = PARTITIONS
        .iter()
        .find(|(prefix, ..)| region.starts_with(prefix))
        .map_or((DOMAIN, "api.aws"), |&(_, domain, dual_stack)| {
            (domain, dual_stack)
        });
    let in_us_gov = region.starts_with(US_GOV);
    let fips = match variant.fips {
        true if in_us_gov && service.is_fips_in_us_gov() && !variant.dual_stack => "",
        true => "-fips",
        false => "",
    };
    match (service, variant.dual_stack) {
        (Service::S3, true) => format!("{name}{fips}.dualstack.{region}.{domain}"),
        (Service::Ecr, false) => format!("api.{name}{fips}.{region}.{domain}"),
        // Its ordinary name has IPv6 addresses there.
        (Service::SecretsManager, true) if matches!(domain, DOMAIN | CHINA_DOMAIN) => {
            format!("{name}{fips}.{region}.{domain}")
        }
        (_, true) => format!("{name}{fips}.{region}.{dual_stack_domain}"),
        (_, false) => format!("{name}{fips}.{region}.{domain}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_published_rules() {
        // Written by botocore 1.43's endpoint resolver.
        for line in include_str!("../tests/endpoints.txt").lines() {
            let fields: Vec<_> = line.split(' ').collect();
            let [name, region, fips, dual_stack, expected] = fields[..] else {
                panic!("{line}");
            };
            let service = Service::ALL
                .into_iter()
                .find(|service| service.name() == name)
                .unwrap();
            let variant = Variant {
                fips: fips == "fips",
                dual_stack: dual_stack == "dualstack",
            };
            assert_eq!(host(service, region, variant), expected, "{line}");
        }
    }
}
