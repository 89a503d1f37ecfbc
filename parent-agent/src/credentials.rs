//! The AWS credentials that the enclave is handed, if its image says so: those of this
//! agent's own requests, which on an instance are its role's.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_clients::CredentialsSource;
use link::control::FromAgent;
use link::{Credentials, Secret, Text};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{info, warn};

/// New ones are asked for when half of the life of the last is over, but within these
/// limits: the metadata service has them hours before the last expire, or minutes.
const MIN_PAUSE: Duration = Duration::from_secs(30);
const MAX_PAUSE: Duration = Duration::from_secs(3600);
/// For how long keys without an end are handed in at a time: an SDK in the enclave wants
/// to know when to ask again.
const STATIC_LIFE: Duration = Duration::from_secs(3600);
/// The first pause after a failure, which doubles up to the longest.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(60);

/// What the enclave is answered: the last known answer, once there is one.
pub(crate) type Answers = watch::Receiver<Option<FromAgent>>;

/// The AWS credentials that an enclave is handed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialsStatus {
    /// How often there were new ones since the agent's start.
    pub renewals: u64,
    /// How often none were to be had.
    pub failures: u64,
    /// Seconds since the last new ones, if there were any.
    pub age_s: Option<u64>,
    /// Seconds until they expire; 0 if they have.
    pub left_s: Option<u64>,
}

impl CredentialsStatus {
    /// For people.
    pub(crate) fn line(&self) -> String {
        let last = match (self.age_s, self.left_s) {
            (Some(age), Some(left)) => format!("handed in {age} s ago, valid for {left} s"),
            _ => "none".to_owned(),
        };
        format!(
            "{last}; {} renewals, {} failures",
            self.renewals, self.failures
        )
    }
}

/// What became of them so far.
#[derive(Debug, Default)]
pub(crate) struct Renewals(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    renewals: u64,
    failures: u64,
    /// When the last came, and when they expire.
    last: Option<(Instant, SystemTime)>,
}

impl Renewals {
    fn update(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What is known now.
    pub(crate) fn read(&self) -> CredentialsStatus {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = |end: SystemTime| end.duration_since(SystemTime::now()).unwrap_or_default();
        CredentialsStatus {
            renewals: known.renewals,
            failures: known.failures,
            age_s: known.last.map(|(since, _)| since.elapsed().as_secs()),
            left_s: known.last.map(|(_, end)| left(end).as_secs()),
        }
    }
}

/// Has a task keep the answer up to date, however often the enclave asks for it; what
/// becomes of that is counted, if the enclave gets any.
pub(crate) fn keep(
    is_wanted: bool,
    region: Option<String>,
    tasks: &mut JoinSet<()>,
) -> (Answers, Option<Arc<Renewals>>) {
    let (answers, receiver) = watch::channel(None);
    if is_wanted {
        let renewals = Arc::new(Renewals::default());
        tasks.spawn(renew(region, answers, Arc::clone(&renewals)));
        return (receiver, Some(renewals));
    }
    let reason = "the image does not say that it gets any: set workload.aws_credentials";
    answers.send_replace(Some(unavailable(reason)));
    (receiver, None)
}

/// Gives an init that has asked the answer, and each that takes its place.
pub(crate) async fn hand_in(mut answers: Answers, init: mpsc::Sender<FromAgent>) {
    loop {
        let answer = answers.borrow_and_update().clone();
        if let Some(answer) = answer
            && init.send(answer).await.is_err()
        {
            return;
        }
        if answers.changed().await.is_err() {
            return;
        }
    }
}

async fn renew(
    region: Option<String>,
    answers: watch::Sender<Option<FromAgent>>,
    renewals: Arc<Renewals>,
) {
    let source = match CredentialsSource::new(region.as_deref()).await {
        Ok(source) => source,
        Err(error) => {
            warn!(%error, "the enclave gets no AWS credentials");
            answers.send_replace(Some(unavailable(&error.to_string())));
            renewals.update(|known| known.failures += 1);
            return;
        }
    };
    let mut failures = 0;
    loop {
        let now = SystemTime::now();
        let found = source.get().await;
        let answer = found.and_then(|found| message(&found, source.region(), now));
        let (answer, pause) = match answer {
            Ok(credentials) => {
                if failures > 0 {
                    info!("the enclave gets AWS credentials again");
                }
                failures = 0;
                let end = UNIX_EPOCH + Duration::from_millis(credentials.expires_ms);
                let left = end.duration_since(now).unwrap_or_default();
                (FromAgent::Credentials(credentials), pause(left))
            }
            Err(reason) => {
                if failures == 0 {
                    warn!(reason, "the enclave gets no AWS credentials");
                }
                failures += 1;
                renewals.update(|known| known.failures += 1);
                (unavailable(&reason), retry(failures))
            }
        };
        answers.send_if_modified(|last| {
            let is_new = last.as_ref() != Some(&answer);
            if is_new {
                if let FromAgent::Credentials(credentials) = &answer {
                    let end = UNIX_EPOCH.checked_add(Duration::from_millis(credentials.expires_ms));
                    renewals.update(|known| {
                        known.renewals += 1;
                        known.last = end.map(|end| (Instant::now(), end));
                    });
                }
                *last = Some(answer);
            }
            is_new
        });
        sleep(pause).await;
    }
}

/// Credentials as the enclave gets them; the error is why it cannot.
fn message(
    found: &aws_clients::Credentials,
    region: Option<&str>,
    now: SystemTime,
) -> Result<Credentials, String> {
    let unusual = || "the credentials are longer than AWS's, or no visible ASCII".to_owned();
    let end = found.expires.unwrap_or(now + STATIC_LIFE);
    let end = end.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Credentials {
        access_key_id: Secret::new(&found.access_key_id).ok_or_else(unusual)?,
        secret_access_key: Secret::new(&found.secret_access_key).ok_or_else(unusual)?,
        session_token: Secret::new(found.session_token.as_deref().unwrap_or_default())
            .ok_or_else(unusual)?,
        expires_ms: u64::try_from(end.as_millis()).unwrap_or(u64::MAX),
        region: Text::new(region.unwrap_or_default()),
    })
}

/// How long to wait after credentials that are valid for so long.
fn pause(left: Duration) -> Duration {
    (left / 2).clamp(MIN_PAUSE, MAX_PAUSE)
}

/// How long to wait after so many failures.
fn retry(failures: u32) -> Duration {
    let factor = 1_u32
        .checked_shl(failures.saturating_sub(1))
        .unwrap_or(u32::MAX);
    FIRST_RETRY.saturating_mul(factor).min(MAX_RETRY)
}

fn unavailable(reason: &str) -> FromAgent {
    let reason = Text::new(reason);
    FromAgent::CredentialsUnavailable { reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(secret: &str, expires: Option<SystemTime>) -> aws_clients::Credentials {
        aws_clients::Credentials {
            access_key_id: "id".to_owned(),
            secret_access_key: secret.to_owned(),
            session_token: None,
            expires,
        }
    }

    #[test]
    fn credentials_are_asked_for_long_before_they_expire() {
        for (left, seconds) in [
            (0, 30),
            (50, 30),
            (600, 300),
            (7_200, 3_600),
            (21_600, 3_600),
        ] {
            let pause = pause(Duration::from_secs(left));
            assert_eq!(pause, Duration::from_secs(seconds), "{left}");
        }
        let retries: Vec<_> = (1..=8).map(|failures| retry(failures).as_secs()).collect();
        assert_eq!(retries, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(retry(u32::MAX), MAX_RETRY);
    }

    #[test]
    fn credentials_without_an_end_are_handed_in_for_an_hour() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000);
        let handed = message(&found("secret", None), Some("eu-west-1"), now).unwrap();
        assert_eq!(handed.expires_ms, 4_600_000);
        assert_eq!(&*handed.region, "eu-west-1");
        assert_eq!(&*handed.session_token, "");
        let handed = message(&found("secret", Some(now)), None, now).unwrap();
        assert_eq!(handed.expires_ms, 1_000_000);
        let error = message(&found("hush hush", None), None, now).unwrap_err();
        assert!(!error.contains("hush"), "{error}");
    }

    #[tokio::test]
    async fn credentials_are_handed_only_to_images_that_say_so() {
        let mut tasks = JoinSet::new();
        let (answers, renewals) = keep(false, None, &mut tasks);
        assert!(tasks.is_empty(), "nobody is asked for them");
        assert!(renewals.is_none());
        let (init, mut received) = mpsc::channel(4);
        hand_in(answers, init).await;
        let Some(FromAgent::CredentialsUnavailable { reason }) = received.recv().await else {
            panic!("no answer");
        };
        assert!(reason.contains("workload.aws_credentials"), "{reason}");
        assert_eq!(received.recv().await, None);
    }
}
