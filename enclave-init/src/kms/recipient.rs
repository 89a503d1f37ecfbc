//! The key that KMS encrypts to, and the documents that show whose it is.
//!
//! The key is made once for each boot and never leaves the init. Its memory is that of
//! AWS-LC, which overwrites what it frees; an enclave has no swap space to which memory
//! could go, and the init leaves no core file.

use std::sync::Arc;

use bytes::Bytes;
use enveloped_data::RecipientKey;
use tokio::sync::{OnceCell, Semaphore, mpsc, oneshot};
use zeroize::Zeroizing;

use super::error::KmsError;
use crate::security_module::SecurityModule;

/// Calls that wait for a document; a further one waits for room.
const MAX_WAITING: usize = 64;
/// Answers that are opened at a time, each for about a millisecond on a thread of its own.
const MAX_OPENINGS: usize = 2;

/// Where a document is sent to.
type Wanted = oneshot::Sender<Result<Bytes, String>>;

/// A key, documents for it, and what was encrypted to it.
#[derive(Debug)]
pub(super) struct Recipient {
    key: Arc<LazyKey>,
    wanted: mpsc::Sender<Wanted>,
    openings: Arc<Semaphore>,
}

/// The key once it has been made.
#[derive(Default)]
struct LazyKey(OnceCell<Arc<RecipientKey>>);

impl std::fmt::Debug for LazyKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LazyKey")
    }
}

impl LazyKey {
    /// The key, which is made on another thread by whoever wants it first.
    async fn get(&self) -> Result<Arc<RecipientKey>, String> {
        let made = self.0.get_or_try_init(|| async {
            let made = tokio::task::spawn_blocking(RecipientKey::generate).await;
            let made = made.map_err(|error| error.to_string())?;
            made.map(Arc::new).map_err(|error| error.to_string())
        });
        made.await.cloned()
    }
}

impl Recipient {
    /// Begins to make the key.
    pub(super) fn start(nsm: SecurityModule) -> Self {
        let key = Arc::new(LazyKey::default());
        let (wanted, waiting) = mpsc::channel(MAX_WAITING);
        tokio::spawn(make_documents(nsm, Arc::clone(&key), waiting));
        Self {
            key,
            wanted,
            openings: Arc::new(Semaphore::new(MAX_OPENINGS)),
        }
    }

    /// A document that was begun after this call.
    pub(super) async fn document(&self) -> Result<Bytes, KmsError> {
        let ended = || KmsError::Document("the task that makes documents has ended".to_owned());
        let (wanted, made) = oneshot::channel();
        self.wanted.send(wanted).await.map_err(|_| ended())?;
        let made = made.await.map_err(|_| ended())?;
        made.map_err(KmsError::Document)
    }

    /// What was encrypted to the key.
    pub(super) async fn open(&self, message: Vec<u8>) -> Result<Zeroizing<Vec<u8>>, KmsError> {
        let key = self.key.get().await.map_err(KmsError::Document)?;
        let turn = Arc::clone(&self.openings).acquire_owned().await;
        let turn = turn.map_err(|_| KmsError::Unopened)?;
        let opened = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            key.open(&message)
        });
        // Whatever is wrong with it.
        match opened.await {
            Ok(Ok(plaintext)) => Ok(plaintext),
            Ok(Err(_)) | Err(_) => Err(KmsError::Unopened),
        }
    }
}

/// Makes documents, one at a time. The security module takes milliseconds for each, so
/// all who wait when one is begun get that one: for each of them it is new. None is kept
/// for later calls, although KMS takes one for five minutes: what the workload has extended
/// or locked since would not be in it, and KMS is to decide by the registers as they are.
async fn make_documents(
    nsm: SecurityModule,
    key: Arc<LazyKey>,
    mut waiting: mpsc::Receiver<Wanted>,
) {
    // Made before the first call; if that fails, the call says why.
    let _ = key.get().await;
    let mut wanted = Vec::new();
    while waiting.recv_many(&mut wanted, MAX_WAITING).await > 0 {
        let made = make_document(&nsm, &key).await;
        for wanted in wanted.drain(..) {
            // Its caller may have stopped waiting.
            let _ = wanted.send(made.clone());
        }
    }
}

async fn make_document(nsm: &SecurityModule, key: &LazyKey) -> Result<Bytes, String> {
    let key = key.get().await?;
    let made = nsm.run(move |nsm| nsm.key_release(key.public_key_der()));
    made.await
        .map(Bytes::from)
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use enveloped_data::{Encoding, seal};

    use super::*;

    #[tokio::test]
    async fn kms_ciphertexts_that_are_cut_or_changed_give_one_error() {
        let key = Arc::new(LazyKey::default());
        let public = key.get().await.unwrap().public_key_der().to_vec();
        let (wanted, _waiting) = mpsc::channel(1);
        let recipient = Recipient {
            key,
            wanted,
            openings: Arc::new(Semaphore::new(MAX_OPENINGS)),
        };
        let sealed = seal(&public, b"a secret", Encoding::Kms).unwrap();
        let opened = recipient.open(sealed.clone()).await.unwrap();
        assert_eq!(opened.as_slice(), b"a secret");
        let expected = KmsError::Unopened.to_string();
        for length in 0..sealed.len() {
            let error = recipient.open(sealed[..length].to_vec()).await.unwrap_err();
            assert_eq!(error.to_string(), expected, "{length}");
        }
        let other = RecipientKey::generate().unwrap();
        let sealed = seal(other.public_key_der(), b"a secret", Encoding::Kms).unwrap();
        let error = recipient.open(sealed).await.unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}
