//! What takes minutes to build, kept outside the tree by the contents of its recipe.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, bail};
use command_output::errln;

/// Something built once per machine and recipe.
pub(crate) struct Artefact {
    /// Name of its folder in the cache, and for people.
    pub(crate) name: &'static str,
    /// The program that writes the artefact into the folder that it is given
    /// last, and its other arguments.
    recipe: &'static [&'static str],
    /// Files whose contents decide whether it must be built again.
    inputs: &'static [&'static str],
    /// The artefact within its folder.
    output: &'static str,
    /// How long it takes on two cores, for people.
    duration: &'static str,
}

/// The enclave's kernel.
pub(crate) const KERNEL: Artefact = Artefact {
    name: "kernel",
    recipe: &["kernel/build"],
    inputs: &[
        "kernel/build",
        "kernel/memory-is-charged-to-the-task.patch",
        "kernel/vsock-fills-buffers.patch",
        "kernel/vsock-is-privileged.patch",
        "kernel/x86_64.config",
    ],
    output: "bzImage",
    duration: "6 minutes",
};

/// A kernel that somebody else has built, for images that nobody boots.
pub(crate) const PREBUILT_KERNEL: Artefact = Artefact {
    name: "prebuilt-kernel",
    recipe: &["kernel/prebuilt"],
    inputs: &["kernel/prebuilt"],
    output: "bzImage",
    duration: "half a minute",
};

/// QEMU with the `nitro-enclave` machine.
pub(crate) const QEMU: Artefact = Artefact {
    name: "qemu",
    recipe: &["tests/qemu/build"],
    inputs: &["tests/qemu/build", "tests/qemu/virtio-nsm.patch"],
    output: "qemu-system-x86_64",
    duration: "5 minutes",
};

/// The vsock device that QEMU's guests use.
pub(crate) const VSOCK_DEVICE: Artefact = Artefact {
    name: "vhost-device-vsock",
    recipe: &["tests/qemu/build-vsock-device"],
    inputs: &[
        "tests/qemu/build-vsock-device",
        "tests/qemu/vhost-device-vsock.patch",
    ],
    output: "bin/vhost-device-vsock",
    duration: "2 minutes",
};

/// A reader of attestation results that is not ours.
pub(crate) const EAR_VERIFIER: Artefact = Artefact {
    name: "verify-ear",
    recipe: &["tests/ear/build"],
    inputs: &[
        "tests/ear/build",
        "tests/ear/Cargo.toml",
        "tests/ear/Cargo.lock",
        "tests/ear/src/main.rs",
    ],
    output: "bin/verify-ear",
    duration: "2 minutes",
};

/// AWS's SDK for Rust, with a program that calls it.
pub(crate) const SDK_FOR_RUST: Artefact = Artefact {
    name: "sdk-for-rust",
    recipe: &["tests/sdks/rust/build"],
    inputs: &[
        "tests/sdks/rust/build",
        "tests/sdks/rust/Cargo.toml",
        "tests/sdks/rust/Cargo.lock",
        "tests/sdks/rust/src/main.rs",
    ],
    output: "bin/decrypt",
    duration: "5 minutes",
};

/// Go, for the client in that language.
pub(crate) const GO: Artefact = Artefact {
    name: "go",
    recipe: &["xtask/unpack-go"],
    inputs: &["xtask/unpack-go"],
    output: "root/bin/go",
    duration: "10 seconds",
};

/// The builder of fuzz targets.
pub(crate) const CARGO_FUZZ: Artefact = Artefact {
    name: "cargo-fuzz",
    recipe: &["xtask/install-program", "cargo-fuzz@0.13.1"],
    inputs: &["xtask/install-program"],
    output: "bin/cargo-fuzz",
    duration: "1 minute",
};

/// The tests' runner.
pub(crate) const NEXTEST: Artefact = Artefact {
    name: "cargo-nextest",
    recipe: &["xtask/install-nextest"],
    inputs: &["xtask/install-nextest", "xtask/nextest.txt"],
    output: "bin/cargo-nextest",
    duration: "5 seconds",
};

/// The checker of dependencies.
pub(crate) const CARGO_DENY: Artefact = Artefact {
    name: "cargo-deny",
    recipe: &["xtask/install-program", "cargo-deny@0.20.2"],
    inputs: &["xtask/install-program"],
    output: "bin/cargo-deny",
    duration: "3 minutes",
};

impl Artefact {
    /// The artefact's path, if this recipe has been built.
    pub(crate) fn find(&self, workspace: &Path) -> anyhow::Result<Option<PathBuf>> {
        let output = self.folder(workspace)?.join(self.output);
        Ok(output.exists().then_some(output))
    }

    /// The artefact's path; builds it if this recipe has not been built yet.
    pub(crate) fn get(&self, workspace: &Path) -> anyhow::Result<PathBuf> {
        let folder = self.folder(workspace)?;
        let output = folder.join(self.output);
        if output.exists() {
            return Ok(output);
        }
        fs::create_dir_all(folder.parent().unwrap_or(&folder))?;
        let lock = folder.with_extension("lock");
        let lock = File::create(&lock).with_context(|| lock.display().to_string())?;
        lock.lock()
            .context("cannot wait for another build of the same artefact")?;
        if output.exists() {
            return Ok(output);
        }
        self.build(workspace, &folder)?;
        Ok(output)
    }

    fn folder(&self, workspace: &Path) -> anyhow::Result<PathBuf> {
        let mut key = Fnv::new();
        for word in self.recipe {
            key.update(word.as_bytes());
        }
        for input in self.inputs {
            let path = workspace.join(input);
            key.update(&fs::read(&path).with_context(|| path.display().to_string())?);
        }
        Ok(folder()?.join(format!("{}-{key}", self.name)))
    }

    /// Builds beside the folder and renames, so that a folder is always whole.
    fn build(&self, workspace: &Path, folder: &Path) -> anyhow::Result<()> {
        let unfinished = folder.with_extension("unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)?;
        }
        errln!(
            "building {} (about {}, once per machine)",
            self.name,
            self.duration
        );
        let start = Instant::now();
        let (program, arguments) = self.recipe.split_first().context("an empty recipe")?;
        let status = Command::new(workspace.join(program))
            .args(arguments)
            .arg(&unfinished)
            .current_dir("/")
            .status()
            .with_context(|| format!("cannot run {program}"))?;
        if !status.success() {
            bail!("{program} failed ({status}); its messages are above");
        }
        fs::rename(&unfinished, folder)?;
        errln!("built {} in {} s", self.name, start.elapsed().as_secs());
        Ok(())
    }
}

/// The cache's folder.
pub(crate) fn folder() -> anyhow::Result<PathBuf> {
    let variable = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    variable("ENCLAVE_TOOLKIT_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("enclave-toolkit")))
        .or_else(|| variable("HOME").map(|home| home.join(".cache/enclave-toolkit")))
        .context("HOME is not set: set ENCLAVE_TOOLKIT_CACHE to a folder for built artefacts")
}

/// FNV-1a with 64 bits: a name for contents that nobody attacks.
pub(crate) struct Fnv(u64);

impl Fnv {
    pub(crate) const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

impl fmt::Display for Fnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Test vectors of the FNV specification.
    #[test]
    fn fnv_vectors() {
        for (text, hash) in [
            ("", 0xcbf2_9ce4_8422_2325),
            ("a", 0xaf63_dc4c_8601_ec8c),
            ("foobar", 0x8594_4171_f739_67e8),
        ] {
            let mut fnv = Fnv::new();
            fnv.update(text.as_bytes());
            assert_eq!(fnv.0, hash, "{text}");
        }
    }
}
