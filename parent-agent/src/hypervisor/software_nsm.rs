//! The software NSM's root: kept in a folder, or made anew.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use attestation::software_nsm::TestRoot;

use super::HypervisorError;

const CERTIFICATE: &str = "root.pem";
const KEY: &str = "root.key";

/// The root, and the file with its certificate: from `kept`, made there if
/// there is none yet; without `kept` a new one, whose certificate lies in the
/// enclave's folder.
pub(super) fn root(
    kept: Option<&Path>,
    directory: &Path,
) -> Result<(TestRoot, PathBuf), HypervisorError> {
    let Some(folder) = kept else {
        let certificate = directory.join(CERTIFICATE);
        let root = generate(&certificate)?;
        write(&certificate, root.certificate_pem(), 0o644)?;
        return Ok((root, certificate));
    };
    let folder = std::path::absolute(folder).map_err(HypervisorError::io(folder))?;
    let (certificate, key) = (folder.join(CERTIFICATE), folder.join(KEY));
    let root = match (read(&certificate)?, read(&key)?) {
        (Some(certificate_pem), Some(key_pem)) => TestRoot::from_pem(&certificate_pem, &key_pem)
            .map_err(|error| unusable(&certificate, &error.to_string()))?,
        (None, None) => {
            fs::create_dir_all(&folder).map_err(HypervisorError::io(&folder))?;
            let root = generate(&certificate)?;
            write(&key, &root.key_pem(), 0o600)?;
            write(&certificate, root.certificate_pem(), 0o644)?;
            root
        }
        (Some(_), None) => return Err(unusable(&key, "the key is missing; remove root.pem too")),
        (None, Some(_)) => {
            return Err(unusable(
                &certificate,
                "the certificate is missing; remove root.key too",
            ));
        }
    };
    Ok((root, certificate))
}

fn generate(path: &Path) -> Result<TestRoot, HypervisorError> {
    TestRoot::generate().map_err(|error| unusable(path, &error.to_string()))
}

fn read(path: &Path) -> Result<Option<String>, HypervisorError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(HypervisorError::io(path)(source)),
    }
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), HypervisorError> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(HypervisorError::io(path))
}

fn unusable(path: &Path, reason: &str) -> HypervisorError {
    HypervisorError::NsmRoot {
        path: path.to_owned(),
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_kept_root_stays_the_same_and_its_key_private() {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("nsm");
        let state = folder.path();
        let (first, path) = root(Some(&kept), state).unwrap();
        let (second, _) = root(Some(&kept), state).unwrap();
        assert_eq!(first.certificate_pem(), second.certificate_pem());
        assert_eq!(fs::read_to_string(path).unwrap(), first.certificate_pem());
        let key = fs::metadata(kept.join(KEY)).unwrap();
        assert_eq!(key.permissions().mode() & 0o777, 0o600);
        let (other, _) = root(None, state).unwrap();
        assert_ne!(first.certificate_pem(), other.certificate_pem());
    }

    #[test]
    fn half_a_root_and_rubbish_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(CERTIFICATE), "x").unwrap();
        assert!(root(Some(folder.path()), folder.path()).is_err());
        fs::write(folder.path().join(KEY), "y").unwrap();
        assert!(root(Some(folder.path()), folder.path()).is_err());
    }
}
