//! The time that requests are signed with.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use http::HeaderMap;
use http::header::DATE;

/// Services take signatures that are five minutes old; a difference that is smaller
/// than this is not what they refuse.
const TOLERANCE_SECONDS: u64 = 4 * 60;

/// This host's clock, corrected by what a service has answered.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    /// How far services are ahead, in seconds.
    ahead: AtomicI64,
}

impl Clock {
    /// The services' time, where this host has `now`.
    pub(crate) fn now(&self, now: SystemTime) -> SystemTime {
        let ahead = self.ahead.load(Ordering::Relaxed);
        let difference = Duration::from_secs(ahead.unsigned_abs());
        let corrected = if ahead < 0 {
            now.checked_sub(difference)
        } else {
            now.checked_add(difference)
        };
        corrected.unwrap_or(now)
    }

    /// Takes the time of an answer, unless it is this host's.
    pub(crate) fn correct(&self, headers: &HeaderMap, now: SystemTime) {
        let date = headers.get(DATE).and_then(|date| date.to_str().ok());
        let Some(date) = date.and_then(|date| DateTime::from_str(date, Format::HttpDate).ok())
        else {
            return;
        };
        let ahead = date.secs().saturating_sub(DateTime::from(now).secs());
        let ahead = if ahead.unsigned_abs() > TOLERANCE_SECONDS {
            ahead
        } else {
            0
        };
        self.ahead.store(ahead, Ordering::Relaxed);
    }

    /// Whether this host's clock is not what is signed with.
    pub(crate) fn is_corrected(&self) -> bool {
        self.ahead.load(Ordering::Relaxed) != 0
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn clock_follows_a_service_that_is_minutes_away() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_420_070_400);
        let clock = Clock::default();
        for (date, seconds) in [
            ("Thu, 01 Jan 2015 00:04:00 GMT", 0),
            ("Thu, 01 Jan 2015 00:04:01 GMT", 241),
            ("Wed, 31 Dec 2014 23:00:00 GMT", -3600),
            ("yesterday", -3600),
            ("Thu, 01 Jan 2015 00:00:00 GMT", 0),
        ] {
            let headers = HeaderMap::from_iter([(DATE, HeaderValue::from_static(date))]);
            clock.correct(&headers, now);
            let signed = clock.now(now);
            let expected = SystemTime::UNIX_EPOCH
                + Duration::from_secs(1_420_070_400_u64.saturating_add_signed(seconds));
            assert_eq!(signed, expected, "{date}");
            assert_eq!(clock.is_corrected(), seconds != 0, "{date}");
        }
    }
}
