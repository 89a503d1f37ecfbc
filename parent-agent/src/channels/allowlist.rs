//! Where the workload may connect to, in the agent's own copy.

use manifest::{AwsService, EgressRule, HostConfig, Protocol, host_spelling, service_host};

/// The port of AWS's services.
const AWS_PORT: u16 = 443;

/// The egress rules of the image's manifest, and of its services of AWS those that
/// the configuration wants open, in the instance's region.
#[derive(Debug, Clone, Default)]
pub struct Allowlist {
    rules: Vec<EgressRule>,
    services: Vec<AwsService>,
    fips: bool,
    region: Option<String>,
}

impl Allowlist {
    /// What the image's manifest allows; of its services only those `wanted`, if
    /// the configuration names any. Without a region their hosts in every region
    /// are allowed, as they are by the manifest.
    pub fn new(image: &HostConfig, wanted: Option<&[String]>, region: Option<String>) -> Self {
        let is_wanted = |service: &AwsService| {
            wanted.is_none_or(|names| names.iter().any(|name| name == service.name()))
        };
        let services = image.aws_services.iter().copied().filter(is_wanted);
        Self {
            rules: image.egress.clone(),
            services: services.collect(),
            fips: image.aws_fips,
            region,
        }
    }

    /// Whether a connection to `host` on `port` is allowed.
    pub fn allows(&self, host: &str, port: u16) -> bool {
        self.allows_over(host, port, Protocol::Tcp)
    }

    /// Whether this may go to `host` on `port`.
    pub fn allows_over(&self, host: &str, port: u16, protocol: Protocol) -> bool {
        let mut rules = self.rules.iter();
        rules.any(|rule| rule.matches(host, port, protocol))
            || (protocol == Protocol::Tcp && port == AWS_PORT && self.is_of_service(host))
    }

    /// Whether the name's records of type SRV and TXT may be asked for, by the same rule as
    /// in the enclave.
    pub fn allows_records(&self, name: &str) -> bool {
        let name = host_spelling(name);
        let host = service_host(&name);
        let mut rules = self.rules.iter();
        rules.any(|rule| rule.host().matches(host)) || self.is_of_service(host)
    }

    fn is_of_service(&self, host: &str) -> bool {
        let mut services = self.services.iter();
        services.any(|service| service.has_host(host, self.region.as_deref(), self.fips))
    }
}

impl From<Vec<EgressRule>> for Allowlist {
    fn from(rules: Vec<EgressRule>) -> Self {
        Self {
            rules,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn image() -> HostConfig {
        let host = json!({
            "schema": 1, "name": "test", "cpus": 1, "memory_mib": 128, "ingress": [],
            "egress": ["sqs.us-west-2.amazonaws.com:443"], "aws_services": ["kms", "s3"],
        });
        HostConfig::from_json(host.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn the_images_services_are_open_in_the_instances_region() {
        let allowlist = Allowlist::new(&image(), None, Some("us-west-2".to_owned()));
        for (host, port, allowed) in [
            ("kms.us-west-2.amazonaws.com", 443, true),
            ("vpce-1a.kms.us-west-2.vpce.amazonaws.com", 443, true),
            ("bucket.s3.us-west-2.amazonaws.com", 443, true),
            ("sqs.us-west-2.amazonaws.com", 443, true),
            ("kms.us-west-2.amazonaws.com", 80, false),
            ("kms.us-east-1.amazonaws.com", 443, false),
            ("sns.us-west-2.amazonaws.com", 443, false),
        ] {
            assert_eq!(allowlist.allows(host, port), allowed, "{host}");
        }
        let anywhere = Allowlist::new(&image(), None, None);
        assert!(anywhere.allows("kms.us-east-1.amazonaws.com", 443));
    }

    #[test]
    fn a_configuration_closes_services_and_opens_none_that_the_image_lacks() {
        let wanted = ["kms".to_owned(), "sns".to_owned()];
        let allowlist = Allowlist::new(&image(), Some(&wanted), None);
        assert!(allowlist.allows("kms.us-west-2.amazonaws.com", 443));
        assert!(!allowlist.allows("s3.us-west-2.amazonaws.com", 443));
        assert!(!allowlist.allows("sns.us-west-2.amazonaws.com", 443));
        // A rule of the manifest is no service.
        let none = Allowlist::new(&image(), Some(&[]), None);
        assert!(none.allows("sqs.us-west-2.amazonaws.com", 443));
        assert!(!none.allows("kms.us-west-2.amazonaws.com", 443));
    }
}
