//! The signal that asks a workload to stop.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Linux's signals but the real-time ones, with their other names, on x86-64 and arm64
/// (signal(7)).
const NAMES: [(&str, u8); 34] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
];
/// The first real-time signal, as C libraries and Docker number them: the two before it are
/// the libraries' own.
const FIRST_REAL_TIME: u8 = 34;
const LAST_REAL_TIME: u8 = 64;

/// A text names no signal.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "`{0}` is not a signal: write its name, as in `SIGQUIT` or `SIGRTMIN+3`, or its number, as in `3`"
)]
pub struct StopSignalError(String);

/// A signal: one of Linux's, but the two that C libraries use themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StopSignal(u8);

impl StopSignal {
    /// SIGTERM, which asks every program to stop.
    pub const TERMINATE: Self = Self(15);

    /// Its number.
    pub fn number(self) -> i32 {
        self.0.into()
    }
}

impl Default for StopSignal {
    fn default() -> Self {
        Self::TERMINATE
    }
}

impl FromStr for StopSignal {
    type Err = StopSignalError;

    /// As Docker does: a number, or a name in any case, with or without `SIG`.
    fn from_str(text: &str) -> Result<Self, StopSignalError> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let listed = NAMES.iter().find(|(known, _)| *known == name);
        let by_number = || number(text).filter(|number| is_signal(*number));
        listed
            .map(|(_, number)| *number)
            .or_else(|| real_time(name))
            .or_else(by_number)
            .map(Self)
            .ok_or_else(|| StopSignalError(text.to_owned()))
    }
}

/// `RTMIN`, `RTMIN+3`, `RTMAX-1`.
fn real_time(name: &str) -> Option<u8> {
    let signal = if let Some(offset) = name.strip_prefix("RTMIN") {
        FIRST_REAL_TIME.checked_add(distance(offset, '+')?)
    } else {
        LAST_REAL_TIME.checked_sub(distance(name.strip_prefix("RTMAX")?, '-')?)
    };
    signal.filter(|signal| (FIRST_REAL_TIME..=LAST_REAL_TIME).contains(signal))
}

fn distance(offset: &str, sign: char) -> Option<u8> {
    if offset.is_empty() {
        return Some(0);
    }
    number(offset.strip_prefix(sign)?)
}

/// Digits and nothing else.
fn number(text: &str) -> Option<u8> {
    let digits = Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits?.parse().ok()
}

fn is_signal(number: u8) -> bool {
    (1..=31).contains(&number) || (FIRST_REAL_TIME..=LAST_REAL_TIME).contains(&number)
}

impl TryFrom<String> for StopSignal {
    type Error = StopSignalError;

    fn try_from(text: String) -> Result<Self, StopSignalError> {
        text.parse()
    }
}

impl From<StopSignal> for String {
    fn from(signal: StopSignal) -> Self {
        signal.to_string()
    }
}

impl fmt::Display for StopSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => write!(f, "SIG{name}"),
            None => match self.0.saturating_sub(FIRST_REAL_TIME) {
                0 => f.write_str("SIGRTMIN"),
                distance => write!(f, "SIGRTMIN+{distance}"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_signal_is_a_name_or_a_number() {
        for (text, number, name) in [
            ("SIGTERM", 15, "SIGTERM"),
            ("QUIT", 3, "SIGQUIT"),
            ("sigquit", 3, "SIGQUIT"),
            ("3", 3, "SIGQUIT"),
            ("SIGIOT", 6, "SIGABRT"),
            ("SIGWINCH", 28, "SIGWINCH"),
            ("SIGKILL", 9, "SIGKILL"),
            ("31", 31, "SIGSYS"),
            ("RTMIN", 34, "SIGRTMIN"),
            ("SIGRTMIN+3", 37, "SIGRTMIN+3"),
            ("37", 37, "SIGRTMIN+3"),
            ("SIGRTMAX-1", 63, "SIGRTMIN+29"),
            ("SIGRTMAX", 64, "SIGRTMIN+30"),
            ("64", 64, "SIGRTMIN+30"),
        ] {
            let signal: StopSignal = text.parse().unwrap();
            assert_eq!(signal.number(), number, "{text}");
            assert_eq!(signal.to_string(), name);
            assert_eq!(name.parse(), Ok(signal));
        }
    }

    #[test]
    fn stop_signal_that_linux_does_not_have_is_refused_with_what_to_write() {
        for text in [
            "",
            "SIG",
            "SIGFOO",
            "SIGSIGTERM",
            "0",
            "32",
            "33",
            "65",
            "-3",
            "+3",
            "3 ",
            "999",
            "SIGRTMIN+31",
            "SIGRTMIN-1",
            "SIGRTMIN+",
            "SIGRTMAX-31",
            "SIGRTMAX+1",
            "RTMIN+999",
        ] {
            let error = text.parse::<StopSignal>().unwrap_err().to_string();
            assert!(error.contains("as in `SIGQUIT`"), "{error}");
        }
    }
}
