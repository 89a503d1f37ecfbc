//! The arguments of `logs`.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use link::logs::LogStream;
use log_sinks::config::Age;
use log_spool::location::LOG_DIR_HELP;
use log_spool::now_us;
use manifest::EnclaveName;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The arguments of `logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// The enclave's name; not needed when only one has logs.
    #[arg(long)]
    pub name: Option<EnclaveName>,
    #[arg(long, value_name = "DIR", help = LOG_DIR_HELP, conflicts_with = "name")]
    #[expect(missing_docs, reason = "the help is the documentation")]
    pub log_dir: Option<PathBuf>,
    /// Keep printing new records, until interrupted.
    #[arg(short, long)]
    pub follow: bool,
    /// Only this stream: application, system, health or errors.
    #[arg(long, value_name = "STREAM", value_parser = stream)]
    pub stream: Option<LogStream>,
    /// Only records since this time: 10m for ten minutes ago (s, m, h, d), or as in
    /// 2026-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME")]
    pub since: Option<Since>,
    /// Only this many of the last records.
    #[arg(long, value_name = "COUNT")]
    pub lines: Option<u64>,
    /// Print JSON, one object a line.
    #[arg(long)]
    pub json: bool,
}

fn stream(text: &str) -> Result<LogStream, String> {
    LogStream::ALL
        .into_iter()
        .find(|stream| stream.name() == text)
        .ok_or_else(|| "the streams are application, system, health and errors".to_owned())
}

/// A point in time, in microseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Since(pub u64);

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        if let Ok(Age(age)) = text.parse() {
            return Ok(Self(now_us().saturating_sub(micros(age))));
        }
        let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| {
            "write how long ago, as in 10m (s, m, h, d), or when, as in 2026-01-31T12:00:00Z"
                .to_owned()
        })?;
        u64::try_from(time.unix_timestamp_nanos() / 1000)
            .map(Self)
            .map_err(|_| "the time is before 1970".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_since_a_time_or_a_while_ago() {
        assert_eq!(
            "2026-01-01T01:00:00.000001+01:00"
                .parse::<Since>()
                .unwrap()
                .0,
            1_767_225_600_000_001
        );
        let ago = "1h".parse::<Since>().unwrap().0;
        assert!(ago <= now_us() - 3_600_000_000);
        for bad in ["", "yesterday", "1960-01-01T00:00:00Z"] {
            assert!(bad.parse::<Since>().is_err(), "{bad}");
        }
        assert_eq!(stream("health"), Ok(LogStream::Health));
        assert!(stream("kernel").is_err());
    }
}
