//! From a host's name to a TCP connection.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use hickory_resolver::net::NetError;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::error::FetchError;

/// Most addresses of a name that are tried.
const MAX_ADDRESSES: usize = 8;
/// How long one address may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects to the first of the host's addresses that listens; `whom` is for errors.
pub(crate) async fn dial(
    whom: &impl ToString,
    host: &str,
    port: u16,
) -> Result<TcpStream, FetchError> {
    let mut reason = "it has no address".to_owned();
    for address in addresses(host).await? {
        let connect = TcpStream::connect(SocketAddr::new(address, port));
        match timeout(CONNECT_TIMEOUT, connect).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => reason = format!("{address}: {error}"),
            Err(_) => {
                let seconds = CONNECT_TIMEOUT.as_secs();
                reason = format!("{address}: it did not answer within {seconds} s");
            }
        }
    }
    Err(FetchError::Connect {
        endpoint: whom.to_string(),
        reason,
    })
}

/// The addresses of a name, in `/etc/hosts` or in the DNS that
/// `/etc/resolv.conf` names: the C library's resolver does not work in static
/// programs.
async fn addresses(host: &str) -> Result<Vec<IpAddr>, FetchError> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let failed = |error: NetError| FetchError::Name {
        host: host.to_owned(),
        reason: error.to_string(),
    };
    let mut builder = TokioResolver::builder_tokio().map_err(failed)?;
    builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    let resolver = builder.build().map_err(failed)?;
    let found = resolver.lookup_ip(host).await.map_err(failed)?;
    Ok(found.iter().take(MAX_ADDRESSES).collect())
}
