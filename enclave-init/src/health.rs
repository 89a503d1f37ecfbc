//! Asking the workload whether it is well.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use manifest::HealthProbe;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a probe may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// `HTTP/1.1 200`.
const STATUS_BYTES: usize = 12;
const HTTP_PORT: u16 = 80;

/// Probes once; the error says what is wrong.
pub(crate) async fn probe(probe: &HealthProbe) -> Result<(), String> {
    let attempt = async {
        match probe {
            HealthProbe::Tcp(port) => TcpStream::connect((Ipv4Addr::LOCALHOST, port.get()))
                .await
                .map(drop),
            HealthProbe::Http(url) => get(url).await,
        }
    };
    match timeout(PROBE_TIMEOUT, attempt).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", PROBE_TIMEOUT.as_secs())),
    }
}

async fn get(url: &str) -> io::Result<()> {
    let (authority, path) = split_url(url)
        .ok_or_else(|| io::Error::other("the URL is not http://127.0.0.1:PORT/PATH"))?;
    let port = match authority.rsplit_once(':') {
        Some((_, port)) => port
            .parse()
            .map_err(|_| io::Error::other("the URL's port is not a number"))?,
        None => HTTP_PORT,
    };
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut status = [0; STATUS_BYTES];
    stream.read_exact(&mut status).await?;
    let status = String::from_utf8_lossy(&status).into_owned();
    match status
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.get(2..))
        .and_then(|code| code.parse::<u16>().ok())
    {
        Some(200..=399) => Ok(()),
        _ => Err(io::Error::other(format!(
            "the answer begins with {status:?}"
        ))),
    }
}

fn split_url(url: &str) -> Option<(&str, &str)> {
    let rest = url.strip_prefix("http://")?;
    Some(rest.split_once('/').unwrap_or((rest, "")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        assert_eq!(
            split_url("http://127.0.0.1:8080/health"),
            Some(("127.0.0.1:8080", "health"))
        );
        assert_eq!(split_url("http://localhost"), Some(("localhost", "")));
        assert_eq!(split_url("https://127.0.0.1/"), None);
    }
}
