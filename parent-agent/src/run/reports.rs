//! What `run` reports of its enclave at the beginning and at the end.

use std::sync::Arc;
use std::time::Duration;

use super::backoff::keep_end;
use super::{CONSOLE_TAIL, Run};
use crate::attach::Facts;
use crate::console::Console;
use crate::crash::Crash;
use crate::exit::Exit;
use crate::guard::{Attached, Guard};
use crate::hypervisor::Hypervisor;
use crate::ingress;
use crate::logs::LastLines;
use crate::losses::LostRecords;
use crate::report::{Opening, Port, Report};
use crate::status::milliseconds;
use crate::supervisor::Outcome;

impl Run<'_> {
    pub(super) fn report_start<H: Hypervisor>(
        &self,
        guard: &Guard,
        hypervisor: &H,
        facts: &Facts,
        ports: &[Arc<ingress::IngressPort>],
    ) {
        let ports: Vec<Port> = ports.iter().map(|port| port.describe()).collect();
        let nsm_root = hypervisor.nsm_root().map(|path| path.display().to_string());
        let opening = Opening {
            name: self.name.as_str(),
            target: &self.target.to_string(),
            image: &self.path.display().to_string(),
            hypervisor: H::NAME,
            debug: self.args.debug,
            pcrs: &self.pcrs,
            ports: &ports,
            state_directory: &guard.directory().display().to_string(),
            nsm_root: nsm_root.as_deref(),
        };
        self.reporter.report(&match guard.attached() {
            None => Report::Starting(opening),
            Some(Attached { age, .. }) => Report::Attached {
                opening,
                age_ms: milliseconds(age),
                ready: facts.history().ready,
            },
        });
    }

    pub(super) async fn report_detached(&self, keep_for: Option<Duration>) {
        self.reporter
            .last(&Report::Detached {
                keep_ms: milliseconds(keep_for.unwrap_or_default()),
                exit_code: Exit::Detached as u8,
            })
            .await;
    }

    pub(super) async fn report_end(
        &self,
        outcome: &Outcome,
        uptime: Duration,
        lost: LostRecords,
        console: &Console,
        lines: &LastLines,
    ) -> Exit {
        let Outcome::Ended(end) = outcome else {
            return Exit::Detached;
        };
        let nothing = LastLines::default();
        let (logs, console) = if end.cause.is_expected() {
            (&nothing, Vec::new())
        } else {
            (lines, console.tail(CONSOLE_TAIL))
        };
        let crash = Crash::of(end, &console);
        keep_end(&self.name, end, crash, uptime, lost.clone(), &console).await;
        self.reporter
            .last(&Report::Ended {
                cause: end.cause,
                crash,
                code: end.code.as_ref(),
                detail: &end.detail,
                exit_code: end.cause.exit() as u8,
                console: &console,
                logs,
                lost: &lost,
            })
            .await;
        end.cause.exit()
    }
}
