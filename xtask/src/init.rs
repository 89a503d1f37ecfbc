//! PID 1, whose bytes are measured with every image: they depend on its source, its
//! lock file and the toolchain, and on nothing else.
//!
//! It has a profile and a cargo call of its own, since the features of a dependency
//! are what all packages of a call ask for together. The paths of dependencies' sources,
//! which the compiler writes into a program, are replaced; those of the workspace are
//! relative already.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::{fuzz, target};

/// The package, and its main program.
pub(crate) const PACKAGE: &str = "enclave-init";
/// The package's other program, which images get on request.
pub(crate) const COMMAND: &str = "enclave-kms";
/// All of its programs.
pub(crate) const PROGRAMS: [&str; 2] = [PACKAGE, COMMAND];
const PROFILE: &str = "init";
/// What stands in the program in place of the folder with the sources of dependencies.
const CRATES: &str = "/crates";
/// Between flags in `CARGO_ENCODED_RUSTFLAGS`.
const SEPARATOR: &str = "\x1f";

/// Where a build happens.
pub(crate) struct Place {
    workspace: PathBuf,
    /// Cargo's home, with the sources of dependencies.
    cargo_home: PathBuf,
    target: PathBuf,
    /// The user's home.
    home: Option<PathBuf>,
}

/// Builds programs of the package in the workspace, and gives their folder.
pub(crate) fn build(workspace: &Path, programs: &[&str]) -> anyhow::Result<PathBuf> {
    Place::here(workspace)?.build(programs)
}

impl Place {
    /// The workspace as it is.
    pub(crate) fn here(workspace: &Path) -> anyhow::Result<Self> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let home = variable("HOME").map(PathBuf::from);
        let cargo_home = variable("CARGO_HOME").map(PathBuf::from);
        Ok(Self {
            workspace: workspace.to_owned(),
            cargo_home: cargo_home
                .or_else(|| Some(home.as_ref()?.join(".cargo")))
                .context("neither CARGO_HOME nor HOME is set")?,
            target: target::folder()?,
            home: None,
        })
    }

    /// A copy in another folder. Of the crates that were downloaded there is only
    /// another name.
    pub(crate) fn elsewhere(&self, folder: &Path) -> anyhow::Result<Self> {
        let place = Self {
            workspace: folder.join("a copy"),
            cargo_home: folder.join("home/another-cargo"),
            target: folder.join("compiled"),
            home: Some(folder.join("home")),
        };
        fs::create_dir_all(&place.workspace).with_context(|| folder.display().to_string())?;
        fs::create_dir_all(&place.cargo_home).with_context(|| folder.display().to_string())?;
        for name in ["registry", "config.toml"] {
            let original = self.cargo_home.join(name);
            if original.exists() {
                std::os::unix::fs::symlink(original, place.cargo_home.join(name))?;
            }
        }
        let listed = Command::new("git")
            .args([
                "ls-files",
                "--cached",
                "--others",
                "--exclude-standard",
                "-z",
            ])
            .current_dir(&self.workspace)
            .output()
            .context("cannot run git")?;
        ensure!(
            listed.status.success(),
            "git cannot list the workspace's files: {}",
            String::from_utf8_lossy(&listed.stderr)
        );
        for name in String::from_utf8(listed.stdout)?.split_terminator('\0') {
            let (from, to) = (self.workspace.join(name), place.workspace.join(name));
            if !from.is_file() {
                continue;
            }
            fs::create_dir_all(to.parent().context("a file without a folder")?)?;
            fs::copy(&from, &to).with_context(|| from.display().to_string())?;
        }
        Ok(place)
    }

    /// Builds programs of the package, and gives their folder.
    pub(crate) fn build(&self, programs: &[&str]) -> anyhow::Result<PathBuf> {
        let triple = fuzz::host_triple()?;
        // First, so that the folders that are replaced are there.
        self.cargo(&["fetch", "--locked", "--target", &triple], &[])?;
        let mut build = vec!["build", "--locked", "--profile", PROFILE];
        build.extend(["--package", PACKAGE]);
        build.extend(programs.iter().flat_map(|name| ["--bin", name]));
        let flags = [("CARGO_ENCODED_RUSTFLAGS", self.flags()?)];
        self.cargo(&build, &flags)?;
        Ok(self.target.join(triple).join(PROFILE))
    }

    /// The compiler's flags, in place of those of the workspace's configuration. They
    /// name no folder of the workspace: with those, another clone that shares its target
    /// folder would compile everything anew.
    fn flags(&self) -> anyhow::Result<OsString> {
        let mut flags = OsString::from("-Ctarget-feature=+crt-static");
        // A folder for each registry, by its address, which is not the same everywhere.
        let sources = self.cargo_home.join("registry/src");
        let mut registries = fs::read_dir(&sources)
            .and_then(|entries| {
                entries
                    .map(|entry| Ok(entry?.path()))
                    .collect::<Result<Vec<_>, _>>()
            })
            .with_context(|| sources.display().to_string())?;
        registries.sort();
        for registry in registries {
            flags.push(SEPARATOR);
            flags.push("--remap-path-prefix=");
            flags.push(registry);
            flags.push("=");
            flags.push(CRATES);
        }
        Ok(flags)
    }

    fn cargo(&self, arguments: &[&str], variables: &[(&str, OsString)]) -> anyhow::Result<()> {
        let mut command = Command::new("cargo");
        command
            .args(arguments)
            .current_dir(&self.workspace)
            .env("CARGO_HOME", &self.cargo_home)
            .env("CARGO_TARGET_DIR", &self.target)
            .envs(variables.iter().map(|(name, value)| (name, value)));
        if let Some(home) = &self.home {
            // The toolchains are in the home that is left.
            if let (None, Some(real)) = (std::env::var_os("RUSTUP_HOME"), std::env::var_os("HOME"))
            {
                command.env("RUSTUP_HOME", Path::new(&real).join(".rustup"));
            }
            command.env("HOME", home);
        }
        let status = command.status().context("cannot run cargo")?;
        ensure!(
            status.success(),
            "cargo {} failed in {}; its messages are above",
            arguments.join(" "),
            self.workspace.display()
        );
        Ok(())
    }
}
