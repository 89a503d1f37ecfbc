//! Where the application's image is, as tools for containers write it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;
use thiserror::Error;

/// Where the application's image is: `KIND:PATH`, and which one of several. In a
/// [`Manifest`](crate::Manifest), relative paths have been joined to the manifest's folder.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ImageReference {
    /// What is at the path.
    pub kind: ImageKind,
    /// The folder or file.
    pub path: PathBuf,
    /// Which image, where there are several; none of a root file system.
    pub choice: Option<ImageChoice>,
    /// The path as it was written.
    written: String,
}

/// What holds an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageKind {
    /// `oci:FOLDER`: an OCI image layout.
    Oci,
    /// `oci-archive:FILE`: a tar archive of one.
    OciArchive,
    /// `docker-archive:FILE`: a tar archive as `docker save` writes it.
    DockerArchive,
    /// `rootfs:FOLDER`: a root file system, without a configuration.
    Rootfs,
    /// `rootfs-archive:FILE`: a tar archive of one.
    RootfsArchive,
}

/// One image of several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageChoice {
    /// `:TAG`, as in `1.2` or `server:1.2`.
    Tag(String),
    /// `@DIGEST`, as in `@sha256:0123…`.
    Digest(String),
}

/// Why a text does not say where an image is.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ImageError {
    /// It has another form.
    #[error("image `{0}` is not understood: write {FORMS}")]
    Form(String),
    /// A root file system is one, not several.
    #[error("image `{0}` chooses one of several, but there is one root file system: write `{1}`")]
    Choice(String, String),
}

const FORMS: &str = "`oci:FOLDER`, `oci-archive:FILE`, `docker-archive:FILE`, `rootfs:FOLDER` or `rootfs-archive:FILE`";

impl ImageKind {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Oci,
        Self::OciArchive,
        Self::DockerArchive,
        Self::Rootfs,
        Self::RootfsArchive,
    ];

    /// What is written before the path.
    pub fn name(self) -> &'static str {
        match self {
            Self::Oci => "oci",
            Self::OciArchive => "oci-archive",
            Self::DockerArchive => "docker-archive",
            Self::Rootfs => "rootfs",
            Self::RootfsArchive => "rootfs-archive",
        }
    }

    /// Whether it is a root file system, which has no configuration.
    pub fn is_rootfs(self) -> bool {
        matches!(self, Self::Rootfs | Self::RootfsArchive)
    }
}

impl ImageReference {
    /// What to write in its place for another kind of thing at the path.
    pub fn of_kind(&self, kind: ImageKind) -> String {
        format!("{kind}:{}", self.written)
    }

    pub(crate) fn join_to(&mut self, folder: &Path) {
        self.path = folder.join(&self.path);
    }
}

impl FromStr for ImageReference {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        let error = || ImageError::Form(text.to_owned());
        let (name, rest) = text.split_once(':').ok_or_else(error)?;
        let kind = ImageKind::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(error)?;
        // A digest has a colon, too, and a path may have an `@`.
        let digest = rest
            .rsplit_once('@')
            .filter(|(_, digest)| digest.starts_with("sha256:") || digest.starts_with("sha512:"));
        let (path, choice) = match (digest, rest.split_once(':')) {
            (Some((path, digest)), _) => (path, Some(ImageChoice::Digest(digest.to_owned()))),
            (None, Some((_, ""))) => return Err(error()),
            (None, Some((path, tag))) => (path, Some(ImageChoice::Tag(tag.to_owned()))),
            (None, None) => (rest, None),
        };
        if path.is_empty() || path.contains('\0') {
            return Err(error());
        }
        if kind.is_rootfs() && choice.is_some() {
            let whole = format!("{name}:{path}");
            return Err(ImageError::Choice(text.to_owned(), whole));
        }
        Ok(Self {
            kind,
            path: path.into(),
            choice,
            written: path.to_owned(),
        })
    }
}

impl TryFrom<String> for ImageReference {
    type Error = ImageError;

    fn try_from(text: String) -> Result<Self, ImageError> {
        text.parse()
    }
}

impl fmt::Display for ImageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_is_a_kind_a_path_and_a_choice() {
        let tag = |text: &str| Some(ImageChoice::Tag(text.to_owned()));
        let digest = |text: &str| Some(ImageChoice::Digest(text.to_owned()));
        for (text, kind, path, choice) in [
            ("oci:payments", ImageKind::Oci, "payments", None),
            ("oci:/srv/a:v1", ImageKind::Oci, "/srv/a", tag("v1")),
            ("oci:a@sha256:00", ImageKind::Oci, "a", digest("sha256:00")),
            ("oci:a@b:c@d", ImageKind::Oci, "a@b", tag("c@d")),
            (
                "oci-archive:a@b@sha512:00",
                ImageKind::OciArchive,
                "a@b",
                digest("sha512:00"),
            ),
            (
                "docker-archive:a.tar:app:1.2",
                ImageKind::DockerArchive,
                "a.tar",
                tag("app:1.2"),
            ),
            ("rootfs:root", ImageKind::Rootfs, "root", None),
            (
                "rootfs-archive:a.tar",
                ImageKind::RootfsArchive,
                "a.tar",
                None,
            ),
        ] {
            let mut image: ImageReference = text.parse().unwrap();
            assert_eq!((image.kind, &image.choice), (kind, &choice), "{text}");
            assert_eq!(image.path, Path::new(path));
            image.join_to(Path::new("deploy"));
            assert_eq!(image.path, Path::new("deploy").join(path));
            assert_eq!(image.of_kind(ImageKind::Oci), format!("oci:{path}"));
        }
    }

    #[test]
    fn image_that_is_not_understood_names_the_forms() {
        for text in [
            "",
            "payments",
            "payments:latest",
            "oci:",
            "oci:a:",
            "oci::a",
            "OCI:a",
            "oci:a\0",
        ] {
            let error = text.parse::<ImageReference>().unwrap_err().to_string();
            assert!(error.contains("`rootfs-archive:FILE`"), "{error}");
        }
        for text in ["rootfs:a:b", "rootfs:a@sha256:00"] {
            let error = text.parse::<ImageReference>().unwrap_err().to_string();
            assert!(error.ends_with("write `rootfs:a`"), "{error}");
        }
    }
}
