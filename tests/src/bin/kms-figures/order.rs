//! What this program tells itself in the enclave to do, over a connection from outside:
//! each line an order, each line back what came of it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How the workload calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Way {
    /// As an SDK does, at `AWS_ENDPOINT_URL_KMS`.
    Sdk,
    /// `POST /v1/kms/decrypt` of the local API.
    LocalApi,
    /// `POST /v1/attestation` of the local API: a document, and nothing of KMS.
    Document,
}

/// Calls to be made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) way: Way,
    /// What KMS is to decrypt, and with what, in base64 and as an ARN.
    pub(crate) ciphertext: String,
    pub(crate) key: String,
    /// What has to be in the answer.
    pub(crate) plaintext: String,
    pub(crate) calls: u32,
    /// How many are made at a time.
    pub(crate) at_a_time: u32,
    /// So many a second; otherwise each as soon as one before has its answer.
    pub(crate) rate: Option<u32>,
}

/// What came of it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Done {
    /// Of the calls that were answered, from when each was due, in microseconds.
    pub(crate) latencies: Latencies,
    /// What the others were told, and how often.
    pub(crate) failures: BTreeMap<String, u32>,
    pub(crate) took: Duration,
}

/// How long calls took, in microseconds.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Latencies(Vec<u64>);

impl Latencies {
    pub(crate) fn push(&mut self, took: Duration) {
        self.0
            .push(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    pub(crate) fn extend(&mut self, other: &Self) {
        self.0.extend_from_slice(&other.0);
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Within which so many of a hundred were answered.
    pub(crate) fn percentile(&self, percent: usize) -> u64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        let index = (sorted.len() * percent / 100).min(last);
        sorted.get(index).copied().unwrap_or_default()
    }
}
