//! Objects in S3.

use std::fmt;
use std::str::FromStr;

/// An object, written `s3://BUCKET/KEY`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// The bucket: 3 to 63 lower-case letters, digits, dots and hyphens.
    pub bucket: String,
    /// The key: 1 to 1024 bytes.
    pub key: String,
}

impl Object {
    /// An object, if bucket and key are possible names.
    pub fn new(bucket: &str, key: &str) -> Result<Self, String> {
        let is_allowed = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-')
        };
        if !(3..=63).contains(&bucket.len())
            || !bucket.bytes().all(is_allowed)
            || bucket.starts_with(['.', '-'])
        {
            return Err(format!(
                "`{bucket}` is no bucket's name: it has 3 to 63 lower-case letters, digits, dots and hyphens"
            ));
        }
        if key.is_empty() || key.len() > 1024 {
            return Err("an object's key has 1 to 1024 bytes".to_owned());
        }
        Ok(Self {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
        })
    }
}

impl FromStr for Object {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (bucket, key) = text
            .strip_prefix("s3://")
            .and_then(|rest| rest.split_once('/'))
            .ok_or_else(|| "write s3://BUCKET/KEY".to_owned())?;
        Self::new(bucket, key)
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_bucket_and_a_key() {
        let object: Object = "s3://my-bucket/images/a b.eif".parse().unwrap();
        assert_eq!(object.bucket, "my-bucket");
        assert_eq!(object.key, "images/a b.eif");
        assert_eq!(object.to_string(), "s3://my-bucket/images/a b.eif");
        for bad in [
            "my-bucket/key",
            "s3://",
            "s3://bucket",
            "s3://bucket/",
            "s3://Bucket/k",
            "s3://a/k",
            "s3://-ab/k",
            "s3://a@b.c/k",
            "https://bucket/key",
        ] {
            assert!(bad.parse::<Object>().is_err(), "{bad}");
        }
    }
}
