//! The huge pages that this program has reserved: others may have reserved some too, which
//! are not to be given back with them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Outcome, Setup};

const FILE: &str = "/var/lib/enclaves/huge-pages.json";
/// Another one after each boot, which gives all pages back.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// The pages of this boot.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Reserved {
    boot: String,
    /// By node and the kernel's name of their size.
    pages: BTreeMap<u32, BTreeMap<String, u64>>,
}

impl Reserved {
    pub(super) fn of(&self, node: u32, size: &str) -> u64 {
        let pages = self.pages.get(&node).and_then(|sizes| sizes.get(size));
        pages.copied().unwrap_or_default()
    }

    pub(super) fn set(&mut self, node: u32, size: &str, count: u64) {
        let sizes = self.pages.entry(node).or_default();
        sizes.insert(size.to_owned(), count);
    }

    /// Node, size and number.
    pub(super) fn entries(&self) -> Vec<(u32, String, u64)> {
        let of_node = |(node, sizes): (&u32, &BTreeMap<String, u64>)| {
            let node = *node;
            let sizes = sizes.clone().into_iter();
            sizes.map(move |(size, count)| (node, size, count))
        };
        self.pages.iter().flat_map(of_node).collect()
    }
}

/// What was reserved since the instance was booted.
pub(super) fn read(setup: &Setup<'_>) -> Outcome<Reserved> {
    let boot = setup.host.read(BOOT)?.unwrap_or_default();
    let none = Reserved {
        boot: boot.clone(),
        pages: BTreeMap::new(),
    };
    let Some(text) = setup.host.read(FILE)? else {
        return Ok(none);
    };
    let reserved: Reserved = serde_json::from_str(&text).map_err(|error| {
        let file = setup.host.path(FILE);
        format!(
            "{} is not what this program writes: {error}; remove it, and the huge pages are yours to give back",
            file.display()
        )
    })?;
    Ok(if reserved.boot == boot {
        reserved
    } else {
        none
    })
}

pub(super) fn write(setup: &Setup<'_>, reserved: &Reserved) -> Outcome<()> {
    let text = serde_json::to_string(reserved).map_err(|error| error.to_string())?;
    setup.host.put(FILE, &text, false)
}

pub(super) fn forget(setup: &Setup<'_>) -> Outcome<()> {
    setup.host.remove(FILE)
}
