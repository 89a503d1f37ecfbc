//! Who a client is: an address, or the IPv6 network that it has.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hyper::HeaderMap;

/// Longest element of a forwarding header that is read, in bytes.
const MAX_ELEMENT: usize = 4096;

/// What clients are told apart by. IPv6 clients have a /64 each, in which they choose
/// addresses as they like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Client(IpAddr);

impl Client {
    pub(crate) fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                IpAddr::from([a, b, c, d, 0, 0, 0, 0])
            }
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

/// An address, or an IPv6 network.
impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => address.fmt(f),
            IpAddr::V6(network) => write!(f, "{network}/64"),
        }
    }
}

/// The header by which the proxy in front says whom it serves. Only one: a proxy that
/// writes one of the two passes the other on as the client wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`, a list of addresses.
    XForwardedFor,
    /// `Forwarded` (RFC 7239), by its `for`.
    Forwarded,
}

impl ForwardedHeader {
    const fn name(self) -> &'static str {
        match self {
            Self::XForwardedFor => "x-forwarded-for",
            Self::Forwarded => "forwarded",
        }
    }

    /// The address that the nearest proxy saw, which it has put at the end. What stands
    /// before it, the client may have written, of whatever form or length: it changes
    /// nothing. None if the proxy says nothing, or hides it.
    pub(crate) fn client(self, headers: &HeaderMap) -> Option<IpAddr> {
        let value = headers.get_all(self.name()).iter().next_back()?.as_bytes();
        let element = match self {
            Self::XForwardedFor => value.rsplit(|byte| *byte == b',').next()?,
            Self::Forwarded => last_element(value),
        };
        let element = std::str::from_utf8(element)
            .ok()
            .filter(|text| text.len() <= MAX_ELEMENT)?;
        match self {
            Self::XForwardedFor => node(element),
            Self::Forwarded => {
                let node_of = |pair: &str| {
                    let (name, value) = pair.split_once('=')?;
                    name.trim()
                        .eq_ignore_ascii_case("for")
                        .then(|| value.to_owned())
                };
                let value = split_quoted(element, ';').into_iter().find_map(node_of)?;
                node(&value)
            }
        }
    }
}

/// An address with or without brackets, port and quotes (RFC 7239, section 6); none
/// of `unknown` and of names that hide it.
fn node(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let text = match text.strip_prefix('"') {
        Some(text) => text.strip_suffix('"')?.trim(),
        None => text,
    };
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let (address, port) = if let Some(text) = text.strip_prefix('[') {
        let (address, rest) = text.split_once(']')?;
        let address: Ipv6Addr = address.parse().ok()?;
        let port = match rest.strip_prefix(':') {
            None if !rest.is_empty() => return None,
            port => port,
        };
        (IpAddr::V6(address), port)
    } else {
        let (address, port) = text.split_once(':')?;
        let address: Ipv4Addr = address.parse().ok()?;
        (IpAddr::V4(address), Some(port))
    };
    port.is_none_or(is_port).then_some(address)
}

/// A number, or a name that hides it.
fn is_port(text: &str) -> bool {
    let hidden = text.strip_prefix('_').is_some_and(|name| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        !name.is_empty() && name.bytes().all(allowed)
    });
    hidden || text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

/// What follows the last comma that is not in quotes. It is looked for from the end: a
/// quote that the client opens and does not close would enclose what the proxy adds.
fn last_element(value: &[u8]) -> &[u8] {
    let mut quoted = false;
    for (index, byte) in value.iter().enumerate().rev() {
        let before = value.get(..index).unwrap_or_default();
        let escapes = before.iter().rev().take_while(|byte| **byte == b'\\');
        match byte {
            b'"' if escapes.count() % 2 == 0 => quoted = !quoted,
            b',' if !quoted => return value.get(index + 1..).unwrap_or_default(),
            _ => {}
        }
    }
    value
}

/// The parts between separators that are not in quotes.
fn split_quoted(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (index, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if character == separator && !quoted => {
                parts.extend(text.get(start..index));
                start = index + separator.len_utf8();
            }
            _ => {}
        }
    }
    parts.extend(text.get(start..));
    parts
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn client(header: ForwardedHeader, values: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header.name(), HeaderValue::from_str(value).unwrap());
        }
        header.client(&headers).map(|address| address.to_string())
    }

    #[test]
    fn forwarded_addresses_are_read_with_ports_brackets_and_quotes() {
        let header = ForwardedHeader::XForwardedFor;
        for (value, expected) in [
            ("192.0.2.1", Some("192.0.2.1")),
            ("203.0.113.9, 192.0.2.1", Some("192.0.2.1")),
            ("192.0.2.1:5678", Some("192.0.2.1")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("203.0.113.9,[::1]:443", Some("::1")),
            ("\"[2001:db8::1]:4711\"", Some("2001:db8::1")),
            ("192.0.2.1:", None),
            ("192.0.2.1:65536", None),
            ("192.0.2.1:+1", None),
            ("192.0.2.1:_hidden-1", Some("192.0.2.1")),
            ("[192.0.2.1]:80", None),
            ("[::1]80", None),
            ("[::1", None),
            ("\"192.0.2.1", None),
            ("192.0.2.1, unknown", None),
            ("_hidden", None),
            ("a.example", None),
            ("192.0.2.1,", None),
            ("", None),
        ] {
            let found = client(header, &[value]);
            assert_eq!(found.as_deref(), expected, "{value}");
        }
        let lines = client(header, &["192.0.2.1", "192.0.2.2"]);
        assert_eq!(lines.as_deref(), Some("192.0.2.2"));
        assert_eq!(client(header, &[]), None);
        let long = format!("{}192.0.2.1", " ".repeat(MAX_ELEMENT));
        assert_eq!(client(header, &[&long]), None);
    }

    #[test]
    fn forwarded_by_the_proxy_is_what_counts_whatever_the_client_has_written() {
        let long = "203.0.113.9, ".repeat(MAX_ELEMENT);
        for own in [
            &b"203.0.113.9"[..],
            b"unknown, \xe9",
            b"\"",
            b"for=203.0.113.9",
            b"for=203.0.113.9;host=\"",
            b"for=203.0.113.9;host=\"\\",
            b"for=203.0.113.9;host=\"a\\\"b",
            b"for=\"[2001:db8::9]",
            long.as_bytes(),
        ] {
            for (header, added) in [
                (ForwardedHeader::XForwardedFor, "192.0.2.1"),
                (ForwardedHeader::Forwarded, "for=192.0.2.1"),
                (
                    ForwardedHeader::Forwarded,
                    "for=\"192.0.2.1:80\";proto=http",
                ),
                (ForwardedHeader::Forwarded, "host=\"a,b\";for=192.0.2.1"),
            ] {
                let value = [own, b", ", added.as_bytes()].concat();
                let mut headers = HeaderMap::new();
                headers.append(header.name(), HeaderValue::from_bytes(&value).unwrap());
                let found = header.client(&headers).map(|address| address.to_string());
                let own = String::from_utf8_lossy(own);
                assert_eq!(found.as_deref(), Some("192.0.2.1"), "{own:.99}, {added}");
            }
        }
    }

    #[test]
    fn forwarded_elements_are_read_as_rfc_7239_writes_them() {
        let header = ForwardedHeader::Forwarded;
        for (value, expected) in [
            ("for=192.0.2.43", Some("192.0.2.43")),
            ("for=192.0.2.43, for=198.51.100.17", Some("198.51.100.17")),
            (
                "For=\"[2001:db8:cafe::17]:4711\"",
                Some("2001:db8:cafe::17"),
            ),
            (
                "for=192.0.2.60;proto=http;by=203.0.113.43",
                Some("192.0.2.60"),
            ),
            ("by=203.0.113.43;for=\"192.0.2.60:80\"", Some("192.0.2.60")),
            ("for=\"_gazonk\"", None),
            ("for=unknown", None),
            ("by=203.0.113.43", None),
            // Separators within quotes separate nothing.
            ("for=192.0.2.1;host=\"a, for=192.0.2.2\"", Some("192.0.2.1")),
            (
                "for=192.0.2.1;host=\"a;for=192.0.2.2\\\", for=192.0.2.3\"",
                Some("192.0.2.1"),
            ),
            ("", None),
        ] {
            let found = client(header, &[value]);
            assert_eq!(found.as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn clients_are_addresses_and_ipv6_networks() {
        let client = |text: &str| Client::of(text.parse().unwrap());
        assert_eq!(client("2001:db8:0:1::1"), client("2001:db8:0:1:ffff::2"));
        assert_ne!(client("2001:db8:0:1::1"), client("2001:db8:0:2::1"));
        assert_eq!(client("192.0.2.1"), client("::ffff:192.0.2.1"));
        assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
    }
}
