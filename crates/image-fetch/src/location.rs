//! An enclave's image: where it is, and what it must be.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use aws_endpoint::Object;
use measurements::Pcr;

use crate::digest::Sha256;
use crate::registry::Reference;
use crate::web::is_this_host;

/// An image and what it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageConfig {
    /// Where it is.
    pub location: Location,
    /// The SHA-256 of the file, unless the location does without:
    /// [`Location::needs_sha256`].
    pub sha256: Option<Sha256>,
    /// The file's size in bytes.
    pub size: Option<u64>,
    /// The measurement of the certificate that must have signed it.
    pub pcr8: Option<Pcr>,
}

/// Where an image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// An object in S3.
    S3(Object),
    /// An artifact in an OCI registry.
    Oci(Reference),
    /// An `https` URL, or an `http` one of this host.
    Http(String),
    /// A file.
    File(PathBuf),
}

impl Location {
    /// Whether it says nothing about the bytes that are there, so that only a SHA-256
    /// tells which image is meant. A file of this host is its owner's, and a registry's
    /// address may have a digest.
    pub fn needs_sha256(&self) -> bool {
        match self {
            Self::File(_) => false,
            Self::Oci(reference) => reference.digest().is_none(),
            Self::S3(_) | Self::Http(_) => true,
        }
    }
}

impl FromStr for Location {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORMS: &str =
            "write s3://BUCKET/KEY, oci://REGISTRY/REPOSITORY:TAG, https://HOST/PATH or file:/PATH";
        if text.starts_with("s3:") {
            return text.parse().map(Self::S3);
        }
        if text.starts_with("oci:") {
            return text.parse().map(Self::Oci);
        }
        if let Some(path) = text.strip_prefix("file:") {
            let path = PathBuf::from(path.strip_prefix("//").unwrap_or(path));
            if path.is_absolute() {
                return Ok(Self::File(path));
            }
            return Err(format!("a file's path is absolute: {FORMS}"));
        }
        let uri: http::Uri = text.parse().map_err(|_| FORMS.to_owned())?;
        let host = uri.host().unwrap_or_default();
        match uri.scheme_str() {
            Some("https") if !host.is_empty() && !text.contains('@') => {
                Ok(Self::Http(text.to_owned()))
            }
            Some("http") if is_this_host(host) && !text.contains('@') => {
                Ok(Self::Http(text.to_owned()))
            }
            _ => Err(FORMS.to_owned()),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::S3(object) => object.fmt(f),
            Self::Oci(reference) => reference.fmt(f),
            Self::Http(url) => f.write_str(url),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_where_they_may_be() {
        for good in [
            "s3://bucket/key",
            "https://example.com/a.eif",
            "http://127.0.0.1:8000/a.eif",
            "file:/images/a.eif",
            "file:///images/a.eif",
            "oci://ghcr.io/payments:1.0",
        ] {
            good.parse::<Location>().unwrap();
        }
        for bad in [
            "",
            "/images/a.eif",
            "file:a.eif",
            "http://example.com/a.eif",
            "https://user:pw@example.com/",
            "s3://bucket",
            "oci://x",
        ] {
            assert!(bad.parse::<Location>().is_err(), "{bad}");
        }
    }
}
