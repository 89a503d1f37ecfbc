//! Programs of a release that go into images beside the container image's own.

use std::fs::File;
use std::path::Path;

use eif::Architecture;

use crate::elf::{Elf, HEAD_BYTES};
use crate::error::BuildError;
use crate::stored::{open_regular, read_head};

/// Opens a static program for this processor; `advice` says what to give instead of
/// another file.
pub(crate) fn open(
    path: &Path,
    architecture: Architecture,
    advice: &'static str,
) -> Result<File, BuildError> {
    let mut file = open_regular(path).map_err(BuildError::read(path, advice))?;
    let head = read_head(&mut file, HEAD_BYTES).map_err(BuildError::read(path, advice))?;
    let wrong = match Elf::parse(&head) {
        None => "it is not a 64-bit ELF program".to_owned(),
        Some(elf) if elf.architecture != Some(architecture) => {
            format!("it is not built for the kernel's processor, {architecture}")
        }
        Some(elf) if elf.interpreter.is_some() => {
            "it is not static, and what it loads is not in the image with it".to_owned()
        }
        Some(_) => return Ok(file),
    };
    Err(BuildError::Input {
        path: path.to_owned(),
        reason: format!("{wrong}: {advice}"),
    })
}
