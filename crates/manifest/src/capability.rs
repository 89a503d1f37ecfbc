//! Linux's capabilities, as far as a workload may have them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

use crate::text::Word;

/// Whether a workload may have a capability; if not, why.
type Rule = Result<(), &'static str>;

const MAY: Rule = Ok(());
const TAKES_LIMITS_AWAY: Rule =
    Err("it removes the limits that reserve memory and processor time for the init");
const REACHES_KERNEL: Rule = Err("it gives control over the kernel, and so over the init");
const SEES_KERNEL: Rule = Err("it reveals what the kernel hides from programs");
const CHANGES_POLICY: Rule = Err("it changes the rules that confine the workload");

/// The capabilities in the order of their numbers (`linux/capability.h`).
const CAPABILITIES: [(&str, Rule); 41] = [
    ("CHOWN", MAY),
    ("DAC_OVERRIDE", MAY),
    ("DAC_READ_SEARCH", MAY),
    ("FOWNER", MAY),
    ("FSETID", MAY),
    ("KILL", MAY),
    ("SETGID", MAY),
    ("SETUID", MAY),
    ("SETPCAP", MAY),
    ("LINUX_IMMUTABLE", MAY),
    ("NET_BIND_SERVICE", MAY),
    ("NET_BROADCAST", MAY),
    (
        "NET_ADMIN",
        Err("it opens vsock, and changes the network in which the egress list is enforced"),
    ),
    ("NET_RAW", MAY),
    ("IPC_LOCK", MAY),
    ("IPC_OWNER", MAY),
    ("SYS_MODULE", REACHES_KERNEL),
    ("SYS_RAWIO", REACHES_KERNEL),
    ("SYS_CHROOT", MAY),
    (
        "SYS_PTRACE",
        Err("it reads and changes the memory of every program"),
    ),
    ("SYS_PACCT", CHANGES_POLICY),
    (
        "SYS_ADMIN",
        Err("it mounts file systems and leaves namespaces, so nothing would confine the workload"),
    ),
    ("SYS_BOOT", Err("it ends the enclave without the init")),
    ("SYS_NICE", TAKES_LIMITS_AWAY),
    ("SYS_RESOURCE", TAKES_LIMITS_AWAY),
    (
        "SYS_TIME",
        Err("only the init may set the clock, by which it checks documents"),
    ),
    ("SYS_TTY_CONFIG", MAY),
    (
        "MKNOD",
        Err("it makes device nodes, including the security module's"),
    ),
    ("LEASE", MAY),
    ("AUDIT_WRITE", MAY),
    ("AUDIT_CONTROL", CHANGES_POLICY),
    ("SETFCAP", MAY),
    ("MAC_OVERRIDE", CHANGES_POLICY),
    ("MAC_ADMIN", CHANGES_POLICY),
    ("SYSLOG", SEES_KERNEL),
    ("WAKE_ALARM", MAY),
    ("BLOCK_SUSPEND", MAY),
    ("AUDIT_READ", SEES_KERNEL),
    ("PERFMON", SEES_KERNEL),
    ("BPF", REACHES_KERNEL),
    (
        "CHECKPOINT_RESTORE",
        Err("it chooses process ids and reads other programs' memory maps"),
    ),
];

/// Why a text is not a capability that a workload can have.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CapabilityError {
    /// Linux has no such capability.
    #[error("`{0}` is not a known capability: use one of {names}", names = names())]
    Unknown(String),
    /// The workload would not be confined any more.
    #[error("no workload may have the capability {name}: {reason}; remove it")]
    Refused {
        /// Its name.
        name: &'static str,
        /// What it would do.
        reason: &'static str,
    },
}

/// A capability that a workload may have, by Linux's name without `CAP_`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "String")]
pub struct Capability(u8);

impl Capability {
    /// What Docker gives root, without MKNOD.
    pub(crate) const CONTAINER: [Self; 13] = [
        Self(0),
        Self(1),
        Self(3),
        Self(4),
        Self(5),
        Self(6),
        Self(7),
        Self(8),
        Self(10),
        Self(13),
        Self(18),
        Self(29),
        Self(31),
    ];

    /// Its number (`linux/capability.h`).
    pub const fn number(self) -> u8 {
        self.0
    }

    fn name(self) -> &'static str {
        capability_name(self.0).unwrap_or_default()
    }
}

/// Linux's name of a capability without `CAP_`, whether a workload may have it or not.
pub fn capability_name(number: u8) -> Option<&'static str> {
    CAPABILITIES.get(usize::from(number)).map(|(name, _)| *name)
}

impl FromStr for Capability {
    type Err = CapabilityError;

    fn from_str(text: &str) -> Result<Self, CapabilityError> {
        let name = text.strip_prefix("CAP_").unwrap_or(text);
        for (number, (known, rule)) in (0..).zip(CAPABILITIES) {
            if known == name {
                let refused = |reason| CapabilityError::Refused {
                    name: known,
                    reason,
                };
                return rule.map(|()| Self(number)).map_err(refused);
            }
        }
        Err(CapabilityError::Unknown(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Capability {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Word::new("a capability, as in `NET_BIND_SERVICE`"))
    }
}

impl From<Capability> for String {
    fn from(capability: Capability) -> Self {
        capability.name().to_owned()
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Those that may be named, for an error.
fn names() -> String {
    let names: Vec<_> = CAPABILITIES
        .iter()
        .filter(|(_, rule)| rule.is_ok())
        .map(|(name, _)| *name)
        .collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capability_is_named_with_or_without_its_prefix() {
        for (text, number) in [
            ("CHOWN", 0),
            ("NET_BIND_SERVICE", 10),
            ("CAP_NET_BIND_SERVICE", 10),
            ("SYS_CHROOT", 18),
            ("SETFCAP", 31),
            ("BLOCK_SUSPEND", 36),
        ] {
            let capability: Capability = text.parse().unwrap();
            assert_eq!(capability.number(), number, "{text}");
            let name = text.strip_prefix("CAP_").unwrap_or(text);
            assert_eq!(capability.to_string(), name);
        }
    }

    #[test]
    fn capability_that_would_break_the_boundary_is_refused() {
        for (name, number) in [
            ("NET_ADMIN", 12),
            ("SYS_MODULE", 16),
            ("SYS_RAWIO", 17),
            ("SYS_PTRACE", 19),
            ("SYS_ADMIN", 21),
            ("SYS_BOOT", 22),
            ("SYS_NICE", 23),
            ("SYS_RESOURCE", 24),
            ("SYS_TIME", 25),
            ("MKNOD", 27),
            ("MAC_OVERRIDE", 32),
            ("MAC_ADMIN", 33),
            ("SYSLOG", 34),
            ("PERFMON", 38),
            ("BPF", 39),
            ("CHECKPOINT_RESTORE", 40),
        ] {
            assert_eq!(CAPABILITIES[number].0, name);
            let error = name.parse::<Capability>().unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("no workload may have the capability {name}: ")),
                "{error}"
            );
            let prefixed = format!("CAP_{name}").parse::<Capability>();
            assert_eq!(prefixed.unwrap_err().to_string(), error);
        }
    }

    #[test]
    fn capability_that_is_not_known_is_refused_with_those_that_are() {
        for text in [
            "",
            "ALL",
            "net_raw",
            "CAP_CAP_CHOWN",
            " CHOWN",
            "NET_BIND",
            "CAP_",
        ] {
            let error = text.parse::<Capability>().unwrap_err().to_string();
            assert!(error.contains("is not a known capability"), "{error}");
            assert!(error.contains("NET_BIND_SERVICE, "), "{error}");
            assert!(!error.contains("SYS_ADMIN"), "{error}");
        }
    }

    #[test]
    fn capability_set_of_containers_has_no_device_nodes() {
        let names = Capability::CONTAINER.map(Capability::name);
        assert_eq!(
            names,
            [
                "CHOWN",
                "DAC_OVERRIDE",
                "FOWNER",
                "FSETID",
                "KILL",
                "SETGID",
                "SETUID",
                "SETPCAP",
                "NET_BIND_SERVICE",
                "NET_RAW",
                "SYS_CHROOT",
                "AUDIT_WRITE",
                "SETFCAP"
            ]
        );
        for name in names {
            assert!(name.parse::<Capability>().is_ok(), "{name}");
        }
    }
}
