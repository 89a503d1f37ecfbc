//! Where a configuration is read from.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use aws_clients::{Client, ConfigError as NoClient, Error as AwsError};
use thiserror::Error;

use super::imds::{Imds, ImdsError};
use super::{Config, ConfigError, MAX_BYTES};

/// The files that are looked for when no source is named.
pub const FILES: [&str; 2] = ["/etc/enclaves/config.json", "/etc/enclaves/config.toml"];
/// The instance tag whose value names a source.
pub const TAG: &str = "EnclaveConfiguration";

/// A source of configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// A parameter of Systems Manager.
    Ssm(String),
    /// The instance tag [`TAG`], whose value is one of the other sources.
    ImdsTags,
    /// The instance's user data.
    ImdsUserData,
    /// The first that is there: the files in [`FILES`], the tag, the user data.
    Auto,
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("file", path)) => Self::file(path),
            Some(("ssm", name)) => Self::ssm(name),
            Some(("imds", "tags")) => Ok(Self::ImdsTags),
            Some(("imds", "user-data")) => Ok(Self::ImdsUserData),
            None if text == "auto" => Ok(Self::Auto),
            _ if text.starts_with('/') || text.starts_with("./") => Self::file(text),
            _ => Err("write a PATH, file:PATH, ssm:NAME, imds:tags, imds:user-data or auto".into()),
        }
    }
}

impl Source {
    fn file(path: &str) -> Result<Self, String> {
        match path.strip_prefix("//").unwrap_or(path) {
            "" => Err("a file needs a path".to_owned()),
            path => Ok(Self::File(path.into())),
        }
    }

    /// 1 to 2048 characters are what the service takes.
    fn ssm(name: &str) -> Result<Self, String> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-/:".contains(&byte);
        if (1..=2048).contains(&name.len()) && name.bytes().all(is_allowed) {
            return Ok(Self::Ssm(name.to_owned()));
        }
        Err("a parameter's name has letters, digits and _ . - / :".to_owned())
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Ssm(name) => write!(f, "ssm:{name}"),
            Self::ImdsTags => f.write_str("imds:tags"),
            Self::ImdsUserData => f.write_str("imds:user-data"),
            Self::Auto => f.write_str("auto"),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum SourceError {
    /// The document is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The file cannot be read.
    #[error("the configuration {} cannot be read: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Systems Manager cannot be asked at all.
    #[error("the configuration ssm:{name} cannot be read: {source}")]
    NoClient {
        /// The parameter.
        name: String,
        /// Why.
        source: NoClient,
    },
    /// The parameter cannot be read.
    #[error(
        "the configuration ssm:{name} cannot be read: {source}{}",
        advice(source)
    )]
    Ssm {
        /// The parameter.
        name: String,
        /// Why.
        source: Box<AwsError>,
    },
    /// The instance's metadata cannot be read.
    #[error(transparent)]
    Imds(#[from] ImdsError),
    /// The tag's value is no source.
    #[error(
        "the instance tag {TAG} has the value `{value}`, which names no configuration: {reason}"
    )]
    Tag {
        /// The value.
        value: String,
        /// Why.
        reason: String,
    },
    /// None of the places has one.
    #[error(
        "there is no configuration: neither {} nor the instance tag {TAG} nor user data is there; name one with --config", FILES.join(" nor ")
    )]
    Nowhere,
}

fn advice(error: &AwsError) -> &'static str {
    if error.is_denied() {
        "; allow ssm:GetParameter on it (and kms:Decrypt on its key) to the instance's role"
    } else if error.is_not_found() {
        "; create it, or name another with --config"
    } else {
        ""
    }
}

impl Source {
    /// Reads and parses the configuration, and says where it was found.
    pub async fn read(&self) -> Result<(Config, Self), SourceError> {
        let (text, found) = self.text().await?;
        Ok((Config::parse(&text, &found.to_string())?, found))
    }

    /// Reads the configuration, and says where it was found.
    pub async fn text(&self) -> Result<(String, Self), SourceError> {
        let text = match self {
            Self::Auto => return Self::find().await,
            Self::ImdsTags => {
                let named = Self::named_by_tag(&Imds::new()).await?;
                return Box::pin(named.ok_or(ImdsError::NoTag)?.text()).await;
            }
            Self::ImdsUserData => {
                let data = Imds::new().user_data().await?;
                data.ok_or(ImdsError::NoUserData)?
            }
            Self::File(path) => read_file(path).map_err(|source| SourceError::File {
                path: path.clone(),
                source,
            })?,
            Self::Ssm(name) => read_parameter(name).await?,
        };
        Ok((text, self.clone()))
    }

    /// A place that is there decides, even if what it holds is wrong.
    async fn find() -> Result<(String, Self), SourceError> {
        for file in FILES.map(Path::new) {
            if file.exists() {
                return Box::pin(Self::File(file.to_owned()).text()).await;
            }
        }
        let imds = Imds::new();
        if let Some(named) = Self::named_by_tag(&imds).await? {
            return Box::pin(named.text()).await;
        }
        match imds.user_data().await? {
            Some(text) => Ok((text, Self::ImdsUserData)),
            None => Err(SourceError::Nowhere),
        }
    }

    async fn named_by_tag(imds: &Imds) -> Result<Option<Self>, SourceError> {
        let Some(value) = imds.tag(TAG).await? else {
            return Ok(None);
        };
        match value.parse() {
            Ok(named @ (Self::File(_) | Self::Ssm(_) | Self::ImdsUserData)) => Ok(Some(named)),
            Ok(Self::ImdsTags | Self::Auto) => Err(SourceError::Tag {
                value,
                reason: "it leads back to the tag".to_owned(),
            }),
            Err(reason) => Err(SourceError::Tag { value, reason }),
        }
    }
}

async fn read_parameter(name: &str) -> Result<String, SourceError> {
    let client = Client::new(None)
        .await
        .map_err(|source| SourceError::NoClient {
            name: name.to_owned(),
            source,
        })?;
    let parameter = client.parameter(name).await;
    parameter.map_err(|source| SourceError::Ssm {
        name: name.to_owned(),
        source: Box::new(source),
    })
}

fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    // One byte more shows that it is too long.
    File::open(path)?
        .take(MAX_BYTES as u64 + 1)
        .read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_written_as_they_are_read() {
        for (text, shown) in [
            ("/etc/a.json", "/etc/a.json"),
            ("file:/etc/a.json", "/etc/a.json"),
            ("file:///etc/a.json", "/etc/a.json"),
            ("ssm:/p/e/enclaves/x", "ssm:/p/e/enclaves/x"),
            ("imds:tags", "imds:tags"),
            ("imds:user-data", "imds:user-data"),
            ("auto", "auto"),
        ] {
            assert_eq!(text.parse::<Source>().unwrap().to_string(), shown);
        }
        for bad in [
            "", "ssm:", "ssm:a b", "imds:", "imds:x", "file:", "s3://b/k", "x",
        ] {
            assert!(bad.parse::<Source>().is_err(), "{bad}");
        }
    }
}
