//! Tells of the workload's limits: of those that the machine makes lower than the
//! image does, and of those that the workload has met.

use std::sync::Arc;
use std::time::Duration;

use manifest::{Confinement as Settings, Limits, Mebibytes, Workload};
use tokio::time::sleep;

use super::cgroup::{Bound, Counts, Events, Met};
use super::{Cgroup, Confinement, Sizes};
use crate::control::Handle;
use crate::logs::Logs;

const MIB: u64 = 1024 * 1024;
/// The weight of a group that was given none (Linux, `admin-guide/cgroup-v2.rst`).
const USUAL_CPU_WEIGHT: u64 = 100;
/// Between two reports at least: a workload can meet a limit as often as it likes.
const PAUSE: Duration = Duration::from_secs(1);
/// After a failure to count, which the next attempt may meet as well.
const RETRY_PAUSE: Duration = Duration::from_secs(10);

/// What bounds the workload, for the lines that say what to change.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Bytes.
    memory: u64,
    pids: u64,
    memory_key: &'static str,
    pids_key: &'static str,
}

impl Bounds {
    /// Those of all workloads together.
    pub(super) fn new(settings: &Settings, sizes: &Sizes) -> Self {
        let wanted = settings.memory_mib.map(Mebibytes::bytes);
        let memory_key = if wanted.is_none_or(|wanted| sizes.memory < wanted) {
            "enclave.memory_mib"
        } else {
            "confinement.memory_mib"
        };
        let wanted = settings.pids.map(|pids| u64::from(pids.get()));
        let pids_key = if wanted.is_some_and(|wanted| sizes.pids < wanted) {
            "the kernel's own limit, by enclave.memory_mib,"
        } else {
            "confinement.pids"
        };
        Self {
            memory: sizes.memory,
            pids: sizes.pids,
            memory_key,
            pids_key,
        }
    }

    /// One line for where there are no control groups.
    pub(super) fn without_groups(self) -> String {
        format!(
            "confinement: under sim nothing limits the workload's memory and processes; in a machine it has {} MiB and {} processes",
            self.memory / MIB,
            self.pids
        )
    }

    /// Those of one of several workloads, which has limits of its own.
    pub(super) fn within(self, limits: Limits) -> Self {
        let own = limits.memory_mib.map(Mebibytes::bytes);
        let (memory, memory_key) = match own.filter(|own| *own < self.memory) {
            Some(own) => (own, "the workload's limits.memory_mib"),
            None => (self.memory, self.memory_key),
        };
        let own = limits.pids.map(|pids| u64::from(pids.get()));
        let (pids, pids_key) = match own.filter(|own| *own < self.pids) {
            Some(own) => (own, "the workload's limits.pids"),
            None => (self.pids, self.pids_key),
        };
        Self {
            memory,
            pids,
            memory_key,
            pids_key,
        }
    }

    /// The same for the kernel.
    pub(super) fn of_group(self, workload: &Workload) -> Bound {
        let weight = workload.limits.cpu_weight;
        Bound {
            memory: self.memory,
            pids: self.pids,
            cpu_weight: weight.map_or(USUAL_CPU_WEIGHT, |weight| weight.get().into()),
        }
    }
}

/// One line about the limits that are lower than the image says; none if all of them
/// are as it says.
pub(crate) fn lowered(settings: &Settings, sizes: &Sizes) -> Option<String> {
    let memory = [
        ("memory_mib", settings.memory_mib, sizes.memory),
        ("root_mib", settings.root_mib, sizes.root),
        ("tmp_mib", settings.tmp_mib, sizes.tmp),
        ("run_mib", settings.run_mib, sizes.run),
        ("shm_mib", settings.shm_mib, sizes.shm),
    ];
    let mut lower: Vec<String> = memory
        .into_iter()
        .filter_map(|(key, wanted, bytes)| {
            let wanted = wanted?.bytes();
            let (tenths, wanted) = (bytes.saturating_mul(10) / MIB, wanted / MIB);
            let found = format!("{}.{}", tenths / 10, tenths % 10);
            (bytes / MIB < wanted).then(|| format!("{key} {found} instead of {wanted}"))
        })
        .collect();
    if let Some(wanted) = settings.pids.map(|pids| u64::from(pids.get()))
        && sizes.pids < wanted
    {
        lower.push(format!("pids {} instead of {wanted}", sizes.pids));
    }
    (!lower.is_empty()).then(|| {
        format!(
            "confinement: the machine's memory allows {}; raise enclave.memory_mib",
            lower.join(", ")
        )
    })
}

/// Tells the log of one workload, and the agent if it is the only one, for as long as the
/// enclave runs.
pub(super) async fn report(confinement: Arc<Confinement>, handle: Option<Handle>, logs: Logs) {
    let Some(cgroup) = confinement.cgroup() else {
        return;
    };
    let mut known = Events::default();
    let mut met = Met::default();
    let mut is_counted = true;
    loop {
        let told = tell(
            cgroup,
            confinement.bounds(),
            &mut known,
            &mut met,
            handle.as_ref(),
            &logs,
        )
        .await;
        if let Err(error) = &told
            && is_counted
        {
            logs.error(format!(
                "what the workload is refused cannot be counted at the moment: {error}; it is tried again"
            ));
        }
        is_counted = told.is_ok();
        sleep(if is_counted { PAUSE } else { RETRY_PAUSE }).await;
    }
}

/// Tells the agent what several workloads together were refused, and the log what was refused
/// for the limits that are all theirs, for as long as the enclave runs.
pub(super) async fn count(counts: Arc<Counts>, bounds: Bounds, handle: Handle, logs: Logs) {
    let mut known = Events::default();
    let mut met = Met::default();
    loop {
        let changed = counts.changed().await;
        let counted = changed.and_then(|()| Ok((counts.events()?, counts.met()?)));
        let pause = match counted {
            Ok((events, now)) => {
                if now.memory > met.memory {
                    logs.error(format!(
                        "out of memory: all workloads together have used what there is for them, {} MiB; {} bounds it, whatever the limits of each",
                        bounds.memory / MIB,
                        bounds.memory_key
                    ));
                }
                let refused = now.pids.saturating_sub(met.pids);
                if refused > 0 {
                    logs.error(format!(
                        "too many processes: {refused} could not be started; {} bounds how many all workloads together have, {}",
                        bounds.pids_key, bounds.pids
                    ));
                }
                met = now;
                if events != known {
                    known = events;
                    handle.set_limits(events.into());
                }
                PAUSE
            }
            // What cannot be counted is said of the workload that it is about.
            Err(_) => RETRY_PAUSE,
        };
        sleep(pause).await;
    }
}

async fn tell(
    cgroup: &Cgroup,
    bounds: Bounds,
    known: &mut Events,
    met: &mut Met,
    handle: Option<&Handle>,
    logs: &Logs,
) -> std::io::Result<()> {
    cgroup.counts().changed().await?;
    let events = cgroup.events()?;
    let now = cgroup.counts().met()?;
    let oom_kills = events.oom_kills.saturating_sub(known.oom_kills);
    if oom_kills > 0 {
        // One of several may have been killed for what all have used together, of which the
        // total's own line says more.
        let is_own = handle.is_some() || now.memory > met.memory;
        let reason = if is_own {
            let (key, memory) = (bounds.memory_key, bounds.memory / MIB);
            format!("{key} bounds what it has, {memory} MiB")
        } else {
            "all workloads together have used what there is for them".to_owned()
        };
        logs.error(format!(
            "out of memory: the kernel killed {oom_kills} of the workload's processes; {reason}"
        ));
    }
    *met = now;
    let refused = events.pids_refused.saturating_sub(known.pids_refused);
    if refused > 0 {
        logs.error(format!(
            "too many processes: {refused} could not be started; {} bounds how many there are, {}",
            bounds.pids_key, bounds.pids
        ));
    }
    if events != *known {
        *known = events;
        if let Some(handle) = handle {
            handle.set_limits(events.into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: Sizes = Sizes {
        memory: 41_733_324,
        pids: 1898,
        root: 20 * MIB,
        tmp: 7 * MIB,
        run: MIB,
        shm: MIB,
    };

    fn workload(limits: &str) -> Workload {
        let text = format!(
            r#"{{"name": "web", "limits": {limits}, "kind": "service", "command": ["/a"], "env": {{}},
                "working_directory": "/", "user": {{"uid": 0, "gid": 0}}, "stop_grace": "1s",
                "restart": {{"policy": "never", "max": 0, "backoff": "1s..1s"}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn limits_of_one_of_several_workloads_are_the_lower_ones() {
        let settings: Settings = serde_json::from_str(r#"{"pids": 500}"#).unwrap();
        let workload = workload(r#"{"memory_mib": 16, "pids": 1000, "cpu_weight": 7}"#);
        let bounds = Bounds::new(&settings, &Sizes { pids: 500, ..SIZES }).within(workload.limits);
        assert_eq!(bounds.memory_key, "the workload's limits.memory_mib");
        assert_eq!(bounds.pids_key, "confinement.pids");
        let group = bounds.of_group(&workload);
        let limits = (group.memory, group.pids, group.cpu_weight);
        assert_eq!(limits, (16 * MIB, 500, 7));
        let usual = self::workload("{}");
        let group = Bounds::new(&settings, &SIZES).of_group(&usual);
        assert_eq!((group.memory, group.cpu_weight), (SIZES.memory, 100));
    }

    #[test]
    fn limits_that_the_machine_lowers_are_told_with_what_to_change() {
        let text = r#"{"memory_mib": 100, "pids": 4194304, "tmp_mib": 7}"#;
        let settings: Settings = serde_json::from_str(text).unwrap();
        assert_eq!(
            lowered(&settings, &SIZES).unwrap(),
            "confinement: the machine's memory allows memory_mib 39.7 instead of 100, pids 1898 instead of 4194304; raise enclave.memory_mib"
        );
        let bounds = Bounds::new(&settings, &SIZES);
        assert_eq!(
            bounds.without_groups(),
            "confinement: under sim nothing limits the workload's memory and processes; in a machine it has 39 MiB and 1898 processes"
        );
        assert_eq!(bounds.memory_key, "enclave.memory_mib");
        assert!(bounds.pids_key.contains("enclave.memory_mib"));
    }

    #[test]
    fn limits_that_are_as_the_image_says_are_the_images() {
        let text = r#"{"memory_mib": 39, "pids": 100}"#;
        let settings: Settings = serde_json::from_str(text).unwrap();
        let sizes = Sizes {
            memory: 39 * MIB,
            pids: 100,
            ..SIZES
        };
        assert_eq!(lowered(&settings, &sizes), None);
        let bounds = Bounds::new(&settings, &sizes);
        assert_eq!(bounds.memory_key, "confinement.memory_mib");
        assert_eq!(bounds.pids_key, "confinement.pids");
        // Without a word of the image's it is the machine that bounds the memory.
        let none: Settings = serde_json::from_str("{}").unwrap();
        assert_eq!(lowered(&none, &SIZES), None);
        assert_eq!(Bounds::new(&none, &SIZES).memory_key, "enclave.memory_mib");
    }
}
