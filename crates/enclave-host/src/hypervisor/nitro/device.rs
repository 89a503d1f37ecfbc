//! The device itself: the only place where the agent needs `unsafe`.

#![allow(unsafe_code, reason = "the driver is called with pointers")]

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};

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

/// From now on, pages that this thread maps are of that NUMA node, or there are none.
pub(super) fn take_pages_of(node: u32) -> io::Result<()> {
    /// Bits of the set of nodes, and one: the kernel counts so.
    const BITS: usize = libc::c_ulong::BITS as usize + 1;
    let Some(nodes) = (1 as libc::c_ulong).checked_shl(node) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    // SAFETY: the kernel reads one bit less than `BITS` at the pointer, which are those of
    // the variable, and keeps no pointer to it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_set_mempolicy,
            libc::MPOL_BIND,
            &raw const nodes,
            BITS,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
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
        let region = Self { start, length };
        region.populate()?;
        Ok(region)
    }

    /// Has the kernel find its memory. It may have promised a page that it does not have on
    /// the node, and touching that would end this process.
    fn populate(&self) -> io::Result<()> {
        // SAFETY: the mapping is ours, and its contents stay what they are.
        let populated =
            unsafe { madvise(self.start, self.length, MmapAdvise::MADV_POPULATE_WRITE) };
        match populated {
            // Kernels before 5.14 do not know it, and have done what they can.
            Ok(()) | Err(Errno::EINVAL) => Ok(()),
            Err(_) => Err(io::ErrorKind::OutOfMemory.into()),
        }
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
    fn pages_are_taken_from_a_node_that_there_is() {
        assert!(take_pages_of(u32::MAX).is_err());
        // The last one that the set has room for.
        let error = take_pages_of(63).unwrap_err();
        assert!(error.raw_os_error().is_some(), "{error}");
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
