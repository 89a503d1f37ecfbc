//! Asking the workload whether it is well.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use manifest::{HealthProbe, HealthUrl};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::network::Namespace;

/// `HTTP/1.1 200`.
const STATUS_BYTES: usize = 12;

/// Probes once over the network, for no longer than `limit`; the error says what is wrong.
pub(crate) async fn probe(
    probe: &HealthProbe,
    limit: Duration,
    network: &Namespace,
) -> Result<(), String> {
    let attempt = async {
        match probe {
            HealthProbe::Tcp(port) => {
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.get()));
                network.connect(address).await.map(drop)
            }
            HealthProbe::Http(url) => get(url, network).await,
            // Run, or heard, by `Prober`.
            HealthProbe::Command(_) | HealthProbe::Notify { .. } => {
                Err(io::ErrorKind::Unsupported.into())
            }
        }
    };
    match timeout(limit, attempt).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {limit:?}")),
    }
}

async fn get(url: &HealthUrl, network: &Namespace) -> io::Result<()> {
    let mut stream = network.connect(url.address()).await?;
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        url.target(),
        url.address()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut status = [0; STATUS_BYTES];
    stream.read_exact(&mut status).await?;
    match status_code(&status) {
        Some(200..=399) => Ok(()),
        Some(code) => Err(io::Error::other(format!("it answers with status {code}"))),
        None => Err(io::Error::other("it does not answer in HTTP/1")),
    }
}

fn status_code(line: &[u8; STATUS_BYTES]) -> Option<u16> {
    let line = std::str::from_utf8(line).ok()?;
    let rest = line.strip_prefix("HTTP/1.")?;
    let code = rest.strip_prefix(['0', '1'])?.strip_prefix(' ')?;
    code.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_lines() {
        assert_eq!(status_code(b"HTTP/1.1 204"), Some(204));
        assert_eq!(status_code(b"HTTP/1.0 500"), Some(500));
        assert_eq!(status_code(b"HTTP/2.0 200"), None);
        assert_eq!(status_code(b"\xff23456789012"), None);
        assert_eq!(
            status_code("HTTP/1.\u{e9}200".as_bytes().first_chunk().unwrap()),
            None
        );
    }
}
