//! What the commands wait for answers with.

use anyhow::Context;
use tokio::runtime::{Builder, Runtime};

use crate::failure::{Failure, usage};

/// One that runs in this thread.
pub(crate) fn runtime() -> Result<Runtime, Failure> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")
        .map_err(usage)
}
