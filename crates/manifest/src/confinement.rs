//! What the workload may do inside the enclave, and how much it may use.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

use crate::capability::Capability;
use crate::text::Word;
use crate::units::{MemoryMib, WholeNumber, in_range};

/// The largest [`Mebibytes`]: one TiB, which is the largest enclave.
const MAX_MEBIBYTES: u32 = 1024 * 1024;
/// The fewest processes and threads: what a small program needs to start.
const MIN_PIDS: u32 = 8;
/// The most processes and threads (Linux: `PID_MAX_LIMIT`).
const MAX_PIDS: u32 = 4 * 1024 * 1024;

/// What a filter elsewhere makes exceptions for, and this kernel does not have
/// (`kernel/x86_64.config`: no `BPF_SYSCALL`, no `KEYS`).
const NOT_IN_KERNEL: [&str; 2] = ["bpf", "keyring"];

/// Why a value of the `[confinement]` table was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfinementError {
    /// There is no such profile.
    #[error(
        "`{0}` is not a known profile: use `default`, which keeps no capability, or `container`, which leaves root those that Docker leaves it"
    )]
    Profile(String),
    /// There is no such exception to the filter of system calls.
    #[error("`{0}` cannot be allowed: use {names}", names = Allowance::names())]
    Allowance(String),
    /// There is nothing to make an exception for.
    #[error(
        "`{0}` cannot be allowed: the enclave's kernel is built without it, so that its calls fail in any case; remove it"
    )]
    NotInKernel(String),
    /// A list names something twice.
    #[error("`{0}` is listed twice: remove one")]
    Twice(String),
    /// Not a size in MiB.
    #[error("{0} is not a size: write a whole number of MiB from 1 to {MAX_MEBIBYTES}")]
    Mebibytes(String),
    /// Not a number of processes.
    #[error("{0} is not a number of processes: write a whole number from {MIN_PIDS} to {MAX_PIDS}")]
    Pids(String),
    /// Not a weight of control groups.
    #[error("{0} is not a weight: write a whole number from 1 to 10000, where 100 is usual")]
    CpuWeight(String),
    /// A limit that the enclave's memory does not hold.
    #[error(
        "{key} of {size} MiB is not below the enclave's {memory} MiB: lower it, or raise enclave.memory_mib"
    )]
    TooLarge {
        /// The key in the table.
        key: &'static str,
        /// Its value.
        size: Mebibytes,
        /// The enclave's memory.
        memory: MemoryMib,
    },
}

/// The `[confinement]` table. All of it is measured. What is absent is as tight as
/// it can be, and sizes are computed from the memory that the enclave has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Confinement {
    /// Which capabilities root keeps.
    pub profile: Profile,
    /// Capabilities that the workload has beside these, whoever its user is.
    pub capabilities: Vec<Capability>,
    /// System calls that are let through though they widen what can be attacked.
    pub allow: Vec<Allowance>,
    /// Whether the image's files cannot be changed.
    pub read_only_root: bool,
    /// The most memory for its processes and the files that they write.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<Mebibytes>,
    /// The most processes and threads at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<Pids>,
    /// Room for files in `/` beside those of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_mib: Option<Mebibytes>,
    /// Room for files in `/tmp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tmp_mib: Option<Mebibytes>,
    /// Room for files in `/run`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_mib: Option<Mebibytes>,
    /// Room for shared memory in `/dev/shm`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shm_mib: Option<Mebibytes>,
}

/// Which capabilities root keeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum Profile {
    /// None.
    #[default]
    Default,
    /// Those that Docker leaves it, but MKNOD.
    Container,
}

/// System calls that the filter lets through when the image says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "&'static str")]
pub enum Allowance {
    /// `io_uring_setup`, `io_uring_enter`, `io_uring_register`.
    IoUring,
    /// New user namespaces, and in them mounts and all other namespaces.
    UserNamespaces,
    /// `ptrace` and what reads or changes other processes' memory.
    Ptrace,
}

/// A size in MiB, 1 to 1 048 576.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "WholeNumber", into = "u32")]
pub struct Mebibytes(u32);

/// A number of processes and threads, 8 to 4 194 304.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "WholeNumber", into = "u32")]
pub struct Pids(u32);

impl Confinement {
    /// The capabilities that the workload starts with: the profile's are root's,
    /// those that are named are any user's.
    pub fn capabilities_of(&self, is_root: bool) -> Vec<Capability> {
        let mut capabilities = self.capabilities.clone();
        if is_root && self.profile == Profile::Container {
            capabilities.extend(Capability::CONTAINER);
        }
        capabilities.sort_unstable();
        capabilities.dedup();
        capabilities
    }

    /// Whether the filter makes this exception.
    pub fn allows(&self, allowance: Allowance) -> bool {
        self.allow.contains(&allowance)
    }

    /// Checks what concerns more than one value. Gives the key, and the element of
    /// its list where there is one.
    pub(crate) fn check(
        &self,
        memory: Option<MemoryMib>,
    ) -> Result<(), (&'static str, Option<usize>, ConfinementError)> {
        if let Some((index, name)) = repeated(&self.capabilities) {
            let error = ConfinementError::Twice(name.to_string());
            return Err(("capabilities", Some(index), error));
        }
        if let Some((index, name)) = repeated(&self.allow) {
            let error = ConfinementError::Twice(name.to_string());
            return Err(("allow", Some(index), error));
        }
        let Some(memory) = memory else { return Ok(()) };
        for (key, size) in [
            ("memory_mib", self.memory_mib),
            ("root_mib", self.root_mib),
            ("tmp_mib", self.tmp_mib),
            ("run_mib", self.run_mib),
            ("shm_mib", self.shm_mib),
        ] {
            if let Some(size) = size.filter(|size| size.bytes() >= memory.bytes()) {
                let error = ConfinementError::TooLarge { key, size, memory };
                return Err((key, None, error));
            }
        }
        Ok(())
    }
}

/// The place of the first element that is there already.
fn repeated<T: PartialEq>(list: &[T]) -> Option<(usize, &T)> {
    list.iter().enumerate().find(|&(index, element)| {
        let (before, _) = list.split_at(index);
        before.contains(element)
    })
}

impl TryFrom<String> for Profile {
    type Error = ConfinementError;

    fn try_from(text: String) -> Result<Self, ConfinementError> {
        match text.as_str() {
            "default" => Ok(Self::Default),
            "container" => Ok(Self::Container),
            _ => Err(ConfinementError::Profile(text)),
        }
    }
}

impl From<Profile> for &'static str {
    fn from(profile: Profile) -> Self {
        match profile {
            Profile::Default => "default",
            Profile::Container => "container",
        }
    }
}

impl Allowance {
    const ALL: [(&'static str, Self); 3] = [
        ("io-uring", Self::IoUring),
        ("user-namespaces", Self::UserNamespaces),
        ("ptrace", Self::Ptrace),
    ];

    fn names() -> String {
        Self::ALL.map(|(name, _)| name).join(", ")
    }
}

impl FromStr for Allowance {
    type Err = ConfinementError;

    fn from_str(text: &str) -> Result<Self, ConfinementError> {
        if NOT_IN_KERNEL.contains(&text) {
            return Err(ConfinementError::NotInKernel(text.to_owned()));
        }
        Self::ALL
            .into_iter()
            .find(|(name, _)| *name == text)
            .map(|(_, allowance)| allowance)
            .ok_or_else(|| ConfinementError::Allowance(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Allowance {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Word::new("an exception to the filter, as in `io-uring`"))
    }
}

impl From<Allowance> for &'static str {
    fn from(allowance: Allowance) -> Self {
        Allowance::ALL
            .into_iter()
            .find(|(_, known)| *known == allowance)
            .map_or("", |(name, _)| name)
    }
}

impl fmt::Display for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str((*self).into())
    }
}

impl Mebibytes {
    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        // At most 2^40.
        self.0 as u64 * 1024 * 1024
    }
}

impl TryFrom<WholeNumber> for Mebibytes {
    type Error = ConfinementError;

    fn try_from(WholeNumber(number): WholeNumber) -> Result<Self, ConfinementError> {
        in_range(number, 1, MAX_MEBIBYTES)
            .map(Self)
            .ok_or_else(|| ConfinementError::Mebibytes(number.to_string()))
    }
}

impl From<Mebibytes> for u32 {
    fn from(size: Mebibytes) -> Self {
        size.0
    }
}

impl fmt::Display for Mebibytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Pids {
    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<WholeNumber> for Pids {
    type Error = ConfinementError;

    fn try_from(WholeNumber(number): WholeNumber) -> Result<Self, ConfinementError> {
        in_range(number, MIN_PIDS, MAX_PIDS)
            .map(Self)
            .ok_or_else(|| ConfinementError::Pids(number.to_string()))
    }
}

impl From<Pids> for u32 {
    fn from(pids: Pids) -> Self {
        pids.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confinement_profile_is_roots_and_named_capabilities_are_any_users() {
        let mut confinement = Confinement::default();
        assert!(confinement.capabilities_of(true).is_empty());
        confinement.capabilities = vec!["NET_RAW".parse().unwrap(), "CHOWN".parse().unwrap()];
        let names = |confinement: &Confinement, is_root| {
            let capabilities = confinement.capabilities_of(is_root);
            capabilities
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&confinement, true), ["CHOWN", "NET_RAW"]);
        assert_eq!(names(&confinement, false), ["CHOWN", "NET_RAW"]);
        confinement.profile = Profile::Container;
        assert_eq!(names(&confinement, true).len(), 13);
        assert_eq!(names(&confinement, false), ["CHOWN", "NET_RAW"]);
    }

    #[test]
    fn confinement_reads_back() {
        let text = r#"{"profile":"container","capabilities":["NET_RAW"],"allow":["io-uring"],"read_only_root":true,"memory_mib":5,"pids":8,"root_mib":1,"tmp_mib":2,"run_mib":3,"shm_mib":4}"#;
        let confinement: Confinement = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&confinement).unwrap(), text);
        assert!(confinement.allows(Allowance::IoUring));
        assert!(!confinement.allows(Allowance::Ptrace));
        let empty = serde_json::to_string(&Confinement::default()).unwrap();
        assert_eq!(
            empty,
            r#"{"profile":"default","capabilities":[],"allow":[],"read_only_root":false}"#
        );
    }
}
