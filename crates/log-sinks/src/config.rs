//! `--sink`: which destinations there are, and how they are written.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// How `--sink` is written, for its errors.
const FORMS: &str = "write stdout, cloudwatch, file:PATH[,size=64MiB][,age=1d][,keep=5], \
syslog:udp://HOST[:PORT], syslog:tcp://HOST[:PORT], syslog:unix://PATH, or otlp:URL";
/// The port of syslog over UDP (RFC 5426) and, by custom, over TCP (RFC 6587).
const SYSLOG_PORT: u16 = 514;
/// Where an OTLP receiver takes logs, unless the URL has a path.
const OTLP_PATH: &str = "/v1/logs";

/// A destination of log records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SinkSpec {
    /// Standard output.
    Stdout,
    /// Amazon CloudWatch Logs; `--log-group` and `--log-retention-days` are its own.
    CloudWatch,
    /// Rotated files.
    File(FileConfig),
    /// A syslog receiver.
    Syslog(SyslogAddress),
    /// An OpenTelemetry receiver.
    Otlp(OtlpUrl),
}

/// A syslog receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyslogAddress {
    /// One datagram a message (RFC 5426).
    Udp(String, u16),
    /// A stream, messages with their lengths (RFC 6587).
    Tcp(String, u16),
    /// A local datagram socket, such as `/dev/log`.
    Unix(PathBuf),
}

/// Where an OpenTelemetry receiver takes logs: an `http` or `https` URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtlpUrl(String);

impl OtlpUrl {
    /// The URL.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Rotated files of JSON lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileConfig {
    /// The file that is written; older ones have `.1`, `.2` and so on behind it.
    pub path: PathBuf,
    /// Bytes after which the next file begins.
    pub max_bytes: u64,
    /// Time after which the next file begins.
    pub max_age: Duration,
    /// How many older files are kept.
    pub keep: u32,
}

impl SinkSpec {
    /// What it is called in metrics and in the name of its cursor.
    pub fn name(&self) -> String {
        match self {
            Self::Stdout => "stdout".to_owned(),
            Self::CloudWatch => "cloudwatch".to_owned(),
            Self::File(FileConfig { path, .. }) => format!("file:{}", path.display()),
            Self::Syslog(SyslogAddress::Udp(host, port)) => format!("syslog:udp://{host}:{port}"),
            Self::Syslog(SyslogAddress::Tcp(host, port)) => format!("syslog:tcp://{host}:{port}"),
            Self::Syslog(SyslogAddress::Unix(path)) => format!("syslog:unix://{}", path.display()),
            Self::Otlp(url) => format!("otlp:{}", url.as_str()),
        }
    }
}

impl FromStr for SinkSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "stdout" => Ok(Self::Stdout),
            None if text == "cloudwatch" => Ok(Self::CloudWatch),
            Some(("file", rest)) => file(rest).map(Self::File),
            Some(("syslog", rest)) => syslog(rest).map(Self::Syslog),
            Some(("otlp", rest)) => otlp(rest).map(Self::Otlp),
            _ => Err(FORMS.to_owned()),
        }
    }
}

fn file(text: &str) -> Result<FileConfig, String> {
    let mut parts = text.split(',');
    let path = PathBuf::from(parts.next().unwrap_or_default());
    if path.file_name().is_none() {
        return Err(format!("a file needs a name: {FORMS}"));
    }
    let path = std::path::absolute(path).map_err(|error| error.to_string())?;
    let mut config = FileConfig {
        path,
        max_bytes: 64 * 1024 * 1024,
        max_age: Duration::from_secs(24 * 60 * 60),
        keep: 5,
    };
    for part in parts {
        match part.split_once('=') {
            Some(("size", size)) => config.max_bytes = size.parse::<ByteSize>()?.0,
            Some(("age", age)) => config.max_age = age.parse::<Age>()?.0,
            Some(("keep", keep)) => {
                config.keep = match keep.parse() {
                    Ok(keep @ 0..=1000) => keep,
                    _ => return Err("keep is a number from 0 to 1000".to_owned()),
                };
            }
            _ => return Err(format!("`{part}` is not known: {FORMS}")),
        }
    }
    Ok(config)
}

fn syslog(text: &str) -> Result<SyslogAddress, String> {
    let (scheme, rest) = text.split_once("://").ok_or(FORMS)?;
    if scheme == "unix" {
        let path = PathBuf::from(rest);
        if path.is_absolute() {
            return Ok(SyslogAddress::Unix(path));
        }
        return Err(format!("a socket's path is absolute: {FORMS}"));
    }
    let authority: http::uri::Authority = rest.parse().map_err(|_| FORMS.to_owned())?;
    if authority.host().is_empty() || authority.as_str().contains('@') {
        return Err(FORMS.to_owned());
    }
    let host = authority
        .host()
        .trim_matches(['[', ']'])
        .to_ascii_lowercase();
    let port = match authority.port() {
        Some(port) => port.as_u16(),
        None if authority.as_str().ends_with(authority.host()) => SYSLOG_PORT,
        None => return Err(FORMS.to_owned()),
    };
    match scheme {
        "udp" => Ok(SyslogAddress::Udp(host, port)),
        "tcp" => Ok(SyslogAddress::Tcp(host, port)),
        _ => Err(FORMS.to_owned()),
    }
}

fn otlp(text: &str) -> Result<OtlpUrl, String> {
    let uri: http::Uri = text.parse().map_err(|_| FORMS.to_owned())?;
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    if !is_http || uri.host().is_none_or(str::is_empty) || text.contains('@') {
        return Err(format!(
            "a URL is http:// or https:// and has a host: {FORMS}"
        ));
    }
    match uri.path() {
        "" | "/" => Ok(OtlpUrl(text.trim_end_matches('/').to_owned() + OTLP_PATH)),
        _ => Ok(OtlpUrl(text.to_owned())),
    }
}

/// A number of bytes with its unit, such as `512MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];
        units
            .into_iter()
            .find_map(|(unit, shift)| {
                let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
                number.checked_mul(1 << shift).filter(|&bytes| bytes > 0)
            })
            .map(Self)
            .ok_or_else(|| {
                format!(
                    "`{text}` is not a size: write a number and KiB, MiB, GiB or TiB, as in 512MiB"
                )
            })
    }
}

/// A length of time with its unit, such as `7d`, up to ten years.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Age(pub Duration);

impl FromStr for Age {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const LONGEST: u64 = 10 * 366 * 24 * 60 * 60;
        let units = [("s", 1), ("m", 60), ("h", 60 * 60), ("d", 24 * 60 * 60)];
        units
            .into_iter()
            .find_map(|(unit, seconds)| {
                let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
                number
                    .checked_mul(seconds)
                    .filter(|seconds| (1..=LONGEST).contains(seconds))
            })
            .map(|seconds| Self(Duration::from_secs(seconds)))
            .ok_or_else(|| {
                format!("`{text}` is not a time: write a number and s, m, h or d, as in 7d")
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_parsed_once() {
        let parse = |text: &str| text.parse::<SinkSpec>();
        assert_eq!(parse("stdout").unwrap(), SinkSpec::Stdout);
        assert_eq!(parse("cloudwatch").unwrap(), SinkSpec::CloudWatch);
        let SinkSpec::File(file) = parse("file:/var/log/e.log,size=1MiB,age=2h,keep=0").unwrap()
        else {
            panic!("not a file");
        };
        assert_eq!(file.path, PathBuf::from("/var/log/e.log"));
        assert_eq!(file.max_bytes, 1 << 20);
        assert_eq!(file.max_age, Duration::from_secs(7200));
        assert_eq!(file.keep, 0);
        for (text, name) in [
            ("syslog:udp://LOGS.example", "syslog:udp://logs.example:514"),
            ("syslog:tcp://[::1]:6514", "syslog:tcp://::1:6514"),
            ("syslog:unix:///dev/log", "syslog:unix:///dev/log"),
            (
                "otlp:http://localhost:4318",
                "otlp:http://localhost:4318/v1/logs",
            ),
            ("otlp:https://a.example/x/y", "otlp:https://a.example/x/y"),
        ] {
            assert_eq!(parse(text).unwrap().name(), name);
        }
        for bad in [
            "syslog:logs",
            "syslog:udp://",
            "syslog:udp://a:b",
            "syslog:udp://a:",
            "syslog:unix://dev/log",
            "syslog:tls://a",
            "otlp:",
            "otlp:localhost:4318",
            "otlp:ftp://a",
            "otlp:http://user:secret@a",
            "",
            "stdout:",
            "cloudwatch:x",
            "file",
            "file:",
            "file:/",
            "file:/a,size=1",
            "file:/a,keep=-1",
            "file:/a,colour=red",
            "kafka:x",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_and_times_need_a_unit() {
        assert_eq!("512MiB".parse::<ByteSize>().unwrap().0, 512 << 20);
        assert_eq!("7d".parse::<Age>().unwrap().0.as_secs(), 604_800);
        for bad in ["", "1", "0MiB", "-1MiB", "1.5GiB", "99999999999TiB", "MiB"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
        for bad in ["", "1", "0s", "9999999999d", "d", "1w"] {
            assert!(bad.parse::<Age>().is_err(), "{bad}");
        }
    }
}
