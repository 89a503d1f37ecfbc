//! Which requests are answered: those of programs that know this API. A request
//! that a browser, a redirect or a proxy in the workload makes on somebody else's
//! behalf is told apart by what it cannot leave out or cannot add, and is refused
//! before anything else of it is looked at.

use hyper::header::{HOST, HeaderName};
use hyper::{HeaderMap, Request};
use manifest::{API_PORT, CREDENTIALS_ADDRESS, INIT_ADDRESS};

use super::failure::{Code, Failure};
use crate::credentials::PORT as CREDENTIALS_PORT;

/// The header that every request carries but those of AWS's SDKs, and its value.
const MARK: (&str, &str) = ("enclave-api", "1");
/// Headers of requests that are made for somebody else.
const FORWARDED: [&str; 5] = ["forwarded", "x-real-ip", "via", "origin", "referer"];
/// The same, by how their names begin.
const FORWARDED_PREFIXES: [&str; 2] = ["x-forwarded-", "sec-fetch-"];

/// How a request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp,
    /// At the address that AWS's SDKs ask for credentials.
    Credentials,
    Unix,
}

/// Refuses a request that was not meant for this API.
pub(super) fn check<B>(transport: Transport, request: &Request<B>) -> Result<(), Failure> {
    check_sender(transport, request)?;
    if only(request.headers(), MARK.0) != Some(MARK.1) {
        return Err(forbidden("send the header `Enclave-Api: 1`, once"));
    }
    Ok(())
}

/// The same of one that is known by something else than the header.
pub(super) fn check_sender<B>(transport: Transport, request: &Request<B>) -> Result<(), Failure> {
    let headers = request.headers();
    if let Some(name) = forwarded(headers) {
        return Err(forbidden(format!(
            "a request with the header `{name}` was made on behalf of another party: call this API directly, without Forwarded, X-Forwarded-*, X-Real-IP, Via, Origin, Referer and Sec-Fetch-*"
        )));
    }
    let hosts = match transport {
        Transport::Tcp => vec![format!("{INIT_ADDRESS}:{API_PORT}")],
        // Clients leave out the port that is the scheme's own, or do not.
        Transport::Credentials => vec![
            CREDENTIALS_ADDRESS.to_string(),
            format!("{CREDENTIALS_ADDRESS}:{CREDENTIALS_PORT}"),
        ],
        // There is no name to call it by, and clients send any.
        Transport::Unix => return Ok(()),
    };
    let is_own = |host: &str| hosts.iter().any(|own| own == host);
    let is_called = only(headers, HOST.as_str()).is_some_and(is_own)
        && request
            .uri()
            .authority()
            .is_none_or(|authority| is_own(authority.as_str()));
    if is_called {
        return Ok(());
    }
    let host = hosts.first().expect("each address has a host");
    Err(forbidden(format!("send `Host: {host}`, once")))
}

fn forwarded(headers: &HeaderMap) -> Option<&str> {
    headers.keys().map(HeaderName::as_str).find(|name| {
        FORWARDED.contains(name)
            || FORWARDED_PREFIXES
                .iter()
                .any(|prefix| name.starts_with(prefix))
    })
}

/// The value of a header that is there exactly once.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

fn forbidden(reason: impl Into<String>) -> Failure {
    Failure::new(Code::CallerRefused, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a request with these headers is answered.
    fn passes(transport: Transport, target: &str, headers: &[(&str, &str)]) -> bool {
        let mut request = Request::builder().uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        check(transport, &request.body(()).unwrap()).is_ok()
    }

    const KNOWING: [(&str, &str); 2] = [("Host", "198.18.0.1:7070"), ("Enclave-Api", "1")];

    #[test]
    fn a_knowing_caller_passes() {
        let absolute = "http://198.18.0.1:7070/v1/random";
        for target in ["/v1/random", absolute] {
            assert!(passes(Transport::Tcp, target, &KNOWING), "{target}");
        }
        for host in ["169.254.170.2", "169.254.170.2:80"] {
            let headers = [("Host", host), KNOWING[1]];
            assert!(passes(Transport::Credentials, "/", &headers), "{host}");
            assert!(!passes(Transport::Tcp, "/", &headers), "{host}");
        }
        assert!(!passes(Transport::Credentials, "/", &KNOWING));
        for host in [&[][..], &[("Host", "x")], &[("Host", "x"), ("Host", "y")]] {
            let headers = [host, &[("Enclave-Api", "1")]].concat();
            assert!(passes(Transport::Unix, "/v1/random", &headers));
        }
    }

    #[test]
    fn another_host_is_refused() {
        for hosts in [
            &[][..],
            &["198.18.0.1"],
            &["localhost:7070"],
            &["127.0.0.1:7070"],
            &["198.18.0.1:70700"],
            &["198.18.0.2:7070"],
            &["rebound.example:7070"],
            &["198.18.0.1:7070.example"],
            &["user@198.18.0.1:7070"],
            &[""],
            &["198.18.0.1:7070", "198.18.0.1:7070"],
        ] {
            let hosts = hosts.iter().map(|host| ("Host", *host));
            let headers: Vec<_> = hosts.chain([("Enclave-Api", "1")]).collect();
            assert!(
                !passes(Transport::Tcp, "/v1/random", &headers),
                "{headers:?}"
            );
        }
        for target in [
            "http://rebound.example:7070/v1/random",
            "http://198.18.0.1/v1/random",
            "http://user@198.18.0.1:7070/v1/random",
        ] {
            assert!(!passes(Transport::Tcp, target, &KNOWING), "{target}");
        }
    }

    #[test]
    fn a_request_without_the_mark_is_refused() {
        for marks in [&[][..], &["0"], &["1, 1"], &["1", "1"], &[""]] {
            for transport in [Transport::Tcp, Transport::Unix] {
                let marks = marks.iter().map(|mark| ("Enclave-Api", *mark));
                let headers: Vec<_> = [KNOWING[0]].into_iter().chain(marks).collect();
                assert!(!passes(transport, "/v1/random", &headers), "{headers:?}");
            }
        }
    }

    #[test]
    fn a_request_that_was_forwarded_is_refused() {
        for name in [
            "Forwarded",
            "X-Forwarded-For",
            "X-Forwarded-Anything",
            "X-Real-IP",
            "Via",
            "Origin",
            "Referer",
            "Sec-Fetch-Site",
        ] {
            for transport in [Transport::Tcp, Transport::Unix] {
                let headers = [&KNOWING[..], &[(name, "")]].concat();
                assert!(!passes(transport, "/v1/random", &headers), "{name}");
            }
        }
    }
}
