//! The image of the test workload.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use measurements::Measurements;

use crate::programs::Programs;

/// The manifest; what the workload does is said by its runtime configuration.
const MANIFEST: &str = r#"
[enclave]
name = "workload"
image = "oci:image"
memory_mib = 256

[workload]
restart = { policy = "on-failure", max = 2, backoff = "10ms..20ms" }
stop_grace = "2s"

[network]
egress = ["peer.example:443"]
ingress = [{ port = 8080, to = 8080 }]
"#;

/// A built image.
#[derive(Debug, Clone)]
pub struct Workload {
    /// The image.
    pub path: PathBuf,
    /// What `image-builder` says that it measures to.
    pub measurements: Measurements,
}

impl Workload {
    /// Builds the image in `folder`.
    pub fn build(programs: &Programs, folder: &Path) -> anyhow::Result<Self> {
        Self::build_with(programs, folder, "")
    }

    /// Builds it with further tables in its manifest.
    pub fn build_with(programs: &Programs, folder: &Path, tables: &str) -> anyhow::Result<Self> {
        Self::build_program(programs, folder, "test-workload", &[], tables)
    }

    /// Builds it with another of the programs as its workload, and with files of
    /// this machine.
    pub fn build_of(
        programs: &Programs,
        folder: &Path,
        program: &str,
        files: &[PathBuf],
    ) -> anyhow::Result<Self> {
        Self::build_program(programs, folder, program, files, "")
    }

    fn build_program(
        programs: &Programs,
        folder: &Path,
        program: &str,
        files: &[PathBuf],
        tables: &str,
    ) -> anyhow::Result<Self> {
        Self::build_from(
            programs,
            folder,
            program,
            files,
            &format!("{MANIFEST}{tables}"),
        )
    }

    /// Builds an image from a manifest, whose container image `oci:image` has one
    /// of the programs, and files of this machine.
    pub fn build_from(
        programs: &Programs,
        folder: &Path,
        program: &str,
        files: &[PathBuf],
        text: &str,
    ) -> anyhow::Result<Self> {
        fs::create_dir_all(folder).context("no folder for the image")?;
        demo::oci::write_with(&folder.join("image"), &programs.path(program), files)?;
        let manifest = folder.join("enclave.toml");
        fs::write(&manifest, text).context("cannot write the manifest")?;
        let path = folder.join("workload.eif");
        let output = Command::new(programs.path("image-builder"))
            .arg("build")
            .arg("--json")
            .arg("--manifest")
            .arg(&manifest)
            .arg("--kernel")
            .arg(&programs.kernel)
            .arg("--output")
            .arg(&path)
            .output()
            .context("cannot run image-builder")?;
        ensure!(
            output.status.success(),
            "image-builder: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let measurements = serde_json::from_slice(&output.stdout)?;
        Ok(Self { path, measurements })
    }
}
