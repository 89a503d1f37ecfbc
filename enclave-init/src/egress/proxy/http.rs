//! HTTP's part of the proxy: `CONNECT` (RFC 9110, section 9.3.6), and requests whose target
//! is a whole URL of `http` (RFC 9112, section 3.2.2), one on each connection.

use std::io;
use std::time::Duration;

use link::target::Refusal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::body::Body;
use super::{Denied, exchange, open};
use crate::egress::destination::Destination;
use crate::egress::{Egress, carry, ended};

/// Largest request head in bytes.
const MAX_HEAD: usize = 8 * 1024;
/// How much of a request is taken in that goes nowhere, and how long it may take to come.
const MAX_DRAINED: u64 = 64 * 1024;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
const END_OF_LINE: &str = "\r\n";
const END_OF_HEAD: &[u8] = b"\r\n\r\n";
const DEFAULT_PORT: u16 = 80;
const BAD_REQUEST: &str = "400 Bad Request";
const FORBIDDEN: &str = "403 Forbidden";
/// Fields that are about the connection to the proxy (RFC 9110, section 7.6.1). What says
/// where the body ends goes on with the body.
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "upgrade",
];

/// A request's head, or its beginning if it is too long.
pub(super) struct Head(Vec<u8>);

/// What a request is for.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Tunnel(Destination),
    /// The head goes to the destination in this form, and the body after it.
    Answer(Destination, Vec<u8>, Body),
}

/// Why a request is not served: the status and the sentence.
type Refusing = (&'static str, String);

/// Reads the rest of a head, byte by byte: what follows it is the body's, or the tunnel's.
pub(super) async fn read_head(first: u8, workload: &mut TcpStream) -> io::Result<Head> {
    let mut head = vec![first];
    while !head.ends_with(END_OF_HEAD) && head.len() < MAX_HEAD {
        head.push(workload.read_u8().await?);
    }
    Ok(Head(head))
}

pub(super) async fn serve(mut workload: TcpStream, head: &Head, egress: &Egress) {
    let (destination, request) = match head.wanted() {
        Ok(Wanted::Tunnel(destination)) => (destination, None),
        Ok(Wanted::Answer(destination, head, body)) => (destination, Some((head, body))),
        Err((status, reason)) => return answer(workload, status, &reason).await,
    };
    match (open(egress, destination).await, request) {
        (Ok((destination, place, outside)), Some((head, body))) => {
            let activity = place.activity();
            let carried = exchange::carry(workload, outside, &head, body, activity).await;
            ended(egress, &destination, &carried);
        }
        (Ok((destination, place, outside)), None) => {
            let established = b"HTTP/1.1 200 Connection established\r\n\r\n";
            if workload.write_all(established).await.is_ok() {
                carry(egress, workload, outside, &destination, &place).await;
            }
        }
        (Err(Denied::NotListed(reason)), _) => answer(workload, FORBIDDEN, &reason).await,
        (Err(Denied::Failed(refused)), _) => {
            let status = match refused.refusal {
                Refusal::NotAllowed => FORBIDDEN,
                Refusal::TimedOut => "504 Gateway Timeout",
                Refusal::Busy => "503 Service Unavailable",
                Refusal::NameNotFound | Refusal::Unreachable => "502 Bad Gateway",
            };
            answer(workload, status, &refused.reason).await;
        }
    }
}

/// Answers a request that goes nowhere, and takes in what else of it is on its way: what
/// is closed with something unread is reset, and the program might lose the answer.
async fn answer(mut workload: TcpStream, status: &str, reason: &str) {
    let answering = async {
        let answer = in_words(status, reason);
        workload.write_all(answer.as_bytes()).await?;
        workload.shutdown().await?;
        tokio::io::copy(&mut workload.take(MAX_DRAINED), &mut tokio::io::sink()).await
    };
    // A program that is gone needs no answer.
    let _ = timeout(DRAIN_TIMEOUT, answering).await;
}

/// An answer of the proxy's own.
pub(super) fn in_words(status: &str, reason: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{reason}\n",
        reason.len() + 1
    )
}

impl Head {
    fn wanted(&self) -> Result<Wanted, Refusing> {
        let Some(head) = self.0.strip_suffix(END_OF_HEAD) else {
            return Err((
                "431 Request Header Fields Too Large",
                format!("the request's head is longer than {MAX_HEAD} bytes"),
            ));
        };
        let malformed = || (BAD_REQUEST, "this is no request of HTTP/1".to_owned());
        let head = std::str::from_utf8(head).map_err(|_| malformed())?;
        let mut lines = head.split(END_OF_LINE);
        let mut words = lines.next().unwrap_or_default().split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(malformed());
        };
        if !is_token(method) || !matches!(version, "HTTP/1.0" | "HTTP/1.1") {
            return Err(malformed());
        }
        if method == "CONNECT" {
            let destination = Destination::parse(target).map(Wanted::Tunnel);
            return destination
                .ok_or_else(|| (BAD_REQUEST, "CONNECT takes a `host:port`".to_owned()));
        }
        let url = Url::parse(target).map_err(|reason| (BAD_REQUEST, reason.to_owned()))?;
        let fields = fields(lines).ok_or_else(malformed)?;
        let body = Body::of(&fields).ok_or_else(|| {
            let reason = "where the request's body ends is not clear";
            (BAD_REQUEST, reason.to_owned())
        })?;
        let mut head = format!("{method} {} {version}\r\nHost: {}\r\n", url.path, url.host);
        for field in &fields {
            head.push_str(field);
            head.push_str(END_OF_LINE);
        }
        // One request: see `exchange`.
        head.push_str("Connection: close\r\n\r\n");
        Ok(Wanted::Answer(url.destination, head.into_bytes(), body))
    }
}

/// A URL that a request is for.
struct Url<'a> {
    destination: Destination,
    /// As it is written.
    host: &'a str,
    path: String,
}

impl<'a> Url<'a> {
    fn parse(target: &'a str) -> Result<Self, &'static str> {
        const SCHEME: &str = "http://";
        const SECURE: &str = "https://";
        let begins = |scheme: &str| {
            let start = target.get(..scheme.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(scheme))
        };
        if begins(SECURE) {
            return Err(
                "this proxy cannot make TLS connections, which would end in it: ask it for a tunnel (CONNECT), or connect without a proxy, which works for every destination of the egress list",
            );
        }
        if !begins(SCHEME) {
            return Err("this is a proxy: ask it for `http://host/…`, or for a tunnel (CONNECT)");
        }
        let malformed = "the URL is not understood: write `http://host/path`";
        let rest = target.get(SCHEME.len()..).ok_or(malformed)?;
        let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if !target.bytes().all(|byte| byte.is_ascii_graphic())
            || path.contains('#')
            || host.contains('@')
        {
            return Err(malformed);
        }
        let destination = if host.contains(':') {
            Destination::parse(host)
        } else {
            Destination::new(host, DEFAULT_PORT)
        };
        Ok(Self {
            destination: destination.ok_or(malformed)?,
            host,
            path: if path.starts_with('/') {
                path.to_owned()
            } else {
                format!("/{path}")
            },
        })
    }
}

/// The fields that go on to the destination; none if one is malformed.
fn fields<'a>(lines: impl Iterator<Item = &'a str>) -> Option<Vec<&'a str>> {
    let mut fields = Vec::new();
    let mut dropped: Vec<String> = HOP_BY_HOP.map(str::to_owned).into();
    // The target says it (RFC 9112, section 3.2.2).
    dropped.push("host".to_owned());
    for line in lines {
        let (name, value) = line.split_once(':')?;
        if !is_token(name) || value.contains(['\r', '\n', '\0']) {
            return None;
        }
        let name = name.to_ascii_lowercase();
        if name == "connection" {
            let named = value
                .split(',')
                .map(|name| name.trim().to_ascii_lowercase());
            dropped.extend(named);
        }
        fields.push((name, line));
    }
    // Where the body ends is no matter of one connection, whatever `Connection` says.
    let is_framing = |name: &str| name == "content-length" || name == "transfer-encoding";
    fields.retain(|(name, _)| is_framing(name) || !dropped.contains(name));
    Some(fields.into_iter().map(|(_, line)| line).collect())
}

/// Whether it is a name of HTTP (RFC 9110, section 5.6.2).
fn is_token(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::net::TcpListener;

    use super::*;

    fn wanted(head: &str) -> Result<Wanted, Refusing> {
        Head(format!("{head}\r\n\r\n").into_bytes()).wanted()
    }

    proptest! {
        #[test]
        fn proxy_any_head_gives_a_clean_target_or_none(
            bytes: Vec<u8>,
            tunnel in "CONNECT .{0,300}:[0-9]{0,6} HTTP/1.1",
            whole in "GET http://.{0,300}(:[0-9]{0,6})?/.{0,9} HTTP/1.1(\r\n.{0,9}:.{0,9}){0,3}",
        ) {
            let bytes = String::from_utf8_lossy(&bytes);
            for head in [&*bytes, &tunnel, &whole] {
                let Ok(wanted) = wanted(head) else { continue };
                let (Wanted::Tunnel(destination) | Wanted::Answer(destination, _, _)) = &wanted;
                let host = destination.host();
                prop_assert!(host.len() <= link::target::MAX_HOST);
                prop_assert!(host.bytes().all(|byte| byte.is_ascii_graphic()));
                if let Wanted::Answer(_, head, _) = wanted {
                    let head = String::from_utf8(head).unwrap();
                    prop_assert_eq!(head.matches("\r\n\r\n").count(), 1);
                    prop_assert_eq!(head.matches("\nHost: ").count(), 1);
                    prop_assert!(!head.replace("\r\n", "").contains(['\r', '\n', '\0']));
                }
            }
        }
    }

    #[test]
    fn proxy_makes_tunnels() {
        assert_eq!(
            wanted("CONNECT KMS.example:443 HTTP/1.1\r\nHost: x"),
            Ok(Wanted::Tunnel(
                Destination::new("kms.example", 443).unwrap()
            ))
        );
        for line in [
            "CONNECT x HTTP/1.1",
            "CONNECT x:99999 HTTP/1.1",
            "CONNECT x:1",
            "CONNECT x:+1 HTTP/1.1",
            "CONNECT :1 HTTP/1.1",
            "CONNECT x\ny:1 HTTP/1.1",
            "CONNECT x:1 HTTP/1.1 more",
            "CONNECT x:1 HTTP/2.0",
            "",
        ] {
            let (status, _) = wanted(line).unwrap_err();
            assert_eq!(status, BAD_REQUEST, "{line}");
        }
        let (status, _) = Head(vec![b'x'; MAX_HEAD]).wanted().unwrap_err();
        assert!(status.starts_with("431"), "{status}");
    }

    #[test]
    fn proxy_passes_requests_on_in_origin_form() {
        for (target, host, path, destination) in [
            ("http://a.test/b?c=d", "a.test", "/b?c=d", ("a.test", 80)),
            ("HTTP://A.test:8080", "A.test:8080", "/", ("a.test", 8080)),
            ("http://192.0.2.7?x", "192.0.2.7", "/?x", ("192.0.2.7", 80)),
        ] {
            let head = format!(
                "POST {target} HTTP/1.1\r\nHost: other\r\nX-Kept: 1\r\nConnection: X-Named, Content-Length\r\nX-Named: 2\r\nProxy-Authorization: x\r\nContent-Length: 3"
            );
            let expected = format!(
                "POST {path} HTTP/1.1\r\nHost: {host}\r\nX-Kept: 1\r\nContent-Length: 3\r\nConnection: close\r\n\r\n"
            );
            let destination = Destination::new(destination.0, destination.1).unwrap();
            let wanted = wanted(&head).unwrap();
            assert_eq!(
                wanted,
                Wanted::Answer(destination, expected.into_bytes(), Body::Length(3))
            );
        }
    }

    #[tokio::test]
    async fn proxy_refusals_are_read_whatever_of_the_request_is_on_its_way() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut program = TcpStream::connect(address).await.unwrap();
        let (workload, _) = listener.accept().await.unwrap();
        program.write_all(&vec![b'x'; 48 * 1024]).await.unwrap();
        let answering = tokio::spawn(answer(workload, FORBIDDEN, "because"));
        let mut heard = String::new();
        program.read_to_string(&mut heard).await.unwrap();
        assert!(heard.ends_with("\r\n\r\nbecause\n"), "{heard}");
        // It is not read for ever, and neither is it waited for.
        timeout(DRAIN_TIMEOUT * 10, answering)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(program.read(&mut [0]).await.unwrap(), 0);
    }

    #[test]
    fn proxy_says_what_it_does_not_take() {
        for (head, expected) in [
            ("GET https://a.test/ HTTP/1.1", "ask it for a tunnel"),
            ("GET / HTTP/1.1", "this is a proxy"),
            ("GET ftp://a.test/ HTTP/1.1", "this is a proxy"),
            ("GET http://user@a.test/ HTTP/1.1", "not understood"),
            ("GET http:/// HTTP/1.1", "not understood"),
            ("GET http://[::1]/ HTTP/1.1", "not understood"),
            ("GET http://a.test/#b HTTP/1.1", "not understood"),
            ("GET http://a.test/ HTTP/1.1\r\n folded: 1", "no request"),
            ("GET http://a.test/ HTTP/1.1\r\nname : 1", "no request"),
            (
                "GET http://a.test/ HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
                "body ends is not clear",
            ),
            ("GET http://a.test/ HTTP/1.1\r\nx: 1\nHost: b", "no request"),
            ("GET http://a.test/ HTTP/1.1\r\nnone", "no request"),
        ] {
            let (status, reason) = wanted(head).unwrap_err();
            assert_eq!(status, BAD_REQUEST, "{head}");
            assert!(reason.contains(expected), "{head}: {reason}");
        }
    }
}
