//! An image that is not whole yet.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use nix::sys::statvfs::statvfs;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::MAX_BYTES;
use crate::digest::Sha256;
use crate::error::FetchError;
use crate::location::{ImageConfig, Location};

/// How often it is looked whether another process is done with the image.
const LOCK_POLL: Duration = Duration::from_millis(200);
/// Bytes that are hashed at a time.
const CHUNK: usize = 1024 * 1024;

/// The beginning of an image, which grows at its end alone.
pub(crate) struct Partial {
    pub(crate) location: Location,
    pub(crate) size: Option<u64>,
    sha256: Sha256,
    path: PathBuf,
    whole: PathBuf,
    length: u64,
    /// None only while it is being written.
    content: Option<Content>,
}

/// The file, locked while it is ours, and what its bytes hash to.
struct Content {
    file: File,
    hash: Context,
}

impl Partial {
    /// Takes up what is there, once no other process has it.
    pub(crate) async fn open(
        image: &ImageConfig,
        sha256: Sha256,
        path: PathBuf,
        whole: PathBuf,
    ) -> Result<Self, FetchError> {
        let file = lock(&path).await?;
        let place = path.clone();
        let (mut content, length) =
            blocking(move || Content::read_again(file).map_err(FetchError::io(&place))).await?;
        let mut kept = length;
        if image.size.is_some_and(|size| length > size) {
            content = content.emptied().map_err(FetchError::io(&path))?;
            kept = 0;
        }
        let partial = Self {
            location: image.location.clone(),
            size: image.size,
            sha256,
            path,
            whole,
            length: kept,
            content: Some(content),
        };
        if partial.length > 0 {
            info!(
                image = %partial.location,
                bytes = partial.length,
                "continues with a partly fetched image"
            );
        }
        Ok(partial)
    }

    /// Bytes that are here.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Takes note of the size that the other side names, and makes sure that
    /// there is room.
    pub(crate) fn expect(&mut self, total: u64) -> Result<(), FetchError> {
        if let Some(wanted) = self.size
            && wanted != total
        {
            return Err(FetchError::Size {
                location: self.location.to_string(),
                found: total,
                wanted,
            });
        }
        if total > MAX_BYTES {
            return Err(FetchError::TooLarge {
                location: self.location.to_string(),
            });
        }
        self.size = Some(total);
        let needed = total.saturating_sub(self.length);
        let free = self.free();
        if needed > free {
            return Err(self.full(needed, free));
        }
        Ok(())
    }

    /// Adds bytes at the end.
    pub(crate) async fn append(&mut self, bytes: Bytes) -> Result<(), FetchError> {
        let length = self.length + bytes.len() as u64;
        if let Some(wanted) = self.size
            && length > wanted
        {
            return Err(FetchError::Size {
                location: self.location.to_string(),
                found: length,
                wanted,
            });
        }
        if length > MAX_BYTES {
            return Err(FetchError::TooLarge {
                location: self.location.to_string(),
            });
        }
        let (mut content, end) = (self.content()?, self.length);
        let (content, written) = blocking(move || {
            let written = content.append(&bytes, end);
            Ok((content, written))
        })
        .await?;
        self.content = Some(content);
        if let Err(error) = written {
            if matches!(
                error.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            ) {
                let needed = self.size.unwrap_or(length).saturating_sub(self.length);
                return Err(self.full(needed, self.free()));
            }
            return Err(FetchError::io(&self.path)(error));
        }
        self.length = length;
        Ok(())
    }

    /// Throws away what is here.
    pub(crate) fn restart(&mut self) -> Result<(), FetchError> {
        let emptied = self.content()?.emptied();
        self.content = Some(emptied.map_err(FetchError::io(&self.path))?);
        self.length = 0;
        Ok(())
    }

    fn content(&mut self) -> Result<Content, FetchError> {
        let lost = || FetchError::io(&self.path)(io::Error::other("a write was given up"));
        self.content.take().ok_or_else(lost)
    }

    /// Gives the image its name, if it is the right one.
    pub(crate) async fn finish(self) -> Result<PathBuf, FetchError> {
        blocking(move || self.finish_now()).await
    }

    fn finish_now(mut self) -> Result<PathBuf, FetchError> {
        let Content { file, hash } = self.content()?;
        let location = self.location.to_string();
        if let Some(wanted) = self.size
            && wanted != self.length
        {
            return Err(FetchError::Size {
                location,
                found: self.length,
                wanted,
            });
        }
        let found = digest(hash)?;
        if found != self.sha256 {
            // It would never become right.
            if let Err(error) = fs::remove_file(&self.path) {
                warn!(path = %self.path.display(), %error, "cannot remove a wrong image");
            }
            return Err(FetchError::Digest {
                location,
                found,
                wanted: self.sha256,
            });
        }
        file.sync_all()
            .and_then(|()| fs::rename(&self.path, &self.whole))
            .map_err(FetchError::io(&self.path))?;
        Ok(self.whole)
    }

    fn free(&self) -> u64 {
        statvfs(&self.path).map_or(u64::MAX, |found| {
            found
                .blocks_available()
                .saturating_mul(found.fragment_size())
        })
    }

    fn full(&self, needed: u64, free: u64) -> FetchError {
        FetchError::DiskFull {
            location: self.location.to_string(),
            needed,
            free,
            directory: self.path.parent().unwrap_or(&self.path).to_owned(),
        }
    }
}

impl Content {
    /// Hashes what an earlier attempt has left, and says how much that is.
    fn read_again(mut file: File) -> io::Result<(Self, u64)> {
        let mut hash = Context::new(&SHA256);
        file.rewind()?;
        let length = hash_rest(&mut file, &mut hash)?;
        Ok((Self { file, hash }, length))
    }

    fn append(&mut self, bytes: &[u8], end: u64) -> io::Result<()> {
        if let Err(error) = self.file.write_all(bytes) {
            // What was written of it in part must not stay.
            let _ = self.file.set_len(end);
            let _ = self.file.seek(io::SeekFrom::Start(end));
            return Err(error);
        }
        self.hash.update(bytes);
        Ok(())
    }

    fn emptied(mut self) -> io::Result<Self> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.hash = Context::new(&SHA256);
        Ok(self)
    }
}

/// Hashes a file to its end, and says how many bytes that were.
fn hash_rest(file: &mut File, hash: &mut Context) -> io::Result<u64> {
    let mut chunk = vec![0; CHUNK];
    let mut length = 0;
    loop {
        let count = file.read(&mut chunk)?;
        let Some(bytes) = chunk.get(..count).filter(|bytes| !bytes.is_empty()) else {
            return Ok(length);
        };
        hash.update(bytes);
        length += bytes.len() as u64;
    }
}

/// Checks size and digest of a file that is used where it is.
pub(crate) async fn check_file(
    path: &Path,
    image: &ImageConfig,
    wanted: Sha256,
) -> Result<(), FetchError> {
    let (path, size) = (path.to_owned(), image.size);
    blocking(move || {
        let failed = |source| FetchError::File {
            path: path.clone(),
            source,
        };
        let location = path.display().to_string();
        let mut file = File::open(&path).map_err(failed)?;
        let found = file.metadata().map_err(failed)?.len();
        if let Some(wanted) = size
            && wanted != found
        {
            return Err(FetchError::Size {
                location,
                found,
                wanted,
            });
        }
        let mut hash = Context::new(&SHA256);
        hash_rest(&mut file, &mut hash).map_err(failed)?;
        let found = digest(hash)?;
        if found != wanted {
            // It is somebody's file, and stays.
            return Err(FetchError::Digest {
                location,
                found,
                wanted,
            });
        }
        Ok(())
    })
    .await
}

/// Opens and locks the file; waits while another process has it.
async fn lock(path: &Path) -> Result<File, FetchError> {
    let mut has_waited = false;
    loop {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(path)
            .map_err(FetchError::io(path))?;
        match file.try_lock() {
            // Whoever had it may have renamed or removed it.
            Ok(()) if is_at(path, &file) => return Ok(file),
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                if !has_waited {
                    info!(path = %path.display(), "waits for another process that fetches the same image");
                    has_waited = true;
                }
                sleep(LOCK_POLL).await;
            }
            Err(TryLockError::Error(error)) => return Err(FetchError::io(path)(error)),
        }
    }
}

fn is_at(path: &Path, file: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (fs::metadata(path), file.metadata()) {
        (Ok(there), Ok(here)) => there.ino() == here.ino() && there.dev() == here.dev(),
        _ => false,
    }
}

fn digest(hash: Context) -> Result<Sha256, FetchError> {
    let digest = hash.finish();
    let bytes = digest.as_ref().try_into().map_err(io::Error::other);
    Ok(Sha256(bytes.map_err(FetchError::io(Path::new("SHA-256")))?))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FetchError> + Send + 'static,
) -> Result<T, FetchError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(FetchError::io(Path::new("the image"))(error.into())),
    }
}
