//! Objects in S3.

use aws_endpoint::Object;
use http::Method;

use crate::client::Client;
use crate::endpoint::Service;
use crate::error::Error;
use crate::request::{Body, Request, encode};
use crate::response::Download;

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
