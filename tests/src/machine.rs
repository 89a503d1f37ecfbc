//! An emulated machine that runs one program as its first process: for what needs real
//! vsock, on which nobody opens a socket of this machine's, and which a workload of an
//! enclave may not open.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context;
use eif::cpio::{Entry, Kind, Writer};
use tokio::process::Command;

use crate::programs::Programs;

/// Folders with QEMU's firmware.
pub(crate) const FIRMWARE: [&str; 2] = ["/usr/share/seabios", "/usr/share/qemu"];

/// A machine that has not been started.
#[derive(Debug)]
pub struct Machine {
    /// Its files: where each is in the machine, without a leading slash, and here. The
    /// first process is `init`.
    pub files: Vec<(String, PathBuf)>,
    /// Its memory, in MiB.
    pub memory_mib: u32,
    /// How many processors it has.
    pub cpus: u32,
}

impl Machine {
    /// The command that runs it, with what it needs in `folder`. Its console is standard
    /// output; it ends with its first process.
    pub fn command(&self, programs: &Programs, folder: &Path) -> anyhow::Result<Command> {
        let ramdisk = folder.join("ramdisk");
        write_ramdisk(&self.files, &ramdisk)?;
        let mut command = Command::new(&programs.qemu);
        for firmware in FIRMWARE {
            command.arg("-L").arg(firmware);
        }
        command
            .args(["-machine", "microvm", "-accel", "tcg", "-cpu", "max"])
            .args(["-m", &self.memory_mib.to_string()])
            .args(["-smp", &self.cpus.to_string()])
            .args(["-nodefaults", "-no-reboot"])
            .args(["-display", "none", "-serial", "stdio"])
            .args(["-append", "console=ttyS0 panic=-1 reboot=t quiet"])
            .arg("-kernel")
            .arg(&programs.kernel)
            .arg("-initrd")
            .arg(ramdisk)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        Ok(command)
    }
}

/// Writes a ramdisk: where each file is in it, without a leading slash, and here.
pub(crate) fn write_ramdisk(files: &[(String, PathBuf)], path: &Path) -> anyhow::Result<()> {
    let file = File::create(path).with_context(|| path.display().to_string())?;
    let mut writer = Writer::new(BufWriter::new(file));
    let mut folders = Vec::new();
    for (name, file) in files {
        let parents = Path::new(name).ancestors().skip(1);
        let mut missing: Vec<_> = parents
            .filter_map(Path::to_str)
            .filter(|parent| !parent.is_empty() && !folders.iter().any(|made| made == parent))
            .map(str::to_owned)
            .collect();
        missing.reverse();
        for folder in missing {
            let entry = Entry::new(folder.as_str(), Kind::Directory, 0o755, 0);
            writer.append(&entry, [].as_slice())?;
            folders.push(folder);
        }
        let bytes = fs::read(file).with_context(|| file.display().to_string())?;
        let size = bytes.len().try_into()?;
        let entry = Entry::new(name.as_str(), Kind::File, 0o755, size);
        writer.append(&entry, bytes.as_slice())?;
    }
    writer.finish()?;
    Ok(())
}
