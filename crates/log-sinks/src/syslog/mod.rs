//! Syslog, RFC 5424, over UDP, TCP or a local socket.
//!
//! The protocol has no acknowledgement: a record counts as passed on once the
//! kernel has taken it. What is then lost on the way, the agent never learns.

mod message;
mod service;

use std::time::Duration;

use aws_smithy_runtime_api::client::dns::SharedDnsResolver;
use log_spool::{Batch, Stored};
use manifest::EnclaveName;

use super::config::SyslogAddress;
use super::telemetry::ratio;
use super::{Delivered, SendError, Sink};

use service::Receiver;

/// Bytes of messages that are sent without a look at what else there is.
const MAX_BATCH: usize = 256 * 1024;

/// Sends records to one receiver.
pub(super) struct Syslog {
    host: String,
    receiver: Receiver,
    /// Bytes of the longest message, where each is a datagram.
    longest: Option<usize>,
    messages: Vec<Vec<u8>>,
    bytes: usize,
    records: u64,
    /// How many messages the receiver has of this batch.
    sent: usize,
}

impl Syslog {
    pub(super) fn new(
        address: SyslogAddress,
        name: &EnclaveName,
        resolver: SharedDnsResolver,
    ) -> Self {
        let longest = match &address {
            SyslogAddress::Tcp(..) => None,
            SyslogAddress::Udp(..) | SyslogAddress::Unix(_) => Some(message::MAX_DATAGRAM),
        };
        Self {
            host: name.to_string(),
            receiver: Receiver::new(address, resolver),
            longest,
            messages: Vec::new(),
            bytes: 0,
            records: 0,
            sent: 0,
        }
    }
}

impl Sink for Syslog {
    const LINGER: Duration = Duration::from_millis(50);

    fn push(&mut self, _: &Batch, record: &Stored<'_>) -> bool {
        if self.bytes >= MAX_BATCH {
            return false;
        }
        for message in message::encode(record, &self.host, self.longest) {
            self.bytes += message.len();
            self.messages.push(message);
        }
        self.records += 1;
        true
    }

    fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    fn fill(&self) -> f64 {
        ratio(self.bytes as u64, MAX_BATCH as u64).min(1.0)
    }

    async fn send(&mut self) -> Result<Delivered, SendError> {
        while let Some(message) = self.messages.get(self.sent) {
            self.receiver.send(message).await?;
            self.sent += 1;
        }
        self.receiver.flush().await?;
        self.messages.clear();
        self.sent = 0;
        Ok(Delivered {
            records: std::mem::take(&mut self.records),
            bytes: std::mem::take(&mut self.bytes) as u64,
            refused: Vec::new(),
        })
    }
}
