//! The vsock ports and context identifiers that both sides know.

/// Where the parent answers the first sign of life: one byte,
/// [`HEARTBEAT_BYTE`], sent back as it came (nitro-cli's own convention).
pub const HEARTBEAT: u32 = 9000;
/// The byte exchanged on [`HEARTBEAT`].
pub const HEARTBEAT_BYTE: u8 = 0xB7;
/// Where `parent-agent` listens for control, logs and egress.
pub const AGENT: u32 = 7000;
/// Where `enclave-init` listens for ingress.
pub const INIT: u32 = 7001;

/// The parent instance, as a Nitro enclave sees it.
pub const PARENT_CID: u32 = 3;
/// The host, as an ordinary virtual machine sees it: the parent under QEMU.
pub const HOST_CID: u32 = 2;
