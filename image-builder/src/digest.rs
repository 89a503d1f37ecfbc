//! Digests as images write them (OCI image specification, "descriptor.md", section
//! "Digests").

use std::fmt;
use std::io::{self, Read};

use aws_lc_rs::digest::{Context, SHA256, SHA512};
use serde::Deserialize;

/// The algorithms that the specification registers and runtimes read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Algorithm {
    #[default]
    Sha256,
    Sha512,
}

/// A digest, written as the algorithm, a colon, and lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Digest {
    algorithm: Algorithm,
    hex: String,
}

impl Algorithm {
    const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn digits(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }

    fn context(self) -> Context {
        Context::new(match self {
            Self::Sha256 => &SHA256,
            Self::Sha512 => &SHA512,
        })
    }
}

impl Digest {
    /// The SHA-256 digest of these bytes.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self::by(Algorithm::Sha256, bytes)
    }

    /// The digest of these bytes.
    pub(crate) fn by(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    pub(crate) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The digits.
    pub(crate) fn hex(&self) -> &str {
        &self.hex
    }

    /// Where an image layout has the blob.
    pub(crate) fn blob(&self) -> String {
        format!("blobs/{}/{}", self.algorithm.name(), self.hex)
    }
}

impl TryFrom<String> for Digest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digest = Algorithm::ALL.into_iter().find_map(|algorithm| {
            let hex = text.strip_prefix(algorithm.name())?.strip_prefix(':')?;
            let are_digits = hex
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            (are_digits && hex.len() == algorithm.digits()).then(|| Self {
                algorithm,
                hex: hex.to_owned(),
            })
        });
        digest.ok_or_else(|| {
            format!("`{text}` is not a SHA-256 or SHA-512 digest, the kinds that are read")
        })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

/// Makes a digest.
pub(crate) struct Hasher {
    algorithm: Algorithm,
    context: Context,
}

impl Hasher {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        Self {
            algorithm,
            context: algorithm.context(),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }

    pub(crate) fn finish(self) -> Digest {
        Digest {
            algorithm: self.algorithm,
            hex: hex::encode(self.context.finish()),
        }
    }
}

/// Hashes what is read through it.
pub(crate) struct Hashing<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: Read> Hashing<R> {
    /// By SHA-256.
    pub(crate) fn new(inner: R) -> Self {
        Self::by(Algorithm::Sha256, inner)
    }

    pub(crate) fn by(algorithm: Algorithm, inner: R) -> Self {
        Self {
            inner,
            hasher: Hasher::new(algorithm),
        }
    }

    /// The digest of all there is, what has not been read yet included.
    pub(crate) fn finish(mut self) -> io::Result<Digest> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(self.hasher.finish())
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher
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
        let long = "sha512:cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e";
        let digest = Digest::try_from(long.to_owned()).unwrap();
        assert_eq!(digest, Digest::by(Algorithm::Sha512, b""));
        assert_eq!(digest.to_string(), long);
        assert_eq!(digest.blob(), format!("blobs/{}", long.replace(':', "/")));
        let traversal = format!("sha256:../{}", "a".repeat(61));
        for text in [
            "",
            "sha256:",
            &empty.to_uppercase(),
            &empty[..70],
            &long[..71],
            &empty.replace("256", "512"),
            &empty.replace("sha256", "md5"),
            &traversal,
        ] {
            assert!(Digest::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
