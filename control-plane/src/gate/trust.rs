//! The root that documents must lead to.

use attestation::{Partition, Roots, Verifier};
use control_plane_model::Failure;
use control_plane_model::environment::optional;
use tracing::warn;

/// How regions of a partition begin, and the partition's name (AWS, "Partitions").
const PARTITIONS: [(&str, &str); 4] = [
    ("us-gov-", "aws-us-gov"),
    ("cn-", "aws-cn"),
    ("eusc-", "aws-eusc"),
    ("us-iso", "aws-iso"),
];

/// A verifier that trusts the root of the partition that this function runs in, unless
/// `ATTESTATION_ROOT_PEM` holds another, as in a local cloud and where AWS publishes none.
pub fn verifier() -> Result<Verifier, Failure> {
    let roots = match optional("ATTESTATION_ROOT_PEM") {
        Some(pem) => {
            warn!("documents are verified against the root in ATTESTATION_ROOT_PEM");
            Roots::from_pem(pem.as_bytes()).map_err(|error| {
                Failure::new("NotConfigured", format!("ATTESTATION_ROOT_PEM: {error}"))
            })?
        }
        None => Roots::partition(partition(optional("AWS_REGION").as_deref())?),
    };
    Ok(Verifier::new(roots))
}

/// The partition of a region, of which AWS publishes the root.
fn partition(region: Option<&str>) -> Result<Partition, Failure> {
    let of = |region: &str| {
        let mut partitions = PARTITIONS.into_iter();
        partitions.find_map(|(prefix, name)| region.starts_with(prefix).then_some(name))
    };
    match region.and_then(of) {
        None => Ok(Partition::Aws),
        Some(name) => name.parse().map_err(|error| {
            Failure::new("NotConfigured", format!("ATTESTATION_ROOT_PEM: {error}"))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_in_the_partition_whose_root_its_enclaves_have() {
        for (region, expected) in [
            (None, Partition::Aws),
            (Some("eu-central-1"), Partition::Aws),
            (Some("us-east-1"), Partition::Aws),
            (Some("us-gov-west-1"), Partition::AwsUsGov),
        ] {
            assert_eq!(partition(region).ok(), Some(expected), "{region:?}");
        }
        for region in [
            "cn-north-1",
            "us-iso-east-1",
            "us-isob-east-1",
            "eusc-de-east-1",
        ] {
            let failure = partition(Some(region)).unwrap_err();
            assert!(
                failure.to_string().contains("ATTESTATION_ROOT_PEM"),
                "{failure}"
            );
        }
    }
}
