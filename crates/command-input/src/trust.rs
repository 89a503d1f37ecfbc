//! The roots that a person trusts.

use std::path::PathBuf;

use attestation::{Partition, Roots};
use clap::Args;

use crate::{InputError, read_pem};

/// The roots that documents must lead to.
#[derive(Debug, Args)]
pub struct Trust {
    /// Trust AWS's root for this partition, `aws` or `aws-us-gov`; `aws` unless said. May
    /// be repeated.
    #[arg(long, value_name = "PARTITION")]
    partition: Vec<Partition>,
    /// Trust the certificates in this PEM file, and AWS's root only if --partition names
    /// it.
    #[arg(long, value_name = "PEM")]
    root: Option<PathBuf>,
}

impl Trust {
    /// The roots.
    pub fn roots(&self) -> Result<Roots, InputError> {
        let of_partitions = self.partition.iter().copied().map(Roots::partition);
        let read = |file| read_pem(file, Roots::usable_from_pem);
        let of_file = self.root.as_deref().map(read).transpose()?;
        let roots = of_partitions.chain(of_file).reduce(Roots::and);
        Ok(roots.unwrap_or_else(Roots::aws))
    }
}
