//! Tells of the workload's limits: of those that the machine makes lower than the
//! image does, and of those that the workload has met.

use std::sync::Arc;
use std::time::Duration;

use manifest::{Confinement as Settings, Mebibytes};
use tokio::time::sleep;

use super::cgroup::Events;
use super::{Cgroup, Confinement, Sizes};
use crate::control::Handle;
use crate::logs::Logs;

const MIB: u64 = 1024 * 1024;
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
    /// Whether it is the machine's memory that bounds them, and not the image.
    memory_is_the_machines: bool,
    pids_are_the_machines: bool,
}

impl Bounds {
    pub(crate) fn new(settings: &Settings, sizes: &Sizes) -> Self {
        let wanted = settings.memory_mib.map(Mebibytes::bytes);
        let pids = settings.pids.map(|pids| u64::from(pids.get()));
        Self {
            memory: sizes.memory,
            pids: sizes.pids,
            memory_is_the_machines: wanted.is_none_or(|wanted| sizes.memory < wanted),
            pids_are_the_machines: pids.is_some_and(|wanted| sizes.pids < wanted),
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

    fn memory_key(self) -> &'static str {
        if self.memory_is_the_machines {
            "enclave.memory_mib"
        } else {
            "confinement.memory_mib"
        }
    }

    fn pids_key(self) -> &'static str {
        if self.pids_are_the_machines {
            "the kernel's own limit, by enclave.memory_mib,"
        } else {
            "confinement.pids"
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

/// Tells the agent and the log, for as long as the enclave runs.
pub(crate) async fn report(confinement: Arc<Confinement>, handle: Handle, logs: Logs) {
    let Some(cgroup) = confinement.cgroup() else {
        return;
    };
    let mut known = Events::default();
    let mut is_counted = true;
    loop {
        let told = tell(cgroup, confinement.bounds(), &mut known, &handle, &logs).await;
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

async fn tell(
    cgroup: &Cgroup,
    bounds: Bounds,
    known: &mut Events,
    handle: &Handle,
    logs: &Logs,
) -> std::io::Result<()> {
    cgroup.changed().await?;
    let events = cgroup.events()?;
    let oom_kills = events.oom_kills.saturating_sub(known.oom_kills);
    if oom_kills > 0 {
        logs.error(format!(
            "out of memory: the kernel killed {oom_kills} of the workload's processes; {} bounds what it has, {} MiB",
            bounds.memory_key(),
            bounds.memory / MIB
        ));
    }
    let refused = events.pids_refused.saturating_sub(known.pids_refused);
    if refused > 0 {
        logs.error(format!(
            "too many processes: {refused} could not be started; {} bounds how many there are, {}",
            bounds.pids_key(),
            bounds.pids
        ));
    }
    if events != *known {
        *known = events;
        handle.set_limits(events.into());
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
        assert_eq!(bounds.memory_key(), "enclave.memory_mib");
        assert!(bounds.pids_key().contains("enclave.memory_mib"));
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
        assert_eq!(bounds.memory_key(), "confinement.memory_mib");
        assert_eq!(bounds.pids_key(), "confinement.pids");
        // Without a word of the image's it is the machine that bounds the memory.
        let none: Settings = serde_json::from_str("{}").unwrap();
        assert_eq!(lowered(&none, &SIZES), None);
        assert_eq!(
            Bounds::new(&none, &SIZES).memory_key(),
            "enclave.memory_mib"
        );
    }
}
