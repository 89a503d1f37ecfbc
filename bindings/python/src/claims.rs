//! What documents say.

use std::collections::BTreeMap;

use attestation::{Document, OwnedEvidence, PCR_COUNT, Partition};
use pyo3::prelude::*;

/// What a document says. Whether that was verified is for the caller to know, and the
/// package has a class for each case.
#[pyclass(frozen, get_all, module = "nitro_attestation._native")]
pub(crate) struct Claims {
    profile: String,
    module_id: String,
    timestamp_ms: u64,
    pcrs: BTreeMap<usize, Vec<u8>>,
    nonce: Option<Vec<u8>>,
    purpose: Option<String>,
    user_data: Option<Vec<u8>>,
    public_key: Option<Vec<u8>>,
    /// None where the root was not looked at.
    partition: Option<&'static str>,
}

fn owned(bytes: Option<&[u8]>) -> Option<Vec<u8>> {
    bytes.map(<[u8]>::to_vec)
}

impl From<&OwnedEvidence> for Claims {
    fn from(evidence: &OwnedEvidence) -> Self {
        Self {
            profile: evidence.profile().to_string(),
            module_id: evidence.module_id().to_owned(),
            timestamp_ms: evidence.timestamp_ms(),
            pcrs: evidence
                .pcrs()
                .map(|(index, pcr)| (index, pcr.as_bytes().to_vec()))
                .collect(),
            nonce: owned(evidence.nonce()),
            purpose: evidence.purpose().map(|purpose| purpose.to_string()),
            user_data: owned(evidence.user_data()),
            public_key: owned(evidence.public_key()),
            partition: evidence.root().partition.map(Partition::name),
        }
    }
}

impl Claims {
    fn unverified(document: &Document<'_>) -> Self {
        let pcr = |index| Some((index, document.unverified_pcr(index)?.to_vec()));
        Self {
            profile: document.unverified_profile().to_string(),
            module_id: document.unverified_module_id().to_owned(),
            timestamp_ms: document.unverified_timestamp_ms(),
            pcrs: (0..PCR_COUNT).filter_map(pcr).collect(),
            nonce: owned(document.unverified_nonce()),
            purpose: document
                .unverified_purpose()
                .map(|purpose| purpose.to_string()),
            user_data: owned(document.unverified_user_data()),
            public_key: owned(document.unverified_public_key()),
            partition: None,
        }
    }
}

/// What the bytes claim, if they are a document; else the rule that they break, and how.
#[pyfunction]
pub(crate) fn inspect(document: &[u8]) -> (Option<Claims>, Option<(String, String)>) {
    match Document::parse(document) {
        Ok(document) => (Some(Claims::unverified(&document)), None),
        Err(rejection) => (None, Some((rejection.rule.to_string(), rejection.reason))),
    }
}
