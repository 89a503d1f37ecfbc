//! The process's exit codes.

use std::process::ExitCode;

/// How a command ended, for scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// The command did what it was asked to. For `run`: the enclave was told to
    /// stop and did, or its batch workload ended with code 0.
    Success = 0,
    /// Anything that has no code of its own, such as an enclave that is not running.
    Failure = 1,
    /// The command line (clap's own code) or the configuration is wrong.
    Usage = 2,
    /// The image, or the configuration in it, cannot be used.
    Image = 3,
    /// The host lacks something: a free port, a program, memory, a permission, a
    /// service that answers.
    Host = 4,
    /// The workload ended with an error, and its restart policy allowed no further restart.
    WorkloadFailed = 10,
    /// The enclave ended, or fell silent, before it was ready.
    BootFailed = 11,
    /// The enclave ended, or fell silent, after it was ready, without saying why.
    Died = 12,
    /// The enclave was killed: it did not stop in time, or, for `stop`, had no agent
    /// that could ask it to.
    Killed = 13,
    /// The agent was told to leave the enclave to the next one.
    Detached = 14,
    /// `bootstrap`: the kernel has no device for enclaves.
    NoDriver = 20,
    /// `bootstrap`: there are not enough huge pages.
    NoMemory = 21,
    /// `bootstrap`: there are not enough CPUs.
    NoCpus = 22,
    /// `bootstrap`: an image is not here.
    NoImage = 23,
    /// `bootstrap`: the unit cannot be written.
    NoUnit = 24,
    /// `bootstrap`: the enclaves cannot be started, or are not ready after it.
    NoService = 25,
}

/// The table of exit codes, for `--help`.
pub const EXIT_CODES: &str = "\
Exit codes:
   0  done; the enclave stopped as asked, or its batch workload ended with code 0
   1  any other error, such as an enclave that is not running
   2  the command line or the configuration is wrong
   3  the image, or the configuration in it, cannot be used
   4  the host lacks something: a free port, a program, memory, a permission, a
      service that answers
  10  the workload failed, and its restart policy allowed no further restart
  11  the enclave ended or fell silent before it was ready
  12  the enclave ended or fell silent after it was ready
  13  the enclave was killed: it did not stop in time, or had no agent that could
      ask it to
  14  the agent was told to leave the enclave, which continues
  20  bootstrap: the kernel has no device for enclaves
  21  bootstrap: there are not enough huge pages
  22  bootstrap: there are not enough CPUs
  23  bootstrap: an image is missing
  24  bootstrap: the unit cannot be written
  25  bootstrap: the enclaves cannot be started, or are not ready after it";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
