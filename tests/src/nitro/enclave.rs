//! Enclaves that the device starts: QEMU's `nitro-enclave` machine.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::machine::FIRMWARE;
use crate::programs::Programs;

/// How long a socket may take until somebody listens on it.
const LISTEN: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);

/// A machine that runs. It ends when it is dropped.
#[derive(Debug)]
pub(super) struct Enclave(Child);

impl Enclave {
    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }

    pub(super) fn kill(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Enclave {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What starts them.
#[derive(Debug)]
pub(super) struct Enclaves {
    programs: Programs,
    /// Where their files are.
    folder: PathBuf,
    /// The sockets of the vsock device, by context identifier.
    sockets: BTreeMap<u32, PathBuf>,
    count: usize,
}

impl Enclaves {
    pub(super) fn new(programs: &Programs, folder: &Path, sockets: BTreeMap<u32, PathBuf>) -> Self {
        Self {
            programs: programs.clone(),
            folder: folder.to_owned(),
            sockets,
            count: 0,
        }
    }

    pub(super) fn start(
        &mut self,
        cid: u32,
        image: &[u8],
        memory_mib: u64,
        cpus: usize,
    ) -> anyhow::Result<Enclave> {
        let socket = self.sockets.get(&cid);
        let socket = socket.with_context(|| format!("nobody expects the identifier {cid}"))?;
        // It connects only once; and an enclave before it may just have gone.
        wait_for_listener(socket)?;
        self.count += 1;
        let folder = self.folder.join(format!("enclave-{}", self.count));
        fs::create_dir(&folder)?;
        let file = folder.join("image.eif");
        fs::write(&file, image)?;
        let console = File::create(folder.join("console"))?;
        let mut command = Command::new(&self.programs.qemu);
        for firmware in FIRMWARE {
            command.arg("-L").arg(firmware);
        }
        let child = command
            .args(["-M", "nitro-enclave,vsock=vsock,id=test", "-kernel"])
            .arg(&file)
            .args(["-accel", "tcg,thread=single"])
            .args(["-m", &format!("{memory_mib}M"), "-smp", &cpus.to_string()])
            .args(["-nographic", "-no-reboot", "-chardev"])
            .arg(format!("socket,id=vsock,path={}", socket.display()))
            // It takes the image apart into files, which it leaves there when it is killed.
            .env("TMPDIR", &folder)
            .stdin(Stdio::null())
            .stdout(console.try_clone()?)
            .stderr(console)
            .spawn()
            .context("cannot run QEMU")?;
        Ok(Enclave(child))
    }
}

/// Waits until a process listens on a Unix socket.
pub(super) fn wait_for_listener(path: &Path) -> anyhow::Result<()> {
    /// The flag of a listening socket in `/proc/net/unix` (`__SO_ACCEPTCON`).
    const LISTENING: &str = "00010000";
    let start = Instant::now();
    let name = format!(" {}", path.display());
    loop {
        let table = fs::read_to_string("/proc/net/unix")?;
        // Num: RefCount Protocol Flags Type St Inode Path
        let mut lines = table.lines().filter_map(|line| line.strip_suffix(&name));
        if lines.any(|line| line.split_ascii_whitespace().nth(3) == Some(LISTENING)) {
            return Ok(());
        }
        ensure!(
            start.elapsed() < LISTEN,
            "nobody listens on {}",
            path.display()
        );
        thread::park_timeout(POLL);
    }
}
