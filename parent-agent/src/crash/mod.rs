//! What kind of crash an enclave's end was, and what is kept of it.
//!
//! The last end is written to `last-end.json` in the folder that an enclave leaves
//! behind (the parent of its spool's default place), for those who come later, and
//! for the next `run`, which waits longer the more often it has crashed in a row.

mod backoff;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use enclave_host::duration::milliseconds;
use link::EndCode;
use log_sinks::losses::LostRecords;
use log_spool::{location, now_us};
use manifest::EnclaveName;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::enclave::{Cause, Code, End};
use crate::kernel_panic;

pub(crate) use backoff::Backoff;

/// The file.
const FILE: &str = "last-end.json";
/// Most bytes of it that are read.
const MAX_BYTES: u64 = 1024 * 1024;
/// The first pause after a crash, which doubles with each that follows.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// An enclave that ran for so long has not crashed in a row with the one before.
const STEADY: Duration = Duration::from_secs(10 * 60);

/// A kind of crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Crash {
    /// It did not become ready.
    BootFailure,
    /// Its kernel gave up.
    KernelPanic,
    /// Its kernel had no memory left and killed a process.
    OutOfMemory,
    /// Its init failed.
    InitFailure,
    /// Its workload failed, and was not to be started again.
    WorkloadExit,
    /// Nothing was heard of it for too long.
    HeartbeatLost,
    /// Its machine ended without a word.
    MachineEnded,
    /// It did not stop when it was told to.
    DidNotStop,
}

impl Crash {
    /// The kind of an end, from what is known of it and from the console's last
    /// lines; none if it was no crash.
    pub fn of(end: &End, console: &[String]) -> Option<Self> {
        if end.cause.is_expected() {
            return None;
        }
        let code = end.code.as_ref();
        if code.is_some_and(|code| code.is(EndCode::WorkloadOutOfMemory)) {
            return Some(Self::OutOfMemory);
        }
        let is_oom = |line: &String| line.contains(kernel_panic::OUT_OF_MEMORY);
        if console.iter().any(is_oom) {
            return Some(Self::OutOfMemory);
        }
        // The last lines may be its trace alone.
        let is_panic = |line: &String| kernel_panic::reason(line).is_some();
        if end.is_panic || console.iter().any(is_panic) {
            return Some(Self::KernelPanic);
        }
        Some(match end.cause {
            Cause::WorkloadFailed => Self::WorkloadExit,
            Cause::Killed => Self::DidNotStop,
            Cause::BootFailed => Self::BootFailure,
            _ if end.is_silence => Self::HeartbeatLost,
            // Only the init gives a code.
            _ if code.is_some() => Self::InitFailure,
            _ => Self::MachineEnded,
        })
    }
}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::BootFailure => "boot failure",
            Self::KernelPanic => "kernel panic",
            Self::OutOfMemory => "out of memory",
            Self::InitFailure => "init failure",
            Self::WorkloadExit => "workload exit",
            Self::HeartbeatLost => "heartbeat lost",
            Self::MachineEnded => "machine ended",
            Self::DidNotStop => "did not stop",
        })
    }
}

/// What is kept of an end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastEnd {
    /// When it was, in microseconds since 1970.
    pub time_us: u64,
    /// How long the enclave had run, in milliseconds.
    pub uptime_ms: u64,
    /// Its cause.
    pub cause: Cause,
    /// What kind of crash it was, if it was one.
    pub crash: Option<Crash>,
    /// The enclave's own code for it, if it gave one.
    #[serde(default)]
    pub code: Option<Code>,
    /// The same for people.
    pub detail: String,
    /// Log records that were lost in its life.
    #[serde(default)]
    pub lost: LostRecords,
    /// Crashes in a row, this one included.
    pub crashes: u32,
    /// The console's last lines, if it was a crash.
    pub console: Vec<String>,
}

impl LastEnd {
    /// An end, after the one before it.
    pub fn new(
        end: &End,
        crash: Option<Crash>,
        uptime_ms: u64,
        lost: LostRecords,
        console: &[String],
        before: Option<&Self>,
    ) -> Self {
        let in_a_row = before
            .filter(|_| u128::from(uptime_ms) < STEADY.as_millis())
            .map_or(0, |before| before.crashes);
        Self {
            time_us: now_us(),
            uptime_ms,
            cause: end.cause,
            crash,
            code: end.code.clone(),
            detail: end.detail.clone(),
            lost,
            crashes: crash.map_or(0, |_| in_a_row.saturating_add(1)),
            console: console.to_vec(),
        }
    }

    /// The last end of the enclave `name`, if one is known.
    pub fn read(name: &EnclaveName) -> Option<Self> {
        Self::read_from(&path(name))
    }

    /// Keeps it.
    pub fn write(&self, name: &EnclaveName) -> io::Result<()> {
        self.write_to(&path(name))
    }

    /// One that cannot be read, as of a later release, is as good as none.
    fn read_from(path: &Path) -> Option<Self> {
        if fs::metadata(path).ok()?.len() > MAX_BYTES {
            return None;
        }
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    fn write_to(&self, path: &Path) -> io::Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let new = path.with_extension("new");
        fs::write(&new, serde_json::to_vec_pretty(self)?)?;
        fs::rename(new, path)
    }

    /// How long a start waits after this end, at most `most`.
    pub fn pause(&self, most: Duration) -> Duration {
        let Some(doublings) = self.crashes.checked_sub(1) else {
            return Duration::ZERO;
        };
        let pause = FIRST_PAUSE.saturating_mul(1 << doublings.min(20)).min(most);
        // What has passed already counts.
        let passed = Duration::from_micros(now_us().saturating_sub(self.time_us));
        pause.saturating_sub(passed)
    }
}

/// Leaves a trace of an end for those who come later.
pub(crate) async fn keep_end(
    name: &EnclaveName,
    end: &End,
    crash: Option<Crash>,
    uptime: Duration,
    lost: LostRecords,
    console: &[String],
) {
    let before = LastEnd::read(name);
    let uptime_ms = milliseconds(uptime);
    let trace = LastEnd::new(end, crash, uptime_ms, lost, console, before.as_ref());
    let name = name.clone();
    let written = tokio::task::spawn_blocking(move || trace.write(&name)).await;
    if let Ok(Err(error)) = written {
        warn!(%error, "how the enclave ended is not kept");
    }
}

fn path(name: &EnclaveName) -> PathBuf {
    location::base().join(name.as_str()).join(FILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(cause: Cause, is_silence: bool) -> End {
        End {
            cause,
            detail: "detail".to_owned(),
            code: None,
            is_silence,
            is_panic: false,
        }
    }

    #[test]
    fn crashes_are_told_apart() {
        let panic = "[1.0] Kernel panic - not syncing: Attempted to kill init!";
        let oom = "Out of memory: Killed process 7 (server) total-vm:1kB";
        let cases = [
            (Cause::Stopped, false, "", None),
            (Cause::WorkloadFinished, false, panic, None),
            (Cause::BootFailed, false, "", Some(Crash::BootFailure)),
            (Cause::BootFailed, true, "", Some(Crash::BootFailure)),
            (Cause::BootFailed, false, panic, Some(Crash::KernelPanic)),
            (Cause::Died, false, panic, Some(Crash::KernelPanic)),
            (Cause::Died, true, "", Some(Crash::HeartbeatLost)),
            (Cause::Died, false, "", Some(Crash::MachineEnded)),
            (Cause::Died, true, oom, Some(Crash::OutOfMemory)),
            (Cause::WorkloadFailed, false, oom, Some(Crash::OutOfMemory)),
            (Cause::WorkloadFailed, false, "", Some(Crash::WorkloadExit)),
            (Cause::Killed, true, "", Some(Crash::DidNotStop)),
        ];
        for (cause, is_silence, line, expected) in cases {
            let console = ["before".to_owned(), line.to_owned()];
            let found = Crash::of(&end(cause, is_silence), &console);
            assert_eq!(found, expected, "{cause:?} {line}");
        }
        let seen = End {
            is_panic: true,
            ..end(Cause::BootFailed, false)
        };
        assert_eq!(Crash::of(&seen, &[]), Some(Crash::KernelPanic));
        let both = [oom.to_owned(), panic.to_owned()];
        let found = Crash::of(&end(Cause::Died, false), &both);
        assert_eq!(found, Some(Crash::OutOfMemory));
    }

    #[test]
    fn crashes_have_names_without_a_console() {
        let cases = [
            (
                Cause::WorkloadFailed,
                EndCode::WorkloadOutOfMemory,
                Crash::OutOfMemory,
            ),
            (
                Cause::WorkloadFailed,
                EndCode::WorkloadSignal,
                Crash::WorkloadExit,
            ),
            (Cause::BootFailed, EndCode::BootRoot, Crash::BootFailure),
            (Cause::Died, EndCode::InitPanic, Crash::InitFailure),
        ];
        for (cause, code, expected) in cases {
            let end = End {
                code: Some(code.into()),
                ..end(cause, false)
            };
            assert_eq!(Crash::of(&end, &[]), Some(expected), "{code}");
        }
    }

    #[test]
    fn pauses_grow_with_crashes_in_a_row_and_no_further() {
        let most = Duration::from_secs(60);
        let died = end(Cause::Died, false);
        let mut last: Option<LastEnd> = None;
        for (seconds, crashes) in [1, 2, 4, 8, 16, 32, 60, 60].into_iter().zip(1..) {
            let crash = Some(Crash::MachineEnded);
            let mut next = LastEnd::new(
                &died,
                crash,
                1000,
                LostRecords::default(),
                &[],
                last.as_ref(),
            );
            assert_eq!(next.crashes, crashes);
            // As if it were this very moment, or a second ago.
            next.time_us = u64::MAX;
            assert_eq!(next.pause(most), Duration::from_secs(seconds));
            next.time_us = 0;
            assert_eq!(next.pause(most), Duration::ZERO);
            last = Some(next);
        }
        let steady = u64::try_from(STEADY.as_millis()).unwrap();
        let next = LastEnd::new(
            &died,
            Some(Crash::MachineEnded),
            steady,
            LostRecords::default(),
            &[],
            last.as_ref(),
        );
        assert_eq!(next.crashes, 1);
        let stopped = LastEnd::new(
            &end(Cause::Stopped, false),
            None,
            1,
            LostRecords::default(),
            &[],
            last.as_ref(),
        );
        assert_eq!(stopped.pause(most), Duration::ZERO);
    }

    #[test]
    fn an_end_is_kept_for_those_who_come_later() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/last-end.json");
        assert_eq!(LastEnd::read_from(&path), None);
        let died = end(Cause::Died, true);
        let last = LastEnd::new(
            &died,
            Some(Crash::HeartbeatLost),
            5,
            LostRecords {
                in_enclave: 3,
                ..LostRecords::default()
            },
            &["line".to_owned()],
            None,
        );
        last.write_to(&path).unwrap();
        assert_eq!(LastEnd::read_from(&path), Some(last));
        fs::write(&path, "{}").unwrap();
        assert_eq!(LastEnd::read_from(&path), None);
    }
}
