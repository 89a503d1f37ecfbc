//! The program `enclave-kms`, which the manifest has put into the image.

use std::path::Path;

use eif::Architecture;
use manifest::Manifest;

use crate::error::BuildError;
use crate::image::Image;
use crate::node::Metadata;
use crate::released;
use crate::spool::SpoolError;
use crate::tree::TreeError;

/// Where it is in the image.
const PLACE: &str = "usr/bin/enclave-kms";
const METADATA: Metadata = Metadata {
    permissions: 0o755,
    uid: 0,
    gid: 0,
};

/// Puts it into the image, if the manifest says so: a file like the image's own, and
/// measured as they are.
pub(crate) fn add(
    manifest: &Manifest,
    program: &Path,
    architecture: Architecture,
    image: &mut Image,
) -> Result<(), BuildError> {
    const ADVICE: &str = "give the enclave-kms of this release with --enclave-kms";
    if !manifest.kms.as_ref().is_some_and(|kms| kms.command) {
        return Ok(());
    }
    let file = released::open(program, architecture, ADVICE)?;
    let content = image.spool.append(file).map_err(|error| match error {
        SpoolError::Source(source) => BuildError::read(program, ADVICE)(source),
        SpoolError::Temporary(source) => BuildError::temporary(source),
        SpoolError::Full => {
            let reason = "the image's layers and enclave-kms have more than four times this when decompressed: make the image smaller, or raise it";
            manifest.invalid(&["enclave", "memory_mib"], reason).into()
        }
    })?;
    let added = image.tree.new_file(PLACE.as_bytes(), METADATA, content);
    added.map_err(|error| {
        let what_to_do = match error {
            TreeError::Taken => ": remove it from the image, or `command` from [kms]",
            _ => "",
        };
        let reason =
            format!("enclave-kms cannot be put at /{PLACE} in the image: {error}{what_to_do}");
        manifest.invalid(&["kms", "command"], reason).into()
    })
}
