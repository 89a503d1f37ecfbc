//! A kernel's panic, as its console shows it. A kernel that has panicked says nothing
//! more, and some machines do not even end with it.

use enclave_host::console::Console;
use tokio::sync::watch;

/// What a panic's line has in front of its reason (`kernel/panic.c`).
const PANIC: &str = "Kernel panic - not syncing: ";
/// What it has in front of the process that it kills for want of memory
/// (`mm/oom_kill.c`).
pub(crate) const OUT_OF_MEMORY: &str = "Out of memory: ";
/// What the kernel says of want of memory before it panics, if it is not the reason
/// itself: `mm/oom_kill.c`, `mm/page_alloc.c`, and `init/initramfs.c`, which finds no room
/// for a file and leaves it out.
const WANT_OF_MEMORY: [&str; 4] = [
    "invoked oom-killer",
    OUT_OF_MEMORY,
    "page allocation failure",
    "Initramfs unpacking failed: write error",
];
/// What a reason has in it that is want of memory.
const MEMORY: &str = "memory";

/// That an enclave's kernel has panicked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelPanic {
    /// The kernel's reason.
    reason: String,
    /// Whether it had too little memory.
    of_memory: bool,
}

impl KernelPanic {
    /// What happened, and what to do about it, in one line.
    pub(crate) fn describe(&self, before_ready: bool) -> String {
        let when = if before_ready {
            " before it was ready"
        } else {
            ""
        };
        let advice = if self.of_memory {
            "; it has too little memory: give it more with --memory-mib, or with `memory_mib` in enclave.toml"
        } else {
            "; the console's last lines say where"
        };
        format!("its kernel panicked{when}: {}{advice}", self.reason)
    }
}

/// The reason, if the line is the kernel's own about its panic: behind the time, and
/// with `CONFIG_PRINTK_CALLER` the caller, in brackets.
pub(crate) fn reason(line: &str) -> Option<&str> {
    let mut rest = line.trim_start();
    while let Some((_, behind)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        rest = behind.trim_start();
    }
    rest.strip_prefix(PANIC)
}

/// Reads a console for a panic.
#[derive(Debug)]
pub(crate) struct Watch {
    console: Console,
    printed: watch::Receiver<u64>,
    /// How many lines have been read.
    position: u64,
    wanted_memory: bool,
}

impl Watch {
    /// Begins with the lines that are there.
    pub(crate) fn new(console: Console) -> Self {
        let mut printed = console.subscribe();
        printed.mark_changed();
        Self {
            console,
            printed,
            position: 0,
            wanted_memory: false,
        }
    }

    /// Waits until there are lines to read. Cancellation safe.
    pub(crate) async fn printed(&mut self) {
        if self.printed.changed().await.is_err() {
            // Nobody prints any more.
            std::future::pending::<()>().await;
        }
    }

    /// Reads on, up to the next panic.
    pub(crate) fn read(&mut self) -> Option<KernelPanic> {
        let (lines, position) = self.console.since(self.position);
        self.position = position;
        lines.iter().find_map(|line| {
            let panic = reason(line).map(|reason| KernelPanic {
                reason: reason.to_owned(),
                of_memory: self.wanted_memory || reason.contains(MEMORY),
            });
            self.wanted_memory |= WANT_OF_MEMORY.iter().any(|words| line.contains(words));
            panic
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_panic_is_known_by_the_kernels_own_line() {
        for (line, expected) in [
            (
                "[    0.528514] Kernel panic - not syncing: System is deadlocked on memory",
                Some("System is deadlocked on memory"),
            ),
            (
                "[    1.0][    T1] Kernel panic - not syncing: VFS: x",
                Some("VFS: x"),
            ),
            ("Kernel panic - not syncing: x", Some("x")),
            (
                "[    0.5] ---[ end Kernel panic - not syncing: x ]---",
                None,
            ),
            ("GET /?Kernel panic - not syncing: x", None),
            ("[", None),
            ("", None),
        ] {
            assert_eq!(reason(line), expected, "{line}");
        }
    }

    #[test]
    fn kernel_panic_of_want_of_memory_says_to_give_more() {
        for (before, reason, of_memory) in [
            ("", "System is deadlocked on memory", true),
            (
                "[ 0.1] init invoked oom-killer: gfp_mask=0xcc0",
                "Attempted to kill init! exitcode=0x00000009",
                true,
            ),
            (
                "[ 0.1] Initramfs unpacking failed: write error",
                "No working init found.",
                true,
            ),
            (
                "[ 0.1] Initramfs unpacking failed: junk within compressed archive",
                "No working init found.",
                false,
            ),
            ("", "Attempted to kill init! exitcode=0x00000200", false),
        ] {
            let console = Console::new(None);
            let mut watch = Watch::new(console.clone());
            console.push(vec![before.to_owned()], true);
            assert_eq!(watch.read(), None);
            console.push(vec![format!("[ 0.2] {PANIC}{reason}")], true);
            console.push(vec!["[ 0.2] Call Trace:".to_owned()], true);
            let panic = watch.read().unwrap();
            assert_eq!(panic.of_memory, of_memory, "{reason}");
            let text = panic.describe(true);
            assert_eq!(text.contains("--memory-mib"), of_memory, "{text}");
            assert!(text.contains(reason), "{text}");
            assert_eq!(watch.read(), None);
        }
    }
}
