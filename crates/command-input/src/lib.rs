//! What a command is given: files and standard input up to a limit, and the roots that
//! documents must lead to.
//!
//! Files may hold secrets and private keys. What is read is overwritten once it is dropped,
//! and no copy of it is left behind: its buffer has room for all from the beginning.

#![forbid(unsafe_code)]

mod trust;

use std::error::Error;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;

use thiserror::Error;
use zeroize::Zeroizing;

pub use trust::Trust;

/// Largest file of keys or certificates, in bytes: all authorities of a system have some
/// 200 KiB.
const MAX_PEM: usize = 1024 * 1024;

/// Why a file is not used.
#[derive(Debug, Error)]
pub enum InputError {
    /// It cannot be read.
    #[error("cannot read {file}")]
    Read {
        /// Which.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// It is larger than what it should hold.
    #[error("{file} has more than {limit} bytes: is this the right file?")]
    TooLarge {
        /// Which.
        file: String,
        /// The most that is read.
        limit: usize,
    },
    /// It holds something else.
    #[error("{file}")]
    Content {
        /// Which.
        file: String,
        /// What is wrong with it.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// A file's bytes, or those of standard input for `-`, up to a limit.
pub fn read(file: &Path, limit: usize) -> Result<Zeroizing<Vec<u8>>, InputError> {
    if file != Path::new("-") {
        return read_file(file, limit);
    }
    // `Stdin` would keep what it has read in a buffer of its own.
    let input = io::stdin().as_fd().try_clone_to_owned().map(File::from);
    read_limited(input, file, limit)
}

/// What a PEM file of certificates or with a private key is read as.
pub fn read_pem<T, E>(
    file: &Path,
    parse: impl FnOnce(&[u8]) -> Result<T, E>,
) -> Result<T, InputError>
where
    E: Error + Send + Sync + 'static,
{
    let pem = read_file(file, MAX_PEM)?;
    parse(&pem).map_err(|error| InputError::Content {
        file: file.display().to_string(),
        source: error.into(),
    })
}

fn read_file(file: &Path, limit: usize) -> Result<Zeroizing<Vec<u8>>, InputError> {
    read_limited(File::open(file), file, limit)
}

fn read_limited(
    input: io::Result<File>,
    file: &Path,
    limit: usize,
) -> Result<Zeroizing<Vec<u8>>, InputError> {
    let name = || file.display().to_string();
    let most = limit.saturating_add(1);
    let mut bytes = Zeroizing::new(Vec::with_capacity(most));
    input
        .and_then(|input| {
            input
                .take(u64::try_from(most).unwrap_or(u64::MAX))
                .read_to_end(&mut bytes)
        })
        .map_err(|source| InputError::Read {
            file: name(),
            source,
        })?;
    if bytes.len() > limit {
        return Err(InputError::TooLarge {
            file: name(),
            limit,
        });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 100;

    fn file(size: usize) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), vec![7; size]).unwrap();
        file
    }

    #[test]
    fn input_is_read_up_to_its_limit_into_a_buffer_that_never_moves() {
        let room = Vec::<u8>::with_capacity(LIMIT + 1).capacity();
        for size in [0, 1, LIMIT] {
            let bytes = read(file(size).path(), LIMIT).unwrap();
            assert_eq!(*bytes, vec![7; size]);
            assert_eq!(bytes.capacity(), room, "{size}: it grew");
        }
        let error = read(file(LIMIT + 1).path(), LIMIT).unwrap_err();
        assert!(error.to_string().contains("more than 100 bytes"), "{error}");
        // It does not end.
        let error = read(Path::new("/dev/zero"), LIMIT).unwrap_err();
        assert!(matches!(error, InputError::TooLarge { .. }), "{error}");
        let error = read(Path::new("missing"), LIMIT).unwrap_err();
        assert_eq!(error.to_string(), "cannot read missing");
    }

    #[test]
    fn input_in_pem_is_parsed_and_its_file_named_otherwise() {
        let file = file(3);
        let count = |bytes: &[u8]| Ok::<_, io::Error>(bytes.len());
        assert_eq!(read_pem(file.path(), count).unwrap(), 3);
        let no = |_: &[u8]| Err::<(), _>(io::Error::other("no key"));
        let error = read_pem(file.path(), no).unwrap_err();
        assert_eq!(error.to_string(), file.path().display().to_string());
        assert_eq!(error.source().unwrap().to_string(), "no key");
    }
}
