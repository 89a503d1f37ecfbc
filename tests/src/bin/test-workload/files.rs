//! What programs do that look after their disk: they ask how much room there is, note
//! things beside their files, reserve room, and go on when there is none left.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, ensure};
use nix::fcntl::posix_fallocate;
use nix::sys::statvfs::{Statvfs, statvfs};
use rustix::fs::{XattrFlags, fgetxattr, fsetxattr};

/// Where files are written.
const FOLDERS: [&str; 4] = ["/", "/tmp", "/run", "/dev/shm"];
const RESERVED: u64 = 1 << 20;
const ATTRIBUTE: &str = "user.trial";
const VALUE: &[u8] = b"value";

/// Says what the image's own files have become.
pub(crate) fn found(paths: &[&str]) -> anyhow::Result<()> {
    for path in paths {
        match fs::symlink_metadata(path) {
            Ok(found) => {
                let (mode, names) = (found.permissions().mode() & 0o7777, found.nlink());
                if found.is_dir() {
                    println!("{path}: {mode:o}");
                } else {
                    println!("{path}: {mode:o}, {} bytes, {names} names", found.len());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => println!("{path}: none"),
            Err(error) => return Err(error).with_context(|| (*path).to_owned()),
        }
    }
    Ok(())
}

/// Tries them, and says what came of it.
pub(crate) fn tried() -> anyhow::Result<()> {
    for folder in FOLDERS {
        in_folder(folder).with_context(|| folder.to_owned())?;
    }
    Ok(())
}

fn in_folder(folder: &str) -> anyhow::Result<()> {
    let before = statvfs(folder)?;
    ensure!(before.files() > 0, "it has no inodes");
    println!(
        "{folder} has {} of {} bytes",
        free(&before),
        before.blocks() * before.fragment_size()
    );
    let path = Path::new(folder).join("trial");
    let mut file = File::options()
        .create_new(true)
        .read(true)
        .write(true)
        .open(&path)?;
    println!("{folder}: attributes: {}", attributes(&file)?);

    posix_fallocate(&file, 0, RESERVED.cast_signed())?;
    let reserved = free(&before) - free(&statvfs(folder)?);
    println!(
        "{folder}: reserved {} bytes, {} in use",
        file.metadata()?.len(),
        reserved >= RESERVED
    );
    let more = before.blocks() * before.fragment_size() + 1;
    let refused = posix_fallocate(&file, 0, more.cast_signed());
    println!(
        "{folder}: more than there is: {refused:?}, then {} bytes",
        file.metadata()?.len()
    );

    let block = vec![1; 1 << 16];
    let error = loop {
        if let Err(error) = file.write_all(&block) {
            break error;
        }
    };
    println!(
        "{folder}: full: {:?} with {} bytes left",
        error.kind(),
        free(&statvfs(folder)?)
    );
    drop(file);
    fs::remove_file(&path)?;
    let again = free(&statvfs(folder)?) == free(&before);
    println!("{folder}: free again: {again}");
    Ok(())
}

/// What everybody may take, in bytes.
fn free(room: &Statvfs) -> u64 {
    room.blocks_available() * room.fragment_size()
}

/// Whether an attribute of the user's can be set and read.
fn attributes(file: &File) -> anyhow::Result<String> {
    if let Err(error) = fsetxattr(file.as_fd(), ATTRIBUTE, VALUE, XattrFlags::CREATE) {
        return Ok(format!("{:?}", io::Error::from(error).kind()));
    }
    let mut read = [0; 64];
    let length = fgetxattr(file.as_fd(), ATTRIBUTE, &mut read)?;
    ensure!(read.get(..length) == Some(VALUE), "another value was read");
    Ok("kept".to_owned())
}
