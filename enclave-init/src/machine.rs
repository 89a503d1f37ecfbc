//! How the machine ends: by a reset, which its hypervisor takes for the end.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use nix::mount::MsFlags;

use crate::error::InitError;
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
