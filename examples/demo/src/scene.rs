//! The secret's story: who there is, and what they know.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use demo::kms::{ACCOUNT, Clock};

use crate::Hypervisor;
use crate::calls::{Caller, Kms};
use crate::images::Image;
use crate::runs::Runs;

/// How much of a key's identifier is shown.
const KEY_ID_SHOWN: usize = 8;

/// Who there is, and what they know.
pub(crate) struct Scene {
    pub(crate) kms: Kms,
    pub(crate) kms_address: SocketAddr,
    /// The port that the image names.
    pub(crate) port: u16,
    pub(crate) clock: Clock,
    pub(crate) enclave: Caller,
    /// The key's ARN.
    pub(crate) key: String,
    pub(crate) ciphertext: String,
    /// The certificate of the software NSM's root, PEM.
    pub(crate) root: String,
    /// The folder of that root.
    pub(crate) nsm: PathBuf,
    pub(crate) image: Image,
    pub(crate) other: Caller,
}

impl Scene {
    /// KMS's words with the names of the key and of those who call without their account.
    pub(crate) fn shortened(&self, words: &str) -> String {
        let id = self.key.rsplit('/').next().unwrap_or_default();
        let id = id.get(..KEY_ID_SHOWN).unwrap_or(id);
        words
            .replace(&self.key, &format!("key/{id}…"))
            .replace(&format!("arn:aws:iam::{ACCOUNT}:"), "")
    }
}

/// The arguments of a run whose connections to the KMS lead to this address.
pub(crate) fn arguments(runs: &Runs<'_>, scene: &Scene, kms_address: SocketAddr) -> Vec<OsString> {
    let mut arguments = runs.arguments(Hypervisor::Sim, &scene.image.file);
    let nsm = scene.nsm.clone().into();
    arguments.extend(["--software-nsm-root".into(), nsm]);
    arguments.extend(connect(scene.port, kms_address));
    arguments
}

/// Leads the image's connections to the KMS to this address.
pub(crate) fn connect(port: u16, address: SocketAddr) -> [OsString; 2] {
    let rule = format!("localhost:{port}={address}");
    ["--connect-to".into(), rule.into()]
}
