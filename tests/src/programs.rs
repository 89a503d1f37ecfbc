//! The programs under test.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

/// What runs an enclave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hypervisor {
    /// Namespaces, Unix sockets and the software NSM.
    Sim,
    /// QEMU's `nitro-enclave` machine.
    Qemu,
}

impl Hypervisor {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Sim, Self::Qemu];

    /// The name on `parent-agent`'s command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sim => "sim",
            Self::Qemu => "qemu",
        }
    }
}

/// Where everything is.
#[derive(Debug, Clone)]
pub struct Programs {
    folder: PathBuf,
    /// The enclave's kernel.
    pub kernel: PathBuf,
    /// QEMU.
    pub qemu: PathBuf,
    /// `vhost-device-vsock`.
    pub vsock_device: PathBuf,
}

impl Programs {
    /// Reads the environment that `cargo xtask test` sets.
    pub fn from_environment() -> anyhow::Result<Self> {
        let path = |name: &str| -> anyhow::Result<PathBuf> {
            let path = std::env::var_os(name)
                .map(PathBuf::from)
                .with_context(|| format!("{name} is not set: run `cargo xtask test`"))?;
            ensure!(path.exists(), "{name}: {} does not exist", path.display());
            Ok(path)
        };
        Ok(Self {
            folder: path("ENCLAVE_TEST_PROGRAMS")?,
            kernel: path("ENCLAVE_TEST_KERNEL")?,
            qemu: path("ENCLAVE_TEST_QEMU")?,
            vsock_device: path("ENCLAVE_TEST_VSOCK_DEVICE")?,
        })
    }

    /// A program of this workspace.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The demo, to be told under this hypervisor.
    pub fn demo(&self, hypervisor: Hypervisor) -> Command {
        let mut command = Command::new(self.path("demo"));
        for name in ["image-builder", "parent-agent", "enclave-init"] {
            command.arg(format!("--{name}")).arg(self.path(name));
        }
        command
            .arg("--workload")
            .arg(self.path("price-oracle"))
            .arg("--kernel")
            .arg(&self.kernel)
            .args(self.hypervisor(hypervisor));
        command
    }

    /// The arguments of `parent-agent run` that choose what runs the enclave.
    pub fn hypervisor(&self, hypervisor: Hypervisor) -> Vec<String> {
        let text = |path: &Path| path.display().to_string();
        let mut arguments = vec!["--hypervisor".to_owned(), hypervisor.name().to_owned()];
        if hypervisor == Hypervisor::Qemu {
            arguments.extend([
                "--qemu-binary".to_owned(),
                text(&self.qemu),
                "--vhost-device-vsock".to_owned(),
                text(&self.vsock_device),
            ]);
        }
        arguments
    }
}
