//! Log records that were lost: in the enclave, as its init tells, and on their way
//! to the sinks.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use link::control::{LossReason, Losses};
use link::logs::LogStream;
use serde::{Deserialize, Serialize};

const STREAMS: usize = LogStream::ALL.len();
const REASONS: usize = LossReason::ALL.len();

/// Counts by what they are of, and then by reason.
pub type Counts = BTreeMap<String, BTreeMap<String, u64>>;

/// What an enclave has told of its losses. Its counts only grow, whatever it says.
#[derive(Debug, Default)]
pub struct EnclaveLosses {
    records: [[u64; REASONS]; STREAMS],
    /// The last number given in each stream, once the enclave has said its last words.
    numbered: Option<[u64; STREAMS]>,
    /// Whether these words were of all that it lost.
    complete: bool,
}

impl EnclaveLosses {
    /// Takes in what the enclave says now.
    pub fn told(&mut self, losses: &Losses) {
        for loss in &losses.0 {
            if let Some(records) = self
                .records
                .get_mut(loss.stream as usize)
                .and_then(|reasons| reasons.get_mut(loss.reason as usize))
            {
                *records = loss.records.max(*records);
            }
        }
    }

    /// Takes in what it has told an earlier agent.
    pub(crate) fn go_on(&mut self, told: &Counts) {
        for (stream, reasons) in LogStream::ALL.into_iter().zip(&mut self.records) {
            for (reason, records) in LossReason::ALL.into_iter().zip(reasons) {
                let of_stream = told.get(stream.name());
                let before = of_stream.and_then(|reasons| reasons.get(reason.name()));
                *records = before.copied().unwrap_or(0).max(*records);
            }
        }
    }

    /// Takes in its last words, which are of all that it lost if it ended in order.
    pub fn ended(&mut self, losses: &Losses, numbered: &[(LogStream, u64)], in_order: bool) {
        self.complete = in_order;
        self.told(losses);
        let mut last = [0; STREAMS];
        for &(stream, number) in numbered {
            if let Some(last) = last.get_mut(stream as usize) {
                *last = number.max(*last);
            }
        }
        self.numbered = Some(last);
    }

    /// Whether the enclave has told of all that it lost.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Once no more records come: what the enclave gave up at its end without having
    /// heard that it is `held`, is not lost.
    pub fn settle(&mut self, held: &[(LogStream, u64)]) {
        let Some(numbered) = self.numbered else {
            return;
        };
        for (stream, reasons) in LogStream::ALL.into_iter().zip(&mut self.records) {
            let of_stream = held.iter().find(|(other, _)| *other == stream);
            let held = of_stream.map_or(0, |(_, last)| *last);
            let numbered = *numbered
                .get(stream as usize)
                .expect("a number for each stream");
            if let Some(ended) = reasons.get_mut(LossReason::Ended as usize) {
                *ended = numbered.saturating_sub(held).min(*ended);
            }
        }
    }

    /// The counts that are not zero.
    pub fn read(&self) -> Counts {
        let mut counts = Counts::new();
        for (stream, reasons) in LogStream::ALL.into_iter().zip(&self.records) {
            for (reason, &records) in LossReason::ALL.into_iter().zip(reasons) {
                if records > 0 {
                    let of_stream = counts.entry(stream.name().to_owned()).or_default();
                    of_stream.insert(reason.name().to_owned(), records);
                }
            }
        }
        counts
    }
}

/// All counts together.
pub fn total(counts: &Counts) -> u64 {
    let all = counts.values().flat_map(BTreeMap::values);
    all.fold(0, |total, &count| total.saturating_add(count))
}

/// What was lost of an enclave's log, as it stands at the end.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostRecords {
    /// In the enclave, all streams together.
    pub in_enclave: u64,
    /// The same by stream and reason, as far as the enclave has told.
    pub enclave: Counts,
    /// Whether the enclave has told of all: one that ends without a word takes with
    /// it what it still held, and an init that panics says what it can.
    pub complete: bool,
    /// On the way to each sink, by reason.
    pub sinks: Counts,
    /// The agent's own records that found no room in the spool.
    pub own: u64,
}

impl LostRecords {
    /// Whether nothing is known to be lost.
    pub fn is_empty(&self) -> bool {
        self.in_enclave == 0 && self.sinks.is_empty() && self.own == 0
    }
}

/// For people, in one line.
impl fmt::Display for LostRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if self.in_enclave > 0 {
            let least = if self.complete { "" } else { "at least " };
            let mut part = format!("{least}{} log records in the enclave", self.in_enclave);
            if !self.enclave.is_empty() {
                let _ = write!(part, " ({})", describe(&self.enclave));
            }
            parts.push(part);
        }
        if !self.sinks.is_empty() {
            parts.push(format!("on the way to sinks {}", describe(&self.sinks)));
        }
        if self.own > 0 {
            parts.push(format!(
                "{} of the agent's own, for which the spool had no room",
                self.own
            ));
        }
        f.write_str(&parts.join("; "))
    }
}

fn describe(counts: &Counts) -> String {
    let parts: Vec<_> = counts
        .iter()
        .map(|(name, reasons)| {
            let reasons: Vec<_> = reasons
                .iter()
                .map(|(reason, count)| format!("{count} {reason}"))
                .collect();
            format!("{name}: {}", reasons.join(", "))
        })
        .collect();
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use link::control::Loss;
    use proptest::prelude::*;

    use super::*;

    fn loss(stream: LogStream, reason: LossReason, records: u64) -> Losses {
        Losses(vec![Loss {
            stream,
            reason,
            records,
        }])
    }

    #[test]
    fn losses_only_grow_whatever_an_enclave_says() {
        use LogStream::Application;
        let mut losses = EnclaveLosses::default();
        for records in [5, 3, 0] {
            losses.told(&loss(Application, LossReason::QueueFull, records));
        }
        assert_eq!(losses.read()["application"]["queue-full"], 5);
        losses.told(&loss(LogStream::Errors, LossReason::QueueFull, u64::MAX));
        assert_eq!(total(&losses.read()), u64::MAX);
    }

    #[test]
    fn losses_are_told_in_one_line() {
        let mut lost = LostRecords {
            in_enclave: 7,
            enclave: Counts::from([(
                "application".to_owned(),
                BTreeMap::from([("ended".to_owned(), 3), ("queue-full".to_owned(), 4)]),
            )]),
            complete: true,
            ..LostRecords::default()
        };
        assert_eq!(
            lost.to_string(),
            "7 log records in the enclave (application: 3 ended, 4 queue-full)"
        );
        lost.complete = false;
        lost.own = 1;
        lost.enclave.clear();
        let removed = BTreeMap::from([("removed".to_owned(), 2)]);
        lost.sinks.insert("syslog:x".to_owned(), removed);
        assert_eq!(
            lost.to_string(),
            "at least 7 log records in the enclave; on the way to sinks syslog:x: 2 removed; 1 of the agent's own, for which the spool had no room"
        );
    }

    proptest! {
        /// An enclave that numbered, had stored, dropped and gave up records: whatever it
        /// knew of what is held, stored and lost make up all of them.
        #[test]
        fn losses_and_held_records_make_up_all(
            stored in 0_u64..100, dropped in 0_u64..100, rest in 0_u64..100, unheard in 0_u64..100,
        ) {
            // Stored, then dropped, then some that are held without the enclave's knowledge.
            let unheard = unheard.min(rest);
            let numbered = stored + dropped + rest;
            let held = if unheard > 0 { stored + dropped + unheard } else { stored };
            let mut losses = EnclaveLosses::default();
            losses.told(&loss(LogStream::Application, LossReason::QueueFull, dropped));
            losses.ended(
                &loss(LogStream::Application, LossReason::Ended, rest),
                &[(LogStream::Application, numbered)],
                true,
            );
            losses.settle(&[(LogStream::Application, held)]);
            prop_assert_eq!(total(&losses.read()) + stored + unheard, numbered);
        }
    }
}
