//! Names of AWS: which host name a service has in a region, whether a host is one of
//! a service's, and where an object in S3 is.
//!
//! ```
//! use aws_endpoint::{Service, Variant};
//!
//! let kms: Service = "kms".parse().unwrap();
//! assert_eq!(kms.host("eu-central-1", Variant::default()), "kms.eu-central-1.amazonaws.com");
//! assert!(kms.has_host("kms-fips.us-east-1.amazonaws.com", None, false));
//! assert!(!kms.has_host("kms.us-east-1.amazonaws.com", Some("us-west-2"), false));
//! ```
//!
//! Source of the names: the endpoint rules that AWS publishes with its SDKs. The
//! tests hold them against what botocore makes of these.

#![forbid(unsafe_code)]

mod object;
mod partition;
mod service;

pub use object::Object;
pub use service::{Service, UnknownService};

use partition::Partition;

/// Which of a service's names in a region is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Variant {
    /// Where the cryptography is validated by FIPS 140.
    pub fips: bool,
    /// With IPv6 addresses too.
    pub dual_stack: bool,
}

impl Service {
    /// The host name in a region.
    pub fn host(self, region: &str, variant: Variant) -> String {
        let partition = Partition::of(region);
        let Variant { fips, dual_stack } = variant;
        let suffix = if fips && !self.has_fips_without_suffix(partition, dual_stack) {
            "-fips"
        } else {
            ""
        };
        let (domain, name) = (partition.domain, self.host_name());
        match (self, dual_stack) {
            (Self::Iam, _) => iam(partition, variant),
            (Self::Ecr, true) => format!("ecr{suffix}.{region}.{}", partition.dual_stack_domain),
            (Self::S3, true) => format!("{name}{suffix}.dualstack.{region}.{domain}"),
            // Its ordinary name has IPv6 addresses there.
            (Self::SecretsManager, true) if partition.is_public(fips) => {
                format!("{name}{suffix}.{region}.{domain}")
            }
            // All its names with IPv6 addresses are FIPS's there.
            (Self::States, true) if partition.is_us_gov() => {
                format!("{name}-fips.{region}.{}", partition.dual_stack_domain)
            }
            (_, true) => format!("{name}{suffix}.{region}.{}", partition.dual_stack_domain),
            (_, false) => format!("{name}{suffix}.{region}.{domain}"),
        }
    }

    /// Whether `host` is one of the service's, in one region or, where none is
    /// named, in any. These are the names above, with and without IPv6 addresses,
    /// FIPS's and, unless `fips_only`, the others; those of VPC endpoints
    /// (`vpce-….kms.us-east-1.vpce.amazonaws.com`); for S3 also its buckets', for
    /// ECR its registries', and what STS and S3 have for all regions.
    pub fn has_host(self, host: &str, region: Option<&str>, fips_only: bool) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let is_one = |region: &str| self.has_host_in(&host, region, fips_only);
        if let Some(region) = region {
            return is_one(region);
        }
        // No name of a region's own lacks the region, and the others are a
        // partition's.
        host.split('.').filter(|label| is_region(label)).any(is_one)
            || (self.is_global() && Partition::homes().any(is_one))
    }

    fn has_host_in(self, host: &str, region: &str, fips_only: bool) -> bool {
        let plain = if fips_only { None } else { Some(false) };
        for fips in plain.into_iter().chain([true]) {
            for dual_stack in [false, true] {
                let name = self.host(region, Variant { fips, dual_stack });
                // In China and elsewhere the names of FIPS's rules do not exist;
                // where one without a suffix is FIPS's, it is among them.
                if host == name || (self == Self::S3 && is_below(host, &name)) {
                    return true;
                }
            }
            let domain = Partition::of(region).domain;
            let suffix = if fips { "-fips" } else { "" };
            let name = format!("{}{suffix}.{region}", self.host_name());
            let end_of_vpc_endpoint = format!("{name}.vpce.{domain}");
            if is_below(host, &end_of_vpc_endpoint) && has_vpc_endpoint(host) {
                return true;
            }
            let registries = format!("dkr.ecr{suffix}.{region}.{domain}");
            if self == Self::Ecr && is_below(host, &registries) {
                return true;
            }
        }
        match (self, region) {
            _ if fips_only => false,
            (Self::Sts, _) if Partition::of(region).is_first() => host == "sts.amazonaws.com",
            (Self::S3, "us-east-1") => {
                host == "s3.amazonaws.com" || is_below(host, "s3.amazonaws.com")
            }
            _ => false,
        }
    }
}

/// It has one name for a partition, in which some name the partition's first
/// region.
fn iam(partition: &Partition, variant: Variant) -> String {
    let Partition {
        domain,
        dual_stack_domain,
        home,
        ..
    } = partition;
    let is_fips = variant.fips;
    match (variant.fips, variant.dual_stack) {
        (_, false) if partition.is_us_gov() => format!("iam.us-gov.{domain}"),
        (_, true) if partition.is_us_gov() => format!("iam.us-gov.{dual_stack_domain}"),
        (_, true) if partition.is_first() => {
            let suffix = if is_fips { "-fips" } else { "" };
            format!("iam{suffix}.global.{dual_stack_domain}")
        }
        (false, false) if partition.is_first() => format!("iam.{domain}"),
        (false, false) => format!("iam.{home}.{domain}"),
        (true, false) if matches!(*home, "us-iso-east-1" | "us-isob-east-1") => {
            format!("iam-fips.{home}.{domain}")
        }
        (true, false) => format!("iam-fips.{domain}"),
        (false, true) if matches!(*home, "cn-north-1" | "eusc-de-east-1") => {
            format!("iam.global.{dual_stack_domain}")
        }
        (false, true) => format!("iam.{dual_stack_domain}"),
        (true, true) => format!("iam-fips.{dual_stack_domain}"),
    }
}

/// Whether a name ends in a dot and that suffix, with something before them.
fn is_below(host: &str, suffix: &str) -> bool {
    host.strip_suffix(suffix)
        .and_then(|rest| rest.strip_suffix('.'))
        .is_some_and(|rest| rest.split('.').all(|label| !label.is_empty()))
}

/// Whether a label is a VPC endpoint's.
fn has_vpc_endpoint(host: &str) -> bool {
    host.split('.').any(|label| label.starts_with("vpce-"))
}

/// Whether a label is as regions' names are: `us-east-1`, `us-gov-west-1`.
pub fn is_region(label: &str) -> bool {
    let mut parts = label.rsplit('-');
    let is_number = parts.next().is_some_and(|number| {
        (1..=2).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit())
    });
    let words: Vec<_> = parts.collect();
    let is_word = |word: &&str| {
        (2..=12).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_lowercase())
    };
    is_number && (2..=3).contains(&words.len()) && words.iter().all(is_word)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Service, region, variant and name, as botocore 1.43's endpoint resolver has
    /// them.
    fn published() -> impl Iterator<Item = (Service, &'static str, Variant, &'static str)> {
        include_str!("../tests/endpoints.txt").lines().map(|line| {
            let fields: Vec<_> = line.split(' ').collect();
            let [name, region, fips, dual_stack, host] = fields[..] else {
                panic!("{line}");
            };
            let variant = Variant {
                fips: fips == "fips",
                dual_stack: dual_stack == "dualstack",
            };
            (name.parse().unwrap(), region, variant, host)
        })
    }

    #[test]
    fn names_are_those_of_the_published_rules() {
        let mut seen = std::collections::BTreeSet::new();
        for (service, region, variant, host) in published() {
            assert_eq!(
                service.host(region, variant),
                host,
                "{service} {region} {variant:?}"
            );
            seen.insert(service);
        }
        assert_eq!(seen.len(), Service::ALL.len());
    }

    #[test]
    fn published_names_are_their_services_alone_and_their_regions() {
        for (service, region, variant, host) in published() {
            for other in Service::ALL {
                let is_own = other == service;
                assert_eq!(other.has_host(host, None, false), is_own, "{other} {host}");
            }
            assert!(service.has_host(host, Some(region), false), "{host}");
            let is_elsewhere = service.has_host(host, Some("ap-south-1"), false);
            assert_eq!(
                is_elsewhere,
                service == Service::Iam && Partition::of(region).is_first(),
                "{host}"
            );
            if variant.fips {
                assert!(service.has_host(host, None, true), "{host}");
            }
        }
    }

    #[test]
    fn names_with_more_before_them_are_the_services_too() {
        for (service, region, host) in [
            (
                Service::S3,
                "us-west-2",
                "my-bucket.s3.us-west-2.amazonaws.com",
            ),
            (
                Service::S3,
                "us-west-2",
                "my.bucket.s3.us-west-2.amazonaws.com",
            ),
            (
                Service::S3,
                "us-west-2",
                "b.s3.dualstack.us-west-2.amazonaws.com",
            ),
            (Service::S3, "us-east-1", "s3.amazonaws.com"),
            (Service::S3, "us-east-1", "b.s3.amazonaws.com"),
            (
                Service::S3,
                "cn-north-1",
                "b.s3.cn-north-1.amazonaws.com.cn",
            ),
            (
                Service::S3,
                "us-east-1",
                "bucket.vpce-1a-2b.s3.us-east-1.vpce.amazonaws.com",
            ),
            (Service::Sts, "eu-west-1", "sts.amazonaws.com"),
            (
                Service::Kms,
                "us-east-1",
                "vpce-1a2b-3c.kms.us-east-1.vpce.amazonaws.com",
            ),
            (
                Service::Kms,
                "us-east-1",
                "vpce-1a2b-3c-us-east-1a.kms.us-east-1.vpce.amazonaws.com",
            ),
            (
                Service::Kms,
                "cn-north-1",
                "vpce-1a.kms.cn-north-1.vpce.amazonaws.com.cn",
            ),
            (
                Service::Ecr,
                "us-east-1",
                "vpce-1a.api.ecr.us-east-1.vpce.amazonaws.com",
            ),
            (
                Service::Ecr,
                "us-east-1",
                "123456789012.dkr.ecr.us-east-1.amazonaws.com",
            ),
            (Service::Kms, "us-east-1", "KMS.us-east-1.amazonaws.com."),
        ] {
            assert!(service.has_host(host, None, false), "{host}");
            assert!(service.has_host(host, Some(region), false), "{host}");
            assert!(
                !service.has_host(host, Some("us-gov-west-1"), false),
                "{host}"
            );
            assert!(!service.has_host(host, None, true), "{host}");
        }
        for (service, host) in [
            (Service::S3, "b.s3-fips.us-west-2.amazonaws.com"),
            (
                Service::Kms,
                "vpce-1a.kms-fips.us-east-1.vpce.amazonaws.com",
            ),
            (Service::Sqs, "sqs.us-gov-west-1.amazonaws.com"),
        ] {
            assert!(service.has_host(host, None, true), "{host}");
        }
    }

    #[test]
    fn what_only_looks_like_a_services_name_is_none() {
        for host in [
            "",
            ".",
            "us-east-1",
            "kms.amazonaws.com",
            "kms.us-east-1.amazonaws.com.evil.org",
            "kms.us-east-1.evil.org",
            "kms.us-east-1.amazonaws.com.cn",
            "x.kms.us-east-1.amazonaws.com",
            "kms.us-east-1.vpce.amazonaws.com",
            "x.kms.us-east-1.vpce.amazonaws.com",
            "vpce-1a.kms.us-east-1.amazonaws.com",
            "kms.us-east-1a.amazonaws.com",
            "kms.a.us-east-1.amazonaws.com",
            "kms..us-east-1.amazonaws.com",
        ] {
            for service in Service::ALL {
                assert!(!service.has_host(host, None, false), "{service} {host}");
            }
        }
        for host in [
            "evils3.us-west-2.amazonaws.com",
            ".s3.us-west-2.amazonaws.com",
            "a..s3.us-west-2.amazonaws.com",
            "b.s3.us-west-2.evil.org",
        ] {
            assert!(!Service::S3.has_host(host, None, false), "{host}");
        }
    }

    proptest! {
        #[test]
        fn every_host_of_a_service_is_aws_own(host in "[a-z0-9.-]{0,40}\\.(s3|kms|iam|sts)?\\.?(us-east-1|cn-north-1|[a-z-]{2,9}-[0-9])\\.[a-z.]{3,24}") {
            let domains = ["amazonaws.com", "amazonaws.com.cn", "api.aws", "amazonaws.eu"];
            for service in Service::ALL {
                if service.has_host(&host, None, false) {
                    prop_assert!(domains.iter().any(|domain| is_below(&host, domain)), "{}", host);
                }
            }
        }
    }
}
