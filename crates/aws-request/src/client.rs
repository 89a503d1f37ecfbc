//! Sending requests.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{Region, SdkConfig};
use aws_endpoint::Variant;
use aws_smithy_http_client::{Connector, ConnectorBuilder};
use aws_smithy_runtime_api::client::dns::ResolveDns;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use aws_types::service_config::ServiceConfigKey;
use http::HeaderValue;
use http::header::HOST;
use thiserror::Error;
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::clock::Clock;
use crate::credentials::{Cache, Provider};
use crate::endpoint::Service;
use crate::error::Error;
use crate::http_client::{TLS, Unreachable, connector};
use crate::request::{Body, Request};
use crate::response::{Download, Response, chain, find};
use crate::retry::Policy;
use crate::sign::sign_request;

/// How long a connection may take to be made, unless the configuration says
/// otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a refusal that are read.
const MAX_REFUSAL: usize = 64 * 1024;

/// Why there can be no client.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// No region is known.
    #[error(
        "no AWS region is known, neither from the environment nor from the instance: set AWS_REGION"
    )]
    NoRegion,
    /// There is no source of credentials.
    #[error(
        "there is no source of AWS credentials: on an instance attach an instance profile, elsewhere set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    )]
    NoCredentials,
    /// An endpoint from the environment or a profile is no address.
    #[error("the endpoint `{url}` of {service} is not an http:// or https:// URL without a path")]
    Endpoint {
        /// What was given.
        url: String,
        /// The service.
        service: Service,
    },
}

/// Sends signed requests; clones share connections and credentials.
#[derive(Debug, Clone)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    region: Region,
    credentials: Cache,
    connector: SharedHttpConnector,
    endpoints: Vec<(Service, String)>,
    variant: Variant,
    retries: Policy,
    clock: Clock,
}

/// Where a request goes.
pub(crate) struct Target {
    /// Scheme and host, without a slash at the end.
    pub(crate) base: String,
    /// Whether the configuration names it, instead of AWS.
    pub(crate) is_override: bool,
}

impl Client {
    /// A client with the region, credentials, endpoints, retries and time limits
    /// of `config`. Nothing is sent.
    pub fn new(config: &SdkConfig) -> Result<Self, ConfigError> {
        Self::with(config, |builder| builder.tls_provider(TLS).build())
    }

    /// The same, but host names are looked up by `resolver`.
    pub fn with_resolver(
        config: &SdkConfig,
        resolver: impl ResolveDns + Clone + 'static,
    ) -> Result<Self, ConfigError> {
        Self::with(config, move |builder| {
            builder
                .tls_provider(TLS)
                .build_with_resolver(resolver.clone())
        })
    }

    fn with(
        config: &SdkConfig,
        build: impl Fn(ConnectorBuilder) -> Connector,
    ) -> Result<Self, ConfigError> {
        let region = config.region().cloned().ok_or(ConfigError::NoRegion)?;
        Ok(Self(Arc::new(Inner {
            region,
            credentials: Cache::new(Provider::new(config).ok_or(ConfigError::NoCredentials)?),
            connector: connector(&settings(config), config.sleep_impl().as_ref(), build),
            endpoints: endpoints(config)?,
            variant: Variant {
                fips: config.use_fips().unwrap_or(false),
                dual_stack: config.use_dual_stack().unwrap_or(false),
            },
            retries: Policy::new(config.retry_config().map(RetryConfig::max_attempts)),
            clock: Clock::default(),
        })))
    }

    /// The region that requests go to.
    pub fn region(&self) -> &str {
        self.0.region.as_ref()
    }

    /// Whether there are credentials, and if not, why. They are not tried.
    pub async fn check_credentials(&self) -> Result<(), String> {
        self.0.credentials.get().await.map(drop)
    }

    /// Sends a request, again if need be, and holds the answer in memory.
    pub async fn send(&self, request: Request) -> Result<Response, Error> {
        let mut attempt = 1;
        loop {
            let result = match self.once(&request, attempt).await {
                Ok(download) => download.collect(request.max_answer).await,
                Err(error) => Err(error),
            };
            match result {
                Ok(response) => return Ok(response),
                Err(error) => attempt = self.pause(&request, attempt, error).await?,
            }
        }
    }

    /// Sends a request, again if need be, and returns once the answer begins.
    /// What fails after that is not tried again.
    pub async fn download(&self, request: Request) -> Result<Download, Error> {
        let mut attempt = 1;
        loop {
            match self.once(&request, attempt).await {
                Ok(download) => return Ok(download),
                Err(error) => attempt = self.pause(&request, attempt, error).await?,
            }
        }
    }

    /// Where requests to `service` go.
    pub(crate) fn target(&self, service: Service, prefix: Option<&str>) -> Target {
        let mut configured = self.0.endpoints.iter();
        if let Some((_, url)) = configured.find(|(known, _)| *known == service) {
            return Target {
                base: url.clone(),
                is_override: true,
            };
        }
        let host = service.endpoint().host(self.region(), self.0.variant);
        let base = match prefix {
            Some(prefix) => format!("https://{prefix}.{host}"),
            None => format!("https://{host}"),
        };
        Target {
            base,
            is_override: false,
        }
    }

    /// Waits and returns the next attempt's number, or the error if there is none.
    async fn pause(&self, request: &Request, attempt: u32, error: Error) -> Result<u32, Error> {
        // The service's time, which its answer has told, may do: once, and without
        // waiting.
        if attempt == 1
            && self.0.retries.repeats()
            && error.blames_signature()
            && self.0.clock.is_corrected()
        {
            return Ok(2);
        }
        // So may other credentials.
        if error.wants_new_credentials() {
            self.0.credentials.forget();
            if attempt == 1 && self.0.retries.repeats() {
                return Ok(2);
            }
        }
        let pause = self
            .0
            .retries
            .pause(attempt, &error, request.is_idempotent)
            .ok_or(error)
            .inspect_err(|error| debug!(%error, attempt, "a request to AWS has failed"))?;
        sleep(pause).await;
        Ok(attempt + 1)
    }

    async fn once(&self, request: &Request, attempt: u32) -> Result<Download, Error> {
        let (service, operation) = (request.service, request.operation);
        let target = self.target(service, request.host_prefix.as_deref());
        let signed = self.signed(request, &target).await?;
        let unreachable = |timed_out, reason| Error::Unreachable {
            service,
            operation,
            host: Some(target.base.clone()),
            attempts: attempt,
            timed_out,
            reason,
        };
        let answer = match timeout(request.timeout, self.0.connector.call(signed)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                let cause = find::<Unreachable>(&error).map_or(&error, |place| &place.cause);
                return Err(unreachable(error.is_timeout(), chain(cause)));
            }
            Err(_) => {
                let seconds = request.timeout.as_secs();
                let reason = format!("no answer came within {seconds} s");
                return Err(unreachable(true, reason));
            }
        };
        let answer = answer
            .try_into_http1x()
            .map_err(|error| unreachable(false, chain(&error)))?;
        let (parts, body) = answer.into_parts();
        let download = Download::new(
            service,
            operation,
            parts.headers.clone(),
            ByteStream::new(body),
        );
        if parts.status.is_success() {
            return Ok(download);
        }
        // A refusal without its words is still one.
        let body = match download.collect(MAX_REFUSAL).await {
            Ok(response) => response.body,
            Err(_) => bytes::Bytes::new(),
        };
        let status = parts.status.as_u16();
        let error = Error::refused(service, operation, status, &parts.headers, &body);
        if error.blames_signature() {
            self.0.clock.correct(&parts.headers, SystemTime::now());
        }
        Err(error)
    }

    async fn signed(&self, request: &Request, target: &Target) -> Result<HttpRequest, Error> {
        let (service, operation) = (request.service, request.operation);
        let malformed = |reason: String| Error::Request {
            service,
            operation,
            reason,
        };
        let mut http = http::Request::builder()
            .method(request.method.clone())
            .uri(format!("{}{}", target.base, request.path));
        for (name, value) in &request.headers {
            http = http.header(*name, value);
        }
        let body = body(&request.body).await.map_err(malformed)?;
        let mut http = http
            .body(body)
            .map_err(|error| malformed(error.to_string()))?;
        if let Some(host) = http.uri().authority().map(ToString::to_string) {
            let host = HeaderValue::try_from(host).map_err(|error| malformed(error.to_string()))?;
            http.headers_mut().insert(HOST, host);
        }
        let credentials = self
            .0
            .credentials
            .get()
            .await
            .map_err(|reason| Error::Credentials {
                service,
                operation,
                reason,
            })?;
        sign_request(
            &mut http,
            &request.body,
            service,
            self.region(),
            credentials,
            self.0.clock.now(SystemTime::now()),
        )
        .map_err(malformed)?;
        HttpRequest::try_from(http).map_err(|error| malformed(chain(&error)))
    }
}

fn settings(config: &SdkConfig) -> HttpConnectorSettings {
    let timeouts = config.timeout_config();
    let connect = timeouts
        .and_then(TimeoutConfig::connect_timeout)
        .unwrap_or(CONNECT_TIMEOUT);
    HttpConnectorSettings::builder()
        .connect_timeout(connect)
        .build()
}

/// Whether a client of an SDK crate can ask the service: a region is known, and the
/// endpoint, if one is named, is an address. Such clients find out with their first
/// call only.
pub fn check(config: &SdkConfig, service: Service) -> Result<(), ConfigError> {
    config.region().ok_or(ConfigError::NoRegion)?;
    endpoint(config, service).map(drop)
}

/// The endpoints that environment and profile name.
fn endpoints(config: &SdkConfig) -> Result<Vec<(Service, String)>, ConfigError> {
    let mut endpoints = Vec::new();
    for service in Service::ALL {
        if let Some(base) = endpoint(config, service)? {
            endpoints.push((service, base));
        }
    }
    Ok(endpoints)
}

/// The endpoint that environment or profile names: one service's own
/// (`AWS_ENDPOINT_URL_S3`) comes before everybody's (`AWS_ENDPOINT_URL`).
fn endpoint(config: &SdkConfig, service: Service) -> Result<Option<String>, ConfigError> {
    let own = config.service_config().and_then(|services| {
        let key = ServiceConfigKey::builder()
            .service_id(service.id())
            .env("AWS_ENDPOINT_URL")
            .profile("endpoint_url")
            .build()
            .ok()?;
        services.load_config(key)
    });
    let Some(url) = own.or_else(|| config.endpoint_url().map(str::to_owned)) else {
        return Ok(None);
    };
    let base = url.trim_end_matches('/');
    let is_base = base.parse::<http::Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.path().trim_matches('/').is_empty()
            && uri.query().is_none()
    });
    if !is_base {
        return Err(ConfigError::Endpoint { url, service });
    }
    Ok(Some(base.to_owned()))
}

async fn body(body: &Body) -> Result<SdkBody, String> {
    match body {
        Body::Bytes(bytes) => Ok(SdkBody::from(bytes.clone())),
        Body::File { path, length, .. } => {
            let stream = ByteStream::read_from()
                .path(path)
                .length(aws_smithy_types::byte_stream::Length::Exact(*length))
                .build()
                .await;
            match stream {
                Ok(stream) => Ok(stream.into_inner()),
                Err(error) => Err(format!(
                    "{} cannot be read: {}",
                    path.display(),
                    chain(&error)
                )),
            }
        }
    }
}
