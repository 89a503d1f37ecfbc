//! The kernel's driver of Nitro Enclaves: its calls, one by one.
//!
//! Source: `include/uapi/linux/nitro_enclaves.h`. Nothing here is checked before the driver
//! checks it.

#![allow(unsafe_code, reason = "the driver is called with pointers")]

mod error;
mod region;

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::libc;

pub use error::Refused;
pub use region::{Pages, Region, take_pages_of};

/// What opens the driver.
pub const DEVICE: &str = "/dev/nitro_enclaves";
/// What the image is: an EIF.
pub const IS_EIF: u64 = 1;
/// Flags of a memory region: none.
pub const ORDINARY_MEMORY: u64 = 0;
/// A flag of the start.
pub const DEBUG_MODE: u64 = 1;
/// Has the driver choose a CPU.
pub const ANY_CPU: u32 = 0;

/// A call: its number is made of the direction, the size of its argument, the driver's
/// letter and a count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Call {
    name: &'static str,
    number: u32,
    size: usize,
}

const WRITE: u32 = 1;
const READ: u32 = 2;

const fn call(name: &'static str, direction: u32, count: u32, size: usize) -> Call {
    const LETTER: u32 = 0xae;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "an argument has at most 24 bytes"
    )]
    let number = direction << 30 | (size as u32) << 16 | LETTER << 8 | count;
    Call { name, number, size }
}

/// Makes a machine. The argument receives its slot.
const CREATE_VM: Call = call("NE_CREATE_VM", READ, 0x20, 8);
/// Gives it a CPU, which the argument receives.
const ADD_VCPU: Call = call("NE_ADD_VCPU", READ | WRITE, 0x21, 4);
/// Asks where the image goes: flags, then the offset that it receives.
const GET_IMAGE_LOAD_INFO: Call = call("NE_GET_IMAGE_LOAD_INFO", READ | WRITE, 0x22, 16);
/// Gives it memory: flags, size, address.
const SET_USER_MEMORY_REGION: Call = call("NE_SET_USER_MEMORY_REGION", WRITE, 0x23, 24);
/// Starts it: flags, and its context identifier, which the argument receives.
const START_ENCLAVE: Call = call("NE_START_ENCLAVE", READ | WRITE, 0x24, 16);

/// The driver.
#[derive(Debug)]
pub struct Driver(File);

/// A machine, which ends when this is closed.
#[derive(Debug)]
pub struct Machine(OwnedFd);

impl Driver {
    /// Opens the driver.
    pub fn open(path: &Path) -> io::Result<Self> {
        File::options().read(true).write(true).open(path).map(Self)
    }

    /// Makes a machine that has nothing yet.
    pub fn create(&self) -> Result<Machine, Refused> {
        let machine = invoke(self.0.as_raw_fd(), CREATE_VM, &mut [0; 8])?;
        // SAFETY: the driver has just made this descriptor for the caller, and nobody else
        // has it.
        Ok(Machine(unsafe { OwnedFd::from_raw_fd(machine) }))
    }
}

impl Machine {
    /// Where in its memory an image of this kind goes.
    pub fn image_offset(&self, kind: u64) -> Result<u64, Refused> {
        let mut argument: [u8; 16] = join([kind, 0]);
        self.invoke(GET_IMAGE_LOAD_INFO, &mut argument)?;
        Ok(second(argument))
    }

    /// Gives it memory of this process, which is mapped at the address.
    pub fn add_memory(&self, flags: u64, address: u64, size: u64) -> Result<(), Refused> {
        let mut argument: [u8; 24] = join([flags, size, address]);
        self.invoke(SET_USER_MEMORY_REGION, &mut argument)
    }

    /// Gives it a CPU, and says which.
    pub fn add_cpu(&self, cpu: u32) -> Result<u32, Refused> {
        let mut argument = cpu.to_ne_bytes();
        self.invoke(ADD_VCPU, &mut argument)?;
        Ok(u32::from_ne_bytes(argument))
    }

    /// Starts it, and says with which context identifier.
    pub fn start(&self, flags: u64, cid: u64) -> Result<u64, Refused> {
        let mut argument: [u8; 16] = join([flags, cid]);
        self.invoke(START_ENCLAVE, &mut argument)?;
        Ok(second(argument))
    }

    fn invoke(&self, call: Call, argument: &mut [u8]) -> Result<(), Refused> {
        invoke(self.0.as_raw_fd(), call, argument).map(drop)
    }
}

impl From<Machine> for OwnedFd {
    fn from(machine: Machine) -> Self {
        machine.0
    }
}

impl From<OwnedFd> for Machine {
    fn from(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }
}

fn invoke(descriptor: RawFd, call: Call, argument: &mut [u8]) -> Result<RawFd, Refused> {
    let refused = |error| Refused {
        call: call.name,
        error,
    };
    if argument.len() != call.size {
        return Err(refused(io::ErrorKind::InvalidInput.into()));
    }
    // SAFETY: the descriptor is open. The driver reads and writes as many bytes at the
    // pointer as the call's number says, which are `call.size`, and the slice has that many;
    // it keeps no pointer to it.
    let result = unsafe { libc::ioctl(descriptor, call.number.into(), argument.as_mut_ptr()) };
    if result < 0 {
        return Err(refused(io::Error::last_os_error()));
    }
    Ok(result)
}

/// Words as they follow each other in an argument.
fn join<const WORDS: usize, const BYTES: usize>(words: [u64; WORDS]) -> [u8; BYTES] {
    const { assert!(WORDS * 8 == BYTES) };
    let mut bytes = [0; BYTES];
    for (field, word) in bytes.chunks_exact_mut(8).zip(words) {
        field.copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

fn second(bytes: [u8; 16]) -> u64 {
    let (_, second) = bytes.split_at(8);
    second.try_into().map_or(0, u64::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_have_the_numbers_of_the_kernels_header() {
        let numbers = [
            (CREATE_VM, 0x8008_ae20),
            (ADD_VCPU, 0xc004_ae21),
            (GET_IMAGE_LOAD_INFO, 0xc010_ae22),
            (SET_USER_MEMORY_REGION, 0x4018_ae23),
            (START_ENCLAVE, 0xc010_ae24),
        ];
        for (call, number) in numbers {
            assert_eq!(call.number, number, "{}", call.name);
        }
    }

    #[test]
    fn a_file_that_is_no_device_is_refused_by_the_kernel() {
        let driver = Driver::open(Path::new("/dev/null")).unwrap();
        let refused = driver.create().unwrap_err();
        assert_eq!(refused.error.raw_os_error(), Some(libc::ENOTTY));
        assert!(refused.to_string().starts_with("NE_CREATE_VM: "));
        let refused = invoke(driver.0.as_raw_fd(), CREATE_VM, &mut [0; 4]).unwrap_err();
        assert_eq!(refused.error.kind(), io::ErrorKind::InvalidInput);
    }
}
