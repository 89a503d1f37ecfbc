//! Lengths of time, back-off ranges, ports and sizes, each parsed once.

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;
use std::time::Duration;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

/// The longest [`Interval`]: seven days.
const MAX_INTERVAL: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// The most virtual CPUs of an enclave.
const MAX_CPUS: u32 = 128;
/// The least memory of an enclave in MiB: what the driver accepts.
pub(crate) const MIN_MEMORY_MIB: u32 = 64;
/// The most memory of an enclave in MiB: one TiB.
const MAX_MEMORY_MIB: u32 = 1024 * 1024;

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
    /// The number is not between 1 and 128.
    #[error("{0} is not a number of CPUs: write a whole number from 1 to {MAX_CPUS}")]
    Cpus(String),
    /// The number is not between 64 and 1 048 576.
    #[error(
        "{0} is not a size of memory: write a whole number of MiB from {MIN_MEMORY_MIB} to {MAX_MEMORY_MIB}"
    )]
    MemoryMib(String),
}

/// A length of time between one millisecond and seven days, written `500ms`,
/// `30s`, `5m` or `1h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Interval(Duration);

impl Interval {
    /// Between health probes, unless the manifest says otherwise: 30 s.
    pub const DEFAULT_HEALTH: Self = Self(Duration::from_secs(30));
    /// The longest: 7 days.
    pub const LONGEST: Self = Self(MAX_INTERVAL);
    /// For a health probe, unless the manifest says otherwise: 5 s.
    pub const DEFAULT_HEALTH_TIMEOUT: Self = Self(Duration::from_secs(5));
    /// Between a workload's start and its first good health probe, unless the manifest says
    /// otherwise: 10 min.
    pub const DEFAULT_READY_WITHIN: Self = Self(Duration::from_secs(600));
    /// Between the stop signal and SIGKILL, unless the manifest says otherwise: 10 s.
    pub const DEFAULT_STOP_GRACE: Self = Self(Duration::from_secs(10));
    /// For a sealed secret that the workload's start waits for, unless the manifest says
    /// otherwise: 10 min.
    pub const DEFAULT_WAIT: Self = Self(Duration::from_secs(600));
    /// Between looks for another ciphertext of a secret, at least: 1 s.
    pub const SHORTEST_REFRESH: Self = Self(Duration::from_secs(1));

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
            if milliseconds.is_multiple_of(size) {
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
#[serde(try_from = "WholeNumber", into = "u16")]
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

impl TryFrom<WholeNumber> for Port {
    type Error = UnitError;

    fn try_from(WholeNumber(number): WholeNumber) -> Result<Self, UnitError> {
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
        let number = decimal(text).ok_or_else(|| UnitError::Port(text.to_owned()))?;
        Self::try_from(number)
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Virtual CPUs of an enclave, 1 to 128.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "WholeNumber", into = "u32")]
pub struct Cpus(u32);

impl Cpus {
    /// Unless the manifest says otherwise: 2.
    pub const DEFAULT: Self = Self(2);

    /// The number of CPUs.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<WholeNumber> for Cpus {
    type Error = UnitError;

    fn try_from(WholeNumber(number): WholeNumber) -> Result<Self, UnitError> {
        in_range(number, 1, MAX_CPUS)
            .map(Self)
            .ok_or_else(|| UnitError::Cpus(number.to_string()))
    }
}

impl From<Cpus> for u32 {
    fn from(cpus: Cpus) -> Self {
        cpus.0
    }
}

impl FromStr for Cpus {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let number = decimal(text).ok_or_else(|| UnitError::Cpus(text.to_owned()))?;
        Self::try_from(number)
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Memory of an enclave in MiB, 64 to 1 048 576 (one TiB).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "WholeNumber", into = "u32")]
pub struct MemoryMib(u32);

impl MemoryMib {
    /// Unless the manifest says otherwise: 1024.
    pub const DEFAULT: Self = Self(1024);

    /// The size in MiB.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        // At most 2^40: the widening cannot lose a bit, the product cannot overflow.
        self.0 as u64 * 1024 * 1024
    }

    /// The smallest size that holds `bytes`, if an enclave can have it.
    pub fn holding(bytes: u64) -> Option<Self> {
        let mib = u32::try_from(bytes.div_ceil(1024 * 1024)).ok()?;
        (mib <= MAX_MEMORY_MIB).then_some(Self(mib.max(MIN_MEMORY_MIB)))
    }
}

impl TryFrom<WholeNumber> for MemoryMib {
    type Error = UnitError;

    fn try_from(WholeNumber(number): WholeNumber) -> Result<Self, UnitError> {
        in_range(number, MIN_MEMORY_MIB, MAX_MEMORY_MIB)
            .map(Self)
            .ok_or_else(|| UnitError::MemoryMib(number.to_string()))
    }
}

impl From<MemoryMib> for u32 {
    fn from(memory: MemoryMib) -> Self {
        memory.0
    }
}

impl FromStr for MemoryMib {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let number = decimal(text).ok_or_else(|| UnitError::MemoryMib(text.to_owned()))?;
        Self::try_from(number)
    }
}

impl fmt::Display for MemoryMib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

pub(crate) fn in_range(number: i64, least: u32, most: u32) -> Option<u32> {
    u32::try_from(number)
        .ok()
        .filter(|number| (least..=most).contains(number))
}

/// A number of digits alone: `i64::from_str` would take a sign too.
fn decimal(text: &str) -> Option<WholeNumber> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok().map(WholeNumber))?
}

/// A number as it is written, before its range is checked.
pub(crate) struct WholeNumber(pub(crate) i64);

impl<'de> Deserialize<'de> for WholeNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;

        impl Visitor<'_> for Number {
            type Value = WholeNumber;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }

            fn visit_i64<E>(self, number: i64) -> Result<WholeNumber, E> {
                Ok(WholeNumber(number))
            }

            // Whatever is out of range here is out of range for every unit.
            fn visit_u64<E>(self, number: u64) -> Result<WholeNumber, E> {
                Ok(WholeNumber(i64::try_from(number).unwrap_or(i64::MAX)))
            }
        }

        deserializer.deserialize_i64(Number)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn interval(text: &str) -> Result<Duration, UnitError> {
        text.parse::<Interval>().map(Interval::as_duration)
    }

    #[test]
    fn intervals_are_read_with_their_unit() {
        for (text, milliseconds) in [
            ("1ms", 1),
            ("500ms", 500),
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("168h", 604_800_000),
        ] {
            assert_eq!(interval(text), Ok(Duration::from_millis(milliseconds)));
        }
    }

    #[test]
    fn what_is_not_an_interval_is_refused() {
        for text in [
            "", "5", "s", "-1s", "+1s", "1.5s", "1 s", "1S", "1d", "1sec", "１s",
        ] {
            assert_eq!(interval(text), Err(UnitError::Interval(text.into())));
        }
        for text in ["0s", "0ms", "169h", "10081m", "18446744073709551615h"] {
            assert_eq!(interval(text), Err(UnitError::IntervalRange(text.into())));
        }
        assert_eq!(Interval::from_secs(0), None);
        assert_eq!(Interval::from_secs(7 * 24 * 3600 + 1), None);
    }

    #[test]
    fn back_off_doubles_up_to_its_longest_delay() {
        let backoff: Backoff = "1s..5s".parse().unwrap();
        let seconds: Vec<_> = (0..5).map(|n| backoff.delay(n).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 5, 5]);
        assert_eq!(backoff.delay(u32::MAX), backoff.longest());
        for text in ["1s", "2s..1s", "..", "1s...2s"] {
            assert!(text.parse::<Backoff>().is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        for text in ["", "0", "65536", "-1", "+80", " 80", "80 ", "8o"] {
            assert!(text.parse::<Port>().is_err(), "{text}");
        }
        assert_eq!("65535".parse::<Port>().unwrap().get(), 65535);
        assert!("0".parse::<Cpus>().is_err());
        assert!("129".parse::<Cpus>().is_err());
        assert!("63".parse::<MemoryMib>().is_err());
        assert!("1048577".parse::<MemoryMib>().is_err());
        assert_eq!("64".parse::<MemoryMib>().unwrap().bytes(), 64 << 20);
    }

    #[test]
    fn a_size_of_memory_is_rounded_up() {
        let holding = |bytes| MemoryMib::holding(bytes).map(MemoryMib::get);
        assert_eq!(holding(1), Some(64));
        assert_eq!(holding((100 << 20) + 1), Some(101));
        assert_eq!(holding(1 << 40), Some(1 << 20));
        assert_eq!(holding((1 << 40) + 1), None);
    }

    proptest! {
        #[test]
        fn what_an_interval_prints_reads_back(milliseconds in 1u64..=604_800_000) {
            let interval: Interval = format!("{milliseconds}ms").parse().unwrap();
            prop_assert_eq!(interval.as_duration(), Duration::from_millis(milliseconds));
            prop_assert_eq!(interval.to_string().parse::<Interval>().unwrap(), interval);
        }

        #[test]
        fn a_delay_never_exceeds_the_longest(first in 1u64..600, more in 0u64..600, attempt: u32) {
            let backoff: Backoff = format!("{first}s..{}s", first + more).parse().unwrap();
            prop_assert!(backoff.delay(attempt) <= backoff.longest());
            prop_assert!(backoff.delay(attempt) >= backoff.delay(0));
            prop_assert_eq!(backoff.to_string().parse::<Backoff>().unwrap(), backoff);
        }

        #[test]
        fn arbitrary_text_is_no_panic(text: String) {
            let _ = (text.parse::<Interval>(), text.parse::<Backoff>(), text.parse::<Port>());
        }
    }
}
