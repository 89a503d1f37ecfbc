//! The folder with the images that are here.

use std::fs::{self, DirBuilder, File};
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::unistd::geteuid;
use tracing::{debug, info, warn};

use crate::digest::Sha256;
use crate::error::FetchError;
use crate::location::ImageConfig;
use crate::partial::Partial;
use crate::registry::MAX_MANIFEST;

/// Bytes that images take together, unless it is said: a few large ones.
const MAX_BYTES: u64 = 8 << 30;
/// What is left of an image that nobody has asked for again, and manifests.
const MAX_AGE_SECONDS: u64 = 7 * 24 * 60 * 60;

/// The help of the option that names the folder.
pub const IMAGE_DIR_HELP: &str = "The folder of images that were fetched \
[default: for root /var/lib/enclaves/images; otherwise $XDG_CACHE_HOME/enclaves/images]";

/// A folder with images, each named by its digest.
#[derive(Debug, Clone)]
pub struct Cache {
    directory: PathBuf,
    max_bytes: u64,
}

/// Where images are kept unless it is said: for root `/var/lib/enclaves/images`.
fn default_directory() -> PathBuf {
    if geteuid().is_root() {
        return PathBuf::from("/var/lib/enclaves/images");
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    cache
        .filter(|path| path.is_absolute())
        .or_else(home)
        .unwrap_or_else(std::env::temp_dir)
        .join("enclaves/images")
}

impl Cache {
    /// The folder at `directory`, or the default one; it is made when needed.
    pub fn new(directory: Option<PathBuf>) -> Self {
        Self {
            directory: directory.unwrap_or_else(default_directory),
            max_bytes: MAX_BYTES,
        }
    }

    /// The folder.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The image with that digest, if it is here. Its size is looked at: its
    /// digest was right when it got its name, and the image is measured anyway
    /// before it runs.
    pub fn find(&self, sha256: Sha256, size: Option<u64>) -> Option<PathBuf> {
        let path = self.whole(sha256);
        let file = fs::metadata(&path).ok()?;
        if !file.is_file() || size.is_some_and(|size| size != file.len()) {
            return None;
        }
        note_use(&path);
        Some(path)
    }

    /// A registry's manifest that was kept, as it is here: whoever reads it checks
    /// its digest.
    pub(crate) fn manifest(&self, sha256: Sha256) -> Option<Vec<u8>> {
        let path = self.manifest_path(sha256);
        let mut manifest = Vec::new();
        let file = File::open(&path).ok()?;
        file.take(MAX_MANIFEST as u64 + 1)
            .read_to_end(&mut manifest)
            .ok()?;
        note_use(&path);
        Some(manifest)
    }

    /// Keeps a registry's manifest, so that the registry is not asked again which
    /// image it names. Without room for it, it is.
    pub(crate) fn keep_manifest(&self, sha256: Sha256, manifest: &[u8]) {
        let path = self.manifest_path(sha256);
        let kept = self.make().and_then(|()| {
            let new = path.with_extension("manifest.partial");
            fs::write(&new, manifest)
                .and_then(|()| fs::rename(&new, &path))
                .map_err(FetchError::io(&path))
        });
        if let Err(error) = kept {
            debug!(%error, "a manifest was not kept");
        }
    }

    /// Goes on with what is here of the image, once nobody else does.
    pub(crate) async fn begin(
        &self,
        image: &ImageConfig,
        sha256: Sha256,
    ) -> Result<Partial, FetchError> {
        self.make()?;
        let partial = self.directory.join(format!("{sha256}.partial"));
        Partial::open(image, sha256, partial, self.whole(sha256)).await
    }

    /// Removes the images that were not used for longest, until the rest fits,
    /// and parts of images and manifests that are old; never `keep`.
    pub(crate) fn tidy(&self, keep: &Path) {
        let Ok(entries) = fs::read_dir(&self.directory) else {
            return;
        };
        let mut images = Vec::new();
        let mut total = 0;
        for entry in entries.flatten() {
            let path = entry.path();
            let Ok(file) = entry.metadata() else { continue };
            let modified = file.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("eif") => {
                    total += file.len();
                    if path != keep {
                        images.push((modified, file.len(), path));
                    }
                }
                Some("partial" | "manifest") => {
                    let age = modified.elapsed().unwrap_or_default();
                    if age.as_secs() > MAX_AGE_SECONDS {
                        remove(&path);
                    }
                }
                _ => {}
            }
        }
        images.sort();
        for (_, size, path) in images {
            if total <= self.max_bytes {
                return;
            }
            remove(&path);
            total -= size;
        }
    }

    fn make(&self) -> Result<(), FetchError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&self.directory)
            .map_err(FetchError::io(&self.directory))
    }

    fn whole(&self, sha256: Sha256) -> PathBuf {
        self.directory.join(format!("{sha256}.eif"))
    }

    fn manifest_path(&self, sha256: Sha256) -> PathBuf {
        self.directory.join(format!("{sha256}.manifest"))
    }
}

/// The least recently used goes first when there is no room. Where that cannot be
/// noted it goes earlier.
fn note_use(path: &Path) {
    let _ = File::open(path).and_then(|file| file.set_modified(SystemTime::now()));
}

/// A running enclave does not need its image's file any more, except to be taken
/// over by another agent, which then fetches it again.
fn remove(path: &Path) {
    match fs::remove_file(path) {
        Ok(()) => info!(path = %path.display(), "removed an image that was not used for long"),
        Err(error) => warn!(path = %path.display(), %error, "cannot remove an image"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_least_recently_used_images_make_room() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache {
            directory: folder.path().to_owned(),
            max_bytes: 250,
        };
        let paths: Vec<_> = (0..4u8)
            .map(|number| {
                let path = cache.whole(Sha256([number; 32]));
                fs::write(&path, [0; 100]).unwrap();
                let age = Duration::from_secs(1000 - u64::from(number) * 100);
                File::open(&path)
                    .unwrap()
                    .set_modified(SystemTime::now() - age)
                    .unwrap();
                path
            })
            .collect();
        // Used a moment ago.
        assert!(cache.find(Sha256([0; 32]), Some(100)).is_some());
        assert!(cache.find(Sha256([0; 32]), Some(99)).is_none());
        cache.tidy(&paths[1]);
        let left: Vec<_> = paths.iter().map(|path| path.exists()).collect();
        assert_eq!(left, [true, true, false, false]);
    }

    #[test]
    fn parts_of_images_that_nobody_wants_any_more_go() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(Some(folder.path().to_owned()));
        let (old, new) = (
            folder.path().join("a.partial"),
            folder.path().join("b.partial"),
        );
        for path in [&old, &new] {
            fs::write(path, "x").unwrap();
        }
        let age = Duration::from_secs(MAX_AGE_SECONDS + 60);
        let file = File::open(&old).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
        cache.tidy(Path::new("/none"));
        assert!(!old.exists() && new.exists());
    }
}
