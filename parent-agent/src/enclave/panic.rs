//! A panic of an enclave's kernel.

use std::time::Duration;

use tokio::time::Instant;

use super::{Cause, Enclave, End};
use crate::kernel_panic::KernelPanic;

/// How long a machine goes on whose kernel has panicked in its boot: it prints the rest,
/// and may end by itself.
pub(super) const MAX_PANIC: Duration = Duration::from_secs(1);
/// The same once it was ready, when others can print on the console: an init that still
/// speaks has no kernel that panicked.
pub(super) const MAX_READY_PANIC: Duration = Duration::from_secs(12);

impl Enclave {
    /// The end that its init has announced is its own; the kernel's follows from it.
    pub(super) fn panicked(&mut self, panic: KernelPanic, now: Instant) {
        if self.announced.is_some() || self.panic.is_some() {
            return;
        }
        let rest = if self.was_ready {
            MAX_READY_PANIC
        } else {
            MAX_PANIC
        };
        let by = now + rest;
        self.panic = Some((panic, by));
        self.deadline = Some(self.deadline.map_or(by, |deadline| deadline.min(by)));
    }

    /// The end of one whose kernel has panicked.
    pub(super) fn end_of_panic(&self, panic: &KernelPanic) -> End {
        let cause = if self.was_ready || self.stop.is_some() {
            Cause::Died
        } else {
            Cause::BootFailed
        };
        End {
            is_panic: true,
            ..End::new(cause, panic.describe(!self.was_ready))
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use link::control::EndCause;

    use super::super::tests::{BOOT, booted, end, ending, health};
    use super::super::{Action, Input, MAX_SILENCE};
    use super::*;
    use crate::kernel_panic::Watch;
    use enclave_host::console::Console;

    /// A panic for want of memory, as read from a console.
    pub(in super::super) fn panicked() -> Input<'static> {
        let console = Console::new(None);
        let line = "[    0.5] Kernel panic - not syncing: System is deadlocked on memory";
        console.push(vec![line.to_owned()], true);
        let mut watch = Watch::new(console);
        Input::Panicked(watch.read().unwrap())
    }

    #[test]
    fn kernel_panic_ends_a_boot_at_once_with_its_own_words() {
        let now = Instant::now();
        for exits in [false, true] {
            let mut enclave = Enclave::new(BOOT);
            enclave.on(Input::Started, now);
            enclave.on(panicked(), now);
            if !exits {
                assert_eq!(enclave.deadline(), Some(now + MAX_PANIC));
                let action = enclave.on(Input::Deadline, now + MAX_PANIC);
                assert_eq!(action, Some(Action::Kill));
            }
            enclave.on(Input::Exited("killed".to_owned()), now + MAX_PANIC);
            assert!(enclave.end().unwrap().is_panic);
            let (cause, detail) = end(&enclave);
            assert_eq!(cause, Cause::BootFailed);
            assert!(
                detail.starts_with("its kernel panicked before it was ready: System is deadlocked"),
                "{detail}"
            );
            assert!(detail.contains("--memory-mib"), "{detail}");
            assert!(!detail.contains("--boot-timeout"), "{detail}");
        }
    }

    #[test]
    fn kernel_panic_of_one_that_was_ready_is_believed_when_nothing_more_is_heard() {
        let now = Instant::now();
        let mut enclave = booted(now);
        enclave.on(panicked(), now);
        // A workload can print as well.
        enclave.on(Input::Message(&health()), now);
        assert_eq!(enclave.deadline(), Some(now + MAX_SILENCE));
        enclave.on(panicked(), now);
        let late = now + MAX_READY_PANIC;
        assert_eq!(enclave.on(Input::Deadline, late), Some(Action::Kill));
        enclave.on(Input::Exited("killed".to_owned()), late);
        let (cause, detail) = end(&enclave);
        assert_eq!(cause, Cause::Died);
        assert!(
            detail.starts_with("its kernel panicked: System"),
            "{detail}"
        );

        // The init's own words come first, whatever follows from them.
        let mut enclave = booted(now);
        enclave.on(Input::Message(&ending(EndCause::InitFailed)), now);
        enclave.on(panicked(), now);
        enclave.on(Input::Exited("ended".to_owned()), now);
        assert_eq!(end(&enclave), (Cause::Died, "the init failed: because"));
    }
}
