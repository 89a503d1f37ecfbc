//! The device itself: the only place where the agent needs `unsafe`.

#![allow(unsafe_code, reason = "the driver is called with pointers")]

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::ptr::NonNull;

use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use super::launch::{CREATE_VM, Call, Machine};

/// The device, and the machine once it is made.
#[derive(Debug)]
pub(super) struct Device {
    device: File,
    machine: Option<OwnedFd>,
}

impl Device {
    /// Opens the device.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            device: File::options().read(true).write(true).open(path)?,
            machine: None,
        })
    }

    /// The machine, which ends when this is closed.
    pub(super) fn into_machine(self) -> io::Result<OwnedFd> {
        self.machine.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Machine for Device {
    type Region = Region;

    fn call(&mut self, call: Call, argument: &mut [u8]) -> io::Result<()> {
        if argument.len() != call.size {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let descriptor: RawFd = match &self.machine {
            Some(machine) => machine.as_raw_fd(),
            None => self.device.as_raw_fd(),
        };
        // SAFETY: the descriptor is open. The driver reads and writes as many bytes
        // at the pointer as the call's number says, which are `call.size`, and the
        // slice has that many; it keeps no pointer to it.
        let result = unsafe { libc::ioctl(descriptor, call.number.into(), argument.as_mut_ptr()) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        if call == CREATE_VM {
            // SAFETY: the driver has just made this descriptor for the caller, and
            // nobody else has it.
            self.machine = Some(unsafe { OwnedFd::from_raw_fd(result) });
        }
        Ok(())
    }

    fn map(&mut self, size: u64) -> io::Result<Region> {
        Region::map(size)
    }
}

/// A huge page, mapped into this process. The machine keeps the page itself.
#[derive(Debug)]
pub(super) struct Region {
    start: NonNull<libc::c_void>,
    length: usize,
}

impl Region {
    fn map(size: u64) -> io::Result<Self> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
        let length = usize::try_from(size).map_err(|_| invalid())?;
        let page = match size {
            0x4000_0000 => MapFlags::MAP_HUGE_1GB,
            0x20_0000 => MapFlags::MAP_HUGE_2MB,
            _ => return Err(invalid()),
        };
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_HUGETLB | MapFlags::MAP_POPULATE | page;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at a place that the kernel chooses overlaps nothing.
        let start = unsafe {
            mmap_anonymous(
                None,
                NonZeroUsize::new(length).ok_or_else(invalid)?,
                protection,
                flags,
            )
        }?;
        Ok(Self { start, length })
    }
}

impl AsMut<[u8]> for Region {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: the mapping has `length` bytes that can be read and written and
        // are zero in the beginning, it lives as long as `self`, and only `self`
        // has its address until the machine runs, which this process does not see.
        unsafe { std::slice::from_raw_parts_mut(self.start.cast().as_ptr(), self.length) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing refers to it any more. The driver
        // has pinned the pages that it was given.
        let unmapped = unsafe { munmap(self.start, self.length) };
        if let Err(error) = unmapped {
            tracing::warn!(%error, "a mapping stays until the process ends");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_device_is_refused_by_the_kernel() {
        let mut device = Device::open(Path::new("/dev/null")).unwrap();
        let error = device.call(CREATE_VM, &mut [0; 8]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTTY));
        assert!(device.call(CREATE_VM, &mut [0; 4]).is_err());
        assert!(device.into_machine().is_err());
    }

    #[test]
    fn only_huge_pages_are_mapped() {
        assert!(Region::map(4096).is_err());
        // Where the machine has one, it can be used and given back.
        if let Ok(mut region) = Region::map(2 << 20) {
            region.as_mut().fill(1);
        }
    }
}
