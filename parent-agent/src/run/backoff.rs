//! Waiting after crashes, and the trace of an end by which the next `run` knows.

use std::time::Duration;

use manifest::EnclaveName;
use tracing::warn;

use crate::cli::RunArgs;
use crate::crash::{Crash, LastEnd};
use crate::enclave::End;
use crate::error::Error;
use crate::losses::LostRecords;
use crate::state::StateDir;
use crate::status::milliseconds;

/// How long the start waits because the enclave has crashed.
pub(super) fn pause(args: &RunArgs) -> Result<Option<Duration>, Error> {
    let (Some(most), Some(name)) = (args.restart_backoff, &args.name) else {
        return Ok(None);
    };
    // One that runs is taken over at once.
    if StateDir::new(args.state.state_dir.clone())?.is_running(name) {
        return Ok(None);
    }
    let pause = LastEnd::read(name).map(|last| last.pause(most.as_duration()));
    Ok(pause.filter(|pause| !pause.is_zero()))
}

/// Leaves a trace of an end for those who come later.
pub(super) async fn keep_end(
    name: &EnclaveName,
    end: &End,
    crash: Option<Crash>,
    uptime: Duration,
    lost: LostRecords,
    console: &[String],
) {
    let before = LastEnd::read(name);
    let trace = LastEnd::new(
        end,
        crash,
        milliseconds(uptime),
        lost,
        console,
        before.as_ref(),
    );
    let name = name.clone();
    let written = tokio::task::spawn_blocking(move || trace.write(&name)).await;
    if let Ok(Err(error)) = written {
        warn!(%error, "how the enclave ended is not kept");
    }
}
