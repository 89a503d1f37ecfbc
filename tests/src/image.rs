//! The image of the test workload.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::UNIX_EPOCH;

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
user = "app"
restart = { policy = "on-failure", max = 2, backoff = "10ms..20ms" }
stop_grace = "2s"

[network]
egress = ["peer.example:443", "192.0.2.7:443", "192.0.2.7:123/udp"]
proxy = true
ingress = [{ port = 8080, to = 8080 }]
"#;

/// The image's name in its folder.
const FILE: &str = "workload.eif";

/// A built image.
#[derive(Debug, Clone)]
pub struct Workload {
    /// The image.
    pub path: PathBuf,
    /// What `image-builder` says that it measures to.
    pub measurements: Measurements,
}

/// What an image is signed with.
#[derive(Debug, Clone)]
pub struct Signing {
    /// The private key, as PEM.
    pub key: PathBuf,
    /// Its certificate, as PEM.
    pub certificate: PathBuf,
}

impl Workload {
    /// The image in `folder` that tests share, each of which is a process of its own:
    /// the first builds it with `build`, and so does the first after a program has
    /// changed.
    pub fn shared(
        programs: &Programs,
        folder: &Path,
        program: &str,
        build: impl FnOnce() -> anyhow::Result<Self>,
    ) -> anyhow::Result<Self> {
        fs::create_dir_all(folder).context("no folder for the image")?;
        let lock = File::create(folder.join("lock"))?;
        lock.lock()
            .context("cannot wait for another test that builds the image")?;
        let now = Self::sources(programs, program)?;
        // Written last: an image without it is not whole.
        let (stamp, described) = (folder.join("sources"), folder.join("measurements.json"));
        if fs::read_to_string(&stamp).is_ok_and(|before| before == now) {
            return Ok(Self {
                path: folder.join(FILE),
                measurements: serde_json::from_slice(&fs::read(&described)?)?,
            });
        }
        let image = build()?;
        fs::write(&described, serde_json::to_vec(&image.measurements)?)?;
        fs::write(&stamp, now)?;
        Ok(image)
    }

    /// What tells one set of programs from another: their sizes and times.
    fn sources(programs: &Programs, program: &str) -> anyhow::Result<String> {
        let mut text = String::new();
        let built = ["image-builder", "enclave-init", program].map(|name| programs.path(name));
        // The tests themselves hold the manifests.
        let tests = std::env::current_exe()?;
        for path in built.iter().chain([&programs.kernel, &tests]) {
            let metadata = fs::metadata(path).with_context(|| path.display().to_string())?;
            let time = metadata.modified()?.duration_since(UNIX_EPOCH)?;
            let (size, time) = (metadata.len(), time.as_nanos());
            writeln!(text, "{} {size} {time}", path.display())?;
        }
        Ok(text)
    }

    /// Builds the image in `folder`.
    pub fn build(programs: &Programs, folder: &Path) -> anyhow::Result<Self> {
        Self::build_with(programs, folder, "")
    }

    /// Builds it with further tables in its manifest.
    pub fn build_with(programs: &Programs, folder: &Path, tables: &str) -> anyhow::Result<Self> {
        let text = format!("{MANIFEST}{tables}");
        Self::build_from(programs, folder, "test-workload", &[], &text)
    }

    /// The same, signed.
    pub fn build_signed(
        programs: &Programs,
        folder: &Path,
        tables: &str,
        signing: &Signing,
    ) -> anyhow::Result<Self> {
        let text = format!("{MANIFEST}{tables}");
        Self::run_builder(programs, folder, "test-workload", &[], &text, Some(signing))
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
        Self::run_builder(programs, folder, program, files, text, None)
    }

    fn run_builder(
        programs: &Programs,
        folder: &Path,
        program: &str,
        files: &[PathBuf],
        text: &str,
        signing: Option<&Signing>,
    ) -> anyhow::Result<Self> {
        fs::create_dir_all(folder).context("no folder for the image")?;
        demo::oci::write_with(&folder.join("image"), &programs.path(program), files)?;
        let manifest = folder.join("enclave.toml");
        fs::write(&manifest, text).context("cannot write the manifest")?;
        let path = folder.join(FILE);
        let mut builder = Command::new(programs.path("image-builder"));
        builder.arg("build");
        if let Some(Signing { key, certificate }) = signing {
            builder.arg("--signing-key").arg(key);
            builder.arg("--signing-certificate").arg(certificate);
        }
        let output = builder
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
