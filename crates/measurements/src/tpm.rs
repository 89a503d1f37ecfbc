//! The registers of a NitroTPM that a kernel image determines.

use crate::Pcr;

/// Registers that a TPM has (TCG, "PC Client Platform TPM Profile", section 4.6).
pub const TPM_PCR_COUNT: usize = 24;

/// What an instance with a NitroTPM will report that boots a unified kernel image, as
/// AWS's `nitro-tpm-pcr-compute` computes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TpmMeasurements {
    /// The boot manager: the kernel's image, with the command line in it.
    pub pcr4: Pcr,
    /// The policy of Secure Boot, with the keys that it accepts.
    pub pcr7: Option<Pcr>,
    /// A command line that was given from outside of the image: zero if there is none.
    pub pcr12: Option<Pcr>,
}
