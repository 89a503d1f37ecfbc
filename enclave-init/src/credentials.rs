//! The AWS credentials that the agent hands in for the workload: kept until newer ones
//! come or they expire, and given to whoever has the token that the workload was started
//! with.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use link::control::FromAgent;
use link::{Credentials, Secret};
use manifest::{CREDENTIALS_ADDRESS, Environment};
use plain_text::plain;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::error::{Doing, InitError};

/// Where the local API has them, and so has their own address.
pub(crate) const PATH: &str = "/v1/aws/credentials";
/// The port at that address.
pub(crate) const PORT: u16 = 80;
/// How long the workload's start waits for the agent's first answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const TOKEN_BYTES: usize = 32;
const MAX_TOKEN: usize = 64;
/// Where AWS's SDKs read the region; boto3 knows the second name only.
const REGION_VARIABLES: [&str; 2] = ["AWS_REGION", "AWS_DEFAULT_REGION"];

/// The workload's AWS credentials; clones are the same ones.
#[derive(Debug, Clone)]
pub(crate) struct AwsCredentials(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    token: Secret<MAX_TOKEN>,
    /// The region that the image names.
    region: Option<String>,
    told: watch::Sender<Told>,
}

/// What the agent has said.
#[derive(Debug, Default)]
struct Told {
    credentials: Option<Credentials>,
    /// Those before, with which somebody may just be signing.
    earlier: Option<Credentials>,
    /// Why there are no newer ones, if it said that last.
    reason: Option<String>,
    /// The last region that it named.
    region: Option<String>,
    has_answered: bool,
}

/// Credentials that have not expired.
#[derive(Debug)]
pub(crate) struct Valid {
    pub(crate) credentials: Credentials,
    /// When they expire, as in RFC 3339.
    pub(crate) expiration: String,
}

impl AwsCredentials {
    /// None yet, and a new token, for an image that names this region.
    pub(crate) fn new(region: Option<&str>) -> Result<Self, InitError> {
        let mut random = [0; TOKEN_BYTES];
        aws_lc_rs::rand::fill(&mut random)
            .map_err(|_| std::io::Error::other("the random number generator failed"))
            .doing(|| "making the token for AWS credentials".to_owned())?;
        let token = Secret::new(&URL_SAFE_NO_PAD.encode(random)).expect("43 visible characters");
        Ok(Self(Arc::new(Shared {
            token,
            region: region.map(str::to_owned),
            told: watch::Sender::default(),
        })))
    }

    /// Takes in what the agent says of credentials; the error is why it must not have
    /// said that.
    pub(crate) fn told(&self, message: FromAgent) -> Result<(), String> {
        match message {
            FromAgent::Credentials(credentials) => {
                let is_allowed =
                    |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
                if !credentials.region.bytes().all(is_allowed) {
                    return Err("the agent named a region that can be none".to_owned());
                }
                if timestamp(credentials.expires_ms).is_none() {
                    return Err("the agent sent credentials without a sensible end".to_owned());
                }
                self.0.told.send_modify(|told| {
                    if !credentials.region.is_empty() {
                        told.region = Some(credentials.region.to_string());
                    }
                    let former = told.credentials.replace(credentials);
                    told.earlier = former.or(told.earlier.take());
                    told.reason = None;
                    told.has_answered = true;
                });
            }
            FromAgent::CredentialsUnavailable { reason } => self.0.told.send_modify(|told| {
                told.reason = Some(plain(&reason));
                told.has_answered = true;
            }),
            _ => {}
        }
        Ok(())
    }

    /// Waits for the agent's first answer, but not for ever; the error is what the
    /// workload is started without, and why. Cancellation safe.
    pub(crate) async fn answered(&self, environment: &Environment) -> Result<(), String> {
        let mut told = self.0.told.subscribe();
        let answered = timeout(ANSWER_TIMEOUT, told.wait_for(|told| told.has_answered)).await;
        drop(answered);
        let what = match (self.valid(), self.region(environment)) {
            (Err(reason), Some(_)) => format!("without AWS credentials: {reason}"),
            (Err(reason), None) => format!("without AWS credentials and AWS_REGION: {reason}"),
            (Ok(_), None) => {
                "without AWS_REGION: the agent names none; set it in workload.env".to_owned()
            }
            (Ok(_), Some(_)) => return Ok(()),
        };
        Err(format!("the workload is started {what}"))
    }

    /// The credentials; the error is why there are none.
    pub(crate) fn valid(&self) -> Result<Valid, String> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        self.valid_at(u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
    }

    fn valid_at(&self, now_ms: u64) -> Result<Valid, String> {
        self.0.told.send_if_modified(|told| {
            if told
                .credentials
                .as_ref()
                .is_some_and(|credentials| credentials.expires_ms <= now_ms)
            {
                told.earlier = told.credentials.take();
                let reason = "the earlier ones have expired, and the agent has sent no others";
                told.reason.get_or_insert_with(|| reason.to_owned());
            }
            false
        });
        let told = self.0.told.borrow();
        match (&told.credentials, &told.reason) {
            (Some(credentials), _) => Ok(Valid {
                expiration: timestamp(credentials.expires_ms).unwrap_or_default(),
                credentials: credentials.clone(),
            }),
            (None, Some(reason)) => Err(reason.clone()),
            (None, None) => Err("the agent has not sent any yet".to_owned()),
        }
    }

    /// Those of the last two credentials that have this access key, expired or not: what
    /// was signed with them is the workload's.
    pub(crate) fn handed_out(&self, access_key_id: &str) -> Option<Credentials> {
        let told = self.0.told.borrow();
        let mut known = told.credentials.iter().chain(&told.earlier);
        known
            .find(|known| *known.access_key_id == *access_key_id)
            .cloned()
    }

    /// Whether this is the token, in a time that does not depend on how wrong it is.
    pub(crate) fn is_token(&self, given: &[u8]) -> bool {
        verify_slices_are_equal(given, self.0.token.as_bytes()).is_ok()
    }

    /// What the workload's environment has of them, beside its own.
    pub(crate) fn variables(&self, environment: &Environment) -> Vec<(&'static str, String)> {
        let mut variables = vec![
            (
                "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                format!("http://{CREDENTIALS_ADDRESS}:{PORT}{PATH}"),
            ),
            (
                "AWS_CONTAINER_AUTHORIZATION_TOKEN",
                self.0.token.to_string(),
            ),
        ];
        if let Some(region) = self.region(environment) {
            let missing = REGION_VARIABLES
                .into_iter()
                .filter(|name| !environment.contains_key(*name));
            variables.extend(missing.map(|name| (name, region.clone())));
        }
        variables
    }

    /// The region: the image's own, of the environment and else of KMS, before the
    /// agent's.
    fn region(&self, environment: &Environment) -> Option<String> {
        let own = REGION_VARIABLES
            .iter()
            .find_map(|name| environment.get(*name).cloned());
        own.or_else(|| self.0.region.clone())
            .or_else(|| self.0.told.borrow().region.clone())
    }
}

/// RFC 3339 in UTC, with whole seconds; none beyond the year 9999.
fn timestamp(milliseconds: u64) -> Option<String> {
    let seconds = i64::try_from(milliseconds / 1000).ok()?;
    let time = OffsetDateTime::from_unix_timestamp(seconds).ok()?;
    Some(format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second()
    ))
}

#[cfg(test)]
mod tests {
    use link::Text;

    use super::*;

    fn credentials(id: &str, expires_ms: u64, region: &str) -> FromAgent {
        FromAgent::Credentials(Credentials {
            access_key_id: Secret::new(id).unwrap(),
            secret_access_key: Secret::new("secret").unwrap(),
            session_token: Secret::new("token").unwrap(),
            expires_ms,
            region: Text::new(region),
        })
    }

    #[test]
    fn credentials_are_served_until_they_expire_or_others_come() {
        let kept = AwsCredentials::new(None).unwrap();
        assert!(kept.valid_at(0).unwrap_err().contains("not sent any yet"));
        kept.told(credentials("first", 2_000, "")).unwrap();
        let valid = kept.valid_at(1_999).unwrap();
        assert_eq!(&*valid.credentials.access_key_id, "first");
        assert_eq!(valid.expiration, "1970-01-01T00:00:02Z");
        let reason = Text::new("no\nrole");
        let unavailable = FromAgent::CredentialsUnavailable { reason };
        kept.told(unavailable).unwrap();
        assert!(kept.valid_at(1_999).is_ok(), "they have not expired");
        let reason = kept.valid_at(2_000).unwrap_err();
        assert!(
            reason.starts_with("no") && !reason.contains('\n'),
            "{reason}"
        );
        kept.told(credentials("second", 3_000, "")).unwrap();
        let valid = kept.valid_at(2_000).unwrap();
        assert_eq!(&*valid.credentials.access_key_id, "second");
        assert!(kept.valid_at(3_000).unwrap_err().contains("have expired"));
        // The clock being set back brings nothing back.
        assert!(kept.valid_at(0).is_err());
    }

    #[test]
    fn credentials_with_senseless_values_are_refused() {
        let kept = AwsCredentials::new(None).unwrap();
        for message in [
            credentials("a", u64::MAX, ""),
            credentials("a", 1, "eu west"),
            credentials("a", 1, "x\0"),
        ] {
            assert!(kept.told(message).is_err());
            assert!(kept.valid_at(0).is_err());
        }
    }

    #[test]
    fn credentials_are_never_printed() {
        let kept = AwsCredentials::new(None).unwrap();
        kept.told(credentials("ASIA-id", u64::from(u32::MAX), ""))
            .unwrap();
        let printed = format!("{kept:?} {:?}", kept.valid_at(0).unwrap());
        let token = kept.0.token.to_string();
        for secret in ["ASIA-id", "\"secret\"", "\"token\"", &token] {
            assert!(!printed.contains(secret), "{printed}");
        }
    }

    #[test]
    fn credentials_region_is_the_images_before_the_agents() {
        let kept = AwsCredentials::new(None).unwrap();
        let mut environment = Environment::default();
        let regions = |environment: &Environment| {
            let variables = kept.variables(environment).into_iter();
            variables.skip(2).collect::<Vec<_>>()
        };
        assert_eq!(regions(&environment), []);
        kept.told(credentials("a", 1, "eu-west-1")).unwrap();
        let both = REGION_VARIABLES.map(|name| (name, "eu-west-1".to_owned()));
        assert_eq!(regions(&environment), both);
        let (name, region) = ("AWS_DEFAULT_REGION", "us-east-1".to_owned());
        environment.set(name.to_owned(), region.clone()).unwrap();
        assert_eq!(regions(&environment), [("AWS_REGION", region)]);
        let kept = AwsCredentials::new(Some("eu-north-1")).unwrap();
        kept.told(credentials("a", 1, "eu-west-1")).unwrap();
        let region = kept.region(&Environment::default());
        assert_eq!(region.as_deref(), Some("eu-north-1"));
    }

    #[test]
    fn credentials_before_the_newest_are_known_until_the_next_come() {
        let kept = AwsCredentials::new(None).unwrap();
        let known = || ["first", "second", "third"].map(|id| kept.handed_out(id).is_some());
        assert_eq!(known(), [false, false, false]);
        kept.told(credentials("first", 1_000, "")).unwrap();
        kept.told(credentials("second", 2_000, "")).unwrap();
        assert_eq!(known(), [true, true, false]);
        kept.told(credentials("third", 3_000, "")).unwrap();
        assert_eq!(known(), [false, true, true]);
        assert!(kept.valid_at(3_000).is_err());
        assert_eq!(known(), [false, false, true]);
    }
}
