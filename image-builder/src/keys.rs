//! The manifest's `[keys]`, with the certificate that it names: its siblings' signer.

use manifest::{Keys, Manifest, ManifestError, SeedOrigin};
use measurements::Pcr;

use crate::stored::{about, read_signer};

/// The table as it is measured.
pub(crate) fn measured(manifest: &Manifest) -> Result<Option<Keys>, ManifestError> {
    let Some(source) = &manifest.keys else {
        return Ok(None);
    };
    let keys = source.measured(|path| {
        read_signer(path).map_err(|error| about_siblings(manifest, &about(path, &error)))
    });
    keys.map(Some)
}

/// Refuses an image that could neither give nor take: one that its siblings' signer does not
/// sign.
pub(crate) fn check_signer(
    manifest: &Manifest,
    keys: Option<&Keys>,
    signer: Option<Pcr>,
) -> Result<(), ManifestError> {
    let Some(SeedOrigin::Siblings(siblings)) = keys.map(|keys| &keys.origin) else {
        return Ok(());
    };
    let reason = match signer {
        Some(signer) if signer == siblings.signer => return Ok(()),
        Some(_) => {
            "the image is signed under another certificate than `signer` names: give the key and the certificate of that one (--signing-key, --signing-certificate), or name the other in `signer`"
        }
        None => {
            "the image is not signed, and its siblings know each other by their signature: give --signing-key and --signing-certificate"
        }
    };
    Err(about_siblings(manifest, reason))
}

fn about_siblings(manifest: &Manifest, reason: &str) -> ManifestError {
    manifest.invalid(&["keys", "siblings"], reason)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384};

    use super::*;

    #[test]
    fn keys_of_siblings_need_a_certificate_that_signs_the_image() {
        let folder = tempfile::tempdir().unwrap();
        let text = "[enclave]\nname = \"a\"\nimage = \"oci:x\"\n[keys]\nfamily = \"b\"\nsiblings = { signer = \"signer.pem\", generation = 1 }\n";
        let manifest = Manifest::parse(text, &folder.path().join("enclave.toml")).unwrap();
        let file = folder.path().join("signer.pem");
        let error = measured(&manifest).unwrap_err().to_string();
        assert!(error.contains("enclave.toml:6: "), "{error}");
        assert!(error.contains("signer.pem: it cannot be read"), "{error}");
        std::fs::write(&file, "rubbish").unwrap();
        let error = measured(&manifest).unwrap_err().to_string();
        assert!(error.contains("signer.pem: "), "{error}");

        let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
        let certificate = CertificateParams::default().self_signed(&key).unwrap();
        std::fs::write(&file, certificate.pem()).unwrap();
        let keys = measured(&manifest).unwrap();
        let signer = Pcr::of_signer(certificate.der());
        let check = |signer| {
            check_signer(&manifest, keys.as_ref(), signer).map_err(|error| error.to_string())
        };
        assert_eq!(check(Some(signer)), Ok(()));
        let error = check(Some(Pcr::new([1; 48]))).unwrap_err();
        assert!(error.contains("under another certificate"), "{error}");
        let error = check(None).unwrap_err();
        assert!(error.contains("give --signing-key"), "{error}");
        // Others may be unsigned.
        assert!(check_signer(&manifest, None, None).is_ok());
    }
}
