//! The manifest's `[[secrets]]`, with the ciphertexts in the files that they name.

use std::path::Path;

use manifest::{CiphertextBlob, MAX_CIPHERTEXT_BYTES, Manifest, ManifestError, Secret};

use crate::stored::read_small;

/// The longest file that is read: a ciphertext in base64, with room for line ends.
const MAX_FILE: usize = 2 * MAX_CIPHERTEXT_BYTES;

/// The secrets as they are measured.
pub(crate) fn measured(manifest: &Manifest) -> Result<Vec<Secret>, ManifestError> {
    let secrets = manifest.secrets.iter().enumerate().map(|(index, source)| {
        source.measured(ciphertext).map_err(|reason| {
            manifest.invalid(&["secrets", &index.to_string(), "kms", "file"], reason)
        })
    });
    secrets.collect()
}

/// The ciphertext in a file.
fn ciphertext(path: &Path) -> Result<CiphertextBlob, String> {
    let about = |reason: String| format!("{}: {reason}", path.display());
    let bytes =
        read_small(path, MAX_FILE).map_err(|error| about(format!("it cannot be read: {error}")))?;
    CiphertextBlob::from_stored(&bytes).map_err(|error| about(error.to_string()))
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

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
