//! Hosts of AWS's services: what is one is below a domain of AWS, of one service
//! alone, and of the region that its name says.

#![no_main]

use aws_endpoint::{Service, is_region};
use fuzz::within;
use libfuzzer_sys::fuzz_target;

/// Most memory that one input takes, in KiB.
const MEMORY_KIB: usize = 512;

const DOMAINS: [&str; 14] = [
    "amazonaws.com",
    "amazonaws.com.cn",
    "api.aws",
    "api.amazonwebservices.com.cn",
    "c2s.ic.gov",
    "api.aws.ic.gov",
    "sc2s.sgov.gov",
    "api.aws.scloud",
    "csp.hci.ic.gov",
    "api.aws.hci.ic.gov",
    "cloud.adc-e.uk",
    "api.cloud-aws.adc-e.uk",
    "amazonaws.eu",
    "api.amazonwebservices.eu",
];

fn check(bytes: &[u8]) {
    let Ok(host) = std::str::from_utf8(bytes) else {
        return;
    };
    let owners: Vec<_> = Service::ALL
        .into_iter()
        .filter(|service| service.has_host(host, None, false))
        .collect();
    assert!(owners.len() <= 1, "{host} is {owners:?}'s");
    let Some(service) = owners.first() else {
        return;
    };
    let lower = host.trim_end_matches('.').to_ascii_lowercase();
    assert!(
        DOMAINS
            .iter()
            .any(|domain| lower.ends_with(&format!(".{domain}"))),
        "{host}"
    );
    let regions: Vec<_> = lower.split('.').filter(|label| is_region(label)).collect();
    let is_global = matches!(service, Service::Iam | Service::S3 | Service::Sts);
    assert!(
        is_global
            || regions
                .iter()
                .any(|region| service.has_host(host, Some(region), false))
    );
    if service.has_host(host, None, true) {
        assert!(lower.contains("fips") || lower.contains("us-gov") || *service == Service::States);
    }
}

fuzz_target!(|bytes: &[u8]| within(MEMORY_KIB, || check(bytes)));
