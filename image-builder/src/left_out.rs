//! What the layers have and an enclave image cannot: said, and not lost in silence.

use std::collections::BTreeMap;

use manifest::{Capability, capability_name};

use crate::list::list;
use crate::path::below;

/// The capability without which anybody may listen on any port in the enclave.
const NET_BIND_SERVICE: u64 = 1 << 10;
/// Longest name of an extended attribute, in bytes (Linux, `XATTR_NAME_MAX`).
const MAX_ATTRIBUTE_NAME: usize = 255;
/// Most files that a line names.
const MOST: usize = 3;

/// The extended attributes of an entry, which a ramdisk cannot hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// The capabilities that a program gets, as a bit mask (`security.capability`).
    pub(crate) capabilities: u64,
    /// The name of another attribute.
    pub(crate) other: Option<String>,
}

impl Attributes {
    /// Takes over one attribute; `None` if Linux cannot have one of this name.
    pub(crate) fn set(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        if name.len() > MAX_ATTRIBUTE_NAME {
            return None;
        }
        if name == b"security.capability" {
            self.capabilities = permitted(value) & !NET_BIND_SERVICE;
        } else {
            let name = || String::from_utf8_lossy(name).into_owned();
            self.other.get_or_insert_with(name);
        }
        Some(())
    }

    /// The bytes of the name that is kept.
    pub(crate) fn name_bytes(&self) -> usize {
        self.other.as_ref().map_or(0, String::len)
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The mask of permitted capabilities (`struct vfs_cap_data` in `linux/capability.h`, whose
/// versions 2 and 3 have 64 bits in two parts).
fn permitted(value: &[u8]) -> u64 {
    let word = |offset: usize| {
        let bytes = value.get(offset..).and_then(<[u8]>::first_chunk);
        bytes.map_or(0, |bytes| u64::from(u32::from_le_bytes(*bytes)))
    };
    word(4) | (word(12) << 32)
}

/// One thing that is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Thing {
    Device,
    Socket,
    Attributes(Attributes),
}

/// What is left out of a tree, by path.
#[derive(Debug, Default)]
pub(crate) struct LeftOut(BTreeMap<Vec<u8>, Thing>);

impl LeftOut {
    /// A device node that would be at this path.
    pub(crate) fn device(&mut self, path: Vec<u8>) {
        self.0.insert(path, Thing::Device);
    }

    /// A socket that would be at this path.
    pub(crate) fn socket(&mut self, path: Vec<u8>) {
        self.0.insert(path, Thing::Socket);
    }

    /// The attributes of what is at this path.
    pub(crate) fn attributes(&mut self, path: Vec<u8>, attributes: Attributes) {
        if !attributes.is_empty() {
            self.0.insert(path, Thing::Attributes(attributes));
        }
    }

    /// Something else is at this path now, or nothing.
    pub(crate) fn forget(&mut self, path: &[u8]) {
        self.0.remove(path);
    }

    /// Nothing is below this folder any more.
    pub(crate) fn forget_below(&mut self, folder: &[u8]) {
        let gone: Vec<_> = below(&self.0, folder).map(<[u8]>::to_vec).collect();
        for path in gone {
            self.0.remove(&path);
        }
    }

    /// A line for each kind. Capabilities that every program of the workload has anyhow, as
    /// the manifest grants them, are not missed.
    pub(crate) fn notes(&self, granted: &[Capability]) -> Vec<String> {
        let granted = granted
            .iter()
            .fold(0, |mask, capability| mask | 1 << capability.number());
        let devices = self.listed(|thing| (*thing == Thing::Device).then(String::new));
        let sockets = self.listed(|thing| (*thing == Thing::Socket).then(String::new));
        let capabilities = self.listed(|thing| match thing {
            Thing::Attributes(Attributes { capabilities, .. }) => {
                let missed = capabilities & !granted;
                (missed != 0).then(|| format!(" ({})", names(missed)))
            }
            Thing::Device | Thing::Socket => None,
        });
        let others = self.listed(|thing| match thing {
            Thing::Attributes(Attributes { other, .. }) => {
                other.as_ref().map(|name| format!(" ({name})"))
            }
            Thing::Device | Thing::Socket => None,
        });
        let notes = [
            (
                devices,
                "device nodes are left out",
                "the enclave has a /dev of its own",
            ),
            (
                sockets,
                "sockets are left out",
                "the servers that listen on them make them anew",
            ),
            (
                capabilities,
                "file capabilities are left out",
                "in an enclave no program gives its user new privileges: grant those that the workload needs in confinement.capabilities",
            ),
            (
                others,
                "extended attributes are left out",
                "an enclave image cannot hold them",
            ),
        ];
        notes
            .into_iter()
            .filter_map(|(listed, what, why)| Some(format!("{what}: {}; {why}", listed?)))
            .collect()
    }

    /// The first paths with what is said of them, and how many there are.
    fn listed(&self, say: impl Fn(&Thing) -> Option<String>) -> Option<String> {
        let said = self.0.iter().filter_map(|(path, thing)| {
            Some(format!("/{}{}", String::from_utf8_lossy(path), say(thing)?))
        });
        list(said, MOST)
    }
}

/// The names of the capabilities in a mask.
fn names(mask: u64) -> String {
    let names: Vec<_> = (0..64)
        .filter(|number| (mask >> number) & 1 == 1)
        .map(|number| capability_name(number).map_or_else(|| number.to_string(), str::to_owned))
        .collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `setcap cap_net_raw,cap_net_bind_service+ep`, as the kernel stores it (version 2).
    const NET_RAW: &[u8] = b"\x01\0\0\x02\0\x24\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

    fn attributes(name: &[u8], value: &[u8]) -> Attributes {
        let mut attributes = Attributes::default();
        attributes.set(name, value).unwrap();
        attributes
    }

    #[test]
    fn left_out_attributes_have_names_that_linux_can_have() {
        let mut attributes = Attributes::default();
        assert_eq!(attributes.set(&[b'a'; 256], b"1"), None);
        assert!(attributes.is_empty());
        assert_eq!(attributes.set(&[0xff; 255], b"1"), Some(()));
        // What is not UTF-8 is kept as three bytes each.
        assert_eq!(attributes.name_bytes(), 3 * 255);
        attributes.set(b"user.another", b"1").unwrap();
        assert_eq!(attributes.name_bytes(), 3 * 255);
    }

    #[test]
    fn left_out_capabilities_have_names() {
        let capability = |value: &[u8]| attributes(b"security.capability", value).capabilities;
        assert_eq!(names(capability(NET_RAW)), "NET_RAW");
        let mut high = [0; 20];
        high[0..4].copy_from_slice(&[1, 0, 0, 2]);
        high[12] = 0b1000_0001;
        assert_eq!(names(capability(&high)), "MAC_OVERRIDE, BPF");
        high[15] = 0x80;
        assert_eq!(names(capability(&high)), "MAC_OVERRIDE, BPF, 63");
        for length in 0..NET_RAW.len() {
            capability(&NET_RAW[..length]);
        }
        // Any user may listen on any port, so it is not missed.
        assert_eq!(capability(b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0"), 0);
    }

    #[test]
    fn left_out_things_are_one_line_for_each_kind() {
        let mut left_out = LeftOut::default();
        assert_eq!(left_out.notes(&[]), [""; 0]);
        for name in ["dev/a", "dev/b", "dev/c", "dev/d", "dev-e"] {
            left_out.device(name.into());
        }
        let net_raw = attributes(b"security.capability", NET_RAW);
        left_out.attributes(b"bin/ping".to_vec(), net_raw);
        left_out.attributes(b"x".to_vec(), attributes(b"user.a", b""));
        left_out.attributes(b"none".to_vec(), Attributes::default());
        assert_eq!(
            left_out.notes(&[]),
            [
                "device nodes are left out: /dev-e, /dev/a, /dev/b and 2 more; the enclave has a /dev of its own",
                "file capabilities are left out: /bin/ping (NET_RAW); in an enclave no program gives its user new privileges: grant those that the workload needs in confinement.capabilities",
                "extended attributes are left out: /x (user.a); an enclave image cannot hold them",
            ]
        );
        // The workload has it, whichever program it runs.
        let granted = ["NET_RAW".parse().unwrap()];
        let notes = left_out.notes(&granted);
        assert!(!notes.concat().contains("capabilities"), "{notes:?}");
        let notes = left_out.notes(&["CHOWN".parse().unwrap()]);
        assert!(notes[1].contains("/bin/ping (NET_RAW)"), "{notes:?}");
        left_out.socket(b"run/s".to_vec());
        assert!(left_out.notes(&[])[1].starts_with("sockets are left out: /run/s; "));
        left_out.forget(b"run/s");
        left_out.forget_below(b"dev");
        left_out.forget(b"x");
        left_out.forget(b"bin/ping");
        assert_eq!(
            left_out.notes(&[]),
            ["device nodes are left out: /dev-e; the enclave has a /dev of its own"]
        );
    }
}
