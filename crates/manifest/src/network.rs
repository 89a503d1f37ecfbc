//! What may leave the enclave, and what may come in.

use std::collections::{BTreeSet, HashSet};
use std::net::Ipv4Addr;

use aws_endpoint::Service;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::addresses;
use crate::egress::{EgressRule, HostPattern, Protocol, host_spelling, service_host};
use crate::units::Port;

/// The most egress rules in one manifest.
pub const MAX_EGRESS_RULES: usize = 256;
/// The port of AWS's services.
const AWS_PORT: u16 = 443;
/// The most ingress ports in one manifest.
pub const MAX_INGRESS_RULES: usize = 64;
/// The `[network]` table: its lists are empty unless given, so an enclave has
/// no network until its manifest says otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    /// Destinations that the workload may open TCP connections or send datagrams to; at most
    /// [`MAX_EGRESS_RULES`], none twice.
    pub egress: Vec<EgressRule>,
    /// Services of AWS that the workload may connect to, at any of the hosts that
    /// they have in any region; none twice.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub aws_services: Vec<Service>,
    /// Whether of these hosts only those are meant whose cryptography is validated
    /// by FIPS 140.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub aws_fips: bool,
    /// Ports that the parent instance opens on the workload's behalf; at most
    /// [`MAX_INGRESS_RULES`], no port of the parent twice.
    pub ingress: Vec<IngressRule>,
    /// Whether the workload has an HTTP and SOCKS proxy, which its environment names.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub proxy: bool,
}

/// Why a list of rules was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NetworkError {
    /// More than [`MAX_EGRESS_RULES`].
    #[error("egress has {0} rules, at most {MAX_EGRESS_RULES} are allowed")]
    EgressCount(usize),
    /// More than [`MAX_INGRESS_RULES`].
    #[error("ingress has {0} ports, at most {MAX_INGRESS_RULES} are allowed")]
    IngressCount(usize),
    /// A rule is there twice.
    #[error("the egress rule `{rule}` is listed twice: remove one")]
    EgressTwice {
        /// The rule.
        rule: EgressRule,
        /// Where it is the second time, counted from zero.
        index: usize,
    },
    /// A service is there twice.
    #[error("the AWS service `{service}` is listed twice: remove one")]
    ServiceTwice {
        /// The service.
        service: Service,
        /// Where it is the second time, counted from zero.
        index: usize,
    },
    /// FIPS's hosts of no service.
    #[error(
        "aws_fips applies to the hosts of aws_services, of which there are none: add services, or remove aws_fips"
    )]
    FipsAlone,
    /// A port of the parent instance is there twice.
    #[error("the ingress port {port} is listed twice: remove one, or give it another `port`")]
    IngressTwice {
        /// The port.
        port: Port,
        /// Where it is the second time, counted from zero.
        index: usize,
    },
    /// A proxy to nowhere.
    #[error(
        "proxy takes the workload to the destinations of egress and aws_services, of which there are none: add some, or remove proxy"
    )]
    ProxyAlone,
    /// A rule is for an address that the enclave has itself.
    #[error(
        "the egress rule `{rule}` is for an address of the enclave's own network (198.18.0.0/15, 169.254.170.2), so it leads nowhere outside: remove it"
    )]
    EgressOwn {
        /// The rule.
        rule: EgressRule,
        /// Where it is, counted from zero.
        index: usize,
    },
    /// A rule is for datagrams to a loopback address.
    #[error(
        "the egress rule `{rule}` is for a loopback address, which is the workload's own: datagrams to it never leave the enclave. Remove it, or name an address that the parent instance has outside of loopback"
    )]
    EgressLoopback {
        /// The rule.
        rule: EgressRule,
        /// Where it is, counted from zero.
        index: usize,
    },
    /// A rule is for an address that no host has.
    #[error(
        "the egress rule `{rule}` is for an address that no host has (0.0.0.0/8, multicast, 240.0.0.0/4), so it leads nowhere: remove it"
    )]
    EgressNowhere {
        /// The rule.
        rule: EgressRule,
        /// Where it is, counted from zero.
        index: usize,
    },
}

/// Checks the limits of a list of egress rules.
pub(crate) fn check_egress(rules: &[EgressRule]) -> Result<(), NetworkError> {
    if rules.len() > MAX_EGRESS_RULES {
        return Err(NetworkError::EgressCount(rules.len()));
    }
    let mut seen = HashSet::new();
    for (index, rule) in rules.iter().enumerate() {
        if !seen.insert(rule) {
            let rule = rule.clone();
            return Err(NetworkError::EgressTwice { rule, index });
        }
        let Some(address) = rule.host().address() else {
            continue;
        };
        if addresses::is_own(address) {
            let rule = rule.clone();
            return Err(NetworkError::EgressOwn { rule, index });
        }
        // The parent's own loopback address is one that a proxy can ask for, over TCP.
        if address.is_loopback() && rule.protocol() == Protocol::Udp {
            let rule = rule.clone();
            return Err(NetworkError::EgressLoopback { rule, index });
        }
        if !addresses::is_unicast(address) && !address.is_loopback() {
            let rule = rule.clone();
            return Err(NetworkError::EgressNowhere { rule, index });
        }
    }
    Ok(())
}

/// Checks a list of AWS's services.
pub(crate) fn check_services(services: &[Service]) -> Result<(), NetworkError> {
    let mut seen = HashSet::new();
    for (index, &service) in services.iter().enumerate() {
        if !seen.insert(service) {
            return Err(NetworkError::ServiceTwice { service, index });
        }
    }
    Ok(())
}

/// Checks the limits of a list of ingress rules.
pub(crate) fn check_ingress(rules: &[IngressRule]) -> Result<(), NetworkError> {
    if rules.len() > MAX_INGRESS_RULES {
        return Err(NetworkError::IngressCount(rules.len()));
    }
    let mut seen = HashSet::new();
    for (index, &IngressRule { port, .. }) in rules.iter().enumerate() {
        if !seen.insert(port) {
            return Err(NetworkError::IngressTwice { port, index });
        }
    }
    Ok(())
}

impl Network {
    /// Whether the enclave can connect to this service of AWS, in some region and by the
    /// service's own name.
    pub(crate) fn reaches(&self, service: Service) -> bool {
        let is_host = |host: &HostPattern| match host {
            // A bucket's host is not S3's own.
            HostPattern::Exact(host) => {
                let is_own = service != Service::S3 || host.starts_with("s3");
                is_own && service.has_host(host, None, false)
            }
            // Which of the hosts below it are meant is not known.
            HostPattern::Below(_) => true,
        };
        let mut rules = self.rules(Protocol::Tcp);
        self.aws_services.contains(&service) || rules.any(|rule| is_host(rule.host()))
    }

    /// Whether a connection to `host` on `port` is allowed, by a rule or by a
    /// service of AWS. A trailing dot and the letters' case make no difference.
    pub fn allows(&self, host: &str, port: u16) -> bool {
        self.allows_over(host, port, Protocol::Tcp)
    }

    /// Whether this may go to `host` on `port`. AWS's services are reached over TCP.
    pub fn allows_over(&self, host: &str, port: u16, protocol: Protocol) -> bool {
        let mut rules = self.egress.iter();
        rules.any(|rule| rule.matches(host, port, protocol))
            || (protocol == Protocol::Tcp && port == AWS_PORT && self.is_of_service(host))
    }

    /// The ports on which this may go to `host`, each once, in order.
    pub fn ports(&self, host: &str, protocol: Protocol) -> Vec<u16> {
        let rules = self.rules(protocol);
        let rules = rules.filter(|rule| rule.host().matches(host));
        let mut ports: Vec<u16> = rules.map(|rule| rule.port().get()).collect();
        if protocol == Protocol::Tcp && self.is_of_service(host) {
            ports.push(AWS_PORT);
        }
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// Whether the name's records of type SRV and TXT may be asked for: something may go to
    /// it, or to the host that it is about (`_service._tcp.host`).
    pub fn allows_records(&self, name: &str) -> bool {
        let name = host_spelling(name);
        let host = service_host(&name);
        self.egress.iter().any(|rule| rule.host().matches(host)) || self.is_of_service(host)
    }

    /// Whether datagrams to anything are allowed.
    pub fn has_datagrams(&self) -> bool {
        self.rules(Protocol::Udp).next().is_some()
    }

    fn rules(&self, protocol: Protocol) -> impl Iterator<Item = &EgressRule> {
        let rules = self.egress.iter();
        rules.filter(move |rule| rule.protocol() == protocol)
    }

    /// Whether connections to anything are allowed.
    pub fn has_egress(&self) -> bool {
        !self.egress.is_empty() || !self.aws_services.is_empty()
    }

    /// The IPv4 addresses that rules spell out and that a packet can go to, in order.
    pub fn addresses(&self) -> BTreeSet<Ipv4Addr> {
        let addresses = self.egress.iter().filter_map(|rule| rule.host().address());
        addresses
            .filter(|address| addresses::is_unicast(*address))
            .collect()
    }

    fn is_of_service(&self, host: &str) -> bool {
        let mut services = self.aws_services.iter();
        services.any(|service| service.has_host(host, None, self.aws_fips))
    }

    pub(crate) fn check(&self) -> Result<(), NetworkError> {
        if self.aws_fips && self.aws_services.is_empty() {
            return Err(NetworkError::FipsAlone);
        }
        if self.proxy && !self.has_egress() {
            return Err(NetworkError::ProxyAlone);
        }
        check_services(&self.aws_services)?;
        check_egress(&self.egress)?;
        check_ingress(&self.ingress)
    }
}

/// One port opened on the parent instance and carried to the workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IngressRule {
    /// The port that the parent instance listens on.
    pub port: Port,
    /// The port inside the enclave, on its loopback address.
    pub to: Port,
    /// Whether the workload is told who its client is, by a header of the PROXY
    /// protocol (version 2) before the client's bytes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub proxy_protocol: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::EgressError;

    fn rule(text: &str) -> Result<EgressRule, EgressError> {
        text.parse()
    }

    #[test]
    fn a_pattern_matches_names_below_it_only() {
        let network = Network {
            egress: vec![
                rule("*.example.com:443").unwrap(),
                rule("kms.amazonaws.com:443").unwrap(),
            ],
            ..Network::default()
        };
        for (host, port, allowed) in [
            ("a.example.com", 443, true),
            ("a.b.example.com", 443, true),
            ("A.EXAMPLE.COM.", 443, true),
            ("example.com", 443, false),
            (".example.com", 443, false),
            ("a..example.com", 443, false),
            ("aexample.com", 443, false),
            ("a.example.com.evil.org", 443, false),
            ("evil.org/.example.com", 443, false),
            ("a.example.com", 80, false),
            ("kms.amazonaws.com", 443, true),
            ("KMS.amazonaws.com.", 443, true),
            ("x.kms.amazonaws.com", 443, false),
            ("", 443, false),
        ] {
            assert_eq!(network.allows(host, port), allowed, "{host}:{port}");
        }
        assert!(!Network::default().allows("example.com", 443));
    }

    #[test]
    fn a_service_is_allowed_at_its_hosts_in_any_region() {
        let mut network = Network {
            egress: vec![rule("kms.us-west-2.amazonaws.com:8443").unwrap()],
            aws_services: vec![Service::Kms, Service::S3],
            ..Network::default()
        };
        assert!(network.has_egress());
        for host in [
            "kms.us-west-2.amazonaws.com",
            "KMS.cn-north-1.amazonaws.com.cn.",
            "kms-fips.us-west-2.amazonaws.com",
            "bucket.s3.eu-west-1.amazonaws.com",
        ] {
            assert!(network.allows(host, 443), "{host}");
            assert!(!network.allows(host, 80), "{host}");
        }
        assert_eq!(
            network.ports("kms.us-west-2.amazonaws.com", Protocol::Tcp),
            [443, 8443]
        );
        assert_eq!(
            network.ports("kms.us-east-1.amazonaws.com", Protocol::Tcp),
            [443]
        );
        let ports = |host, protocol| network.ports(host, protocol);
        assert!(ports("sqs.us-east-1.amazonaws.com", Protocol::Tcp).is_empty());
        assert!(ports("kms.us-east-1.amazonaws.com", Protocol::Udp).is_empty());
        network.aws_fips = true;
        assert!(network.allows("kms-fips.us-west-2.amazonaws.com", 443));
        assert!(!network.allows("kms.us-west-2.amazonaws.com", 443));
        assert_eq!(network.check(), Ok(()));
        network.aws_services.push(Service::Kms);
        let twice = NetworkError::ServiceTwice {
            service: Service::Kms,
            index: 2,
        };
        assert_eq!(network.check(), Err(twice));
        network.aws_services.clear();
        assert_eq!(network.check(), Err(NetworkError::FipsAlone));
        // An image without them carries what it always did.
        let written = serde_json::to_string(&Network::default()).unwrap();
        assert_eq!(written, r#"{"egress":[],"ingress":[]}"#);
    }

    #[test]
    fn records_are_asked_for_of_allowed_names() {
        let network = Network {
            egress: ["*.db.example.net:27017", "one.example:123/udp"]
                .map(|text| rule(text).unwrap())
                .into(),
            aws_services: vec![Service::Kms],
            ..Network::default()
        };
        for (name, allowed) in [
            ("_mongodb._tcp.Cluster.db.example.net.", true),
            ("cluster.db.example.net", true),
            ("one.example", true),
            ("_ntp._udp.one.example", true),
            ("_x.one.example", false),
            ("x._tcp.one.example", false),
            ("_a._tcp._b._tcp.one.example", false),
            ("db.example.net", false),
            ("_mongodb._tcp.other.example", false),
            ("_https._tcp.kms.us-west-2.amazonaws.com", true),
        ] {
            assert_eq!(network.allows_records(name), allowed, "{name}");
        }
    }

    #[test]
    fn addresses_of_rules_are_listed_with_their_ports() {
        let network = Network {
            egress: [
                "10.0.0.7:443",
                "10.0.0.7:80",
                "10.0.0.8:123/udp",
                "127.0.0.1:1",
                "a.com:1",
            ]
            .map(|text| rule(text).unwrap())
            .into(),
            ..Network::default()
        };
        let expected = [7, 8].map(|last| Ipv4Addr::new(10, 0, 0, last));
        assert_eq!(network.addresses(), BTreeSet::from(expected));
        assert_eq!(network.ports("10.0.0.7", Protocol::Tcp), [80, 443]);
        assert_eq!(network.ports("10.0.0.8", Protocol::Udp), [123]);
        assert!(network.ports("10.0.0.8", Protocol::Tcp).is_empty());
        assert!(network.has_datagrams());
        assert_eq!(network.check(), Ok(()));
        let loopback = [rule("127.0.0.1:123/udp").unwrap()];
        let error = check_egress(&loopback).unwrap_err();
        assert!(matches!(error, NetworkError::EgressLoopback { .. }));
        for text in [
            "0.0.0.0:443",
            "0.1.2.3:1",
            "224.0.0.1:1",
            "255.255.255.255:1",
        ] {
            let rules = [rule("a.com:1").unwrap(), rule(text).unwrap()];
            let nowhere = NetworkError::EgressNowhere {
                rule: rules[1].clone(),
                index: 1,
            };
            assert_eq!(check_egress(&rules), Err(nowhere));
        }
        for text in ["198.19.0.1:443", "169.254.170.2:80"] {
            let rules = [rule("a.com:1").unwrap(), rule(text).unwrap()];
            let own = NetworkError::EgressOwn {
                rule: rules[1].clone(),
                index: 1,
            };
            assert_eq!(check_egress(&rules), Err(own));
        }
    }

    #[test]
    fn proxy_needs_a_destination() {
        let mut network = Network {
            proxy: true,
            ..Network::default()
        };
        assert_eq!(network.check(), Err(NetworkError::ProxyAlone));
        network.aws_services.push(Service::Kms);
        assert_eq!(network.check(), Ok(()));
    }

    #[test]
    fn a_rule_without_the_proxy_protocol_is_written_as_before() {
        for (text, expected) in [
            (r#"{"port":443,"to":8080}"#, false),
            (r#"{"port":443,"to":8080,"proxy_protocol":true}"#, true),
        ] {
            let rule: IngressRule = serde_json::from_str(text).unwrap();
            assert_eq!(rule.proxy_protocol, expected);
            assert_eq!(serde_json::to_string(&rule).unwrap(), text);
        }
        let unknown = r#"{"port":443,"to":8080,"proxy":true}"#;
        assert!(serde_json::from_str::<IngressRule>(unknown).is_err());
    }

    #[test]
    fn lists_have_limits_and_no_duplicates() {
        let rules: Vec<_> = (0..=MAX_EGRESS_RULES)
            .map(|n| rule(&format!("a{n}.com:1")).unwrap())
            .collect();
        assert_eq!(check_egress(&rules[1..]), Ok(()));
        assert_eq!(check_egress(&rules), Err(NetworkError::EgressCount(257)));
        let twice = [rules[0].clone(), rule("A0.com:1").unwrap()];
        assert!(matches!(
            check_egress(&twice),
            Err(NetworkError::EgressTwice { index: 1, .. })
        ));

        let port = |number| Port::new(number).unwrap();
        let to = |number| IngressRule {
            port: port(number),
            to: port(80),
            proxy_protocol: false,
        };
        let rules: Vec<_> = (1..=65).map(to).collect();
        assert_eq!(check_ingress(&rules[1..]), Ok(()));
        assert_eq!(check_ingress(&rules), Err(NetworkError::IngressCount(65)));
        assert_eq!(
            check_ingress(&[to(1), to(2), to(1)]),
            Err(NetworkError::IngressTwice {
                port: port(1),
                index: 2
            })
        );
    }
}
