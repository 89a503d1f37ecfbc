//! Paths as bytes, and which of them Linux can have.

/// Longest path in bytes (`PATH_MAX` without its zero byte and the prefix that
/// the ramdisk adds).
pub(crate) const MAX_PATH: usize = 4000;
/// Longest name in a directory, in bytes (Linux, `NAME_MAX`); the enclave's
/// kernel would leave out a longer one without a word.
pub(crate) const MAX_NAME: usize = 255;
/// Deepest path, in directories.
pub(crate) const MAX_DEPTH: usize = 256;

/// Whether a part of the path is `..`.
pub(crate) fn leads_upwards(path: &[u8]) -> bool {
    components(path).any(|component| component == b"..")
}

/// Whether it keeps all limits.
pub(crate) fn is_possible(path: &[u8]) -> bool {
    path.len() <= MAX_PATH
        && !path.contains(&0)
        && components(path).count() <= MAX_DEPTH
        && components(path).all(|component| component.len() <= MAX_NAME)
}

/// The names in a path.
pub(crate) fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
}

/// A path of nothing but names, without its last name.
pub(crate) fn parent(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => path.get(..slash).expect("the slash is in the path"),
        None => &[],
    }
}

/// Appends a name.
pub(crate) fn push(path: &mut Vec<u8>, component: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(component);
}
