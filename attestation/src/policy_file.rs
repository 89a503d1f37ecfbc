//! Policies and measurements in files.

use std::path::Path;

use crate::image::ImageMeasurements;
use crate::image_text;
use crate::policy::Policy;
use crate::policy_error::PolicyError;
use crate::policy_text::{from_json, from_toml};
use crate::text_file::{Folder, read_as, read_text};

impl Policy {
    /// The policy in a file, JSON if its name ends in `.json`, TOML otherwise.
    /// Files that it names are looked for beside it. Every file has at most
    /// [`MAX_POLICY_FILE`](crate::MAX_POLICY_FILE) bytes.
    pub fn read(path: &Path) -> Result<Self, PolicyError> {
        let in_file = |error: PolicyError| match error {
            PolicyError::File { .. } => error,
            error => PolicyError::File {
                file: path.display().to_string(),
                reason: error.to_string(),
            },
        };
        let text = read_text(path)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let file = if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            from_json(&text)
        } else {
            from_toml(&text)
        };
        file.and_then(|file| file.build(Folder(Some(folder))))
            .map_err(in_file)
    }
}

/// The measurements in a file that image-builder, nitro-cli or nitro-tpm-pcr-compute wrote,
/// of at most [`MAX_POLICY_FILE`](crate::MAX_POLICY_FILE) bytes.
pub fn read_measurements(path: &Path) -> Result<ImageMeasurements, PolicyError> {
    read_as(path, image_text::measurements)
}
