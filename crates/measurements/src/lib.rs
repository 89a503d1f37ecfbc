//! Platform configuration registers (PCRs), and the set of them that an enclave image
//! determines.
//!
//! | register | what is measured | set by |
//! |---|---|---|
//! | PCR0 | the whole image | the image |
//! | PCR1 | kernel, command line and boot ramdisk | the image |
//! | PCR2 | the application | the image |
//! | PCR3 | the IAM role of the parent instance | the instance |
//! | PCR4 | the ID of the parent instance | the instance |
//! | PCR8 | the certificate that signed the image | the image |
//!
//! PCR16 to PCR31 are extended inside the enclave.
//!
//! The registers of a NitroTPM have other meanings: [`TpmMeasurements`].
//!
//! ```
//! use measurements::Pcr;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let pcr: Pcr = "00".repeat(48).parse()?;
//! assert_eq!(pcr, Pcr::ZERO);
//! assert_ne!(pcr.extend(b"a configuration"), Pcr::ZERO);
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod image;
mod parent;
mod pcr;
mod tpm;

pub use image::Measurements;
pub use parent::{InstanceId, ParentError, RoleArn};
pub use pcr::{PCR_COUNT, Pcr, PcrError};
pub use tpm::{TPM_PCR_COUNT, TpmMeasurements};
