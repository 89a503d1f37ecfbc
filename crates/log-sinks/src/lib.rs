//! Where log records go from the spool: standard output, files, syslog, OpenTelemetry
//! and, with the feature `cloudwatch`, Amazon CloudWatch Logs.
//!
//! Every sink is laid out alike: a `config` parses its destination ([`config`]),
//! `batch` or `message` builds what is sent at once within the destination's
//! limits, `service` sends it and sorts its errors by what helps ([`ErrorClass`]).
//! `forward` drives them all: it reads the spool from the sink's own place, sends,
//! tries again for as long as it takes, and moves the place once the destination
//! has answered. So a sink gets every record at least once and in order, and a
//! slow one delays only itself. [`Pipeline`] is the whole of it.

#![forbid(unsafe_code)]

pub mod cloudwatch;
pub mod config;
mod file;
mod forward;
pub mod losses;
mod otlp;
mod output;
mod pipeline;
mod retry;
mod stdout;
mod syslog;
pub mod telemetry;

use std::time::Duration;

use log_spool::{Batch, Stored};

pub use output::Output;
pub use pipeline::{Pipeline, PipelineConfig, PipelineError};
pub use retry::{ErrorClass, SendError};

/// A destination, and the batch that is being built for it.
pub(crate) trait Sink: Send + Sync + 'static {
    /// How long a record may wait for others before its batch is sent.
    const LINGER: Duration;

    /// Takes a record into the batch, or says that the batch must be sent first.
    /// An empty batch takes any record.
    fn push(&mut self, batch: &Batch, record: &Stored<'_>) -> bool;

    /// Whether there is nothing to send.
    fn is_empty(&self) -> bool;

    /// How full the batch is, from 0 to 1.
    fn fill(&self) -> f64;

    /// Sends the batch and empties it. After an error, what the destination has
    /// not taken is still there and is sent by the next call.
    fn send(&mut self) -> impl Future<Output = Result<Delivered, SendError>> + Send;
}

/// What a destination has taken.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Delivered {
    /// Records.
    pub(crate) records: u64,
    /// Bytes, as the destination counts them.
    pub(crate) bytes: u64,
    /// Records that it has refused for good, by reason.
    pub(crate) refused: Vec<(&'static str, u64)>,
}
