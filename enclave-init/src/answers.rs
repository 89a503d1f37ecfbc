//! What the agent asks for and gets an answer to: challenges, sealed secrets, and steps of
//! handing a seed over.

use std::future::Future;

use link::control::{FromAgent, FromInit, MAX_NONCE};
use link::{Bytes, Text};
use nsm::NsmError;
use sealed_secret::PublicKey;
use tokio::task::JoinSet;

use crate::family::{FamilyKeys, Missing};
use crate::logs::Logs;
use crate::secrets::{PutError, Secrets};
use crate::security_module::{Nonce, SecurityModule};

/// Requests that are answered at a time; a further one is refused.
const MAX_REQUESTS: usize = 16;

/// The answers that are being made for one connection.
pub(crate) struct Answers {
    nsm: SecurityModule,
    secrets: Option<Secrets>,
    keys: Option<FamilyKeys>,
    logs: Logs,
    tasks: JoinSet<FromInit>,
}

impl Answers {
    pub(crate) fn new(
        nsm: SecurityModule,
        secrets: Option<Secrets>,
        keys: Option<FamilyKeys>,
        logs: Logs,
    ) -> Self {
        Self {
            nsm,
            secrets,
            keys,
            logs,
            tasks: JoinSet::new(),
        }
    }

    /// The next that is ready. Cancellation safe.
    pub(crate) async fn next(&mut self) -> Option<FromInit> {
        self.tasks.join_next().await?.ok()
    }

    /// Begins to answer a request; a refusal is the answer.
    pub(crate) fn begin(&mut self, request: FromAgent) -> Option<FromInit> {
        match request {
            FromAgent::Challenge { id, nonce } => {
                let begun = nonce_of(nonce).and_then(|nonce| {
                    let nsm = self.nsm.clone();
                    self.spawn(async move {
                        document(id, nsm.run(move |nsm| nsm.relayed_challenge(&nonce)).await)
                    })
                });
                begun.err().map(|reason| challenge_failed(id, reason))
            }
            FromAgent::SealingChallenge { id, nonce } => {
                let begun = nonce_of(nonce).and_then(|nonce| {
                    let key = self.sealing_key()?;
                    let nsm = self.nsm.clone();
                    self.spawn(async move {
                        document(id, nsm.run(move |nsm| nsm.sealing(&nonce, &key)).await)
                    })
                });
                begun.err().map(|reason| challenge_failed(id, reason))
            }
            FromAgent::SealedSecret { id, sealed } => {
                let begun = self.declared().and_then(|secrets| {
                    let (nsm, logs) = (self.nsm.clone(), self.logs.clone());
                    self.spawn(async move {
                        match secrets.put(&nsm, &sealed).await {
                            Ok(delivered) => {
                                // Once: whoever has a sealed secret may put it again and again.
                                if let Some(name) = delivered {
                                    logs.system(format!("secrets: `{name}` was put and delivered"));
                                }
                                FromInit::SecretOpened { id }
                            }
                            // Not in the log, which whoever puts rubbish would fill.
                            Err(error) => secret_refused(id, error.to_string()),
                        }
                    })
                });
                begun.err().map(|reason| secret_refused(id, reason))
            }
            FromAgent::Keys { id, step } => {
                let keys = self.keys.clone();
                let begun = keys.ok_or_else(|| Missing::NoFamily.to_string());
                let begun = begun.and_then(|keys| {
                    let logs = self.logs.clone();
                    self.spawn(async move {
                        match keys.step(step, &logs).await {
                            Ok(answer) => {
                                let answer = Bytes::new(answer);
                                let answer = answer.expect("requests and gifts fit the message");
                                FromInit::KeysDone { id, answer }
                            }
                            Err(error) => keys_refused(id, error.to_string()),
                        }
                    })
                });
                begun.err().map(|reason| keys_refused(id, reason))
            }
            _ => None,
        }
    }

    fn declared(&self) -> Result<Secrets, String> {
        let secrets = self.secrets.clone();
        secrets.ok_or_else(|| PutError::NoneDeclared.to_string())
    }

    fn sealing_key(&self) -> Result<PublicKey, String> {
        let key = self.declared()?.sealing_key();
        key.ok_or_else(|| PutError::NoneDeclared.to_string())
    }

    fn spawn(
        &mut self,
        answer: impl Future<Output = FromInit> + Send + 'static,
    ) -> Result<(), String> {
        if self.tasks.len() >= MAX_REQUESTS {
            return Err("too many requests are waiting already".to_owned());
        }
        self.tasks.spawn(answer);
        Ok(())
    }
}

fn nonce_of(nonce: Bytes<MAX_NONCE>) -> Result<Nonce, String> {
    Nonce::new(nonce).map_err(|error| error.to_string())
}

fn document(id: u64, document: Result<Vec<u8>, NsmError>) -> FromInit {
    match document.map(Bytes::new) {
        Ok(Some(document)) => FromInit::Document { id, document },
        Ok(None) => challenge_failed(id, "the NSM's document is too large".to_owned()),
        Err(error) => challenge_failed(id, error.to_string()),
    }
}

fn challenge_failed(id: u64, reason: String) -> FromInit {
    let reason = Text::new(reason);
    FromInit::ChallengeFailed { id, reason }
}

fn keys_refused(id: u64, reason: String) -> FromInit {
    let reason = Text::new(reason);
    FromInit::KeysRefused { id, reason }
}

fn secret_refused(id: u64, reason: String) -> FromInit {
    let reason = Text::new(reason);
    FromInit::SecretRefused { id, reason }
}
