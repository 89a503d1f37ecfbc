//! The manifest's `[attestation]` table, and the files that it names: checked with
//! the library that the enclave verifies with, and put into the measured
//! configuration.

use std::fmt::Display;
use std::path::Path;

use attestation::{Policy, PolicyError, Roots};
use manifest::{
    Attestation, MAX_ROOT_BYTES, Manifest, ManifestError, Peer, PeerSource, Root, RootSource,
};

use crate::stored::read_small;

const PEM_START: &str = "-----BEGIN CERTIFICATE-----";
const PEM_END: &str = "-----END CERTIFICATE-----";

/// The table as it is measured.
pub(crate) fn measured(manifest: &Manifest) -> Result<Attestation, ManifestError> {
    let source = &manifest.attestation;
    let root = match &source.root {
        RootSource::Aws => Root::Aws,
        RootSource::AwsUsGov => Root::AwsUsGov,
        RootSource::File(path) => root(path).map_err(|reason| {
            manifest.invalid(
                &["attestation", "root"],
                format!("{}: {reason}", path.display()),
            )
        })?,
    };
    let peers = source.peers.iter().enumerate().map(|(index, peer)| {
        let policy = policy(peer).map_err(|reason| {
            manifest.invalid(
                &["attestation", "peers", &index.to_string(), "policy"],
                reason,
            )
        })?;
        let name = peer.name.clone();
        Ok(Peer { name, policy })
    });
    Ok(Attestation {
        self_check: source.self_check,
        root,
        allow_debug: source.allow_debug,
        open_registers: source.open_registers.clone(),
        peers: peers.collect::<Result<_, ManifestError>>()?,
    })
}

/// The certificate in a PEM file, without what may stand around it.
fn root(path: &Path) -> Result<Root, String> {
    let bytes =
        read_small(path, MAX_ROOT_BYTES).map_err(|error| format!("it cannot be read: {error}"))?;
    Roots::only_root_from_pem(&bytes).map_err(|error| error.to_string())?;
    // A comment, or another system's line ends, must not change what is measured.
    let text = String::from_utf8_lossy(&bytes);
    let certificate: Vec<&str> = text
        .lines()
        .map(str::trim_end)
        .skip_while(|line| *line != PEM_START)
        .collect();
    let mut pem = certificate.join("\n");
    if let Some(end) = pem.find(PEM_END) {
        pem.truncate(end + PEM_END.len());
    }
    Root::try_from(pem).map_err(|error| error.to_string())
}

/// The policy in a peer's file, written out.
fn policy(peer: &PeerSource) -> Result<String, String> {
    let about = |reason: String| format!("the policy of the peer `{}`: {reason}", peer.name);
    let policy = Policy::read(&peer.policy).map_err(|error| about(error.to_string()))?;
    let unusable = |reason: &dyn Display| about(format!("{}: {reason}", peer.policy.display()));
    if !policy.names_code() {
        return Err(unusable(
            &"it accepts whatever runs in an enclave: name the peer's images, or values of PCR0, of PCR8, or of PCR1 and PCR2",
        ));
    }
    // The workload gives a nonce with each document.
    if policy.fixes_nonce() {
        return Err(unusable(&PolicyError::FixedNonce));
    }
    policy.to_json().map_err(|error| about(error.to_string()))
}
