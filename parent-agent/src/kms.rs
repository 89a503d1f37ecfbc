//! Calls to KMS that an enclave's init has made, as it says itself.

use std::collections::BTreeMap;

use link::kms::{Calls, Operation, Outcome};
use serde::{Deserialize, Serialize};

/// Calls by operation and outcome.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KmsStatus {
    /// Those that have ended: of each operation, how many came to what.
    pub calls: BTreeMap<String, BTreeMap<String, u64>>,
    /// Those that are being made.
    pub open: u32,
    /// Those of them that wait because too many others are being made.
    pub waiting: u32,
}

impl KmsStatus {
    /// Takes in what the init says now. Counts only grow, whatever it says.
    pub fn told(&mut self, calls: &[Calls], open: u32, waiting: u32) {
        for Calls {
            operation,
            outcome,
            count,
        } in calls
        {
            let of_operation = self.calls.entry(operation.name().to_owned()).or_default();
            let known = of_operation.entry(outcome.name().to_owned()).or_default();
            *known = (*known).max(*count);
        }
        (self.open, self.waiting) = (open, waiting);
    }

    /// How many calls of an operation came to this.
    pub fn count(&self, operation: Operation, outcome: Outcome) -> u64 {
        let outcomes = self.calls.get(operation.name());
        let count = outcomes.and_then(|outcomes| outcomes.get(outcome.name()));
        count.copied().unwrap_or(0)
    }

    /// The calls of one operation, for people.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        self.calls.iter().map(|(operation, outcomes)| {
            let counts = outcomes.iter();
            let counts: Vec<_> = counts
                .map(|(outcome, count)| format!("{count} {outcome}"))
                .collect();
            format!("{operation}: {}", counts.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(count: u64) -> [Calls; 1] {
        [Calls {
            operation: Operation::Decrypt,
            outcome: Outcome::AccessDenied,
            count,
        }]
    }

    #[test]
    fn kms_counts_only_grow() {
        let mut status = KmsStatus::default();
        status.told(&calls(3), 2, 1);
        status.told(&calls(1), 0, 0);
        status.told(&[], 1, 0);
        assert_eq!(status.count(Operation::Decrypt, Outcome::AccessDenied), 3);
        assert_eq!(status.count(Operation::Decrypt, Outcome::Answered), 0);
        assert_eq!((status.open, status.waiting), (1, 0));
        let lines: Vec<_> = status.lines().collect();
        assert_eq!(lines, ["Decrypt: 3 access-denied"]);
    }
}
