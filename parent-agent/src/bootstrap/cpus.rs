//! Step `cpus`: the pool of CPUs that the driver takes from the instance.
//!
//! An enclave has whole cores, all of one NUMA node, and never the first core,
//! which the instance keeps. The CPUs of the pool are offline: of them the kernel
//! still names the NUMA node, but neither the siblings nor that the node has them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::host::{format_list, parse_list};
use super::{Check, Outcome, Setup};

const POOL: &str = "/sys/module/nitro_enclaves/parameters/ne_cpus";
const CPUS: &str = "/sys/devices/system/cpu";
const ONLINE: &str = "/sys/devices/system/cpu/online";

pub(super) fn check(setup: &Setup<'_>) -> Outcome<Check> {
    check_whole_cores(setup)?;
    let needed = needed(setup)?;
    let pool = pool(setup)?;
    if pool.len() >= needed {
        return Ok(Check::Done(format!(
            "the pool has the CPUs {}, {needed} are needed",
            format_list(&pool)
        )));
    }
    if pool.is_empty() {
        let chosen = choose(setup, node(setup)?, needed)?;
        return Ok(Check::Todo(format!(
            "take the CPUs {} out of the instance",
            format_list(&chosen)
        )));
    }
    let (node, capacity) = roomiest(setup, needed)?;
    if capacity < needed {
        return Err(too_few(node, capacity, needed));
    }
    Ok(Check::Todo(format!(
        "replace the pool, which has the CPUs {}, by one of {needed} CPUs of NUMA node {node}",
        format_list(&pool)
    )))
}

pub(super) fn apply(setup: &Setup<'_>) -> Outcome<()> {
    if has_enclaves(setup) {
        return Err(
            "the pool is too small, and cannot be changed while enclaves run: stop them first"
                .to_owned(),
        );
    }
    if !setup.host.exists(POOL) {
        return Err(format!(
            "there is no {POOL}: is the module nitro_enclaves loaded?"
        ));
    }
    let needed = needed(setup)?;
    // Before the pool is emptied, since memory was reserved on this one.
    let node = node(setup)?;
    empty(setup)?;
    let chosen = format_list(&choose(setup, node, needed)?);
    setup.host.write(POOL, &chosen).map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::PermissionDenied => IN_USE,
            _ => "the kernel's log says what the driver objects to",
        };
        format!("the driver takes no pool of the CPUs {chosen}: {error}; {advice}")
    })
}

pub(super) fn undo(setup: &Setup<'_>) -> Outcome<String> {
    if pool(setup)?.is_empty() {
        return Ok("the pool is empty".to_owned());
    }
    if has_enclaves(setup) {
        return Err("the pool cannot be emptied while enclaves run: stop them first".to_owned());
    }
    empty(setup)?;
    Ok("gave the CPUs of the pool back to the instance".to_owned())
}

/// Why the driver permits no change.
const IN_USE: &str = "it changes the pool only for root, and while there is no enclave: stop those that were started otherwise than by this configuration";

/// Gives the CPUs of the pool back. The driver does that before it looks at the new pool,
/// and calls an empty one invalid: so what the pool is afterwards counts.
fn empty(setup: &Setup<'_>) -> Outcome<()> {
    if pool(setup)?.is_empty() {
        return Ok(());
    }
    let written = setup.host.write(POOL, "\n");
    if pool(setup)?.is_empty() {
        return Ok(());
    }
    let reason = written.map_or_else(|error| error.to_string(), |()| "it stays".to_owned());
    Err(format!(
        "the driver does not empty its pool: {reason}; {IN_USE}"
    ))
}

/// Whether an enclave of ours may have its resources already: then they are not
/// to be touched.
pub(super) fn has_enclaves(setup: &Setup<'_>) -> bool {
    super::service::any_active(setup)
}

/// The NUMA node that memory and CPUs come from.
pub(super) fn node(setup: &Setup<'_>) -> Outcome<u32> {
    let needed = needed(setup)?;
    roomiest(setup, needed).map(|(node, _)| node)
}

/// The node that the enclaves' CPUs come from, and how many it can give: the pool's, if
/// that suffices, or the one that can give most.
fn roomiest(setup: &Setup<'_>, needed: usize) -> Outcome<(u32, usize)> {
    let pool = pool(setup)?;
    let mut nodes: BTreeMap<u32, usize> = BTreeMap::new();
    for (node, cores) in free_cores(setup)? {
        nodes.insert(node, cores.iter().map(Vec::len).sum());
    }
    for cpu in &pool {
        *nodes.entry(node_of(setup, *cpu)?).or_default() += 1;
    }
    if let Some(first) = pool.first() {
        let node = node_of(setup, *first)?;
        let capacity = nodes.get(&node).copied().unwrap_or_default();
        if capacity >= needed {
            return Ok((node, capacity));
        }
    }
    let most = nodes.into_iter().max_by_key(|(node, capacity)| {
        // Of equal ones the first, which machines with one node have.
        (*capacity, std::cmp::Reverse(*node))
    });
    most.ok_or_else(|| format!("{ONLINE} names no CPU"))
}

/// The cores that enclaves could have, by their node. A node without one is there too.
fn free_cores(setup: &Setup<'_>) -> Outcome<BTreeMap<u32, BTreeSet<Vec<u32>>>> {
    let online = list(setup, ONLINE)?;
    let mut nodes: BTreeMap<u32, BTreeSet<Vec<u32>>> = BTreeMap::new();
    for cpu in online {
        let cores = nodes.entry(node_of(setup, cpu)?).or_default();
        let siblings = siblings(setup, cpu)?;
        if !siblings.contains(&0) && !siblings.is_empty() {
            cores.insert(siblings);
        }
    }
    Ok(nodes)
}

/// The CPUs of an online CPU's core, those of them that are online.
fn siblings(setup: &Setup<'_>, cpu: u32) -> Outcome<Vec<u32>> {
    list(
        setup,
        &format!("{CPUS}/cpu{cpu}/topology/thread_siblings_list"),
    )
}

/// The NUMA node of a CPU, which may be offline.
fn node_of(setup: &Setup<'_>, cpu: u32) -> Outcome<u32> {
    let folder = format!("{CPUS}/cpu{cpu}");
    let names = setup.host.names(&folder)?;
    let mut nodes = names
        .iter()
        .filter_map(|name| name.strip_prefix("node")?.parse().ok());
    nodes
        .next()
        .ok_or_else(|| format!("{folder} names no NUMA node: is this kernel as it should be?"))
}

fn list(setup: &Setup<'_>, path: &str) -> Outcome<Vec<u32>> {
    let text = setup.host.read(path)?.unwrap_or_default();
    parse_list(&text).ok_or_else(|| format!("{path} holds no list: `{text}`"))
}

/// The pool, which is empty before the driver is there.
fn pool(setup: &Setup<'_>) -> Outcome<Vec<u32>> {
    list(setup, POOL)
}

/// CPUs for all enclaves.
fn needed(setup: &Setup<'_>) -> Outcome<usize> {
    let mut cpus = 0;
    for enclave in &setup.config.enclaves {
        let count = enclave.cpus.ok_or_else(|| {
            format!(
                "the enclave `{}` has no cpus in the configuration, and CPUs are reserved before its image is here: add it",
                enclave.name
            )
        })?;
        cpus += u32::from(count) as usize;
    }
    Ok(cpus)
}

/// An enclave has whole cores: the driver starts none that leaves a thread of one
/// unused, and gives that thread to no other.
fn check_whole_cores(setup: &Setup<'_>) -> Outcome<()> {
    // Of the first core, which is never in the pool; all have as many.
    let threads = siblings(setup, 0)?.len().max(1);
    for enclave in &setup.config.enclaves {
        let cpus = enclave.cpus.map_or(0, |cpus| u32::from(cpus) as usize);
        if cpus % threads != 0 {
            return Err(format!(
                "the enclave `{}` has {cpus} CPUs, but a core of this instance has {threads}, and an enclave has whole cores: give it {}",
                enclave.name,
                cpus.next_multiple_of(threads)
            ));
        }
    }
    Ok(())
}

/// Whole cores of the node, from the last on.
fn choose(setup: &Setup<'_>, node: u32, needed: usize) -> Outcome<Vec<u32>> {
    let cores = free_cores(setup)?.remove(&node).unwrap_or_default();
    let mut chosen = Vec::new();
    for siblings in cores.into_iter().rev() {
        if chosen.len() >= needed {
            break;
        }
        chosen.extend(siblings);
    }
    if chosen.len() < needed {
        return Err(too_few(node, chosen.len(), needed));
    }
    chosen.sort_unstable();
    Ok(chosen)
}

fn too_few(node: u32, capacity: usize, needed: usize) -> String {
    format!(
        "NUMA node {node} has {capacity} CPUs for enclaves (the first core stays with the instance), but they need {needed}: give them fewer, or the instance more"
    )
}
