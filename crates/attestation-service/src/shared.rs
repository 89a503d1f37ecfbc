//! What all requests share.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::Semaphore;

use crate::appraiser::Appraiser;
use crate::limits::RateLimiter;
use crate::store::Store;

/// What all requests share.
pub(crate) struct Shared {
    pub(crate) appraiser: Arc<Appraiser>,
    /// A permit is for a request that is verified, or waits for it.
    pub(crate) verifications: Semaphore,
    pub(crate) store: Store,
    pub(crate) limiter: RateLimiter,
    pub(crate) behind_proxy: bool,
    pub(crate) draining: AtomicBool,
}
