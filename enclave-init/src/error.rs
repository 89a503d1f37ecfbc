//! Why the enclave cannot go on.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why the enclave cannot go on. Every message goes to the parent and the console.
#[derive(Debug, Error)]
pub(crate) enum InitError {
    /// A system call failed.
    #[error("{what}: {source}")]
    System {
        /// What was being done.
        what: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The image has something else where the init needs a folder.
    #[error(
        "{} is not a folder, so nothing can be put there: make it one in the container image",
        .0.display()
    )]
    MountPoint(PathBuf),
    /// The kernel has unpacked the image into a file system that knows no limit.
    #[error(
        "the root file system is not a tmpfs, so nothing limits what is written there: build the image with this release's image-builder, and with a kernel that has CONFIG_TMPFS"
    )]
    Root,
    /// The parent did not answer.
    #[error("no parent answered the heartbeat on vsock port {} within {} s", link::port::HEARTBEAT, crate::parent::FIND_TIMEOUT.as_secs())]
    NoParent,
    /// The control channel failed before the boot was over.
    #[error("the control channel to the parent failed: {0}")]
    Control(String),
    /// The Nitro security module failed.
    #[error("the Nitro security module failed: {0}")]
    Nsm(#[from] nsm::NsmError),
    /// The machine has no hardware random number generator.
    #[error(
        "the kernel's random number generator is {0:?}, not the Nitro security module's: is CONFIG_NSM missing?"
    )]
    Entropy(String),
    /// The image's configuration is not usable.
    #[error(transparent)]
    Config(#[from] manifest::ConfigError),
    /// The measured root or a peer's policy cannot be used.
    #[error(
        "documents cannot be verified: {0}; build the image again with this version's image-builder"
    )]
    Trust(String),
    /// KMS could not be called.
    #[error("KMS cannot be called: {0}; build the image again with this version's image-builder")]
    Kms(String),
    /// The measured key of a sealed secret's sender cannot be used.
    #[error(
        "the sender of the sealed secret `{name}` cannot be used: {reason}; build the image again with this version's image-builder"
    )]
    SealedSecret {
        /// The secret.
        name: String,
        /// Why.
        reason: String,
    },
    /// There is no key that secrets could be sealed to.
    #[error("making the key for sealed secrets: {0}")]
    SealingKey(String),
    /// The measured family cannot be used.
    #[error(
        "the keys of the family cannot be had: {0}; build the image again with this version's image-builder"
    )]
    Family(String),
    /// The enclave's own document was refused, and the image demands that it is not.
    #[error("{finding}; {advice}")]
    SelfCheck {
        /// What was found.
        finding: String,
        /// What the image would have to say instead.
        advice: &'static str,
    },
    /// The workload cannot be started at all.
    #[error("the workload cannot be started: {0}")]
    Workload(String),
}

/// Names what a failed call was for.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, InitError>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, InitError> {
        self.map_err(|error| InitError::System {
            what: what(),
            source: error.into(),
        })
    }
}
