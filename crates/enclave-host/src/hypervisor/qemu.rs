//! An enclave in QEMU's `nitro-enclave` machine, which reads the EIF itself,
//! measures it and has an NSM. Its vsock device is the separate program
//! `vhost-device-vsock`, on whose Unix sockets the agent listens and connects.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use link::{Endpoint, port};
use manifest::{Cpus, EnclaveName, MemoryMib};

use super::{
    Hypervisor, HypervisorError, Listen, Started, VSOCK_FOLDER, find_program, make_scratch_folder,
    make_vsock_folder, wait_until_listening,
};
use crate::guard::{Guard, Process};

/// The enclave's context identifier. Each enclave has a vsock device, and so a
/// network of identifiers, of its own.
const CID: u32 = 4;
const VHOST: &str = "vhost-device-vsock";

/// How QEMU executes the enclave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Accelerator {
    /// In software.
    Tcg,
    /// With the host's hardware, through /dev/kvm.
    Kvm,
}

/// What a virtual machine is started with.
#[derive(Debug)]
pub struct QemuOptions {
    /// The enclave's name.
    pub name: EnclaveName,
    /// The image.
    pub image: PathBuf,
    /// Virtual CPUs.
    pub cpus: Cpus,
    /// Memory.
    pub memory: MemoryMib,
    /// QEMU.
    pub binary: PathBuf,
    /// Folders with its firmware.
    pub firmware: Vec<PathBuf>,
    /// How it executes the enclave.
    pub accelerator: Accelerator,
    /// The vsock device.
    pub vhost_device_vsock: PathBuf,
}

/// A virtual machine.
#[derive(Debug)]
pub struct Qemu {
    options: QemuOptions,
    directory: PathBuf,
    sockets: PathBuf,
}

impl Qemu {
    /// A machine in the enclave's folder.
    pub fn new(options: QemuOptions, directory: &Path) -> Self {
        Self {
            options,
            directory: directory.to_owned(),
            sockets: directory.join(VSOCK_FOLDER),
        }
    }

    fn accelerator(&self) -> &'static str {
        match self.options.accelerator {
            Accelerator::Tcg => "tcg",
            Accelerator::Kvm => "kvm",
        }
    }

    /// Where the device listens for QEMU.
    fn device(&self) -> PathBuf {
        self.sockets.join("device")
    }

    /// Where the device listens for us, and the stem of where we listen.
    fn guest(&self) -> PathBuf {
        self.sockets.join("guest")
    }

    fn vhost(&self) -> Process {
        Process {
            name: VHOST.to_owned(),
            program: self.options.vhost_device_vsock.clone(),
            arguments: vec![
                format!("--guest-cid={CID}"),
                format!("--socket={}", self.device().display()),
                format!("--uds-path={}", self.guest().display()),
            ],
            inherits_environment: true,
            temporary: None,
        }
    }

    /// QEMU takes the image apart into temporary files, which it leaves behind
    /// when it is killed.
    fn qemu(&self, temporary: PathBuf) -> Process {
        let QemuOptions {
            name,
            image,
            cpus,
            memory,
            ..
        } = &self.options;
        // QEMU ends a value at a comma, unless it is doubled.
        let device = self.device().display().to_string().replace(',', ",,");
        let mut arguments = vec![
            "-M".to_owned(),
            format!("nitro-enclave,vsock=vsock,id={name}"),
            "-kernel".to_owned(),
            image.display().to_string(),
            "-m".to_owned(),
            format!("{memory}M"),
            "-accel".to_owned(),
            self.accelerator().to_owned(),
            "-smp".to_owned(),
            cpus.to_string(),
            "-nographic".to_owned(),
            "-no-reboot".to_owned(),
            "-chardev".to_owned(),
            format!("socket,id=vsock,path={device}"),
        ];
        for folder in &self.options.firmware {
            arguments.push("-L".to_owned());
            arguments.push(folder.display().to_string());
        }
        Process {
            name: "QEMU".to_owned(),
            program: self.options.binary.clone(),
            arguments,
            inherits_environment: true,
            temporary: Some(temporary),
        }
    }
}

impl Hypervisor for Qemu {
    const NAME: &'static str = "qemu";
    const LIMITS_MEMORY: bool = true;

    fn options(&self) -> Vec<(&'static str, String)> {
        let QemuOptions {
            cpus,
            memory,
            binary,
            vhost_device_vsock,
            ..
        } = &self.options;
        vec![
            ("--cpus", cpus.to_string()),
            ("--memory-mib", memory.to_string()),
            ("--qemu-binary", binary.display().to_string()),
            ("--qemu-accel", self.accelerator().to_owned()),
            (
                "--vhost-device-vsock",
                vhost_device_vsock.display().to_string(),
            ),
        ]
    }

    fn listen(&self) -> Listen {
        let guest = self.guest();
        let socket = |port| Endpoint::Unix {
            path: PathBuf::from(format!("{}_{port}", guest.display())),
        };
        Listen {
            agent: socket(port::AGENT),
            heartbeat: socket(port::HEARTBEAT),
        }
    }

    fn nsm_root(&self) -> Option<&Path> {
        None
    }

    fn prepare(&mut self) -> Result<(), HypervisorError> {
        self.options.binary = find_program(
            &self.options.binary,
            "install a QEMU that has the nitro-enclave machine (10.0 with libcbor), or name it with --qemu-binary",
        )?;
        self.options.vhost_device_vsock = find_program(
            &self.options.vhost_device_vsock,
            "build it as docs/sim-and-qemu.md says, or name it with --vhost-device-vsock",
        )?;
        make_vsock_folder(&self.sockets)
    }

    async fn start(&mut self, guard: &mut Guard) -> Result<(), HypervisorError> {
        guard.spawn(self.vhost()).await?;
        // QEMU tries to connect only once.
        wait_until_listening(VHOST, &self.device(), guard).await?;
        let temporary = make_scratch_folder(&self.directory, &self.options.name)?;
        guard.spawn(self.qemu(temporary)).await?;
        Ok(())
    }

    fn started(&self) -> Started {
        Started {
            cid: Some(CID),
            init: Endpoint::UnixConnect {
                path: self.guest(),
                port: port::INIT,
            },
        }
    }

    async fn finish(self) {}
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn options(image: &str) -> QemuOptions {
        QemuOptions {
            name: "test".parse().unwrap(),
            image: image.into(),
            cpus: Cpus::DEFAULT,
            memory: MemoryMib::DEFAULT,
            binary: "sh".into(),
            firmware: vec!["/usr/share/qemu".into()],
            accelerator: Accelerator::Tcg,
            vhost_device_vsock: "/bin/sh".into(),
        }
    }

    #[test]
    fn commas_in_paths_reach_qemu() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("a,b");
        fs::create_dir(&directory).unwrap();
        let qemu = Qemu::new(options("/x.eif"), &directory);
        let arguments = qemu.qemu(PathBuf::new()).arguments.join(" ");
        assert!(arguments.contains("a,,b/vsock/device"), "{arguments}");
        assert!(
            arguments.contains("-m 1024M -accel tcg -smp 2"),
            "{arguments}"
        );
        assert!(arguments.ends_with("-L /usr/share/qemu"), "{arguments}");
    }

    #[test]
    fn missing_programs_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut absent = options("/x.eif");
        absent.binary = "no-such-qemu".into();
        let mut qemu = Qemu::new(absent, folder.path());
        let error = qemu.prepare().unwrap_err().to_string();
        assert!(
            error.starts_with("`no-such-qemu` is not on PATH: install"),
            "{error}"
        );
        let mut absent = options("/x.eif");
        absent.vhost_device_vsock = folder.path().join("not-executable");
        fs::write(&absent.vhost_device_vsock, "").unwrap();
        let mut qemu = Qemu::new(absent, folder.path());
        let error = qemu.prepare().unwrap_err().to_string();
        assert!(error.contains("is not an executable file"), "{error}");
        assert!(error.contains("docs/sim-and-qemu.md"), "{error}");
    }
}
