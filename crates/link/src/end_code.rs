//! The stable codes of an enclave's ends, for programs: alarms, scripts, tests.
//!
//! A code is lower-case letters, digits, `-` and `.`: an area, a dot, and what
//! happened there. One that has been released keeps its meaning.

use std::fmt;

use crate::bounded::Text;
use crate::control::MAX_CODE;

/// Why an enclave, or its workload, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndCode {
    /// The boot failed at its step `mounts`.
    BootMounts,
    /// The boot failed at its step `configuration`.
    BootConfiguration,
    /// The boot failed at its step `root`.
    BootRoot,
    /// The boot failed at its step `confinement`.
    BootConfinement,
    /// The boot failed at its step `loopback`.
    BootLoopback,
    /// The boot failed at its step `heartbeat`.
    BootHeartbeat,
    /// The boot failed at its step `nsm`.
    BootNsm,
    /// The boot failed at its step `entropy`.
    BootEntropy,
    /// The boot failed at its step `clock`.
    BootClock,
    /// The boot failed at its step `control`.
    BootControl,
    /// The boot failed at its step `runtime-configuration`.
    BootRuntimeConfiguration,
    /// The boot failed at its step `self-check`.
    BootSelfCheck,
    /// The boot failed at its step `registers`.
    BootRegisters,
    /// The boot failed at its step `services`.
    BootServices,
    /// A declared secret could not be had before the workload's start.
    BootSecrets,
    /// The seed of the image's family could not be had before the workload's start.
    BootKeys,
    /// The workload could not be started for the first time.
    BootWorkload,
    /// The workload could not be started again.
    WorkloadStart,
    /// The workload's memory had run out, and the kernel killed it.
    WorkloadOutOfMemory,
    /// The workload returned a code other than 0.
    WorkloadExitCode,
    /// A signal ended the workload.
    WorkloadSignal,
    /// The workload was not ready in time.
    WorkloadNotReady,
    /// The workload was unhealthy, and stopped for it.
    WorkloadUnhealthy,
    /// The init cannot receive the ends of processes.
    InitReaper,
    /// The init itself failed, at a place that rules this out.
    InitPanic,
}

impl EndCode {
    /// All of them.
    pub const ALL: [Self; 25] = [
        Self::BootMounts,
        Self::BootConfiguration,
        Self::BootRoot,
        Self::BootConfinement,
        Self::BootLoopback,
        Self::BootHeartbeat,
        Self::BootNsm,
        Self::BootEntropy,
        Self::BootClock,
        Self::BootControl,
        Self::BootRuntimeConfiguration,
        Self::BootSelfCheck,
        Self::BootRegisters,
        Self::BootServices,
        Self::BootSecrets,
        Self::BootKeys,
        Self::BootWorkload,
        Self::WorkloadStart,
        Self::WorkloadOutOfMemory,
        Self::WorkloadExitCode,
        Self::WorkloadSignal,
        Self::WorkloadNotReady,
        Self::WorkloadUnhealthy,
        Self::InitReaper,
        Self::InitPanic,
    ];

    /// The code as it travels and is shown.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BootMounts => "boot.mounts",
            Self::BootConfiguration => "boot.configuration",
            Self::BootRoot => "boot.root",
            Self::BootConfinement => "boot.confinement",
            Self::BootLoopback => "boot.loopback",
            Self::BootHeartbeat => "boot.heartbeat",
            Self::BootNsm => "boot.nsm",
            Self::BootEntropy => "boot.entropy",
            Self::BootClock => "boot.clock",
            Self::BootControl => "boot.control",
            Self::BootRuntimeConfiguration => "boot.runtime-configuration",
            Self::BootSelfCheck => "boot.self-check",
            Self::BootRegisters => "boot.registers",
            Self::BootServices => "boot.services",
            Self::BootSecrets => "boot.secrets",
            Self::BootKeys => "boot.keys",
            Self::BootWorkload => "boot.workload",
            Self::WorkloadStart => "workload.start",
            Self::WorkloadOutOfMemory => "workload.out-of-memory",
            Self::WorkloadExitCode => "workload.exit-code",
            Self::WorkloadSignal => "workload.signal",
            Self::WorkloadNotReady => "workload.not-ready",
            Self::WorkloadUnhealthy => "workload.unhealthy",
            Self::InitReaper => "init.reaper",
            Self::InitPanic => "init.panic",
        }
    }

    /// The code of this name, if this release knows it.
    pub fn known(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.name() == name)
    }

    /// The code as messages have it, empty for none.
    pub fn text(code: Option<Self>) -> Text<MAX_CODE> {
        Text::new(code.map_or("", Self::name))
    }

    /// The boot step that failed, as the agent is told of it; none if it was not
    /// at a boot step.
    pub fn boot_step(self) -> Option<&'static str> {
        self.name().strip_prefix("boot.")
    }
}

impl fmt::Display for EndCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn end_codes_are_distinct_names_that_lead_back() {
        let names: BTreeSet<_> = EndCode::ALL.into_iter().map(EndCode::name).collect();
        assert_eq!(names.len(), EndCode::ALL.len());
        for code in EndCode::ALL {
            assert_eq!(EndCode::known(code.name()), Some(code));
            assert!(code.name().len() <= MAX_CODE);
            let is_plain = |byte: u8| byte.is_ascii_lowercase() || b"-.".contains(&byte);
            assert!(code.name().bytes().all(is_plain), "{code}");
        }
        assert_eq!(EndCode::known("boot.unheard-of"), None);
    }
}
