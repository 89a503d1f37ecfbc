//! OpenTelemetry: OTLP over HTTP, encoded as JSON.

mod batch;
mod service;

use std::time::Duration;

use aws_smithy_runtime_api::client::dns::SharedDnsResolver;
use bytes::Bytes;
use log_spool::Stored;
use manifest::EnclaveName;

use super::config::OtlpUrl;
use super::telemetry::ratio;
use super::{Delivered, ErrorClass, SendError, Sink};

use batch::{LogBatch, MAX_BYTES};
use service::Service;

/// Sends records to one receiver.
pub(super) struct Otlp {
    service: Service,
    batch: LogBatch,
    /// The request's body, once it has been made.
    body: Option<Bytes>,
}

impl Otlp {
    pub(super) fn new(url: &OtlpUrl, name: &EnclaveName, resolver: SharedDnsResolver) -> Self {
        Self {
            service: Service::new(url, resolver),
            batch: LogBatch::new(name),
            body: None,
        }
    }
}

impl Sink for Otlp {
    const LINGER: Duration = Duration::from_millis(500);

    fn push(&mut self, batch: &log_spool::Batch, record: &Stored<'_>) -> bool {
        self.batch.push(record, batch.stored_us)
    }

    fn is_empty(&self) -> bool {
        self.batch.records() == 0
    }

    fn fill(&self) -> f64 {
        ratio(self.batch.bytes() as u64, MAX_BYTES as u64).min(1.0)
    }

    async fn send(&mut self) -> Result<Delivered, SendError> {
        let batch = &mut self.batch;
        let body = self.body.get_or_insert_with(|| batch.finish());
        let refused = match self.service.post(body.clone()).await {
            Ok(0) => Vec::new(),
            Ok(rejected) => vec![("rejected", rejected)],
            // The protocol forbids to send it again.
            Err(error) if error.class == ErrorClass::Refused => {
                vec![("refused", self.batch.records())]
            }
            Err(error) => return Err(error),
        };
        let delivered = Delivered {
            records: self.batch.records(),
            bytes: body.len() as u64,
            refused,
        };
        self.body = None;
        self.batch.clear();
        Ok(delivered)
    }
}
