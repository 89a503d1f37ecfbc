//! SHA-256 digests as images write them (OCI image specification,
//! "descriptor.md", section "Digests").

use std::fmt;
use std::io::{self, Read};

use aws_lc_rs::digest::{Context, SHA256, digest};
use serde::Deserialize;

/// A SHA-256 digest, written `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Digest(String);

impl Digest {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(hex::encode(digest(&SHA256, bytes)))
    }

    /// The digits.
    pub(crate) fn hex(&self) -> &str {
        &self.0
    }
}

impl From<Context> for Digest {
    fn from(context: Context) -> Self {
        Self(hex::encode(context.finish()))
    }
}

impl TryFrom<String> for Digest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.strip_prefix("sha256:")
            .filter(|digits| {
                digits.len() == 64
                    && digits
                        .bytes()
                        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
            })
            .map(|digits| Self(digits.to_owned()))
            .ok_or_else(|| format!("`{text}` is not a SHA-256 digest, the only kind that is read"))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

/// Hashes what is read through it.
pub(crate) struct Hashing<R> {
    inner: R,
    context: Context,
}

impl<R: Read> Hashing<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self {
            inner,
            context: Context::new(&SHA256),
        }
    }

    /// The digest of all there is, what has not been read yet included.
    pub(crate) fn finish(mut self) -> io::Result<Digest> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(self.context.into())
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.context
            .update(buffer.get(..count).expect("it was read into the buffer"));
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_specification_allows_is_a_digest() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::try_from(empty.to_owned()), Ok(Digest::of(b"")));
        assert_eq!(Digest::of(b"").to_string(), empty);
        let sha512 = format!("sha512:{}", "0".repeat(128));
        let traversal = format!("sha256:../{}", "a".repeat(61));
        for text in [
            "",
            "sha256:",
            &empty.to_uppercase(),
            &empty[..70],
            &sha512,
            &traversal,
        ] {
            assert!(Digest::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
