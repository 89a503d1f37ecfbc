//! The file that an image is too large for, as errors name it.

use std::fmt;

const MIB: u64 = 1024 * 1024;
/// Files with a record for every user id: one user with a large id makes them huge, and full
/// of zeros (<https://github.com/moby/moby/issues/5419>).
const RECORDS_BY_USER: [&str; 2] = ["var/log/lastlog", "var/log/faillog"];

/// A file's path in the image, and its size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LargeFile {
    path: String,
    size: u64,
}

impl LargeFile {
    pub(crate) fn new(path: &[u8], size: u64) -> Self {
        let path = String::from_utf8_lossy(path);
        let path = path.trim_start_matches("./").trim_start_matches('/');
        Self {
            path: path.to_owned(),
            size,
        }
    }

    /// The larger of two.
    pub(crate) fn or_larger(largest: Option<Self>, path: &[u8], size: u64) -> Self {
        match largest {
            Some(largest) if largest.size >= size => largest,
            _ => Self::new(path, size),
        }
    }
}

impl fmt::Display for LargeFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{} with {} MiB", self.path, self.size.div_ceil(MIB))?;
        f.write_str(advice(&self.path))
    }
}

/// What to do about a file that is large for no good reason.
pub(crate) fn advice(path: &str) -> &'static str {
    let path = path.trim_start_matches("./").trim_start_matches('/');
    if RECORDS_BY_USER.contains(&path) {
        " (useradd has made it for a user with a large id: give it `-l`, or delete the file in the same step)"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_file_is_named_with_what_made_it() {
        let largest = LargeFile::or_larger(None, b"./a", 5 * MIB);
        let largest = LargeFile::or_larger(Some(largest), b"b", 5 * MIB);
        assert_eq!(largest.to_string(), "/a with 5 MiB");
        let largest = LargeFile::or_larger(Some(largest), b"var/log/lastlog", 6 * MIB + 1);
        let text = largest.to_string();
        assert!(
            text.starts_with("/var/log/lastlog with 7 MiB (useradd"),
            "{text}"
        );
        assert!(text.contains("`-l`"), "{text}");
    }
}
