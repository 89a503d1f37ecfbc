//! The arguments about log records.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use log_sinks::PipelineConfig;
use log_sinks::cloudwatch::CloudWatchConfig;
use log_sinks::cloudwatch::config::{LogGroup, RetentionDays};
use log_sinks::config::{Age, ByteSize, SinkSpec};
use log_spool::location::{self, LOG_DIR_HELP};
use log_spool::{Fsync, MIN_BYTES, SpoolOptions, WhenFull};
use manifest::EnclaveName;

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
}

impl LogArgs {
    /// What the pipeline of the enclave `name` is made of. A group, which may be
    /// configured with its retention, is also a sink, if none is named.
    pub(crate) fn pipeline(
        self,
        name: &EnclaveName,
        region: Option<String>,
        group: Option<LogGroup>,
        retention: Option<RetentionDays>,
    ) -> PipelineConfig {
        let mut sinks: Vec<SinkSpec> = Vec::new();
        for sink in self.sinks {
            if sinks.iter().all(|other| other.name() != sink.name()) {
                sinks.push(sink);
            }
        }
        if sinks.is_empty() && group.is_some() {
            sinks.push(SinkSpec::CloudWatch);
        }
        if sinks.is_empty() {
            sinks.push(SinkSpec::Stdout);
        }
        PipelineConfig {
            directory: self
                .log_dir
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
                group: self
                    .log_group
                    .or(group)
                    .unwrap_or_else(|| LogGroup::of(name)),
                retention: self.log_retention_days.or(retention).unwrap_or_default(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_max_size_holds_a_spool_at_least() {
        assert_eq!("16MiB".parse::<SpoolSize>().unwrap().0, 16 << 20);
        assert!("15MiB".parse::<SpoolSize>().is_err());
    }
}
