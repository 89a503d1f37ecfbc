//! How often places for the workload's connections were wanted and not there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use link::control::{FromInit, PlaceCounts};
use link::places::Places;

/// The places of both directions.
#[derive(Debug, Clone)]
pub(crate) struct Pressure {
    pub(crate) egress: Arc<Places<String>>,
    pub(crate) ingress: Arc<Places<()>>,
    /// Datagrams that were dropped.
    pub(crate) dropped: Arc<AtomicU64>,
}

/// What the agent has been told on one connection.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    egress: PlaceCounts,
    ingress: PlaceCounts,
    dropped: u64,
}

impl Pressure {
    /// What the agent is to be told, if that is more than it has been.
    pub(crate) fn news(&self, told: &mut Told) -> Option<FromInit> {
        let now = Told {
            egress: self.egress.counts(),
            ingress: self.ingress.counts(),
            dropped: self.dropped.load(Ordering::Relaxed),
        };
        if now == *told {
            return None;
        }
        *told = now;
        Some(FromInit::Places {
            egress: told.egress,
            ingress: told.ingress,
            dropped_datagrams: told.dropped,
        })
    }
}
