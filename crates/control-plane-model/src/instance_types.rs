//! EC2 instance types that can be the parent of an enclave.
//!
//! AWS's rule ("Requirements", Nitro Enclaves User Guide): virtualised Nitro
//! instances, Intel or AMD with at least 4 vCPUs, or Graviton with at least 2; no
//! bare metal, no burstable types. The families here are those that AWS has had on
//! that page since their first generation; vCPUs and memory are from the EC2 User
//! Guide. A type that is missing is refused before anything is created.

use std::fmt;

/// Memory that the parent keeps for its system and the agent, in MiB.
pub const PARENT_MEMORY_MIB: u64 = 1024;

/// What an instance type has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InstanceType {
    /// vCPUs.
    pub vcpus: u64,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// What it runs.
    pub architecture: Architecture,
}

/// A processor architecture, named as Linux names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// Intel and AMD; two vCPUs are a core.
    X86_64,
    /// Graviton; a vCPU is a core.
    Aarch64,
}

impl Architecture {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// vCPUs that share a core: an enclave gets whole cores, and leaves one.
    pub const fn threads_per_core(self) -> u64 {
        match self {
            Self::X86_64 => 2,
            Self::Aarch64 => 1,
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Families that share their sizes.
struct Group {
    names: &'static [&'static str],
    architecture: Architecture,
    memory_mib_per_vcpu: u64,
    /// In units of `xlarge`, which has four vCPUs.
    sizes: &'static [u64],
}

const fn x86(
    names: &'static [&'static str],
    memory_mib_per_vcpu: u64,
    sizes: &'static [u64],
) -> Group {
    Group {
        names,
        architecture: Architecture::X86_64,
        memory_mib_per_vcpu,
        sizes,
    }
}

const fn graviton(names: &'static [&'static str], memory_mib_per_vcpu: u64) -> Group {
    Group {
        names,
        architecture: Architecture::Aarch64,
        memory_mib_per_vcpu,
        sizes: &[1, 2, 4, 8, 12, 16],
    }
}

const GROUPS: [Group; 17] = [
    x86(
        &["m5", "m5a", "m5ad", "m5d", "m5dn", "m5n"],
        4096,
        &[1, 2, 4, 8, 12, 16, 24],
    ),
    x86(&["m5zn"], 4096, &[1, 2, 3, 6, 12]),
    x86(
        &["m6i", "m6id", "m6idn", "m6in"],
        4096,
        &[1, 2, 4, 8, 12, 16, 24, 32],
    ),
    x86(&["m6a"], 4096, &[1, 2, 4, 8, 12, 16, 24, 32, 48]),
    x86(&["c5", "c5d"], 2048, &[1, 2, 4, 9, 12, 18, 24]),
    x86(&["c5n"], 2688, &[1, 2, 4, 9, 18]),
    x86(&["c5a", "c5ad"], 2048, &[1, 2, 4, 8, 12, 16, 24]),
    x86(
        &["c6i", "c6id", "c6in"],
        2048,
        &[1, 2, 4, 8, 12, 16, 24, 32],
    ),
    x86(&["c6a"], 2048, &[1, 2, 4, 8, 12, 16, 24, 32, 48]),
    x86(
        &["r5", "r5a", "r5ad", "r5b", "r5d", "r5dn", "r5n"],
        8192,
        &[1, 2, 4, 8, 12, 16, 24],
    ),
    x86(
        &["r6i", "r6id", "r6idn", "r6in"],
        8192,
        &[1, 2, 4, 8, 12, 16, 24, 32],
    ),
    x86(&["r6a"], 8192, &[1, 2, 4, 8, 12, 16, 24, 32, 48]),
    graviton(&["m6g", "m6gd", "m7g"], 4096),
    graviton(&["c6g", "c6gd", "c7g"], 2048),
    graviton(&["c6gn"], 2048),
    graviton(&["r6g", "r6gd", "r7g"], 8192),
    graviton(&["x2gd"], 16384),
];

/// Why a type cannot be a parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// It has no hypervisor.
    #[error("bare metal has no hypervisor and so no enclaves: choose a virtualised size")]
    Metal,
    /// It has too few vCPUs.
    #[error("an enclave needs a parent of at least 4 vCPUs (Graviton: 2): choose xlarge or larger")]
    TooSmall,
    /// It is in no family that is known.
    #[error(
        "it is not among the types known to support Nitro Enclaves (m5, m6i, m6a, c5, c6i, c6a, r5, r6i, r6a, m6g, m7g, c6g, c7g, r6g, r7g and their variants)"
    )]
    Unknown,
}

/// What a type has, if it can be a parent.
pub fn find(name: &str) -> Result<InstanceType, Unsupported> {
    let (family, size) = name.split_once('.').ok_or(Unsupported::Unknown)?;
    let group = GROUPS
        .iter()
        .find(|group| group.names.contains(&family))
        .ok_or(Unsupported::Unknown)?;
    if size.starts_with("metal") {
        return Err(Unsupported::Metal);
    }
    let graviton = group.architecture == Architecture::Aarch64;
    let vcpus = match size {
        "medium" | "large" if !graviton => return Err(Unsupported::TooSmall),
        "medium" => return Err(Unsupported::TooSmall),
        "large" => 2,
        "xlarge" => 4,
        _ => {
            let units = size
                .strip_suffix("xlarge")
                .and_then(|units| units.parse::<u64>().ok())
                .filter(|units| group.sizes.contains(units) && *units > 1)
                .ok_or(Unsupported::Unknown)?;
            units * 4
        }
    };
    Ok(InstanceType {
        vcpus,
        memory_mib: vcpus * group.memory_mib_per_vcpu,
        architecture: group.architecture,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_types_have_what_awss_pages_say() {
        for (name, vcpus, gib, architecture) in [
            ("m6i.xlarge", 4, 16, Architecture::X86_64),
            ("m5zn.3xlarge", 12, 48, Architecture::X86_64),
            ("c5.9xlarge", 36, 72, Architecture::X86_64),
            ("r6a.48xlarge", 192, 1536, Architecture::X86_64),
            ("c7g.large", 2, 4, Architecture::Aarch64),
            ("r6gd.16xlarge", 64, 512, Architecture::Aarch64),
        ] {
            let found = find(name).unwrap();
            let expected = InstanceType {
                vcpus,
                memory_mib: gib * 1024,
                architecture,
            };
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn others_are_refused_for_what_they_are() {
        for (name, why) in [
            ("m5.metal", Unsupported::Metal),
            ("c6g.metal", Unsupported::Metal),
            ("m6i.large", Unsupported::TooSmall),
            ("c7g.medium", Unsupported::TooSmall),
            ("t3.xlarge", Unsupported::Unknown),
            ("m6i.3xlarge", Unsupported::Unknown),
            ("m6i", Unsupported::Unknown),
            ("m6i.01xlarge", Unsupported::Unknown),
            ("", Unsupported::Unknown),
        ] {
            assert_eq!(find(name), Err(why), "{name}");
        }
    }

    #[test]
    fn no_family_is_listed_twice() {
        let mut names: Vec<_> = GROUPS.iter().flat_map(|group| group.names).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
