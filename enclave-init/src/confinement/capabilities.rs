//! The capabilities that the workload starts with: all five sets are cut down to
//! what the image names (capabilities(7)).

use std::io;

use manifest::Capability;
use nix::errno::Errno;
use nix::libc::{self, c_int, c_ulong};

/// Version 3 of the interface: two words of each set.
const VERSION: u32 = 0x2008_0522;
/// Bits of the two words.
const MAX_CAPABILITIES: u8 = 64;

/// A set of capabilities, by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Set(u64);

#[repr(C)]
struct Header {
    version: u32,
    pid: c_int,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Word {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

impl Set {
    pub(crate) fn new(capabilities: &[Capability]) -> Self {
        let bits = capabilities
            .iter()
            .map(|capability| 1 << capability.number());
        Self(bits.fold(0, |set, bit: u64| set | bit))
    }

    fn contains(self, number: u8) -> bool {
        self.0 & (1 << number) != 0
    }

    /// Takes all others out of the bounding set, for good. Needs `CAP_SETPCAP`.
    /// Only system calls, so it may be done between fork and exec; so are the rest.
    pub(crate) fn bound(self) -> io::Result<()> {
        for number in 0..MAX_CAPABILITIES {
            if self.contains(number) {
                continue;
            }
            match control(libc::PR_CAPBSET_DROP, number.into(), 0) {
                // The kernel has no more of them.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
                result => result?,
            }
        }
        Ok(())
    }

    /// Makes it the permitted, effective, inheritable and ambient set: whatever the
    /// user, the program that is executed has these and no others.
    pub(crate) fn keep(self) -> io::Result<()> {
        let word = |bits: u64| {
            let bits = u32::try_from(bits & u64::from(u32::MAX)).expect("the low half fits");
            Word {
                effective: bits,
                permitted: bits,
                inheritable: bits,
            }
        };
        let header = Header {
            version: VERSION,
            pid: 0,
        };
        let words = [word(self.0), word(self.0 >> 32)];
        // SAFETY: the kernel reads one header and the two words of its version.
        let set = unsafe { libc::syscall(libc::SYS_capset, &raw const header, words.as_ptr()) };
        Errno::result(set)?;
        control(
            libc::PR_CAP_AMBIENT,
            c_ulong::from(libc::PR_CAP_AMBIENT_CLEAR_ALL.cast_unsigned()),
            0,
        )?;
        for number in 0..MAX_CAPABILITIES {
            if self.contains(number) {
                let raise = c_ulong::from(libc::PR_CAP_AMBIENT_RAISE.cast_unsigned());
                control(libc::PR_CAP_AMBIENT, raise, number.into())?;
            }
        }
        Ok(())
    }
}

fn control(option: c_int, second: c_ulong, third: c_ulong) -> io::Result<()> {
    // SAFETY: these options take numbers, and touch no memory.
    let result = unsafe { libc::prctl(option, second, third, 0 as c_ulong, 0 as c_ulong) };
    Errno::result(result)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capability_sets_are_bits_by_number() {
        let named = |names: &[&str]| {
            let capabilities: Vec<_> = names.iter().map(|name| name.parse().unwrap()).collect();
            Set::new(&capabilities)
        };
        assert_eq!(named(&[]), Set(0));
        assert_eq!(named(&["CHOWN"]), Set(1));
        let set = named(&["NET_BIND_SERVICE", "BLOCK_SUSPEND"]);
        assert_eq!(set, Set(1 << 10 | 1 << 36));
        assert!(set.contains(36) && !set.contains(35));
    }
}
