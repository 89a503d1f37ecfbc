//! The secrets that can be sealed to the enclave: their senders' keys, from the files that
//! the manifest names, for the measured configuration.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use manifest::{Manifest, ManifestError, SealedSecret};
use sealed_secret::Sender;

use crate::stored::read_small;

/// Largest file with a key, in bytes; OpenSSL's have 113.
const MAX_KEY_FILE: usize = 8 * 1024;

/// The list as it is measured.
pub(crate) fn measured(manifest: &Manifest) -> Result<Vec<SealedSecret>, ManifestError> {
    let secrets = manifest.workload.sealed_secrets.iter().enumerate();
    secrets
        .map(|(index, secret)| {
            let sender = sender(&secret.sender).map_err(|reason| {
                let index = index.to_string();
                let message = format!(
                    "the sender of the sealed secret `{}`: {}: {reason}",
                    secret.name,
                    secret.sender.display()
                );
                manifest.invalid(&["workload", "sealed_secrets", &index, "sender"], message)
            })?;
            Ok(SealedSecret {
                name: secret.name.clone(),
                sender: STANDARD.encode(sender.to_spki()),
            })
        })
        .collect()
}

fn sender(path: &Path) -> Result<Sender, String> {
    let bytes =
        read_small(path, MAX_KEY_FILE).map_err(|error| format!("it cannot be read: {error}"))?;
    Sender::from_pem(&bytes).map_err(|error| error.to_string())
}
