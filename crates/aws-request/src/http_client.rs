//! The HTTP client of SDK crates and of credentials: it goes through the proxy that
//! the environment names, and its errors name the host.

use std::error::Error as StdError;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aws_smithy_async::rt::sleep::SharedAsyncSleep;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::{Builder, Connector, ConnectorBuilder};
use aws_smithy_runtime_api::client::connector_metadata::ConnectorMetadata;
use aws_smithy_runtime_api::client::dns::ResolveDns;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;

pub(crate) const TLS: Provider = Provider::Rustls(CryptoMode::AwsLc);
/// Where instances and containers get metadata and credentials from.
const METADATA: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 23)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
];

/// A client that trusts the system's certificates (`SSL_CERT_FILE` and
/// `SSL_CERT_DIR` name others) and goes through the proxy that `HTTPS_PROXY`,
/// `HTTP_PROXY` or `ALL_PROXY` names, but for hosts in `NO_PROXY`, this host and the
/// metadata of the instance.
pub fn http_client() -> SharedHttpClient {
    client(|builder| builder.tls_provider(TLS).build())
}

/// The same, but host names are looked up by `resolver`.
pub fn http_client_with(resolver: impl ResolveDns + Clone + 'static) -> SharedHttpClient {
    client(move |builder| {
        builder
            .tls_provider(TLS)
            .build_with_resolver(resolver.clone())
    })
}

fn client(
    build: impl Fn(ConnectorBuilder) -> Connector + Clone + Send + Sync + 'static,
) -> SharedHttpClient {
    let with = |proxy: ProxyConfig| {
        let build = build.clone();
        Builder::new().build_with_connector_fn(move |settings, components| {
            let mut builder = Connector::builder().proxy_config(proxy.clone());
            builder.set_connector_settings(settings.cloned());
            builder.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
            build(builder)
        })
    };
    SharedHttpClient::new(Client {
        direct: with(ProxyConfig::disabled()),
        proxied: proxy().map(with),
    })
}

/// The proxy of the environment, if it names one.
fn proxy() -> Option<ProxyConfig> {
    let is_named = |name: &&str| {
        [name.to_string(), name.to_lowercase()]
            .iter()
            .any(|name| std::env::var_os(name).is_some_and(|url| !url.is_empty()))
    };
    ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"]
        .iter()
        .any(is_named)
        .then(ProxyConfig::from_env)
}

/// Where a connection has failed.
#[derive(Debug)]
pub(crate) struct Unreachable {
    /// Scheme, host and port.
    pub(crate) host: String,
    pub(crate) cause: ConnectorError,
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)
    }
}

impl StdError for Unreachable {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.cause)
    }
}

#[derive(Debug)]
struct Client {
    direct: SharedHttpClient,
    proxied: Option<SharedHttpClient>,
}

/// What [`http_client`] sends requests with, for a client of our own.
pub(crate) fn connector(
    settings: &HttpConnectorSettings,
    sleep: Option<&SharedAsyncSleep>,
    build: impl Fn(ConnectorBuilder) -> Connector,
) -> SharedHttpConnector {
    let with = |proxy: ProxyConfig| {
        let mut builder = Connector::builder()
            .connector_settings(settings.clone())
            .proxy_config(proxy);
        builder.set_sleep_impl(sleep.cloned());
        SharedHttpConnector::new(build(builder))
    };
    SharedHttpConnector::new(NamedHosts {
        direct: with(ProxyConfig::disabled()),
        proxied: proxy().map(with),
    })
}

impl HttpClient for Client {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(NamedHosts {
            direct: self.direct.http_connector(settings, components),
            proxied: self
                .proxied
                .as_ref()
                .map(|client| client.http_connector(settings, components)),
        })
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        self.direct.connector_metadata()
    }
}

#[derive(Debug)]
struct NamedHosts {
    direct: SharedHttpConnector,
    proxied: Option<SharedHttpConnector>,
}

impl HttpConnector for NamedHosts {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (host, is_near) = match request.uri().parse::<http::Uri>() {
            Ok(uri) => (
                format!(
                    "{}://{}",
                    uri.scheme_str().unwrap_or_default(),
                    uri.authority().map_or("", http::uri::Authority::as_str)
                ),
                is_near(uri.host().unwrap_or_default()),
            ),
            Err(_) => (String::new(), false),
        };
        let connector = match &self.proxied {
            Some(proxied) if !is_near => proxied,
            _ => &self.direct,
        };
        let call = connector.call(request);
        HttpConnectorFuture::new(async move { call.await.map_err(|cause| named(host, cause)) })
    }
}

/// Whether a host is this one, or what tells it about itself: no proxy reaches them.
fn is_near(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost"
        || address.is_ok_and(|address| address.is_loopback() || METADATA.contains(&address))
}

/// The same error, which names the host.
fn named(host: String, cause: ConnectorError) -> ConnectorError {
    let (timed_out, is_io, is_user) = (cause.is_timeout(), cause.is_io(), cause.is_user());
    let other = cause.as_other();
    let error = Box::new(Unreachable { host, cause });
    match (timed_out, is_io, is_user) {
        (true, _, _) => ConnectorError::timeout(error),
        (_, true, _) => ConnectorError::io(error),
        (_, _, true) => ConnectorError::user(error),
        _ => ConnectorError::other(error, other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxy_is_not_asked_for_this_host_and_its_metadata() {
        for near in [
            "localhost",
            "127.0.0.1",
            "[::1]",
            "169.254.169.254",
            "[fd00:ec2::254]",
        ] {
            assert!(is_near(near), "{near}");
        }
        for far in [
            "",
            "logs.us-west-2.amazonaws.com",
            "169.254.1.1",
            "10.0.0.1",
            "[fd00::1]",
        ] {
            assert!(!is_near(far), "{far}");
        }
    }
}
