//! What the image has in `/run`, where a file system in memory is mounted.
//!
//! Other container runtimes mount nothing there, so programs find the folders that the image
//! has for them, with their owners, and do not make them themselves (apache2, `PostgreSQL`). The
//! file system gets a copy: folders, files, which are small there, and links. Devices, pipes
//! and sockets are left out: a program that has some there makes them.
//!
//! A file system that is mounted on a folder has the folder's owner and permissions.

use std::ffi::OsStr;
use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::Path;

/// What memory is given out in, in bytes.
const PAGE: u64 = 4096;

/// How much memory the files in a folder take, in bytes.
pub(crate) fn size(folder: &Path) -> io::Result<u64> {
    let mut size: u64 = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let found = entry.metadata()?;
            if found.is_dir() {
                folders.push(entry.path());
            }
            let pages = found.len().div_ceil(PAGE).saturating_add(1);
            size = size.saturating_add(pages.saturating_mul(PAGE));
        }
    }
    Ok(size)
}

/// Copies the folder `from` to the folder `to`, which is empty, with owners and permissions; but not what has one of the names in `kept_free` in it. No link is followed.
pub(crate) fn copy(from: &Path, to: &Path, kept_free: &[&str]) -> io::Result<()> {
    let (top, top_of_copy) = (from, to);
    let mut folders = vec![(from.to_owned(), to.to_owned())];
    let mut own = Vec::new();
    while let Some((from, to)) = folders.pop() {
        for entry in fs::read_dir(&from)? {
            let entry = entry?;
            let name = entry.file_name();
            if from == top && kept_free.iter().any(|kept| name == OsStr::new(kept)) {
                continue;
            }
            let (from, to) = (entry.path(), to.join(&name));
            let found = entry.metadata()?;
            if found.is_dir() {
                fs::create_dir(&to)?;
                own.push((to.clone(), found));
                folders.push((from, to));
            } else if found.is_symlink() {
                symlink(fs::read_link(&from)?, &to)?;
                lchown(&to, Some(found.uid()), Some(found.gid()))?;
            } else if found.is_file() {
                fs::copy(&from, &to)?;
                give(&to, &found)?;
            }
        }
    }
    // Last: a folder that its owner may not write to is filled first.
    own.iter().try_for_each(|(to, found)| give(to, found))?;
    give_same(top, top_of_copy)
}

/// Gives a folder the owner and the permissions of another.
pub(crate) fn give_same(from: &Path, to: &Path) -> io::Result<()> {
    give(to, &fs::symlink_metadata(from)?)
}

/// Gives a file or folder, which is no link, the owner and the permissions of another.
fn give(to: &Path, found: &Metadata) -> io::Result<()> {
    // Before the permissions: a change of the owner takes some of them.
    chown(to, Some(found.uid()), Some(found.gid()))?;
    fs::set_permissions(to, Permissions::from_mode(found.mode() & 0o7777))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covered_folders_are_copied_as_they_are() {
        let place = tempfile::tempdir().unwrap();
        let at = |path: &str| place.path().join(path);
        fs::create_dir_all(at("run/nginx/deep")).unwrap();
        fs::create_dir_all(at("run/enclave")).unwrap();
        fs::create_dir_all(at("run/nginx/enclave")).unwrap();
        fs::create_dir(at("scratch")).unwrap();
        fs::write(at("run/nginx/deep/file"), "contents").unwrap();
        fs::write(at("run/enclave/runtime-config"), "forged").unwrap();
        fs::write(at("outside"), "outside").unwrap();
        symlink("../outside", at("run/link")).unwrap();
        symlink("nowhere", at("run/dangling")).unwrap();
        let mode = |path: &str, mode| {
            fs::set_permissions(at(path), Permissions::from_mode(mode)).unwrap();
        };
        mode("run/nginx/deep/file", 0o640);
        mode("run/nginx", 0o2750);
        mode("run", 0o1775);
        assert!(size(&at("run")).unwrap() >= 2 * PAGE);
        copy(&at("run"), &at("scratch"), &["enclave", "secrets"]).unwrap();
        let mode = |path: &str| fs::symlink_metadata(at(path)).unwrap().mode() & 0o7777;
        assert_eq!(
            [
                "scratch",
                "scratch/nginx",
                "scratch/nginx/deep",
                "scratch/nginx/deep/file"
            ]
            .map(mode),
            [0o1775, 0o2750, 0o755, 0o640]
        );
        let read = fs::read_to_string(at("scratch/nginx/deep/file")).unwrap();
        assert_eq!(read, "contents");
        let link = |path: &str| fs::read_link(at(path)).unwrap();
        assert_eq!(link("scratch/link"), Path::new("../outside"));
        assert_eq!(link("scratch/dangling"), Path::new("nowhere"));
        assert!(!at("scratch/enclave").exists());
        assert!(at("scratch/nginx/enclave").exists());
    }
}
