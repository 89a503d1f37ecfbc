//! Whether and when a request is sent again.

use std::time::Duration;

use crate::error::Error;

/// Attempts, unless the configuration gives another number.
const ATTEMPTS: u32 = 4;
/// The most that the first pause takes.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The most that a pause takes.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// The most that a service is given which asks for a pause.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(20);

/// How often a request is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Policy {
    attempts: u32,
}

impl Policy {
    /// The number of attempts of an `SdkConfig`, or the default.
    pub(crate) fn new(attempts: Option<u32>) -> Self {
        Self {
            attempts: attempts.unwrap_or(ATTEMPTS).max(1),
        }
    }

    /// Whether a request may be sent more than once.
    pub(crate) fn repeats(self) -> bool {
        self.attempts > 1
    }

    /// The pause after attempt number `attempt`, counted from 1, that failed with
    /// `error`; none if that was the last.
    pub(crate) fn pause(
        self,
        attempt: u32,
        error: &Error,
        is_idempotent: bool,
    ) -> Option<Duration> {
        // A service that has throttled a request has not carried it out.
        let may_repeat = error.is_throttled() || (is_idempotent && error.is_transient());
        if attempt >= self.attempts || !may_repeat {
            return None;
        }
        let doublings = attempt.saturating_sub(1).min(16);
        let most = FIRST_PAUSE.saturating_mul(1 << doublings).min(MAX_PAUSE);
        let pause = most.mul_f64(fastrand::f64());
        let asked = match error {
            Error::Refused { retry_after, .. } => retry_after.unwrap_or_default(),
            _ => Duration::ZERO,
        };
        Some(pause.max(asked.min(MAX_RETRY_AFTER)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Service;

    fn refused(status: u16, code: &str, retry_after: Option<u64>) -> Error {
        Error::Refused {
            service: Service::Lambda,
            operation: "Invoke",
            status,
            code: code.to_owned(),
            message: String::new(),
            request_id: None,
            retry_after: retry_after.map(Duration::from_secs),
        }
    }

    #[test]
    fn only_what_may_arrive_twice_is_sent_twice() {
        let policy = Policy::new(None);
        let cases = [
            (refused(503, "", None), false, false),
            (refused(503, "", None), true, true),
            (refused(429, "TooManyRequestsException", None), false, true),
            (refused(400, "ThrottlingException", None), false, true),
            (refused(403, "AccessDenied", None), true, false),
            (refused(404, "NoSuchKey", None), true, false),
        ];
        for (error, is_idempotent, expected) in cases {
            let pause = policy.pause(1, &error, is_idempotent);
            assert_eq!(pause.is_some(), expected, "{error}");
        }
    }

    #[test]
    fn attempts_and_pauses_have_an_end() {
        let policy = Policy::new(Some(100));
        let error = refused(503, "SlowDown", None);
        for attempt in 1..100 {
            assert!(policy.pause(attempt, &error, true).unwrap() <= MAX_PAUSE);
        }
        assert!(policy.pause(100, &error, true).is_none());
        let patient = refused(503, "SlowDown", Some(7));
        assert!(policy.pause(1, &patient, true).unwrap() >= Duration::from_secs(7));
        let forever = refused(503, "SlowDown", Some(86_400));
        assert_eq!(policy.pause(1, &forever, true), Some(MAX_RETRY_AFTER));
    }
}
