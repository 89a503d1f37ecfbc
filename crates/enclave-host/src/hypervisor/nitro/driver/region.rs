//! Memory that an enclave can be given.

use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};

/// From now on, pages that this thread maps are of that NUMA node, or there are none.
pub fn take_pages_of(node: u32) -> io::Result<()> {
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

/// A size of huge pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pages {
    /// 1 GiB.
    Large,
    /// 2 MiB, the smallest that the driver takes.
    Small,
}

impl Pages {
    /// A page's size in bytes.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Large => 1 << 30,
            Self::Small => 2 << 20,
        }
    }
}

/// Huge pages one after the other, mapped into this process. The machine that is given them
/// keeps the pages itself.
#[derive(Debug)]
pub struct Region {
    start: NonNull<libc::c_void>,
    length: usize,
}

impl Region {
    /// Maps so many pages, which are zero.
    pub fn map(pages: Pages, count: u64) -> io::Result<Self> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
        let length = count.checked_mul(pages.bytes()).ok_or_else(invalid)?;
        let length = usize::try_from(length).map_err(|_| invalid())?;
        let page = match pages {
            Pages::Large => MapFlags::MAP_HUGE_1GB,
            Pages::Small => MapFlags::MAP_HUGE_2MB,
        };
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_HUGETLB | page;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at a place that the kernel chooses overlaps nothing.
        let start = unsafe {
            mmap_anonymous(
                None,
                NonZeroUsize::new(length).ok_or_else(invalid)?,
                protection,
                flags | MapFlags::MAP_POPULATE,
            )
        }?;
        let region = Self { start, length };
        region.populate()?;
        Ok(region)
    }

    /// Where it is in this process.
    pub fn address(&self) -> u64 {
        self.start.as_ptr().addr() as u64
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.length as u64
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
    fn pages_are_taken_from_a_node_that_there_is() {
        assert!(take_pages_of(u32::MAX).is_err());
        // The last one that the set has room for.
        let error = take_pages_of(63).unwrap_err();
        assert!(error.raw_os_error().is_some(), "{error}");
    }

    #[test]
    fn a_region_has_pages_and_no_more_than_there_can_be() {
        assert!(Region::map(Pages::Small, 0).is_err());
        assert!(Region::map(Pages::Large, u64::MAX).is_err());
        // Where the machine has some, they can be used and given back.
        if let Ok(mut region) = Region::map(Pages::Small, 2) {
            assert_eq!(region.size(), 4 << 20);
            region.as_mut().fill(1);
        }
    }
}
