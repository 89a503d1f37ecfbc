//! Taking everything of one kind, and keeping it.

use std::fs::File;
use std::io::{Write, stdout};
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;

use crate::raw::call;
use crate::server::wait_for_ever;
use crate::ways_out::child;

const MIB: usize = 1024 * 1024;
/// A bound for what has none in a machine without limits.
const MANY: usize = 100_000;
const PAUSE: Duration = Duration::from_millis(1);

/// Says how much there was, to the client and in the log.
fn tell(count: usize, why: Errno) {
    eprintln!("held {count}");
    println!("full {count} {why:?}");
    // The client waits for the line.
    let _ = stdout().flush();
}

/// The same, and keeps it.
pub(crate) fn keep(count: usize, why: Errno) -> ! {
    tell(count, why);
    wait_for_ever()
}

pub(crate) fn memory() -> anyhow::Result<()> {
    println!("begun");
    let mut taken = Vec::new();
    loop {
        // Written, so that there are pages behind it.
        taken.push(vec![1_u8; MIB]);
        if taken.len() > MANY {
            anyhow::bail!("there is no end of memory");
        }
    }
}

pub(crate) fn fill(folder: &str) -> anyhow::Result<()> {
    let mut file = File::create(Path::new(folder).join("hoard"))?;
    let block = vec![1; MIB];
    for count in 0..MANY {
        if let Err(error) = file.write_all(&block) {
            keep(count, Errno::from_raw(error.raw_os_error().unwrap_or(0)));
        }
    }
    anyhow::bail!("there is no end of {folder}")
}

pub(crate) fn forks() -> anyhow::Result<()> {
    for count in 0..MANY {
        if let Err(why) = child(|| wait_for_ever()) {
            // And as many as try again and again.
            if count > 0 {
                keep_trying(count, why);
            }
            keep(count, why);
        }
    }
    anyhow::bail!("there is no end of processes")
}

fn keep_trying(count: usize, why: Errno) -> ! {
    tell(count, why);
    loop {
        let _ = child(|| wait_for_ever());
        thread::sleep(PAUSE);
    }
}

pub(crate) fn threads() -> anyhow::Result<()> {
    for count in 0..MANY {
        if let Err(error) = thread::Builder::new().stack_size(64 * 1024).spawn(|| {
            wait_for_ever();
        }) {
            keep(count, Errno::from_raw(error.raw_os_error().unwrap_or(0)));
        }
    }
    anyhow::bail!("there is no end of threads")
}

/// Each by a parent that ends before it.
pub(crate) fn orphans(count: usize) -> anyhow::Result<()> {
    for _ in 0..count {
        let parent = child(|| {
            let _ = child(|| {});
        })?;
        let parent = i64::try_from(parent)?;
        call(
            libc::SYS_wait4,
            [parent.into(), 0.into(), 0.into(), 0.into()],
        )?;
    }
    println!("left {count}");
    Ok(())
}

/// In many processes, since each has a limit of its own.
pub(crate) fn descriptors() -> anyhow::Result<()> {
    let mut total = 0;
    for _ in 0..64 {
        let mut files = Vec::new();
        let why = loop {
            match File::open("/proc/self/status") {
                Ok(file) => files.push(file),
                Err(error) => break Errno::from_raw(error.raw_os_error().unwrap_or(0)),
            }
            if files.len() > 1_000_000 {
                anyhow::bail!("there is no end of descriptors");
            }
        };
        total += files.len();
        if why != Errno::EMFILE || total > 4 * MIB {
            std::mem::forget(files);
            keep(total, why);
        }
        // The child keeps them open, and the parent begins anew.
        if let Err(why) = child(|| wait_for_ever()) {
            std::mem::forget(files);
            keep(total, why);
        }
    }
    keep(total, Errno::EMFILE)
}

pub(crate) fn flood() -> anyhow::Result<()> {
    println!("begun");
    let line = [vec![b'x'; 255], vec![b'\n']].concat().repeat(256);
    // Standard error is the log: standard output is the command's answer.
    loop {
        std::io::stderr().write_all(&line)?;
    }
}

pub(crate) fn spin(count: usize) -> anyhow::Result<()> {
    for _ in 0..count {
        child(|| {
            loop {
                std::hint::spin_loop();
            }
        })?;
    }
    keep(count, Errno::UnknownErrno)
}
