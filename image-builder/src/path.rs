//! Paths as bytes: which of them Linux can have, and where they lead.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

/// Longest path in bytes (`PATH_MAX` without its zero byte and the prefix that
/// the ramdisk adds).
pub(crate) const MAX_PATH: usize = 4000;
/// Longest name in a directory, in bytes (Linux, `NAME_MAX`); the enclave's
/// kernel would leave out a longer one without a word.
pub(crate) const MAX_NAME: usize = 255;
/// Deepest path, in directories.
pub(crate) const MAX_DEPTH: usize = 256;
/// Most links followed to resolve one path (as Linux, `MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

/// Most names in the targets of links that the paths of all entries go through: a hundred
/// times more than images have, and each takes time.
pub(crate) const MAX_LINKED: u64 = 4_000_000;

/// Most names in the targets of links that a path goes through which is looked up, as those
/// of programs and their libraries are, in every folder of a list: what is further away is
/// not there.
pub(crate) const MAX_LOOKED_UP: u64 = 2000;

/// Why a path cannot be one of an image.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum PathError {
    #[error("its path leads out of the image")]
    Escape,
    #[error(
        "its path or target is empty, has a zero byte, or is longer than {MAX_PATH} bytes, {MAX_NAME} in one name, or {MAX_DEPTH} directories"
    )]
    Impossible,
    #[error(
        "its path goes through more than {MAX_LINKS} symbolic links: remove those that lead to each other"
    )]
    Links,
    #[error(
        "the paths of the entries go through symbolic links with more than {MAX_LINKED} names together: make the links shorter, or write the paths without them"
    )]
    Linked,
}

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

/// A name in an archive must not lead upwards; targets of symbolic links may.
pub(crate) fn refuse_escape(name: &[u8]) -> Result<(), PathError> {
    if leads_upwards(name) {
        return Err(PathError::Escape);
    }
    Ok(())
}

pub(crate) fn checked(path: &[u8]) -> Result<(), PathError> {
    if is_possible(path) {
        return Ok(());
    }
    Err(PathError::Impossible)
}

/// The path with every link in its parents followed, and in its last part if
/// `follow_last`. `..` never leads above the root of the image. `link` gives the target of
/// a symbolic link; `through` is told every directory that is passed through. The names in
/// the targets are taken off `linked_left`.
pub(crate) fn resolve<'a>(
    name: &'a [u8],
    follow_last: bool,
    link: &dyn Fn(&[u8]) -> Option<&'a [u8]>,
    through: &mut dyn FnMut(&[u8]),
    linked_left: &mut u64,
) -> Result<Vec<u8>, PathError> {
    checked(name)?;
    let mut pending: Vec<&[u8]> = components(name).rev().collect();
    let mut path = Vec::new();
    let mut links = 0;
    while let Some(component) = pending.pop() {
        through(&path);
        let before = path.len();
        if component == b".." {
            path.truncate(parent(&path).len());
            continue;
        }
        push(&mut path, component);
        let Some(target) = link(&path) else {
            continue;
        };
        if pending.is_empty() && !follow_last {
            break;
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(PathError::Links);
        }
        let names = components(target).count() as u64;
        *linked_left = linked_left.checked_sub(names).ok_or(PathError::Linked)?;
        path.truncate(if target.first() == Some(&b'/') {
            0
        } else {
            before
        });
        pending.extend(components(target).rev());
    }
    checked(&path)?;
    Ok(path)
}

/// The paths of a map that are below a folder.
pub(crate) fn below<'a, T>(
    paths: &'a BTreeMap<Vec<u8>, T>,
    folder: &[u8],
) -> impl Iterator<Item = &'a [u8]> + use<'a, T> {
    let prefix = prefix(folder);
    paths
        .range(prefix.clone()..)
        .map(|(path, _)| path.as_slice())
        .take_while(move |path| path.starts_with(&prefix))
}

/// Whether a path of a set is below a folder.
pub(crate) fn has_below(paths: &BTreeSet<Vec<u8>>, folder: &[u8]) -> bool {
    let prefix = prefix(folder);
    let mut next = paths.range(prefix.clone()..);
    next.next().is_some_and(|path| path.starts_with(&prefix))
}

/// What the paths below a folder begin with.
fn prefix(folder: &[u8]) -> Vec<u8> {
    let mut prefix = folder.to_vec();
    if !prefix.is_empty() {
        prefix.push(b'/');
    }
    prefix
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Links of which each leads through the next again and again, and the number of names
    /// that were looked at while paths were resolved through them: the time that it takes.
    struct Bomb {
        links: BTreeMap<Vec<u8>, Vec<u8>>,
        looked_at: Cell<u64>,
    }

    impl Bomb {
        fn new(target: impl Fn(usize) -> String) -> Self {
            let link = |number| {
                (
                    format!("l{number}").into_bytes(),
                    target(number).into_bytes(),
                )
            };
            Self {
                links: (0..39).map(link).collect(),
                looked_at: Cell::new(0),
            }
        }

        fn resolve(&self, left: &mut u64) -> Result<Vec<u8>, PathError> {
            let link = |path: &[u8]| {
                self.looked_at.set(self.looked_at.get() + 1);
                self.links.get(path).map(Vec::as_slice)
            };
            resolve(b"l0", true, &link, &mut |_| {}, left)
        }
    }

    #[test]
    fn links_cost_no_more_steps_than_are_left() {
        let wide = |number| format!("{}l{}", "d/../".repeat(700), number + 1);
        let deep = |number| format!("{}/l{}", "d/".repeat(200), number + 1);
        let doubled = |number: usize| format!("l{next}/../l{next}", next = number + 1);
        let bombs: [&dyn Fn(usize) -> String; 3] = [&wide, &deep, &doubled];
        for target in bombs {
            let bomb = Bomb::new(target);
            // One path after the other, as those of a layer's entries.
            let mut left = 5000;
            let mut resolved: u64 = 0;
            while bomb.resolve(&mut left) != Err(PathError::Linked) && resolved < 1000 {
                resolved += 1;
            }
            assert!(bomb.looked_at.get() <= 5000 + resolved + 1, "{resolved}");
            assert!(left < 5000);
        }
    }
}
