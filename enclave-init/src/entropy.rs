//! Random bytes from the NSM into the kernel's pool.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;

use link::BootId;
use nsm::NsmError;

use crate::error::{Doing, InitError};
use crate::security_module::Module;

/// The generator that the kernel must be fed by (AWS's guidance for enclaves).
const GENERATOR: &str = "nsm-hwrng";
const CURRENT_GENERATOR: &str = "/sys/devices/virtual/misc/hw_random/rng_current";
/// Bytes credited: what the kernel's pool holds.
const SEED_BYTES: usize = 256;
/// Random bytes that tell a boot from every other.
const BOOT_ID_BYTES: usize = 16;

/// Checks that the kernel draws from the NSM.
pub(crate) fn check_generator() -> Result<(), InitError> {
    let current = fs::read_to_string(CURRENT_GENERATOR).unwrap_or_default();
    if current.trim() == GENERATOR {
        Ok(())
    } else {
        Err(InitError::Entropy(current.trim().to_owned()))
    }
}

/// Random bytes of the security module, for a boot.
#[derive(Debug)]
pub(crate) struct Drawn {
    /// For the kernel's pool; none where the pool is the host's.
    pub(crate) seed: Option<Vec<u8>>,
    /// Drawn by the module's generator, so that no two boots have the same.
    pub(crate) boot: BootId,
}

/// Draws them.
pub(crate) fn draw(nsm: &mut Module, is_simulated: bool) -> Result<Drawn, NsmError> {
    let seed = if is_simulated {
        None
    } else {
        Some(nsm.random_bytes(SEED_BYTES)?)
    };
    let random = nsm.random_bytes(BOOT_ID_BYTES)?;
    let boot = random
        .first_chunk::<BOOT_ID_BYTES>()
        .and_then(|id| BootId::new(*id))
        .ok_or(NsmError::Unexpected)?;
    Ok(Drawn { seed, boot })
}

/// Credits a seed.
///
/// RNDADDENTROPY (random(4)): a count of bits, a count of bytes, the bytes.
pub(crate) fn credit(seed: &[u8]) -> Result<(), InitError> {
    const RNDADDENTROPY: nix::libc::Ioctl =
        nix::request_code_write!(b'R', 0x03, 2 * size_of::<i32>()) as nix::libc::Ioctl;
    let pool = File::options()
        .write(true)
        .open("/dev/random")
        .doing(|| "opening /dev/random".to_owned())?;
    let bytes = i32::try_from(seed.len()).expect("a seed of the security module has at most 4 KiB");
    let mut request = Vec::with_capacity(seed.len() + 8);
    request.extend((bytes * 8).to_ne_bytes());
    request.extend(bytes.to_ne_bytes());
    request.extend(seed);
    // SAFETY: the descriptor is open for the length of the call; the buffer holds
    // the two counts and as many bytes as the second one says, and the kernel
    // only reads it. It copies from the buffer, so its alignment does not matter.
    let result = unsafe { nix::libc::ioctl(pool.as_raw_fd(), RNDADDENTROPY, request.as_ptr()) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error()).doing(|| "crediting entropy".to_owned())
    }
}
