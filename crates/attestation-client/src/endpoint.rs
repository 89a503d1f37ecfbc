//! Where a live enclave is asked for its document.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use hyper::Uri;
use thiserror::Error;

/// Largest URL, in bytes.
const MAX_URL: usize = 2048;
/// Longest host name, in bytes (RFC 1035, section 2.3.4).
const MAX_HOST: usize = 253;

/// Where a live enclave is asked for its document, as text:
///
/// | text | who answers |
/// |---|---|
/// | `https://HOST[:PORT]/PATH`, `http://…` | a service that answers `GET …?nonce=HEX` |
/// | `unix:PATH` | a `parent-agent`, on its control socket |
/// | `nsm:PATH` | the software NSM, on its socket (feature `nsm`) |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(pub(crate) Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Url(Url),
    Agent(PathBuf),
    #[cfg(feature = "nsm")]
    Nsm(PathBuf),
}

/// A URL of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) tls: bool,
    /// A name or an address, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The value of the header `Host`.
    pub(crate) authority: String,
    /// Path and query, if any.
    path: String,
    query: Option<String>,
}

impl Url {
    /// Path and query as they are.
    pub(crate) fn resource(&self) -> String {
        match &self.query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone(),
        }
    }

    /// Whether what comes from there cannot be changed on the way: over TLS, or from
    /// this machine.
    pub(crate) fn is_authentic(&self) -> bool {
        let address: Option<IpAddr> = self.host.parse().ok();
        self.tls || address.is_some_and(|address| address.is_loopback())
    }

    /// Path and query with a nonce.
    pub(crate) fn target(&self, nonce: &[u8]) -> String {
        let nonce = hex::encode(nonce);
        match &self.query {
            Some(query) => format!("{}?{query}&nonce={nonce}", self.path),
            None => format!("{}?nonce={nonce}", self.path),
        }
    }
}

/// Why a text names no endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// Neither a URL nor a socket.
    #[error(
        "{0:?} is no endpoint: give https://HOST/PATH, http://HOST/PATH, unix:PATH or nsm:PATH"
    )]
    Unknown(String),
    /// No TLS server.
    #[error("{text:?} is not a TLS server ({reason}): give HOST:PORT")]
    TlsServer {
        /// What was given.
        text: String,
        /// Why.
        reason: String,
    },
    /// A URL that cannot be used.
    #[error("the URL {url:?} cannot be used: {reason}")]
    Url {
        /// The URL.
        url: String,
        /// Why.
        reason: String,
    },
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let unknown = || EndpointError::Unknown(text.chars().take(MAX_HOST).collect());
        let (scheme, rest) = text.split_once(':').ok_or_else(unknown)?;
        Ok(Self(match scheme {
            "https" => Kind::Url(url(text, true)?),
            "http" => Kind::Url(url(text, false)?),
            "unix" if !rest.is_empty() => Kind::Agent(rest.into()),
            #[cfg(feature = "nsm")]
            "nsm" if !rest.is_empty() => Kind::Nsm(rest.into()),
            _ => return Err(unknown()),
        }))
    }
}

fn url(text: &str, tls: bool) -> Result<Url, EndpointError> {
    let wrong = |reason: &str| EndpointError::Url {
        url: text.chars().take(MAX_HOST).collect(),
        reason: reason.to_owned(),
    };
    if text.len() > MAX_URL {
        return Err(wrong("it is longer than 2048 bytes"));
    }
    let uri: Uri = text
        .parse()
        .map_err(|error: hyper::http::uri::InvalidUri| wrong(&error.to_string()))?;
    let authority = uri.authority().ok_or_else(|| wrong("it names no host"))?;
    if authority.as_str().contains('@') {
        return Err(wrong("it holds a user's name, which would be ignored"));
    }
    let host = authority.host();
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    if host.is_empty() || host.len() > MAX_HOST {
        return Err(wrong("its host is no name"));
    }
    let query = uri.query().filter(|query| !query.is_empty());
    let asks = |part: &str| part == "nonce" || part.starts_with("nonce=");
    if query.is_some_and(|query| query.split('&').any(asks)) {
        return Err(wrong(
            "it holds a nonce: a new one is made for each challenge, so leave it out",
        ));
    }
    // `Uri` gives no port where the text has one that is out of range.
    let has_port = authority.as_str().rsplit_once(']').map_or_else(
        || authority.as_str().contains(':'),
        |(_, after)| after.contains(':'),
    );
    let port = match (authority.port_u16(), has_port) {
        (Some(port), _) if port > 0 => port,
        (None, false) => {
            if tls {
                443
            } else {
                80
            }
        }
        _ => return Err(wrong("its port is not a number from 1 to 65535")),
    };
    Ok(Url {
        tls,
        host: host.to_owned(),
        port,
        authority: authority.to_string(),
        path: uri.path().to_owned(),
        query: query.map(str::to_owned),
    })
}

/// As it is written, without the query, which may hold secrets.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Url(url) => {
                let scheme = if url.tls { "https" } else { "http" };
                write!(f, "{scheme}://{}{}", url.authority, url.path)
            }
            Kind::Agent(path) => write!(f, "unix:{}", path.display()),
            #[cfg(feature = "nsm")]
            Kind::Nsm(path) => write!(f, "nsm:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Url {
        match text.parse() {
            Ok(Endpoint(Kind::Url(url))) => url,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn a_url_is_asked_with_its_own_query_and_a_nonce() {
        for (text, host, port, target) in [
            ("https://a.example", "a.example", 443, "/?nonce=00ff"),
            ("http://a.example/x", "a.example", 80, "/x?nonce=00ff"),
            ("https://[::1]:8443/x?a=1", "::1", 8443, "/x?a=1&nonce=00ff"),
            ("https://[::1]/?", "::1", 443, "/?nonce=00ff"),
            ("https://10.0.0.1:1/#f", "10.0.0.1", 1, "/?nonce=00ff"),
        ] {
            let url = parsed(text);
            assert_eq!((url.host.as_str(), url.port), (host, port), "{text}");
            assert_eq!(url.target(&[0, 255]), target, "{text}");
        }
    }

    #[test]
    fn what_names_no_endpoint_is_refused() {
        for text in [
            "",
            "a.example",
            "ftp://a.example",
            "unix:",
            "nsm:",
            "https:",
            "https://",
            "https:///path",
            "https://:443/",
            "https://user@a.example/",
            "https://a.example:0/",
            "https://a.example:65536/",
            "https://a.example/?nonce=00",
            "https://a.example/?a=1&nonce=00",
            "https://a example/",
            "https://a.example/\r\nX: y",
            &format!("https://{}/", "a".repeat(254)),
            &format!("https://a.example/{}", "a".repeat(MAX_URL)),
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_query_is_not_shown() {
        let endpoint: Endpoint = "https://a.example/x?token=1".parse().unwrap();
        assert_eq!(endpoint.to_string(), "https://a.example/x");
    }
}
