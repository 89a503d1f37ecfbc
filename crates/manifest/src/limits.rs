//! What one of several workloads may use of what they share.

use serde::{Deserialize, Serialize};

use crate::confinement::{ConfinementError, Mebibytes, Pids};
use crate::units::{WholeNumber, in_range};

/// The heaviest weight (Linux, `admin-guide/cgroup-v2.rst`).
const MAX_CPU_WEIGHT: u32 = 10_000;

/// The `limits` of a workload. What is absent is bounded by `[confinement]` alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The most memory for its processes and the files that they write.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<Mebibytes>,
    /// The most processes and threads at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<Pids>,
    /// Its share of a busy processor beside the others, each of which has 100 unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_weight: Option<CpuWeight>,
}

impl Limits {
    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A weight as control groups have it, 1 to 10 000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "WholeNumber", into = "u32")]
pub struct CpuWeight(u32);

impl CpuWeight {
    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<WholeNumber> for CpuWeight {
    type Error = ConfinementError;

    fn try_from(WholeNumber(number): WholeNumber) -> Result<Self, ConfinementError> {
        in_range(number, 1, MAX_CPU_WEIGHT)
            .map(Self)
            .ok_or_else(|| ConfinementError::CpuWeight(number.to_string()))
    }
}

impl From<CpuWeight> for u32 {
    fn from(weight: CpuWeight) -> Self {
        weight.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_within_what_the_kernel_takes() {
        let read = |json: &str| serde_json::from_str::<Limits>(json);
        let limits = read(r#"{"memory_mib": 64, "pids": 8, "cpu_weight": 10000}"#).unwrap();
        assert_eq!(limits.cpu_weight.unwrap().get(), 10_000);
        assert!(!limits.is_empty());
        assert!(read("{}").unwrap().is_empty());
        for wrong in [
            r#"{"cpu_weight": 0}"#,
            r#"{"cpu_weight": 10001}"#,
            r#"{"memory_mib": 0}"#,
            r#"{"pids": 7}"#,
            r#"{"cpus": 1}"#,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
