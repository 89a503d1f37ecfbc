//! The NSM shared by challenges, the local API and the boot. Its calls block,
//! so each runs on a thread for blocking work.

use std::sync::{Arc, Mutex, PoisonError};

use attestation::nsm::{Nsm, NsmError};

/// A handle that can be cloned.
#[derive(Debug, Clone)]
pub(crate) struct SecurityModule(Arc<Mutex<Nsm>>);

impl SecurityModule {
    pub(crate) fn new(nsm: Nsm) -> Self {
        Self(Arc::new(Mutex::new(nsm)))
    }

    /// Runs `operation` on a thread for blocking work.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Nsm) -> Result<T, NsmError> + Send + 'static,
    ) -> Result<T, NsmError> {
        let nsm = Arc::clone(&self.0);
        let task = tokio::task::spawn_blocking(move || {
            operation(&mut nsm.lock().unwrap_or_else(PoisonError::into_inner))
        });
        task.await
            .unwrap_or_else(|error| Err(NsmError::Message(error.to_string())))
    }
}
