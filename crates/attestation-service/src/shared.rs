//! What all requests share.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::Semaphore;

use crate::access_log::AccessLog;
use crate::appraiser::Appraiser;
use crate::clients::ForwardedHeader;
use crate::limits::{OpenRequests, RateLimiter};
use crate::store::Store;

/// What all requests share.
pub(crate) struct Shared {
    pub(crate) appraiser: Arc<Appraiser>,
    /// A permit is for a request that is verified, or waits for it.
    pub(crate) verifications: Semaphore,
    pub(crate) store: Store,
    pub(crate) limiter: RateLimiter,
    /// Where a proxy in front says whom it serves.
    pub(crate) behind_proxy: Option<ForwardedHeader>,
    pub(crate) open_requests: OpenRequests,
    pub(crate) access_log: AccessLog,
    pub(crate) draining: AtomicBool,
}
