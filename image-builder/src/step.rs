//! Steps that take long enough to be shown.

/// What is being done. Both take time where there is much to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A layer is decompressed.
    Layer {
        /// Which, counted from 1.
        number: usize,
        /// How many there are.
        count: usize,
        /// Its size in bytes as it is stored.
        bytes: u64,
    },
    /// The merged files are compressed.
    Compress {
        /// Their size in bytes.
        bytes: u64,
    },
}
