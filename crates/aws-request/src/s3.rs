//! Objects in S3.

use std::fmt;
use std::str::FromStr;

use http::Method;

use crate::client::Client;
use crate::endpoint::Service;
use crate::error::Error;
use crate::request::{Body, Request, encode};
use crate::response::Download;

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

/// What is known of an object without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Its length in bytes.
    pub size: u64,
    /// Its entity tag, with the quotes.
    pub etag: Option<String>,
}

/// Calls to S3.
#[derive(Debug, Clone, Copy)]
pub struct S3<'a>(&'a Client);

impl Client {
    /// S3.
    pub fn s3(&self) -> S3<'_> {
        S3(self)
    }
}

impl S3<'_> {
    /// Asks for an object's size.
    pub async fn head(self, object: &Object) -> Result<Head, Error> {
        let download = self
            .0
            .download(self.request("HeadObject", Method::HEAD, object))
            .await?;
        let size = download
            .header("content-length")
            .and_then(|length| length.parse().ok())
            .ok_or_else(|| Error::Malformed {
                service: Service::S3,
                operation: "HeadObject",
                reason: "it has no content-length".to_owned(),
            })?;
        Ok(Head {
            size,
            etag: download.header("etag").map(str::to_owned),
        })
    }

    /// Reads an object from byte `start` on. If `etag` is given and the object
    /// has changed, the service refuses with status 412.
    pub async fn get(
        self,
        object: &Object,
        start: u64,
        etag: Option<&str>,
    ) -> Result<Download, Error> {
        let mut request = self.request("GetObject", Method::GET, object);
        if start > 0 {
            request = request.header("range", format!("bytes={start}-"));
        }
        if let Some(etag) = etag {
            request = request.header("if-match", etag);
        }
        self.0.download(request).await
    }

    /// Reads the bytes from `start` to `end`, without the one at `end`.
    pub async fn get_range(
        self,
        object: &Object,
        start: u64,
        end: u64,
        etag: Option<&str>,
    ) -> Result<Download, Error> {
        let last = end.saturating_sub(1);
        let mut request = self
            .request("GetObject", Method::GET, object)
            .header("range", format!("bytes={start}-{last}"));
        if let Some(etag) = etag {
            request = request.header("if-match", etag);
        }
        self.0.download(request).await
    }

    /// Writes an object of at most 5 GiB, in place of the one that is there.
    pub async fn put(self, object: &Object, body: Body, content_type: &str) -> Result<(), Error> {
        let request = self
            .request("PutObject", Method::PUT, object)
            .header("content-type", content_type)
            .body(body)
            // The answer comes when the whole body has been sent.
            .timeout(std::time::Duration::from_secs(15 * 60));
        self.0.send(request).await?;
        Ok(())
    }

    /// The bucket is part of the host name, where TLS certificates allow that.
    fn request(self, operation: &'static str, method: Method, object: &Object) -> Request {
        let key = encode(&object.key, true);
        let is_in_path =
            self.0.target(Service::S3, None).is_override || object.bucket.contains('.');
        if is_in_path {
            let path = format!("/{}/{key}", object.bucket);
            return Request::new(Service::S3, operation, method, path);
        }
        let mut request = Request::new(Service::S3, operation, method, format!("/{key}"));
        request.host_prefix = Some(object.bucket.clone());
        request
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
