//! The NSM, shared by the boot, challenges and the local API. Its calls block,
//! so one thread makes them, one after the other.

use attestation::nsm::{Nsm, NsmError};
use tokio::sync::{mpsc, oneshot};

use crate::error::{Doing, InitError};

/// Operations that wait for the thread; a further caller waits for room.
const MAX_WAITING: usize = 16;

type Operation = Box<dyn FnOnce(&mut Nsm) + Send>;

/// A handle to the thread that can be cloned; with the last one the thread ends.
#[derive(Debug, Clone)]
pub(crate) struct SecurityModule(mpsc::Sender<Operation>);

impl SecurityModule {
    /// Starts the thread, which opens the module.
    pub(crate) async fn open(
        open: impl FnOnce() -> Result<Nsm, NsmError> + Send + 'static,
    ) -> Result<Self, InitError> {
        let (operations, mut waiting) = mpsc::channel::<Operation>(MAX_WAITING);
        let (opening, opened) = oneshot::channel();
        std::thread::Builder::new()
            .name("nsm".to_owned())
            .spawn(move || {
                let mut nsm = match open() {
                    Ok(nsm) => nsm,
                    Err(error) => return drop(opening.send(Err(error))),
                };
                // The boot may have been given up meanwhile.
                let _ = opening.send(Ok(()));
                while let Some(operation) = waiting.blocking_recv() {
                    operation(&mut nsm);
                }
            })
            .doing(|| "starting the NSM's thread".to_owned())?;
        opened.await.unwrap_or_else(|_| Err(gone()))?;
        Ok(Self(operations))
    }

    /// Runs `operation` on the module's thread, unless the caller has stopped
    /// waiting by then.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Nsm) -> Result<T, NsmError> + Send + 'static,
    ) -> Result<T, NsmError> {
        let (answer, answered) = oneshot::channel();
        let operation: Operation = Box::new(move |nsm| {
            if !answer.is_closed() {
                // The caller may stop waiting while the module works.
                let _ = answer.send(operation(nsm));
            }
        });
        self.0.send(operation).await.map_err(|_| gone())?;
        answered.await.unwrap_or_else(|_| Err(gone()))
    }
}

fn gone() -> NsmError {
    NsmError::Message("the thread that speaks to it has ended".to_owned())
}
