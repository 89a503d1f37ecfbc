//! The part of the command line that is about logs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use link::logs::LogStream;
use manifest::EnclaveName;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::embedded_metrics::MetricsNamespace;
use crate::sink::PipelineConfig;
use crate::sink::cloudwatch::CloudWatchConfig;
use crate::sink::cloudwatch::config::{LogGroup, RetentionDays};
use crate::sink::config::{Age, ByteSize, SinkSpec};
use crate::spool::location::{self, LOG_DIR_HELP};
use crate::spool::{Fsync, MIN_BYTES, SpoolOptions, WhenFull};

const SINK_HELP: &str = "Where log records go; may be repeated: stdout, cloudwatch, \
file:PATH[,size=64MiB][,age=1d][,keep=5], syslog:udp://HOST[:PORT], \
syslog:tcp://HOST[:PORT], syslog:unix://PATH, otlp:URL [default: stdout]";

/// How `run` keeps log records and where it sends them.
#[derive(Debug, Args)]
#[command(next_help_heading = "Logs")]
pub struct LogArgs {
    #[arg(long, value_name = "DIR", help = LOG_DIR_HELP)]
    #[expect(missing_docs, reason = "the help is the documentation")]
    pub log_dir: Option<PathBuf>,
    #[arg(long = "sink", value_name = "SINK", help = SINK_HELP)]
    #[expect(missing_docs, reason = "the help is the documentation")]
    pub sinks: Vec<SinkSpec>,
    /// The log group in CloudWatch [default: /aws/ec2/enclave/NAME].
    #[arg(long, value_name = "GROUP")]
    pub log_group: Option<LogGroup>,
    /// How long a log group that the agent makes keeps its events [default: 30].
    #[arg(long, value_name = "DAYS")]
    pub log_retention_days: Option<RetentionDays>,
    /// Most bytes that the log spool takes on disk, from 16MiB.
    #[arg(long, value_name = "SIZE", default_value = "1GiB")]
    pub log_max_size: SpoolSize,
    /// How long records stay in the spool that every sink has passed on.
    #[arg(long, value_name = "TIME", default_value = "7d")]
    pub log_max_age: Age,
    /// What happens when the spool is full of records that a sink still needs.
    #[arg(long, value_enum, default_value = "block")]
    pub log_when_full: WhenFull,
    /// When records are brought to the disk.
    #[arg(long, value_enum, default_value = "interval")]
    pub log_fsync: Fsync,
    /// Serve Prometheus metrics over HTTP at this loopback address.
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics: Option<MetricsAddress>,
    /// Have CloudWatch make metrics in this namespace, from a record each minute in
    /// the embedded metric format (with the sink cloudwatch).
    #[arg(long, value_name = "NAMESPACE")]
    pub metrics_namespace: Option<MetricsNamespace>,
}

impl LogArgs {
    /// What the pipeline of the enclave `name` is made of.
    pub fn pipeline(&self, name: &EnclaveName, region: Option<String>) -> PipelineConfig {
        let mut sinks: Vec<SinkSpec> = Vec::new();
        for sink in &self.sinks {
            if sinks.iter().all(|other| other.name() != sink.name()) {
                sinks.push(sink.clone());
            }
        }
        if sinks.is_empty() {
            sinks.push(SinkSpec::Stdout);
        }
        PipelineConfig {
            directory: self
                .log_dir
                .clone()
                .unwrap_or_else(|| location::spool(&location::base(), name)),
            spool: SpoolOptions {
                max_bytes: self.log_max_size.0,
                max_age: self.log_max_age.0,
                when_full: self.log_when_full,
                fsync: self.log_fsync,
            },
            sinks,
            cloudwatch: CloudWatchConfig {
                region,
                group: self.log_group.clone().unwrap_or_else(|| LogGroup::of(name)),
                retention: self.log_retention_days.unwrap_or_default(),
            },
        }
    }
}

/// A spool's cap in bytes, at least [`MIN_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpoolSize(u64);

impl FromStr for SpoolSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<ByteSize>()? {
            ByteSize(bytes) if bytes >= MIN_BYTES => Ok(Self(bytes)),
            _ => Err(format!("the spool needs at least {}MiB", MIN_BYTES >> 20)),
        }
    }
}

/// A loopback address: metrics are for this host alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricsAddress(pub SocketAddr);

impl FromStr for MetricsAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_loopback() => Ok(Self(address)),
            Ok(_) => Err("metrics are served on a loopback address only, as 127.0.0.1:9464".into()),
            Err(_) => Err("write ADDR:PORT, as in 127.0.0.1:9464".into()),
        }
    }
}

/// The arguments of `logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// The enclave's name; not needed when only one has logs.
    #[arg(long)]
    pub name: Option<EnclaveName>,
    #[arg(long, value_name = "DIR", help = LOG_DIR_HELP, conflicts_with = "name")]
    #[expect(missing_docs, reason = "the help is the documentation")]
    pub log_dir: Option<PathBuf>,
    /// Go on with what comes, until interrupted.
    #[arg(short, long)]
    pub follow: bool,
    /// Only this stream: application, system, health or errors.
    #[arg(long, value_name = "STREAM", value_parser = stream)]
    pub stream: Option<LogStream>,
    /// Only records from this time on: 10m ago (s, m, h, d), or as in
    /// 2026-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME")]
    pub since: Option<Since>,
    /// Only the last so many records.
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
            return Ok(Self(crate::spool::now_us().saturating_sub(micros(age))));
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
    fn values_are_checked_before_anything_starts() {
        assert_eq!("16MiB".parse::<SpoolSize>().unwrap().0, 16 << 20);
        assert!("15MiB".parse::<SpoolSize>().is_err());
        assert!("127.0.0.1:0".parse::<MetricsAddress>().is_ok());
        assert!("[::1]:9464".parse::<MetricsAddress>().is_ok());
        for bad in ["", "9464", "0.0.0.0:9464", "10.0.0.1:80"] {
            assert!(bad.parse::<MetricsAddress>().is_err(), "{bad}");
        }
        assert_eq!(
            "2026-01-01T01:00:00.000001+01:00"
                .parse::<Since>()
                .unwrap()
                .0,
            1_767_225_600_000_001
        );
        let ago = "1h".parse::<Since>().unwrap().0;
        assert!(ago <= crate::spool::now_us() - 3_600_000_000);
        for bad in ["", "yesterday", "1960-01-01T00:00:00Z"] {
            assert!(bad.parse::<Since>().is_err(), "{bad}");
        }
        assert_eq!(stream("health"), Ok(LogStream::Health));
        assert!(stream("kernel").is_err());
    }
}
