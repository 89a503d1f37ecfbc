//! What documents are verified under: the root and the policies of the measured
//! configuration.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use attestation::{Partition, Policy, Roots, Verifier};
use manifest::{Attestation, EnclaveName, MAX_ROOT_BYTES, Root};

use crate::error::{Doing, InitError};

/// The root and the policies, parsed.
#[derive(Debug)]
pub(crate) struct Trust {
    verifier: Verifier,
    peers: BTreeMap<EnclaveName, Policy>,
}

impl Trust {
    /// Reads the measured configuration. Under a simulation, whose module no
    /// machine has, the root is that of `simulated_root`, a PEM file.
    pub(crate) fn read(
        attestation: &Attestation,
        simulated_root: Option<&Path>,
    ) -> Result<Self, InitError> {
        let roots = match (simulated_root, &attestation.root) {
            (Some(path), _) => only_root(&read_root(path)?)?,
            (None, Root::Aws) => Roots::aws(),
            (None, Root::AwsUsGov) => Roots::partition(Partition::AwsUsGov),
            (None, Root::Pem(text)) => only_root(text.as_bytes())?,
        };
        let mut peers = BTreeMap::new();
        for peer in &attestation.peers {
            let policy = Policy::from_json(&peer.policy)
                .map_err(|error| InitError::Trust(format!("peer {}: {error}", &*peer.name)))?;
            peers.insert(peer.name.clone(), policy);
        }
        Ok(Self {
            verifier: Verifier::new(roots),
            peers,
        })
    }

    pub(crate) fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// The policy for documents of this peer.
    pub(crate) fn peer(&self, name: &str) -> Option<&Policy> {
        self.peers.get(&name.parse::<EnclaveName>().ok()?)
    }

    /// The names of all peers.
    pub(crate) fn peers(&self) -> impl Iterator<Item = &str> {
        self.peers.keys().map(|name| &**name)
    }
}

fn only_root(pem: &[u8]) -> Result<Roots, InitError> {
    Roots::only_root_from_pem(pem).map_err(|error| InitError::Trust(error.to_string()))
}

fn read_root(path: &Path) -> Result<Vec<u8>, InitError> {
    let mut pem = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_ROOT_BYTES as u64).read_to_end(&mut pem))
        .doing(|| format!("reading the simulated module's root {}", path.display()))?;
    Ok(pem)
}

#[cfg(test)]
mod tests {
    use manifest::Peer;

    use super::*;

    #[test]
    fn what_cannot_be_parsed_ends_the_boot() {
        let peer = |policy: &str| Attestation {
            peers: vec![Peer {
                name: "oracle".parse().unwrap(),
                policy: policy.to_owned(),
            }],
            ..Attestation::default()
        };
        let any = r#"{"pcrs": {"0": []}}"#;
        for (attestation, message) in [
            (peer("{}"), "peer oracle: the policy names no code"),
            (peer("rubbish"), "peer oracle: expected value"),
            (peer(any), "lists no value for PCR0"),
            (
                Attestation {
                    root: Root::Pem("-----BEGIN CERTIFICATE-----".to_owned()),
                    ..Attestation::default()
                },
                "the root certificate cannot be read",
            ),
        ] {
            let error = Trust::read(&attestation, None).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn peers_are_known_by_their_names() {
        let policy = format!(r#"{{"pcrs": {{"0": "{}"}}}}"#, "01".repeat(48));
        let attestation = Attestation {
            peers: vec![Peer {
                name: "oracle".parse().unwrap(),
                policy,
            }],
            ..Attestation::default()
        };
        let trust = Trust::read(&attestation, None).unwrap();
        assert!(trust.peer("oracle").is_some());
        assert!(trust.peer("other").is_none() && trust.peer("A b").is_none());
        assert!(trust.peers().eq(["oracle"]));
    }
}
