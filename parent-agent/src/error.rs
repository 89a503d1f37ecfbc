//! Every way in which a command can fail, and its exit code.

use std::io;

use aws_clients::ConfigError;
use enclave_host::image::{ImageError, RuntimeConfigError};
use enclave_host::state::StateError;
use image_fetch::FetchError;
use log_sinks::PipelineError;
use thiserror::Error;

use crate::bootstrap::BootstrapError;
use crate::channels::IncomingError;
use crate::client::ClientError;
use crate::config::SourceError;
use crate::connect_to::ConnectToError;
use crate::dispatch::DispatchError;
use crate::exit::Exit;
use crate::ingress::IngressError;
use crate::logs::LogsError;
use crate::machine::MachineError;
use crate::socket::SocketError;

/// Why a command failed.
#[derive(Debug, Error)]
pub enum Error {
    /// The arguments do not go together.
    #[error("{0}")]
    Usage(&'static str),
    /// The configuration cannot be had.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The configuration does not say which enclave is meant.
    #[error("{0}")]
    Selection(String),
    /// The image is not here.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The image is not signed by whom the configuration names.
    #[error(
        "the image {image} is signed by another certificate than the configuration's: its PCR8 is {found} instead of {wanted}"
    )]
    Signer {
        /// The image.
        image: String,
        /// Its PCR8.
        found: String,
        /// The configuration's.
        wanted: String,
    },
    /// The gate cannot be asked at all.
    #[error("the attestation gate cannot be asked: {0}")]
    Gate(#[source] ConfigError),
    /// The image cannot be used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The runtime configuration cannot be used.
    #[error(transparent)]
    RuntimeConfig(#[from] RuntimeConfigError),
    /// The enclave's folder cannot be had.
    #[error(transparent)]
    State(#[from] StateError),
    /// There is no machine for the enclave.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// A port cannot be opened.
    #[error(transparent)]
    Ingress(#[from] IngressError),
    /// A destination is moved that there is not.
    #[error(transparent)]
    ConnectTo(#[from] ConnectToError),
    /// A socket of the enclave cannot be made.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// Enclaves' connections cannot be dispatched.
    #[error(transparent)]
    Dispatch(#[from] DispatchError),
    /// The enclave's connections cannot be taken.
    #[error(transparent)]
    Incoming(#[from] IncomingError),
    /// The operating system refused something that is hardly ever refused.
    #[error("{what}: {source}")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Log records cannot be kept or passed on.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// Log records cannot be shown.
    #[error(transparent)]
    Logs(#[from] LogsError),
    /// The instance is not ready.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// A running enclave could not be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl Error {
    pub(crate) fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { what, source }
    }

    /// The exit code that tells a script what to look at.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage(_)
            | Self::Selection(_)
            | Self::Source(SourceError::Config(_) | SourceError::Tag { .. })
            | Self::ConnectTo(_)
            | Self::Ingress(IngressError::Unknown { .. }) => Exit::Usage,
            Self::Fetch(error) if error.is_about_the_image() => Exit::Image,
            Self::Image(_) | Self::Signer { .. } | Self::RuntimeConfig(_) => Exit::Image,
            Self::Source(_)
            | Self::Fetch(_)
            | Self::Gate(_)
            | Self::State(_)
            | Self::Ingress(_)
            | Self::Socket(_)
            | Self::Dispatch(_)
            | Self::Incoming(_)
            | Self::Pipeline(_)
            | Self::System { .. } => Exit::Host,
            Self::Machine(error) => error.exit(),
            Self::Bootstrap(error) => error.exit(),
            Self::Client(_) | Self::Logs(_) => Exit::Failure,
        }
    }
}
