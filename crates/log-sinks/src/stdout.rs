//! Standard output, as `run` prints records: text, or JSON that keeps every byte.

use std::time::Duration;

use log_spool::{Batch, Stored};

use super::telemetry::ratio;
use super::{Delivered, SendError, Sink};
use crate::output::Output;

/// Bytes of lines that are written at once.
const MAX_BATCH: usize = 256 * 1024;

/// Prints records. A reader that is gone counts as one that has read.
pub(super) struct Stdout {
    output: Output,
    json: bool,
    lines: Vec<u8>,
    records: u64,
}

impl Stdout {
    pub(super) fn new(output: Output, json: bool) -> Self {
        Self {
            output,
            json,
            lines: Vec::new(),
            records: 0,
        }
    }
}

impl Sink for Stdout {
    const LINGER: Duration = Duration::ZERO;

    fn push(&mut self, _: &Batch, record: &Stored<'_>) -> bool {
        if self.lines.len() >= MAX_BATCH {
            return false;
        }
        log_spool::log_line(record, self.json, &mut self.lines);
        self.records += 1;
        true
    }

    fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    fn fill(&self) -> f64 {
        ratio(self.lines.len() as u64, MAX_BATCH as u64).min(1.0)
    }

    async fn send(&mut self) -> Result<Delivered, SendError> {
        let delivered = Delivered {
            records: std::mem::take(&mut self.records),
            bytes: self.lines.len() as u64,
            refused: Vec::new(),
        };
        self.output.write(std::mem::take(&mut self.lines)).await;
        Ok(delivered)
    }
}
