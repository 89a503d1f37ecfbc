//! AWS's partitions: groups of regions with domains and accounts of their own.

/// A partition.
#[derive(Debug)]
pub(crate) struct Partition {
    /// What the names of its regions begin with.
    prefix: &'static str,
    pub(crate) domain: &'static str,
    /// The domain of names with IPv6 addresses.
    pub(crate) dual_stack_domain: &'static str,
    /// Its first region.
    pub(crate) home: &'static str,
}

const fn partition(
    prefix: &'static str,
    domain: &'static str,
    dual_stack_domain: &'static str,
    home: &'static str,
) -> Partition {
    Partition {
        prefix,
        domain,
        dual_stack_domain,
        home,
    }
}

/// The partition of the regions that are in no other.
static FIRST: Partition = partition("", "amazonaws.com", "api.aws", "us-east-1");
static OTHERS: [Partition; 7] = [
    partition("us-gov-", "amazonaws.com", "api.aws", "us-gov-west-1"),
    partition(
        "cn-",
        "amazonaws.com.cn",
        "api.amazonwebservices.com.cn",
        "cn-north-1",
    ),
    partition("us-iso-", "c2s.ic.gov", "api.aws.ic.gov", "us-iso-east-1"),
    partition(
        "us-isob-",
        "sc2s.sgov.gov",
        "api.aws.scloud",
        "us-isob-east-1",
    ),
    partition(
        "us-isof-",
        "csp.hci.ic.gov",
        "api.aws.hci.ic.gov",
        "us-isof-south-1",
    ),
    partition(
        "eu-isoe-",
        "cloud.adc-e.uk",
        "api.cloud-aws.adc-e.uk",
        "eu-isoe-west-1",
    ),
    partition(
        "eusc-",
        "amazonaws.eu",
        "api.amazonwebservices.eu",
        "eusc-de-east-1",
    ),
];

impl Partition {
    /// The partition that a region is in.
    pub(crate) fn of(region: &str) -> &'static Self {
        let mut others = OTHERS.iter();
        others
            .find(|partition| region.starts_with(partition.prefix))
            .unwrap_or(&FIRST)
    }

    /// The first region of each.
    pub(crate) fn homes() -> impl Iterator<Item = &'static str> {
        [&FIRST]
            .into_iter()
            .chain(&OTHERS)
            .map(|partition| partition.home)
    }

    pub(crate) fn is_first(&self) -> bool {
        self.home == FIRST.home
    }

    pub(crate) fn is_us_gov(&self) -> bool {
        self.prefix == "us-gov-"
    }

    /// Whether it is open to everybody, or, without FIPS's names, to everybody in
    /// China.
    pub(crate) fn is_public(&self, fips: bool) -> bool {
        self.is_first() || self.is_us_gov() || (self.prefix == "cn-" && !fips)
    }
}
