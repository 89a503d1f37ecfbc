//! Requests to the service in the enclave.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use price_oracle::SignedQuote;
use price_oracle::http::exchange;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::agent::Serving;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer of the service that is read, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// The quote of a pair, at the source's price.
pub(crate) async fn quote(
    enclave: &Serving,
    pair: &str,
    price: &str,
) -> anyhow::Result<SignedQuote> {
    let answer = get(enclave.address, &format!("/quote/{pair}")).await?;
    let quote: SignedQuote = serde_json::from_slice(&answer).context("no signed quote")?;
    ensure!(
        quote.quote.price.to_string() == price,
        "the source's price is {price}, the enclave quotes {}",
        quote.quote.price
    );
    Ok(quote)
}

/// The answer to a request for a path.
pub(crate) async fn get(address: SocketAddr, path: &str) -> anyhow::Result<Bytes> {
    let request = Request::builder()
        .uri(path)
        .header("host", address.to_string())
        .body(Full::default())?;
    let exchange = async {
        let stream = TcpStream::connect(address).await?;
        Ok::<_, anyhow::Error>(exchange(stream, request, MAX_ANSWER).await?)
    };
    let response = timeout(REQUEST_TIMEOUT, exchange)
        .await
        .unwrap_or_else(|_| bail!("no answer within {REQUEST_TIMEOUT:?}"))
        .with_context(|| format!("GET {path}"))?;
    if !response.status().is_success() {
        bail!(
            "GET {path}: {}: {}",
            response.status(),
            String::from_utf8_lossy(response.body())
        );
    }
    Ok(response.into_body())
}
