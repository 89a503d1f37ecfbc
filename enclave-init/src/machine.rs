//! Settings of the machine's kernel: how it ends, and how it waits while it boots.
//!
//! It ends by a reset, which its hypervisor takes for the end.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::mount::MsFlags;

use crate::error::{Doing, InitError};
use crate::mounts::mount_at;

/// Which reset the kernel makes (`Documentation/ABI/testing/sysfs-kernel-reboot`).
const RESET_TYPE: &str = "/sys/kernel/reboot/type";

/// The kernel's choice of a reset, opened while `/sys` may still be written to.
pub(crate) struct Reset(Option<File>);

impl Reset {
    /// Opens the choice, where the kernel offers it.
    pub(crate) fn open() -> Result<Self, InitError> {
        mount_at("sysfs", Path::new("/sys"), "sysfs", MsFlags::empty(), "")?;
        Ok(Self(File::options().write(true).open(RESET_TYPE).ok()))
    }

    /// Chooses a triple fault. The command line's `reboot=k`, AWS's own, goes
    /// through a keyboard controller; QEMU's machine has none, and there the
    /// kernel would fall back to the firmware, which starts the image again.
    pub(crate) fn by_triple_fault(self) {
        if let Some(mut file) = self.0 {
            // Without it the agent notices the second start and ends the machine.
            let _ = file.write_all(b"triple");
        }
    }
}

/// Whether the kernel's RCU grace periods are short, at the price of an interrupt of
/// every processor (Linux, `kernel/rcu/update.c`). Bringing an interface up, making
/// control groups and moving a process into one each wait for such a period.
const EXPEDITED: &str = "/sys/kernel/rcu_expedited";

/// Short RCU grace periods, for as long as this lives: while the machine boots.
#[derive(Debug)]
pub(crate) struct Expedited(Option<File>);

impl Expedited {
    /// Asks for them, where the kernel has the choice. Needs `/sys`, as [`Reset::open`]
    /// leaves it.
    pub(crate) fn begin() -> Result<Self, InitError> {
        let choice = File::options().write(true).open(EXPEDITED).ok();
        if let Some(choice) = &choice {
            choice
                .write_all_at(b"1", 0)
                .doing(|| format!("writing 1 to {EXPEDITED}"))?;
        }
        Ok(Self(choice))
    }
}

impl Drop for Expedited {
    fn drop(&mut self) {
        if let Some(choice) = &self.0 {
            // The periods stay short otherwise, which harms nothing.
            let _ = choice.write_all_at(b"0", 0);
        }
    }
}
