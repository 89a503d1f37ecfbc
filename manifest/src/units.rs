//! Lengths of time, ports and back-off ranges, each parsed once from text.

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The longest [`Interval`]: seven days.
const MAX_INTERVAL: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Why a value with a unit could not be parsed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UnitError {
    /// The text is not a number followed by `ms`, `s`, `m` or `h`.
    #[error(
        "`{0}` is not a length of time: write a whole number and a unit, as in `500ms`, `30s`, `5m` or `1h`"
    )]
    Interval(String),
    /// The length of time is zero or longer than seven days.
    #[error("`{0}` is out of range: a length of time is at least 1ms and at most 7 days (168h)")]
    IntervalRange(String),
    /// The text is not two intervals joined by `..`, the first not above the second.
    #[error(
        "`{0}` is not a back-off range: write the first and the longest delay, as in `1s..30s`"
    )]
    Backoff(String),
    /// The number is not between 1 and 65535.
    #[error("`{0}` is not a port: ports are whole numbers from 1 to 65535")]
    Port(String),
}

/// A length of time between one millisecond and seven days, written `500ms`,
/// `30s`, `5m` or `1h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Interval(Duration);

impl Interval {
    /// Between health probes, unless the manifest says otherwise: 30 s.
    pub const DEFAULT_HEALTH: Self = Self(Duration::from_secs(30));
    /// Between SIGTERM and SIGKILL, unless the manifest says otherwise: 10 s.
    pub const DEFAULT_STOP_GRACE: Self = Self(Duration::from_secs(10));

    /// An interval of whole seconds, if it is in range.
    pub const fn from_secs(seconds: u64) -> Option<Self> {
        if seconds == 0 || seconds > MAX_INTERVAL.as_secs() {
            return None;
        }
        Some(Self(Duration::from_secs(seconds)))
    }

    /// The interval as a standard duration.
    pub const fn as_duration(self) -> Duration {
        self.0
    }
}

impl FromStr for Interval {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let malformed = || UnitError::Interval(text.to_owned());
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at_checked(digits).ok_or_else(malformed)?;
        let number: u64 = number.parse().map_err(|_| malformed())?;
        let milliseconds = match unit {
            "ms" => Some(number),
            "s" => number.checked_mul(1_000),
            "m" => number.checked_mul(60_000),
            "h" => number.checked_mul(3_600_000),
            _ => return Err(malformed()),
        };
        milliseconds
            .map(Duration::from_millis)
            .filter(|duration| !duration.is_zero() && *duration <= MAX_INTERVAL)
            .map(Self)
            .ok_or_else(|| UnitError::IntervalRange(text.to_owned()))
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = self.0.as_millis();
        for (unit, size) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
            if milliseconds % size == 0 {
                return write!(f, "{}{unit}", milliseconds / size);
            }
        }
        write!(f, "{milliseconds}ms")
    }
}

impl TryFrom<String> for Interval {
    type Error = UnitError;

    fn try_from(text: String) -> Result<Self, UnitError> {
        text.parse()
    }
}

impl From<Interval> for String {
    fn from(interval: Interval) -> Self {
        interval.to_string()
    }
}

/// The delays between restarts, written `1s..30s`: the first delay, doubled
/// after each failure until the longest is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Backoff {
    first: Interval,
    longest: Interval,
}

impl Backoff {
    /// One second, doubled up to thirty.
    pub const DEFAULT: Self = Self {
        first: Interval(Duration::from_secs(1)),
        longest: Interval(Duration::from_secs(30)),
    };

    /// The longest delay.
    pub const fn longest(self) -> Duration {
        self.longest.0
    }

    /// The delay before restart number `attempt`, counted from zero.
    pub fn delay(self, attempt: u32) -> Duration {
        let doubled = 2u32
            .checked_pow(attempt)
            .and_then(|factor| self.first.0.checked_mul(factor));
        doubled.map_or(self.longest.0, |delay| delay.min(self.longest.0))
    }
}

impl FromStr for Backoff {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let malformed = || UnitError::Backoff(text.to_owned());
        let (first, longest) = text.split_once("..").ok_or_else(malformed)?;
        let (first, longest): (Interval, Interval) = (first.parse()?, longest.parse()?);
        if first > longest {
            return Err(malformed());
        }
        Ok(Self { first, longest })
    }
}

impl fmt::Display for Backoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.first, self.longest)
    }
}

impl TryFrom<String> for Backoff {
    type Error = UnitError;

    fn try_from(text: String) -> Result<Self, UnitError> {
        text.parse()
    }
}

impl From<Backoff> for String {
    fn from(backoff: Backoff) -> Self {
        backoff.to_string()
    }
}

/// A TCP port, 1 to 65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u16")]
pub struct Port(NonZeroU16);

impl Port {
    /// The port, if `number` is one.
    pub const fn new(number: u16) -> Option<Self> {
        match NonZeroU16::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The port's number.
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl TryFrom<u32> for Port {
    type Error = UnitError;

    fn try_from(number: u32) -> Result<Self, UnitError> {
        u16::try_from(number)
            .ok()
            .and_then(Self::new)
            .ok_or_else(|| UnitError::Port(number.to_string()))
    }
}

impl From<Port> for u16 {
    fn from(port: Port) -> Self {
        port.get()
    }
}

impl FromStr for Port {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        text.parse()
            .ok()
            .and_then(Self::new)
            .ok_or_else(|| UnitError::Port(text.to_owned()))
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
