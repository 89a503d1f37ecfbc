//! The kernel's clocks: read, slewed, and stepped.

use std::io;
use std::mem;

use nix::errno::Errno;
use nix::libc;
use nix::time::{ClockId, clock_gettime};

use super::belief::Nanos;
use super::discipline::Reading;

/// What the kernel calls the oscillator behind its clocks.
const BASE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
/// How often the clocks are read to have one reading that nothing interrupted.
const ATTEMPTS: usize = 4;
const BILLION: Nanos = 1_000_000_000;
/// The kernel counts its clock on by so many microseconds a hundred times a
/// second; one more or less is 100 parts in a million.
const TICK: i64 = 10_000;
const TICK_STEP: i64 = 100_000;
/// The finer adjustment reaches so far, in parts per billion: adjtimex(2).
const FINE: i64 = 500_000;

/// The oscillator's name, as in `kvm-clock` or `tsc`.
pub(super) fn base() -> String {
    std::fs::read_to_string(BASE)
        .map_or_else(|_| "unknown".to_owned(), |name| name.trim().to_owned())
}

/// The raw oscillator, which nothing adjusts.
pub(super) fn raw() -> io::Result<Nanos> {
    read_clock(ClockId::CLOCK_MONOTONIC_RAW)
}

pub(super) fn read_clock(clock: ClockId) -> io::Result<Nanos> {
    let time = clock_gettime(clock)?;
    Ok(Nanos::from(time.tv_sec()) * BILLION + Nanos::from(time.tv_nsec()))
}

/// The clock beside the oscillator.
pub(super) fn read() -> io::Result<Reading> {
    let mut best = read_once()?;
    for _ in 1..ATTEMPTS {
        let reading = read_once()?;
        if reading.width < best.width {
            best = reading;
        }
    }
    Ok(best)
}

fn read_once() -> io::Result<Reading> {
    let raw = raw()?;
    let wall = read_clock(ClockId::CLOCK_REALTIME)?;
    let width = self::raw()? - raw;
    Ok(Reading { raw, width, wall })
}

/// Sets the clock by so much, whatever it reads.
pub(super) fn step(by: Nanos) -> io::Result<()> {
    let out_of_range = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let mut change = no_change();
    change.modes = libc::ADJ_SETOFFSET | libc::ADJ_NANO;
    change.time.tv_sec = i64::try_from(by.div_euclid(BILLION)).map_err(out_of_range)?;
    // Nanoseconds, as the mode says.
    change.time.tv_usec = i64::try_from(by.rem_euclid(BILLION)).map_err(out_of_range)?;
    adjust(&mut change)
}

/// Has the clock run faster than the oscillator by so many parts in a billion,
/// and tells programs that ask the kernel how wrong it is at most.
pub(super) fn slew(rate: i64, error: Option<Nanos>) -> io::Result<()> {
    let (tick, frequency) = split(rate);
    let mut change = no_change();
    change.modes = libc::ADJ_TICK
        | libc::ADJ_FREQUENCY
        | libc::ADJ_STATUS
        | libc::ADJ_MAXERROR
        | libc::ADJ_ESTERROR;
    change.tick = tick;
    change.freq = frequency;
    if let Some(microseconds) = error.and_then(|error| i64::try_from(error / 1_000 + 1).ok()) {
        change.maxerror = microseconds;
        change.esterror = microseconds;
    } else {
        change.status = libc::STA_UNSYNC;
        change.maxerror = i64::from(i32::MAX);
        change.esterror = i64::from(i32::MAX);
    }
    adjust(&mut change)
}

/// A rate in parts per billion as the kernel's coarse and fine adjustment, the
/// latter in 2^-16 parts per million.
fn split(rate: i64) -> (i64, i64) {
    let coarse = if rate.abs() <= FINE {
        0
    } else {
        rate / TICK_STEP
    };
    let fine = rate - coarse * TICK_STEP;
    (TICK + coarse, fine * 65_536 / 1_000)
}

fn no_change() -> libc::timex {
    // SAFETY: the structure has integers only, for which zero is a value.
    unsafe { mem::zeroed() }
}

fn adjust(change: &mut libc::timex) -> io::Result<()> {
    // SAFETY: the pointer is to a structure of the kernel's layout that is ours
    // alone while the call lasts.
    let result = unsafe { libc::clock_adjtime(libc::CLOCK_REALTIME, change) };
    Errno::result(result)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_split_into_what_the_kernel_takes() {
        assert_eq!(split(0), (10_000, 0));
        assert_eq!(split(500_000), (10_000, 500 * 65_536));
        assert_eq!(split(-1_000), (10_000, -65_536));
        assert_eq!(split(36_543_000), (10_365, 43 * 65_536));
        assert_eq!(split(-50_000_000), (9_500, 0));
    }

    #[test]
    fn the_clock_is_read_beside_the_oscillator() {
        let first = read().unwrap();
        let second = read().unwrap();
        assert!(second.raw >= first.raw);
        assert!((0..BILLION).contains(&first.width));
    }
}
