//! How a spool is kept.

use std::time::Duration;

/// The least cap: eight segments that each hold a batch of any size.
pub const MIN_BYTES: u64 = 16 * 1024 * 1024;

/// When appended records are brought to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Fsync {
    /// Before they are acknowledged: they survive a power loss.
    Always,
    /// Every second: a power loss may take the last second's.
    Interval,
    /// When the kernel does it.
    Never,
}

/// What to do when the cap is reached and a sink has not passed the oldest on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum WhenFull {
    /// Take nothing more: the enclave holds its records, as its manifest says.
    Block,
    /// Remove the oldest, counted.
    DropOldest,
}

/// How a spool is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpoolOptions {
    /// Most bytes on disk; at least [`MIN_BYTES`].
    pub max_bytes: u64,
    /// How long records stay that every sink has passed on.
    pub max_age: Duration,
    /// What happens at the cap.
    pub when_full: WhenFull,
    /// When records are brought to the disk.
    pub fsync: Fsync,
}
