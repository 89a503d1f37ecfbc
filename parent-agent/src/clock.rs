//! What the init says of the enclave's clock.

use std::fmt::Write;

use link::control::{ClockState, MAX_CODE, MAX_TEXT};
use serde::{Deserialize, Serialize};

/// How far the enclave's clock can be relied on, as its init said last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockStatus {
    /// `synchronised`, `holdover`, `disagreement` or `no-source`.
    pub state: String,
    /// What it is disciplined by; empty if by nothing.
    pub source: String,
    /// The bound of its error in microseconds, where one can be given.
    pub error_us: Option<u64>,
    /// Times that the enclave's machine was found to have been stopped.
    pub pauses: u64,
    /// Why; may be empty.
    pub detail: String,
}

impl ClockStatus {
    /// What the init said.
    pub(crate) fn new(
        state: ClockState,
        source: &link::Text<MAX_CODE>,
        error_us: Option<u64>,
        pauses: u64,
        detail: &link::Text<MAX_TEXT>,
    ) -> Self {
        Self {
            state: state.name().to_owned(),
            source: source.to_string(),
            error_us,
            pauses,
            detail: detail.to_string(),
        }
    }

    /// Whether the clock follows its source, and nothing contradicts that.
    pub(crate) fn is_synchronised(&self) -> bool {
        self.state == ClockState::Synchronised.name()
    }

    /// Whether there is something to report that `before` did not have: bounds
    /// change all the time.
    pub(crate) fn differs(&self, before: &Self) -> bool {
        self.state != before.state || self.source != before.source || self.pauses != before.pauses
    }

    /// What is written down, each minute, of a clock that is not synchronised: an
    /// alarm is made of it.
    pub(crate) fn record(&self) -> Option<String> {
        let record = serde_json::json!({ "clock": self, "clock_unsynchronised": 1 });
        (!self.is_synchronised()).then(|| record.to_string())
    }

    /// The status in a line for people.
    pub(crate) fn line(&self) -> String {
        let mut line = self.state.clone();
        // Writing to a string cannot fail.
        if !self.source.is_empty() {
            let _ = write!(line, " by {}", self.source);
        }
        if let Some(error_us) = self.error_us {
            let _ = write!(line, ", within {}", length(error_us));
        }
        if self.pauses > 0 {
            let _ = write!(line, ", stopped {} times", self.pauses);
        }
        if !self.detail.is_empty() {
            let _ = write!(line, ": {}", self.detail);
        }
        line
    }
}

/// A length of time with three digits at least.
fn length(microseconds: u64) -> String {
    match microseconds {
        0..10_000 => format!("{microseconds} us"),
        10_000..10_000_000 => format!("{} ms", microseconds.div_ceil(1_000)),
        _ => format!("{} s", microseconds.div_ceil(1_000_000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> ClockStatus {
        ClockStatus {
            state: "synchronised".to_owned(),
            source: "ptp".to_owned(),
            error_us: Some(1_640),
            pauses: 0,
            detail: String::new(),
        }
    }

    #[test]
    fn a_line_says_the_state_and_what_is_known_of_it() {
        assert_eq!(status().line(), "synchronised by ptp, within 1640 us");
        let alone = ClockStatus {
            state: "no-source".to_owned(),
            source: String::new(),
            error_us: None,
            pauses: 2,
            detail: "there is no /dev/ptp0".to_owned(),
        };
        assert_eq!(
            alone.line(),
            "no-source, stopped 2 times: there is no /dev/ptp0"
        );
    }

    #[test]
    fn a_bound_alone_is_no_news() {
        let wider = ClockStatus {
            error_us: Some(1_700),
            ..status()
        };
        assert!(!wider.differs(&status()));
        let paused = ClockStatus {
            pauses: 1,
            ..status()
        };
        assert!(paused.differs(&status()));
    }

    #[test]
    fn only_a_clock_that_is_not_synchronised_is_written_down() {
        assert_eq!(status().record(), None);
        let lost = ClockStatus {
            state: "holdover".to_owned(),
            ..status()
        };
        let record: serde_json::Value = serde_json::from_str(&lost.record().unwrap()).unwrap();
        assert_eq!(record["clock_unsynchronised"], 1);
        assert_eq!(record["clock"]["state"], "holdover");
    }

    #[test]
    fn lengths_are_rounded_up() {
        assert_eq!(length(9_999), "9999 us");
        assert_eq!(length(10_001), "11 ms");
        assert_eq!(length(9_999_999), "10000 ms");
        assert_eq!(length(40_000_001), "41 s");
    }
}
