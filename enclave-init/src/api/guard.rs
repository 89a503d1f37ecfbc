//! Which requests are answered: those of programs that know this API. A request
//! that a browser, a redirect or a proxy in the workload makes on somebody else's
//! behalf is told apart by what it cannot leave out or cannot add, and is refused
//! before anything else of it is looked at.

use hyper::header::{HOST, HeaderName};
use hyper::{HeaderMap, Request, StatusCode};
use manifest::API_PORT;

use super::Failure;

/// The header that every request carries but those of AWS's SDKs, and its value.
const MARK: (&str, &str) = ("enclave-api", "1");
/// The hosts by which the API is called over TCP.
const HOSTS: [&str; 2] = ["127.0.0.1", "localhost"];
/// Headers of requests that are made for somebody else.
const FORWARDED: [&str; 5] = ["forwarded", "x-real-ip", "via", "origin", "referer"];
/// The same, by how their names begin.
const FORWARDED_PREFIXES: [&str; 2] = ["x-forwarded-", "sec-fetch-"];

/// How a request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp,
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
    // On the Unix socket there is no name to call it by, and clients send any.
    let is_called = transport == Transport::Unix
        || (only(headers, HOST.as_str()).is_some_and(is_own)
            && request
                .uri()
                .authority()
                .is_none_or(|authority| is_own(authority.as_str())));
    if !is_called {
        return Err(forbidden(format!(
            "send `Host: 127.0.0.1:{API_PORT}` or `Host: localhost:{API_PORT}`, once"
        )));
    }
    Ok(())
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

/// Whether a host and port are this API's.
fn is_own(authority: &str) -> bool {
    let Some((host, port)) = authority.rsplit_once(':') else {
        return false;
    };
    HOSTS.iter().any(|own| host.eq_ignore_ascii_case(own)) && port == API_PORT.to_string()
}

fn forbidden(reason: impl Into<String>) -> Failure {
    Failure::new(StatusCode::FORBIDDEN, reason)
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

    const KNOWING: [(&str, &str); 2] = [("Host", "127.0.0.1:7070"), ("Enclave-Api", "1")];

    #[test]
    fn a_knowing_caller_passes_by_either_name() {
        for host in ["127.0.0.1:7070", "localhost:7070", "LOCALHOST:7070"] {
            let headers = [("Host", host), ("Enclave-Api", "1")];
            assert!(passes(Transport::Tcp, "/v1/random", &headers), "{host}");
        }
        assert!(passes(
            Transport::Tcp,
            "http://localhost:7070/v1/random",
            &KNOWING
        ));
        for host in [&[][..], &[("Host", "x")], &[("Host", "x"), ("Host", "y")]] {
            let headers = [host, &[("Enclave-Api", "1")]].concat();
            assert!(passes(Transport::Unix, "/v1/random", &headers));
        }
    }

    #[test]
    fn another_host_is_refused() {
        for hosts in [
            &[][..],
            &["127.0.0.1"],
            &["localhost"],
            &["127.0.0.1:70700"],
            &["127.0.0.2:7070"],
            &["rebound.example:7070"],
            &["127.0.0.1:7070.example"],
            &["user@127.0.0.1:7070"],
            &[""],
            &["127.0.0.1:7070", "127.0.0.1:7070"],
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
            "http://localhost/v1/random",
            "http://user@localhost:7070/v1/random",
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
