//! How many connections an enclave may have, and how fast it may get new ones.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::time::Instant;
use tracing::warn;

/// Most connections at a time, each way, unless a limit says otherwise.
pub const DEFAULT_CONNECTIONS: usize = 4096;
/// The highest limit of connections at a time.
pub const MAX_CONNECTIONS: usize = 65_536;
/// The highest rate, and the highest burst.
pub const MAX_RATE: u32 = 1_000_000;
/// Descriptors that are not for connections.
const OTHER_DESCRIPTORS: u64 = 256;
/// Descriptors that a carried connection takes.
const DESCRIPTORS_PER_CONNECTION: u64 = 2;

/// The limits of one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limit {
    /// Connections at a time.
    pub connections: Option<Connections>,
    /// New connections a second.
    pub rate: Option<Rate>,
}

impl Limit {
    /// These limits, and the others' where there is none.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            connections: self.connections.or(other.connections),
            rate: self.rate.or(other.rate),
        }
    }
}

/// Limits of connections.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Limits of connections")]
pub struct LimitArgs {
    /// Connections out of the enclave at a time [default: 4096].
    #[arg(long = "egress-connections", value_name = "NUMBER")]
    pub egress_connections: Option<Connections>,
    /// New connections out of the enclave: so many a second, and a burst of so
    /// many [default: no limit].
    #[arg(long = "egress-rate", value_name = "PER_SECOND[:BURST]")]
    pub egress_rate: Option<Rate>,
    /// Connections into the enclave at a time [default: 4096].
    #[arg(long = "ingress-connections", value_name = "NUMBER")]
    pub ingress_connections: Option<Connections>,
    /// New connections into the enclave: so many a second, and a burst of so many
    /// [default: no limit].
    #[arg(long = "ingress-rate", value_name = "PER_SECOND[:BURST]")]
    pub ingress_rate: Option<Rate>,
}

impl LimitArgs {
    /// Those of connections out of the enclave.
    pub fn egress(&self) -> Limit {
        Limit {
            connections: self.egress_connections,
            rate: self.egress_rate,
        }
    }

    /// Those of connections into the enclave.
    pub fn ingress(&self) -> Limit {
        Limit {
            connections: self.ingress_connections,
            rate: self.ingress_rate,
        }
    }
}

/// A number of connections at a time: 1 to [`MAX_CONNECTIONS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections(usize);

impl Connections {
    /// The number.
    pub const fn get(self) -> usize {
        self.0
    }
}

impl FromStr for Connections {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(number) if (1..=MAX_CONNECTIONS).contains(&number) => Ok(Self(number)),
            _ => Err(format!("write a number from 1 to {MAX_CONNECTIONS}")),
        }
    }
}

/// New connections: so many a second in the long run, and so many at once after a
/// pause. Written `PER_SECOND` or `PER_SECOND:BURST`; without a burst it is the
/// number of one second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    per_second: NonZeroU32,
    burst: NonZeroU32,
}

impl Rate {
    /// One that is part of the program.
    pub(crate) const fn constant(per_second: u32, burst: u32) -> Self {
        match (NonZeroU32::new(per_second), NonZeroU32::new(burst)) {
            (Some(per_second), Some(burst)) => Self { per_second, burst },
            _ => panic!("neither is zero"),
        }
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            let number = text.parse().ok();
            number
                .filter(|number: &NonZeroU32| number.get() <= MAX_RATE)
                .ok_or_else(|| {
                    format!(
                        "write PER_SECOND or PER_SECOND:BURST, as in 50:200, each from 1 to {MAX_RATE}"
                    )
                })
        };
        let (per_second, burst) = text.split_once(':').unwrap_or((text, text));
        Ok(Self {
            per_second: number(per_second)?,
            burst: number(burst)?,
        })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.per_second, self.burst)
    }
}

/// A bucket of tokens, of which each new connection takes one: the generic cell
/// rate algorithm (ITU-T I.371, annex A), which needs one time and no ticking.
#[derive(Debug)]
pub(crate) struct Bucket {
    rate: Rate,
    /// When the next token is due if connections came at exactly the rate; none
    /// was taken yet if there is no time.
    due: Mutex<Option<Instant>>,
}

impl Bucket {
    pub(crate) const fn new(rate: Rate) -> Self {
        Self {
            rate,
            due: Mutex::new(None),
        }
    }

    /// Whether a connection may be opened at `now`; if so, its token is taken.
    pub(crate) fn take(&self, now: Instant) -> bool {
        let Rate { per_second, burst } = self.rate;
        let interval = Duration::from_secs(1) / per_second.get();
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let next = due.map_or(now, |due| due.max(now));
        if next.duration_since(now) > interval * (burst.get() - 1) {
            return false;
        }
        *due = Some(next + interval);
        true
    }
}

/// Allows as many descriptors as the system does, and says how many connections
/// at a time that makes out of and into the enclave.
pub(crate) fn connections(egress: Limit, ingress: Limit) -> (usize, usize) {
    let allowed = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, hard)| {
        match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
            Ok(()) => hard,
            Err(_) => soft,
        }
    });
    let share = allowed.saturating_sub(OTHER_DESCRIPTORS) / DESCRIPTORS_PER_CONNECTION / 2;
    let share = usize::try_from(share).unwrap_or(MAX_CONNECTIONS).max(1);
    (fit("egress", egress, share), fit("ingress", ingress, share))
}

/// What of a limit the share of the descriptors allows.
fn fit(direction: &str, limit: Limit, share: usize) -> usize {
    let Some(wanted) = limit.connections.map(Connections::get) else {
        return share.min(DEFAULT_CONNECTIONS);
    };
    if wanted > share {
        warn!(
            wanted,
            "{direction} gets {share} connections at a time, for which there are descriptors: raise LimitNOFILE, or lower the limit"
        );
    }
    wanted.min(share)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(text: &str) -> Rate {
        text.parse().unwrap()
    }

    #[test]
    fn rates_are_written_with_and_without_a_burst() {
        assert_eq!(rate("50").to_string(), "50:50");
        assert_eq!(rate("50:200").to_string(), "50:200");
        for bad in [
            "", "0", "1:0", "x", "1:", ":1", "1:2:3", "-1", "1000001", "1.5",
        ] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
        assert_eq!("65536".parse::<Connections>().unwrap().get(), 65_536);
        for bad in ["", "0", "65537", "-1"] {
            assert!(bad.parse::<Connections>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let bucket = Bucket::new(rate("10:3"));
        let start = Instant::now();
        let at = |milliseconds| bucket.take(start + Duration::from_millis(milliseconds));
        assert_eq!([at(0), at(0), at(0), at(0)], [true, true, true, false]);
        assert_eq!([at(99), at(100), at(100)], [false, true, false]);
        // A pause fills it, and not above the burst.
        assert_eq!(
            [at(60_000), at(60_000), at(60_000), at(60_000)],
            [true, true, true, false]
        );
    }

    #[test]
    fn a_limit_gets_what_the_descriptors_allow() {
        let limit = |text: &str| Limit {
            connections: Some(text.parse().unwrap()),
            rate: None,
        };
        assert_eq!(
            fit("egress", Limit::default(), 100_000),
            DEFAULT_CONNECTIONS
        );
        assert_eq!(fit("egress", Limit::default(), 100), 100);
        assert_eq!(fit("egress", limit("50"), 100), 50);
        assert_eq!(fit("egress", limit("500"), 100), 100);
        assert_eq!(fit("egress", limit("5000"), 100_000), 5000);
    }

    proptest! {
        #[test]
        fn no_stretch_of_time_has_more_than_its_tokens_and_a_burst(
            per_second in 1_u32..2000,
            burst in 1_u32..50,
            pauses in proptest::collection::vec(0_u64..20_000, 1..300),
        ) {
            let bucket = Bucket::new(rate(&format!("{per_second}:{burst}")));
            let start = Instant::now();
            let (mut now, mut taken) = (start, 0_u64);
            for pause in pauses {
                now += Duration::from_micros(pause);
                taken += u64::from(bucket.take(now));
                let nanoseconds = u64::try_from((now - start).as_nanos()).unwrap();
                // An interval is a whole number of nanoseconds.
                let interval = 1_000_000_000 / u64::from(per_second);
                prop_assert!(taken <= u64::from(burst) + nanoseconds / interval);
            }
        }
    }
}
