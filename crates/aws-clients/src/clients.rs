//! Requests to AWS: how they find their region, credentials and hosts.

use std::time::Duration;

use aws_config::{BehaviorVersion, ConfigLoader, Region};
use aws_endpoint::Object;
use aws_request::Service;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use bytes::Bytes;
use name_resolver::Names;
use tokio::time::timeout;

use crate::{Credentials, Head};

pub use aws_request::lambda::InvokeError;
pub use aws_request::{ConfigError, Error};

/// How long it may take to ask for the region.
const REGION_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one invocation of a function may take.
const INVOKE_TIMEOUT: Duration = Duration::from_secs(20);

/// The HTTP client of everything that asks AWS.
pub(crate) fn http() -> SharedHttpClient {
    aws_request::http_client_with(Names::from_system())
}

/// Reads region, credentials and endpoints from environment, profile or instance;
/// a region that is given comes first.
fn loader(http: &SharedHttpClient, region: Option<&str>) -> ConfigLoader {
    let loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http.clone());
    match region {
        Some(region) => loader.region(Region::new(region.to_owned())),
        None => loader,
    }
}

/// The region that environment, profile or instance name, if any does in time.
pub async fn region() -> Option<String> {
    let http = http();
    let config = timeout(REGION_TIMEOUT, loader(&http, None).load())
        .await
        .ok()?;
    config.region().map(ToString::to_string)
}

/// Where environment, profile or instance have credentials.
#[derive(Debug)]
pub struct CredentialsSource {
    provider: aws_request::Provider,
    region: Option<String>,
}

impl CredentialsSource {
    /// The source, and the region: the given one or that of environment, profile or
    /// instance. No credentials are asked for yet.
    pub async fn new(region: Option<&str>) -> Result<Self, ConfigError> {
        let config = loader(&http(), region).load().await;
        Ok(Self {
            provider: aws_request::Provider::new(&config).ok_or(ConfigError::NoCredentials)?,
            region: config.region().map(ToString::to_string),
        })
    }

    /// The region, if one is known.
    pub fn region(&self) -> Option<&str> {
        self.region.as_deref()
    }

    /// Asks for credentials; the error is why there are none.
    pub async fn get(&self) -> Result<Credentials, String> {
        let found = self.provider.provide().await?;
        Ok(Credentials {
            access_key_id: found.access_key_id().to_owned(),
            secret_access_key: found.secret_access_key().to_owned(),
            session_token: found.session_token().map(str::to_owned),
            expires: found.expiry(),
        })
    }
}

/// Asks the services; clones share connections and credentials.
#[derive(Debug, Clone)]
pub struct Client(aws_request::Client);

impl Client {
    /// A client that asks in this region, or in the one that environment, profile or
    /// instance name. Nothing else is asked yet.
    pub async fn new(region: Option<&str>) -> Result<Self, ConfigError> {
        let config = loader(&http(), region).load().await;
        aws_request::Client::with_resolver(&config, Names::from_system()).map(Self)
    }

    /// Whether there are credentials, and if not, why. They are not tried.
    pub async fn check_credentials(&self) -> Result<(), String> {
        self.0.check_credentials().await
    }

    /// The region that is asked.
    pub fn region(&self) -> &str {
        self.0.region()
    }

    /// A parameter's value, decrypted if it is a secure string.
    pub async fn parameter(&self, name: &str) -> Result<String, Error> {
        self.0.ssm().parameter(name).await
    }

    /// Name and password for every registry that the credentials permit, in base64 as
    /// `Authorization: Basic` has them.
    pub async fn registry_token(&self) -> Result<String, Error> {
        self.0.ecr().authorization_token().await
    }

    /// Asks for an object's size.
    pub async fn head(&self, object: &Object) -> Result<Head, Error> {
        let head = self.0.s3().head(object).await?;
        Ok(Head {
            size: head.size,
            etag: head.etag,
        })
    }

    /// The bytes of an object from `start` to `end`, without the one at `end`, all of
    /// them; `end` is above `start`. If the object has changed since it had this tag, the
    /// service refuses. The part is held in memory.
    pub async fn part(
        &self,
        object: &Object,
        start: u64,
        end: u64,
        etag: Option<&str>,
    ) -> Result<Vec<u8>, Error> {
        let length = usize::try_from(end - start).unwrap_or(usize::MAX);
        let mut download = self.0.s3().get_range(object, start, end, etag).await?;
        let mut part = Vec::with_capacity(length);
        while let Some(bytes) = download.next().await? {
            part.extend_from_slice(&bytes);
            if part.len() > length {
                break;
            }
        }
        if part.len() == length {
            return Ok(part);
        }
        Err(Error::Broken {
            service: Service::S3,
            operation: "GetObject",
            reason: format!("{} bytes came instead of {length}", part.len()),
        })
    }

    /// Invokes a function and waits for its answer. It is invoked again where it is
    /// not known whether it ran.
    pub async fn invoke(&self, function: &str, payload: Bytes) -> Result<Bytes, InvokeError> {
        let call = self
            .0
            .lambda()
            .invoke(function, payload, true, INVOKE_TIMEOUT);
        call.await
    }
}
