//! The HTTP proxy, for programs that prefer one: `CONNECT` only (RFC 9110,
//! section 9.3.6), so TLS stays the program's own.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use link::target::Refusal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::destination::Destination;
use super::{Egress, carry, connect, failed};

/// Largest request head in bytes.
const MAX_HEAD: usize = 8 * 1024;
const END_OF_HEAD: &[u8] = b"\r\n\r\n";
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Most connections that have not said yet where to; others wait to be accepted, no
/// longer than the head of one before them may take.
const MAX_GREETING: usize = 256;

pub(super) async fn serve(listener: TcpListener, egress: Arc<Egress>) {
    let greeting = Arc::new(Semaphore::new(MAX_GREETING));
    loop {
        let Ok((workload, _)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(greeted) = Arc::clone(&greeting).acquire_owned().await else {
            return;
        };
        let egress = Arc::clone(&egress);
        tokio::spawn(async move {
            let mut workload = workload;
            let head = timeout(HEAD_TIMEOUT, read_head(&mut workload)).await;
            drop(greeted);
            if let Ok(Ok(head)) = head {
                serve_connection(workload, &head, &egress).await;
            }
        });
    }
}

async fn serve_connection(mut workload: TcpStream, head: &[u8], egress: &Egress) {
    let (status, reason) = match parse_target(head) {
        _ if !head.ends_with(END_OF_HEAD) => (
            "431 Request Header Fields Too Large",
            format!("the request's head is longer than {MAX_HEAD} bytes"),
        ),
        None => (
            "400 Bad Request",
            "this proxy takes CONNECT host:port only".to_owned(),
        ),
        Some(destination) if !destination.is_allowed(&egress.network) => {
            let reason = format!("{destination} is not in the image's egress list");
            egress.notices.refused(&reason);
            ("403 Forbidden", reason)
        }
        Some(destination) => match connect(egress, &destination).await {
            Ok((place, outside)) => {
                let established =
                    workload.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n");
                if established.await.is_ok() {
                    carry(egress, workload, outside, &destination, &place).await;
                }
                return;
            }
            Err(refused) => {
                let text = format!("{destination} failed: {}", refused.reason);
                failed(egress, &destination, &text);
                let status = match refused.refusal {
                    Refusal::NotAllowed => "403 Forbidden",
                    Refusal::TimedOut => "504 Gateway Timeout",
                    Refusal::Busy => "503 Service Unavailable",
                    Refusal::NameNotFound | Refusal::Unreachable => "502 Bad Gateway",
                };
                (status, refused.reason)
            }
        },
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{reason}\n",
        reason.len() + 1
    );
    // A program that is gone needs no answer.
    let _ = workload.write_all(answer.as_bytes()).await;
}

/// The request's head, or its beginning if it is too long. Nothing may follow it
/// before the answer: a client that speaks first must wait for the tunnel.
async fn read_head(workload: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(END_OF_HEAD) && head.len() < MAX_HEAD {
        head.push(workload.read_u8().await?);
    }
    Ok(head)
}

fn parse_target(head: &[u8]) -> Option<Destination> {
    let line = head.split(|&byte| byte == b'\r').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    if method != "CONNECT" || !version.starts_with("HTTP/1.") || words.next().is_some() {
        return None;
    }
    Destination::parse(target)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_head_gives_a_clean_target_or_none(head: Vec<u8>, line in "CONNECT .{0,300}:[0-9]{0,6} HTTP/1.1") {
            for head in [head.as_slice(), line.as_bytes()] {
                if let Some(destination) = parse_target(head) {
                    let host = destination.host();
                    prop_assert!(host.len() <= link::target::MAX_HOST);
                    prop_assert!(host.bytes().all(|byte| byte.is_ascii_graphic()));
                }
            }
        }
    }

    #[test]
    fn only_connect_is_understood() {
        let parse = |line: &str| parse_target(format!("{line}\r\nHost: x\r\n\r\n").as_bytes());
        assert_eq!(
            parse("CONNECT KMS.example:443 HTTP/1.1"),
            Destination::new("kms.example", 443)
        );
        for line in [
            "GET http://x/ HTTP/1.1",
            "CONNECT x HTTP/1.1",
            "CONNECT x:99999 HTTP/1.1",
            "CONNECT x:1",
            "CONNECT x:+1 HTTP/1.1",
            "CONNECT :1 HTTP/1.1",
            "CONNECT x\ny:1 HTTP/1.1",
            "CONNECT x:1 HTTP/1.1 more",
            "",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
