//! What can be said about an enclave image.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use eif::SectionKind;
use serde::Serialize;

use crate::contents;
use crate::error::BuildError;
use crate::stored::open_regular;

/// Where the first ramdisk has the init.
const INIT: &[u8] = b"init";

/// An image's description. Serialised with the names that `nitro-cli describe-eif`
/// prints and some of our own, `Init` among them.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Description {
    /// What the image says and what is wrong with it.
    #[serde(flatten)]
    pub image: eif::Description,
    /// The program that the kernel starts, if the first ramdisk has it and can be read.
    pub init: Option<Init>,
}

/// The program that the kernel starts.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Init {
    /// Its digest in hexadecimal.
    pub sha256: String,
    /// Its size in bytes.
    pub size: u64,
}

/// Describes an image, whole or damaged.
pub fn describe_image(path: &Path) -> Result<Description, BuildError> {
    let mut file = open_image(path)?;
    let image = eif::describe(&mut file).map_err(BuildError::enclave_image(path))?;
    let boot = image
        .sections
        .iter()
        .find(|section| section.kind == SectionKind::Ramdisk);
    let init = boot.and_then(|section| {
        let ramdisk = section.contents(&mut file).ok()?;
        let init = contents::files(ramdisk).ok()?.remove(INIT)?;
        Some(Init {
            sha256: init.digest.hex().to_owned(),
            size: init.size,
        })
    });
    Ok(Description { image, init })
}

/// Opens an enclave image.
pub(crate) fn open_image(path: &Path) -> Result<BufReader<File>, BuildError> {
    open_regular(path)
        .map(BufReader::new)
        .map_err(BuildError::read(path, "name an image that is there"))
}
