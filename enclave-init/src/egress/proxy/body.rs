//! The body of a request: what of the program's bytes goes to the server. What follows it is
//! another request, which may be for another host.

use std::io;

use link::Stream;
use link::copy;
use link::places::Activity;
use tokio::net::TcpStream;

/// What is read at a time.
const BUFFER: usize = 8 * 1024;
/// Most digits of a chunk's size, hexadecimal.
const MAX_DIGITS: u8 = 15;

/// Where a body ends (RFC 9112, section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// After so many bytes.
    Length(u64),
    /// Where its chunks say.
    Chunked,
}

impl Body {
    /// By the fields of a request; none if they are ambiguous, or not understood.
    pub(super) fn of(fields: &[&str]) -> Option<Self> {
        let mut body = None;
        for field in fields {
            let (name, value) = field.split_once(':')?;
            let value = value.trim_matches([' ', '\t']);
            let found = if name.eq_ignore_ascii_case("content-length") {
                let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
                Self::Length(value.parse().ok().filter(|_| is_number)?)
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                value
                    .eq_ignore_ascii_case("chunked")
                    .then_some(Self::Chunked)?
            } else {
                continue;
            };
            // Two of them can be read in two ways (RFC 9112, section 11.2).
            if body.replace(found).is_some() {
                return None;
            }
        }
        Some(body.unwrap_or(Self::Length(0)))
    }

    /// Passes the body on, and then only the program's end. What else it sends goes nowhere.
    pub(super) async fn pass(
        self,
        from: &TcpStream,
        to: &Stream,
        activity: &Activity,
    ) -> io::Result<()> {
        let mut rest = match self {
            Self::Length(length) => Rest::Length(length),
            Self::Chunked => Rest::Chunks(Chunks::Size {
                value: 0,
                digits: 0,
            }),
        };
        let mut buffer = vec![0; BUFFER];
        loop {
            let count = copy::read(from, &mut buffer).await?;
            if count == 0 {
                return copy::end(to);
            }
            let bytes = buffer.get(..count).expect("it was read into the buffer");
            let length = rest.take(bytes).ok_or(io::ErrorKind::InvalidData)?;
            if length > 0 {
                let bytes = bytes.get(..length).expect("it takes what there is");
                copy::write_all(to, bytes).await?;
                activity.touch();
            }
        }
    }
}

/// What is still to come of a body.
enum Rest {
    Length(u64),
    Chunks(Chunks),
}

impl Rest {
    /// How many of these bytes are of the body; none if they are malformed.
    fn take(&mut self, bytes: &[u8]) -> Option<usize> {
        match self {
            Self::Length(left) => {
                let count =
                    usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                *left -= count as u64;
                Some(count)
            }
            Self::Chunks(chunks) => {
                let mut taken = 0;
                for byte in bytes {
                    if matches!(chunks, Chunks::Done) {
                        break;
                    }
                    *chunks = chunks.next(*byte)?;
                    taken += 1;
                }
                Some(taken)
            }
        }
    }
}

/// Where in a chunked body one is (RFC 9112, section 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunks {
    Size { value: u64, digits: u8 },
    Extension { size: u64 },
    EndOfSize { size: u64 },
    Data { left: u64 },
    EndOfData { is_begun: bool },
    Trailer { is_empty: bool },
    EndOfTrailer { is_empty: bool },
    Done,
}

impl Chunks {
    /// What comes after this byte; none if it must not be here.
    fn next(self, byte: u8) -> Option<Self> {
        let after_size = |size| match size {
            0 => Self::Trailer { is_empty: true },
            left => Self::Data { left },
        };
        Some(match (self, byte) {
            (Self::Size { value, digits }, _) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16)?;
                (digits < MAX_DIGITS).then_some(Self::Size {
                    value: value * 16 + u64::from(digit),
                    digits: digits + 1,
                })?
            }
            (Self::Size { digits: 0, .. }, _) => return None,
            (Self::Size { value: size, .. } | Self::Extension { size }, b'\r') => {
                Self::EndOfSize { size }
            }
            (Self::Size { value: size, .. }, b';' | b' ' | b'\t') => Self::Extension { size },
            (Self::Extension { size }, _) if byte != b'\n' => Self::Extension { size },
            (Self::EndOfSize { size }, b'\n') => after_size(size),
            (Self::Data { left: 1 }, _) => Self::EndOfData { is_begun: false },
            (Self::Data { left }, _) => Self::Data { left: left - 1 },
            (Self::EndOfData { is_begun: false }, b'\r') => Self::EndOfData { is_begun: true },
            (Self::EndOfData { is_begun: true }, b'\n') => Self::Size {
                value: 0,
                digits: 0,
            },
            (Self::Trailer { is_empty }, b'\r') => Self::EndOfTrailer { is_empty },
            (Self::Trailer { .. }, _) if byte != b'\n' => Self::Trailer { is_empty: false },
            (Self::EndOfTrailer { is_empty: true }, b'\n') => Self::Done,
            (Self::EndOfTrailer { is_empty: false }, b'\n') => Self::Trailer { is_empty: true },
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn taken(body: Body, parts: &[&[u8]]) -> Option<usize> {
        let mut rest = match body {
            Body::Length(length) => Rest::Length(length),
            Body::Chunked => Rest::Chunks(Chunks::Size {
                value: 0,
                digits: 0,
            }),
        };
        parts.iter().map(|part| rest.take(part)).sum()
    }

    #[test]
    fn proxy_bodies_end_where_their_fields_say() {
        for (fields, expected) in [
            (&[][..], Some(Body::Length(0))),
            (&["X: y", "content-length:\t17 "], Some(Body::Length(17))),
            (&["Transfer-Encoding: Chunked"], Some(Body::Chunked)),
            (&["Content-Length: 1", "Content-Length: 1"], None),
            (&["Content-Length: 1", "Transfer-Encoding: chunked"], None),
            (&["Content-Length: +1"], None),
            (&["Content-Length: 1, 1"], None),
            (&["Content-Length: "], None),
            (&["Content-Length: 99999999999999999999"], None),
            (&["Transfer-Encoding: gzip, chunked"], None),
        ] {
            assert_eq!(Body::of(fields), expected, "{fields:?}");
        }
    }

    #[test]
    fn proxy_chunks_end_where_the_last_one_does() {
        let body = b"4;x=\"y\"\r\nWiki\r\n00A \r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n";
        let both = [&body[..], b"GET http://other/ HTTP/1.1\r\n\r\n"].concat();
        assert_eq!(taken(Body::Chunked, &[&both]), Some(body.len()));
        for cut in 0..both.len() {
            let (first, second) = both.split_at(cut);
            assert_eq!(taken(Body::Chunked, &[first, second]), Some(body.len()));
        }
        for malformed in [
            &b"\r\n"[..],
            b"x",
            b"-1\r\n",
            b"1\nx",
            b"1;\nx",
            b"1\r\nxy",
            b"1\r\nx\n",
            b"0\r\nX: y\n",
            b"1000000000000000\r\n",
        ] {
            assert_eq!(taken(Body::Chunked, &[malformed]), None, "{malformed:?}");
        }
        assert_eq!(taken(Body::Length(3), &[b"ab", b"cd", b"e"]), Some(3));
    }

    proptest! {
        #[test]
        fn proxy_any_chunks_are_survived(bytes in prop::collection::vec(
            prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'0'), Just(b'1'), any::<u8>()],
            0..64,
        )) {
            if let Some(taken) = taken(Body::Chunked, &[&bytes]) {
                prop_assert!(taken <= bytes.len());
            }
        }
    }
}
