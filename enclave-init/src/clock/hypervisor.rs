//! The hypervisor's clock, as `/dev/ptp0`: `linux/ptp_clock.h`.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, RawFd};

use nix::ioctl_readwrite;
use nix::time::ClockId;

use super::belief::{Belief, Nanos};
use super::kernel;

const DEVICE: &str = "/dev/ptp0";
const NAME: &str = "/sys/class/ptp/ptp0/clock_name";
/// What the kernel calls the clock of a hypervisor that is KVM, as Nitro's is.
const KVM: &str = "KVM virtual PTP";
/// How often the clock is read where one reading may be interrupted.
const ATTEMPTS: usize = 4;
/// What the clocks resolve, and more.
const RESOLUTION: Nanos = 1_000;
const BILLION: u32 = 1_000_000_000;
/// No enclave ran before 2020, and no clock is right that is past 2200.
const PLAUSIBLE: std::ops::Range<i64> = 1_577_836_800..7_258_118_400;

/// A time of the kernel's for devices.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
struct PtpClockTime {
    seconds: i64,
    nanoseconds: u32,
    reserved: u32,
}

/// The device's clock and two of the kernel's, at one moment.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
struct PtpSysOffsetPrecise {
    device: PtpClockTime,
    realtime: PtpClockTime,
    raw: PtpClockTime,
    reserved: [u32; 4],
}

ioctl_readwrite!(ptp_sys_offset_precise, b'=', 8, PtpSysOffsetPrecise);

/// The device, whatever its clock is.
pub(crate) struct Device(File);

/// The hypervisor's clock.
#[derive(Debug)]
pub(crate) struct HypervisorClock(File);

impl Device {
    /// Opens the device; the error says what is missing.
    pub(crate) fn open() -> Result<Self, String> {
        match File::open(DEVICE) {
            Ok(file) => Ok(Self(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(format!(
                "the hypervisor offers no clock: there is no {DEVICE}"
            )),
            Err(error) => Err(format!("{DEVICE} cannot be opened: {error}")),
        }
    }

    /// The device as the hypervisor's clock, unless it is another one.
    pub(super) fn identify(self) -> Result<HypervisorClock, String> {
        match fs::read_to_string(NAME) {
            Ok(name) if name.trim() == KVM => Ok(HypervisorClock(self.0)),
            Ok(name) => Err(format!(
                "{DEVICE} is `{}` and not the hypervisor's `{KVM}`",
                name.trim().escape_debug()
            )),
            Err(error) => Err(format!("{NAME} cannot be read: {error}")),
        }
    }
}

impl HypervisorClock {
    /// What the hypervisor says. Takes microseconds: its clock is memory or one
    /// call to it.
    pub(super) fn sample(&self) -> io::Result<Belief> {
        let mut offset = PtpSysOffsetPrecise::default();
        // SAFETY: the request's number says the size of the structure, whose layout
        // is the kernel's; nobody else has it while the call lasts.
        match unsafe { ptp_sys_offset_precise(self.0.as_raw_fd(), &raw mut offset) } {
            Ok(_) => {
                let time = nanoseconds(offset.device)?;
                Ok(Belief {
                    raw: time_since_start(offset.raw),
                    earliest: time - RESOLUTION,
                    latest: time + RESOLUTION,
                })
            }
            // Not on this machine's oscillator.
            Err(_) => self.sample_between(),
        }
    }

    /// Reads the device between two readings of the oscillator, and takes the
    /// reading that was disturbed least.
    fn sample_between(&self) -> io::Result<Belief> {
        let mut best = self.sample_once()?;
        for _ in 1..ATTEMPTS {
            let sample = self.sample_once()?;
            if sample.width() < best.width() {
                best = sample;
            }
        }
        Ok(best)
    }

    fn sample_once(&self) -> io::Result<Belief> {
        let before = kernel::raw()?;
        let time = kernel::read_clock(clock_of(self.0.as_raw_fd()))?;
        plausible(time)?;
        Ok(Belief::between(before, kernel::raw()?, time, RESOLUTION))
    }
}

/// The clock of an open device: `FD_TO_CLOCKID` of `clock_getres(2)`.
fn clock_of(descriptor: RawFd) -> ClockId {
    ClockId::from_raw((!descriptor << 3) | 3)
}

fn nanoseconds(time: PtpClockTime) -> io::Result<Nanos> {
    if time.nanoseconds >= BILLION {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let nanoseconds = time_since_start(time);
    plausible(nanoseconds)?;
    Ok(nanoseconds)
}

/// The oscillator counts from the machine's start.
fn time_since_start(time: PtpClockTime) -> Nanos {
    Nanos::from(time.seconds) * Nanos::from(BILLION) + Nanos::from(time.nanoseconds)
}

/// Refuses a time that no working clock says.
pub(super) fn plausible(time: Nanos) -> io::Result<()> {
    let seconds = i64::try_from(time / Nanos::from(BILLION)).unwrap_or(i64::MAX);
    if PLAUSIBLE.contains(&seconds) {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        format!("it says {seconds} s after 1970, which cannot be"),
    ))
}

#[cfg(test)]
mod tests {
    use std::mem::size_of;

    use super::*;

    #[test]
    fn the_layouts_are_the_kernels() {
        assert_eq!(size_of::<PtpClockTime>(), 16);
        assert_eq!(size_of::<PtpSysOffsetPrecise>(), 64);
    }

    #[test]
    fn implausible_times_are_refused() {
        let time = |seconds, nanoseconds| PtpClockTime {
            seconds,
            nanoseconds,
            reserved: 0,
        };
        let good = nanoseconds(time(1_800_000_000, 5)).unwrap();
        assert_eq!(good, 1_800_000_000_000_000_005);
        for bad in [
            time(0, 0),
            time(-1, 0),
            time(i64::MAX, 0),
            time(1_800_000_000, BILLION),
        ] {
            assert!(nanoseconds(bad).is_err(), "{bad:?}");
        }
    }
}
