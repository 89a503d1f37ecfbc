//! The manifest's `[[secrets]]`, with the ciphertexts and the senders' keys in the files
//! that they name.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use manifest::{CiphertextBlob, MAX_CIPHERTEXT_BYTES, Manifest, ManifestError, Secret};
use sealed_secret::Sender;

use crate::stored::{about, read_small};

/// The longest file with a ciphertext: in base64, with room for line ends.
const MAX_CIPHERTEXT_FILE: usize = 2 * MAX_CIPHERTEXT_BYTES;
/// The longest file with a key, in bytes; OpenSSL's have 113.
const MAX_KEY_FILE: usize = 8 * 1024;

/// The secrets as they are measured.
pub(crate) fn measured(manifest: &Manifest) -> Result<Vec<Secret>, ManifestError> {
    let secrets = manifest.secrets.iter().enumerate().map(|(index, source)| {
        source.measured(ciphertext, sender).map_err(|reason| {
            manifest.invalid(
                &["secrets", &index.to_string(), source.origin_key()],
                format!("the secret `{}`: {reason}", source.name),
            )
        })
    });
    secrets.collect()
}

/// The ciphertext in a file.
fn ciphertext(path: &Path) -> Result<CiphertextBlob, String> {
    let bytes = read(path, MAX_CIPHERTEXT_FILE)?;
    CiphertextBlob::from_stored(&bytes).map_err(|error| about(path, &error))
}

/// The sender's key in a file, as it is measured.
fn sender(path: &Path) -> Result<String, String> {
    let bytes = read(path, MAX_KEY_FILE)?;
    let sender = Sender::from_pem(&bytes).map_err(|error| about(path, &error))?;
    Ok(STANDARD.encode(sender.to_spki()))
}

fn read(path: &Path, limit: usize) -> Result<Vec<u8>, String> {
    read_small(path, limit).map_err(|error| about(path, &format!("it cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_have_the_ciphertext_of_their_file() {
        let folder = tempfile::tempdir().unwrap();
        let measure = || {
            let text = "[enclave]\nname = \"a\"\nimage = \"oci:x\"\n[[secrets]]\nname = \"a\"\nkms = { file = \"a.kms\" }\nenv = \"A\"\n[workload]\naws_credentials = true\n[network]\naws_services = [\"kms\"]\n[kms]\nendpoint = \"https://kms.eu-west-1.amazonaws.com\"\n";
            let manifest = Manifest::parse(text, &folder.path().join("enclave.toml")).unwrap();
            measured(&manifest)
                .map(|secrets| serde_json::to_string(&secrets).unwrap())
                .map_err(|error| error.to_string())
        };
        let file = folder.path().join("a.kms");
        let error = measure().unwrap_err();
        assert!(error.contains("enclave.toml:6: "), "{error}");
        assert!(error.contains("a.kms: it cannot be read"), "{error}");
        for contents in [b"AQID\n".as_slice(), &[1, 2, 3]] {
            std::fs::write(&file, contents).unwrap();
            let secrets = measure().unwrap();
            assert!(secrets.contains(r#"{"inline":"AQID"}"#), "{secrets}");
        }
        for (contents, message) in [
            (vec![], "a.kms: a ciphertext of 0 bytes"),
            (
                vec![1; MAX_CIPHERTEXT_BYTES + 1],
                "a.kms: a ciphertext of 6145 bytes",
            ),
            (vec![1; 100_000], "is this the right file?"),
        ] {
            std::fs::write(&file, contents).unwrap();
            let error = measure().unwrap_err();
            assert!(error.contains(message), "{error}");
        }
        // The longest ciphertext, in lines as `base64` writes them.
        let text = STANDARD.encode(vec![1; MAX_CIPHERTEXT_BYTES]);
        let lines: Vec<&str> = text
            .as_bytes()
            .chunks(76)
            .map(|line| std::str::from_utf8(line).unwrap())
            .collect();
        std::fs::write(&file, lines.join("\r\n")).unwrap();
        assert!(measure().is_ok());
    }
}
