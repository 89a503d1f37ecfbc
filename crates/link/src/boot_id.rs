//! Which boot of an enclave it is.

use crate::bounded::Bytes;

/// A boot of an enclave, told from every other by 16 random bytes; empty when it
/// failed before it had them.
pub type BootId = Bytes<16>;
