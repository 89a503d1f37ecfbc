//! Amazon CloudWatch Logs.
//!
//! Each of the enclave's streams is a log stream of its own in one group and is
//! sent by a forwarder of its own, one request at a time: so order is kept, and
//! a busy stream does not hold up the others.

mod batch;
pub mod config;
mod message;
#[cfg(feature = "cloudwatch")]
mod retry;
#[cfg_attr(not(feature = "cloudwatch"), path = "absent.rs")]
mod service;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use link::logs::LogStream;
use log_spool::{Stored, now_us};

use super::{Delivered, ErrorClass, SendError, Sink};

use batch::EventBatch;
pub use config::CloudWatchConfig;
pub use service::ConnectError;
pub(super) use service::Service;

/// One log stream.
pub(super) struct CloudWatch {
    service: Arc<Service>,
    stream: LogStream,
    batch: EventBatch,
    /// What of the batch is still to be sent.
    pending: Vec<Range<usize>>,
    /// What the service has said so far.
    delivered: Delivered,
}

impl CloudWatch {
    pub(super) fn new(service: Arc<Service>, stream: LogStream) -> Self {
        Self {
            service,
            stream,
            batch: EventBatch::default(),
            pending: Vec::new(),
            delivered: Delivered::default(),
        }
    }
}

impl Sink for CloudWatch {
    const LINGER: Duration = Duration::from_millis(500);

    fn push(&mut self, batch: &log_spool::Batch, record: &Stored<'_>) -> bool {
        self.batch.push(record, batch.stored_us, now_us())
    }

    fn is_empty(&self) -> bool {
        self.batch.events().is_empty()
    }

    fn fill(&self) -> f64 {
        self.batch.fill()
    }

    async fn send(&mut self) -> Result<Delivered, SendError> {
        if self.pending.is_empty() {
            self.delivered = Delivered {
                records: self.batch.records(),
                bytes: self.batch.bytes() as u64,
                refused: Vec::new(),
            };
            self.pending.push(0..self.batch.events().len());
        }
        while let Some(range) = self.pending.pop() {
            let events = self.batch.events().get(range.clone()).unwrap_or_default();
            match self.service.put(self.stream, events).await {
                Ok(refused) => self.delivered.refused.extend(refused),
                // One event that the service cannot take must not hold up the
                // rest for ever: it is found by halves.
                Err(error) if error.class == ErrorClass::Refused => {
                    if range.len() > 1 {
                        let middle = range.start + range.len() / 2;
                        self.pending.push(middle..range.end);
                        self.pending.push(range.start..middle);
                    } else {
                        self.delivered.refused.push(("refused", 1));
                    }
                }
                Err(error) => {
                    self.pending.push(range);
                    return Err(error);
                }
            }
        }
        self.batch.clear();
        Ok(std::mem::take(&mut self.delivered))
    }
}
