//! The software NSM: a process of its own, because it must outlive the agent,
//! and its root, which is kept in a folder.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use measurements::Measurements;
use software_nsm::{Identity, SoftwareNsm, TestRoot};
use tokio::net::UnixListener;

use super::{HypervisorError, random_hex};

const CERTIFICATE: &str = "root.pem";
const KEY: &str = "root.key";
/// The instance that documents name: none.
const INSTANCE_ID: &str = "i-00000000000000000";

/// The arguments of the hidden command `software-nsm`.
#[derive(Debug, Args)]
pub struct SoftwareNsmArgs {
    /// Where to listen.
    socket: PathBuf,
    /// The folder with the root.
    root: PathBuf,
    /// The identifier of the enclave.
    enclave_id: String,
    /// What the image measures to, as nitro-cli prints it; zeros without.
    measurements: Option<String>,
}

impl SoftwareNsmArgs {
    /// A module of a new enclave.
    pub(super) fn new(
        socket: PathBuf,
        root: &Path,
        measurements: Option<Measurements>,
    ) -> Result<Self, HypervisorError> {
        let measurements = measurements
            .map(|measurements| serde_json::to_string(&measurements))
            .transpose()
            .map_err(|error| HypervisorError::io(&socket)(error.into()))?;
        Ok(Self {
            socket,
            root: root.to_owned(),
            enclave_id: format!("enc{}", random_hex()?),
            measurements,
        })
    }

    /// The command line that starts it.
    pub(super) fn arguments(self) -> Vec<String> {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let mut arguments = vec![
            "software-nsm".to_owned(),
            text(self.socket),
            text(self.root),
            self.enclave_id,
        ];
        arguments.extend(self.measurements);
        arguments
    }
}

/// Is the module until the process is killed.
pub async fn serve(args: SoftwareNsmArgs) -> anyhow::Result<()> {
    let measurements = args.measurements.as_deref().map(serde_json::from_str);
    let identity = Identity {
        instance_id: INSTANCE_ID.to_owned(),
        enclave_id: args.enclave_id,
        measurements: measurements
            .transpose()
            .context("the measurements cannot be used")?,
    };
    let read = |name| {
        let path = args.root.join(name);
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    };
    let root = TestRoot::from_pem(&read(CERTIFICATE)?, &read(KEY)?)?;
    let module = SoftwareNsm::new(identity, root)?;
    let listener = UnixListener::bind(&args.socket)
        .with_context(|| format!("cannot listen on {}", args.socket.display()))?;
    Ok(software_nsm::serve(listener, module).await?)
}

/// The file with the certificate of the root in `folder`.
pub(super) fn certificate(folder: &Path) -> PathBuf {
    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    folder.join(CERTIFICATE)
}

/// Checks the root in `folder`, or makes one there if there is none yet.
pub(super) fn make_root(folder: &Path) -> Result<(), HypervisorError> {
    let (certificate, key) = (folder.join(CERTIFICATE), folder.join(KEY));
    match (read(&certificate)?, read(&key)?) {
        (Some(certificate_pem), Some(key_pem)) => TestRoot::from_pem(&certificate_pem, &key_pem)
            .map(|_| ())
            .map_err(|error| unusable(&certificate, &error.to_string())),
        (None, None) => {
            fs::create_dir_all(folder).map_err(HypervisorError::io(folder))?;
            let root =
                TestRoot::generate().map_err(|error| unusable(&certificate, &error.to_string()))?;
            write(&key, &root.key_pem(), 0o600)?;
            write(&certificate, root.certificate_pem(), 0o644)
        }
        (Some(_), None) => Err(unusable(&key, "the key is missing; remove root.pem too")),
        (None, Some(_)) => Err(unusable(
            &certificate,
            "the certificate is missing; remove root.key too",
        )),
    }
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
    fn a_root_stays_the_same_and_its_key_private() {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("new/nsm");
        make_root(&kept).unwrap();
        let first = fs::read_to_string(certificate(&kept)).unwrap();
        make_root(&kept).unwrap();
        assert_eq!(fs::read_to_string(certificate(&kept)).unwrap(), first);
        let key = fs::metadata(kept.join(KEY)).unwrap();
        assert_eq!(key.permissions().mode() & 0o777, 0o600);
        make_root(folder.path()).unwrap();
        assert_ne!(
            fs::read_to_string(certificate(folder.path())).unwrap(),
            first
        );
    }

    #[test]
    fn half_a_root_and_rubbish_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(CERTIFICATE), "x").unwrap();
        assert!(make_root(folder.path()).is_err());
        fs::write(folder.path().join(KEY), "y").unwrap();
        assert!(make_root(folder.path()).is_err());
    }
}
