//! Tells of the limits that the workload has met.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::cgroup::Events;
use super::{Cgroup, Confinement};
use crate::control::Handle;
use crate::logs::Logs;

/// Between two reports at least: a workload can meet a limit as often as it likes.
const PAUSE: Duration = Duration::from_secs(1);

/// Tells the agent and the log, for as long as the enclave runs.
pub(crate) async fn report(confinement: Arc<Confinement>, handle: Handle, logs: Logs) {
    let Some(cgroup) = confinement.cgroup() else {
        return;
    };
    let mut known = Events::default();
    loop {
        if let Err(error) = tell(cgroup, &mut known, &handle, &logs).await {
            logs.error(format!(
                "what the workload is refused cannot be watched any more: {error}"
            ));
            return;
        }
        sleep(PAUSE).await;
    }
}

async fn tell(
    cgroup: &Cgroup,
    known: &mut Events,
    handle: &Handle,
    logs: &Logs,
) -> std::io::Result<()> {
    cgroup.changed().await?;
    let events = cgroup.events()?;
    let oom_kills = events.oom_kills.saturating_sub(known.oom_kills);
    if oom_kills > 0 {
        logs.error(format!(
            "out of memory: the kernel killed {oom_kills} of the workload's processes; confinement.memory_mib and enclave.memory_mib bound what it has"
        ));
    }
    let refused = events.pids_refused.saturating_sub(known.pids_refused);
    if refused > 0 {
        logs.error(format!(
            "too many processes: {refused} could not be started; confinement.pids bounds how many there are"
        ));
    }
    if events != *known {
        *known = events;
        handle.set_limits(events.into());
    }
    Ok(())
}
