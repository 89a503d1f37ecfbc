//! The manifest's `[kms]` table, and the file that it names: read as the enclave will read
//! it, and put into the measured configuration.

use std::path::Path;

use manifest::{Kms, MAX_TLS_ROOTS_BYTES, Manifest, ManifestError, TlsRoots};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use webpki::anchor_from_trusted_cert;

use crate::stored::read_small;

const PEM_START: &str = "-----BEGIN CERTIFICATE-----";
const PEM_END: &str = "-----END CERTIFICATE-----";

/// The table as it is measured.
pub(crate) fn measured(manifest: &Manifest) -> Result<Option<Kms>, ManifestError> {
    let Some(source) = &manifest.kms else {
        return Ok(None);
    };
    let about = |key: &'static str, reason: String| manifest.invalid(&["kms", key], reason);
    let region = source
        .region()
        .map_err(|error| about("region", error.to_string()))?;
    let roots = source.roots.as_deref().map(|path| {
        roots(path).map_err(|reason| about("roots", format!("{}: {reason}", path.display())))
    });
    Ok(Some(Kms {
        endpoint: source.endpoint.clone(),
        region,
        roots: roots.transpose()?,
    }))
}

/// The certificates in a PEM file, without what may stand around them.
fn roots(path: &Path) -> Result<TlsRoots, String> {
    let bytes = read_small(path, MAX_TLS_ROOTS_BYTES)
        .map_err(|error| format!("it cannot be read: {error}"))?;
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        count += 1;
        let unusable = |error: &dyn ToString| {
            let error = error.to_string();
            format!("certificate {count} cannot be used: {error}")
        };
        let certificate = certificate.map_err(|error| unusable(&error))?;
        anchor_from_trusted_cert(&certificate).map_err(|error| unusable(&error))?;
    }
    if count == 0 {
        return Err("it has no certificate in PEM: is this the right file?".to_owned());
    }
    // A comment, or another system's line ends, must not change what is measured.
    let text = String::from_utf8_lossy(&bytes);
    let mut certificates = Vec::new();
    let mut is_inside = false;
    for line in text.lines().map(str::trim_end) {
        is_inside |= line == PEM_START;
        if is_inside {
            certificates.push(line);
        }
        is_inside &= line != PEM_END;
    }
    TlsRoots::try_from(certificates.join("\n")).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn certificate() -> String {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["kms.test".to_owned()]).unwrap();
        params.self_signed(&key).unwrap().pem()
    }

    fn found(text: &str) -> Result<String, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        roots(file.path()).map(String::from)
    }

    #[test]
    fn kms_roots_are_measured_without_what_stands_around_them() {
        let (first, second) = (certificate(), certificate());
        let plain = found(&format!("{first}{second}")).unwrap();
        let around = format!("a comment\n{first}\n\nanother\n{second}\n\n").replace('\n', "\r\n");
        assert_eq!(found(&around).unwrap(), plain);
        assert_eq!(plain.matches(PEM_START).count(), 2);
    }

    #[test]
    fn kms_roots_that_are_none_are_refused() {
        let cut = format!("{PEM_START}\nAAAA\n{PEM_END}\n");
        for (text, message) in [
            ("", "it has no certificate in PEM"),
            ("rubbish", "it has no certificate in PEM"),
            (&*cut, "certificate 1 cannot be used"),
            (
                &*format!("{}{cut}", certificate()),
                "certificate 2 cannot be used",
            ),
            (&*"x".repeat(MAX_TLS_ROOTS_BYTES + 1), "it has more than"),
        ] {
            let error = found(text).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
    }
}
