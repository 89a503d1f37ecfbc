//! Requests to AWS: how they find their region, credentials and hosts.

use std::time::Duration;

use aws_config::{BehaviorVersion, ConfigLoader, Region, SdkConfig};
use aws_request::{Client, ConfigError};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_runtime_api::client::http::SharedHttpClient;

use tokio::time::timeout;

use crate::names::Names;

/// How long it may take to ask for the region.
const REGION_TIMEOUT: Duration = Duration::from_secs(10);

/// The HTTP client of everything that asks AWS.
pub(crate) fn http() -> SharedHttpClient {
    Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .build_with_resolver(Names::from_system())
}

/// Reads region, credentials and endpoints from environment, profile or instance;
/// a region that is given comes first.
pub(crate) fn loader(http: &SharedHttpClient, region: Option<&str>) -> ConfigLoader {
    let loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http.clone());
    match region {
        Some(region) => loader.region(Region::new(region.to_owned())),
        None => loader,
    }
}

/// A client for the calls that need no SDK crate.
pub(crate) async fn client(region: Option<&str>) -> Result<Client, ConfigError> {
    let config: SdkConfig = loader(&http(), region).load().await;
    Client::with_resolver(&config, Names::from_system())
}

/// The region that environment, profile or instance name, if any does in time.
pub(crate) async fn region() -> Option<String> {
    let http = http();
    let config = timeout(REGION_TIMEOUT, loader(&http, None).load())
        .await
        .ok()?;
    config.region().map(ToString::to_string)
}
