//! The client of a live enclave: it makes a challenge, and verifies the answer.
//!
//! ```
//! use attestation::{Policy, Roots, Verifier};
//! use attestation_client::{Client, Endpoint};
//!
//! # #[cfg(feature = "nsm")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use software_nsm::{Identity, SoftwareNsm, TestRoot, serve};
//! # let folder = tempfile::tempdir()?;
//! # let socket = folder.path().join("nsm");
//! # let pcr = measurements::Pcr::new([7; 48]);
//! # let measurements = measurements::Measurements { pcr0: pcr, pcr1: pcr, pcr2: pcr, pcr8: None };
//! # let root = TestRoot::generate()?;
//! # let root_pem = root.certificate_pem().to_owned();
//! # let identity = Identity {
//! #     instance_id: "i-00000000000000000".to_owned(),
//! #     enclave_id: "enc0000000000000000".to_owned(),
//! #     measurements: Some(measurements),
//! # };
//! # let listener = tokio::net::UnixListener::bind(&socket)?;
//! # tokio::spawn(serve(listener, SoftwareNsm::new(identity, root)?));
//! // Roots::aws() for an enclave on AWS; this one is of the software NSM.
//! let client = Client::new(Verifier::new(Roots::from_pem(root_pem.as_bytes())?));
//! let endpoint: Endpoint = format!("nsm:{}", socket.display()).parse()?;
//! let policy = Policy::builder().measurements(measurements).build()?;
//!
//! let attestation = client.attest(&endpoint, &policy).await?;
//! let claims = attestation.outcome?;
//! println!("{} runs the image", claims.module_id());
//! # assert_eq!(claims.nonce(), Some(attestation.nonce.as_slice()));
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "nsm"))]
//! # fn main() {}
//! ```

#![forbid(unsafe_code)]

mod client;
mod dial;
mod encoding;
mod endpoint;
mod error;
mod http;
mod key_set;
#[cfg(feature = "nsm")]
mod module;
mod tls;
mod tls_server;

pub use client::{Attestation, Client, DEFAULT_TIMEOUT, NONCE_BYTES};
pub use encoding::{DecodeError, MAX_ENCODED, decode_document};
pub use endpoint::{Endpoint, EndpointError};
pub use error::FetchError;
pub use key_set::fetch_key_set;
pub use tls::{Trust, TrustError};
pub use tls_server::TlsServer;
