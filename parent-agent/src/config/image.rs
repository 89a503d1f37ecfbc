//! An enclave's image: where it is, and what it must be.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use aws_request::s3::Object;
use measurements::Pcr;
use serde_json::Value;

use super::fields::Fields;
use super::{deserialized, text_parsed};
use crate::registry::Reference;
use crate::web::is_this_host;

/// An image and what it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageConfig {
    /// Where it is.
    pub location: Location,
    /// The SHA-256 of the file; a local one may go without, and one of a registry
    /// whose address has a digest.
    pub sha256: Option<Sha256>,
    /// The file's size in bytes.
    pub size: Option<u64>,
    /// The measurement of the certificate that must have signed it.
    pub pcr8: Option<Pcr>,
}

impl ImageConfig {
    pub(super) fn read(value: &Value, place: &str, problems: &mut Vec<String>) -> Option<Self> {
        let mut fields = Fields::of(value, place, problems)?;
        let location = fields.required("source", text_parsed::<Location>);
        let sha256 = fields.parsed("sha256", text_parsed::<Sha256>);
        let size = fields.parsed("size", deserialized::<u64>);
        let pcr8 = fields.parsed("pcr8", deserialized::<Pcr>);
        fields.end();
        let location = location?;
        let names_its_image = match &location {
            Location::File(_) => true,
            Location::Oci(reference) => reference.digest().is_some(),
            Location::S3(_) | Location::Http(_) => false,
        };
        if sha256.is_none() && !names_its_image && value.get("sha256").is_none() {
            problems.push(format!(
                "{place}sha256: it is missing: an image from elsewhere needs one"
            ));
        }
        Some(Self {
            location,
            sha256,
            size,
            pcr8,
        })
    }
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
        let uri: hyper::Uri = text.parse().map_err(|_| FORMS.to_owned())?;
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

/// A SHA-256 digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    /// The digest of bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut digest = [0; 32];
        digest
            .copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref());
        Self(digest)
    }
}

impl FromStr for Sha256 {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut digest = [0; 32];
        hex::decode_to_slice(text, &mut digest)
            .map_err(|_| "a SHA-256 has 64 hexadecimal digits".to_owned())?;
        Ok(Self(digest))
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
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
