//! Sizes in bytes, and limits.

/// Most bytes of a message that is read. The largest plaintext that KMS returns has
/// 4096 bytes.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024;
/// Most pieces that a message's content is in. KMS makes pieces of 1000 bytes.
pub const MAX_FRAGMENTS: usize = 256;
/// Most bytes of a plaintext that is sealed: what is sealed can be opened.
pub const MAX_PLAINTEXT_BYTES: usize = 8 * 1024;

/// The content's key: AES-256.
pub(crate) const CONTENT_KEY_BYTES: usize = 32;
/// AES's blocks, and the initialisation vector.
pub(crate) const BLOCK_BYTES: usize = 16;
