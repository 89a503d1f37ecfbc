//! Log lines about refused and failed connections. The workload and its clients
//! decide how many there could be, so only so many are written: they must not push
//! the workload's own lines out of the queue.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::logs::Logs;

/// Lines in one window.
const MAX_LINES: u32 = 100;
const WINDOW: Duration = Duration::from_secs(10);

/// Writes lines, but not too many.
#[derive(Debug)]
pub(crate) struct Notices {
    /// What the lines are about, as in `egress`.
    subject: &'static str,
    logs: Logs,
    window: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    start: Option<Instant>,
    lines: u32,
}

enum Verdict {
    Write,
    Last,
    LeaveOut,
}

impl Notices {
    pub(crate) fn new(subject: &'static str, logs: Logs) -> Self {
        Self {
            subject,
            logs,
            window: Mutex::default(),
        }
    }

    /// A destination was refused. What the workload asked for is its own text.
    pub(crate) fn refused(&self, text: &str) {
        let text = if self.logs.is_released() {
            text
        } else {
            "a destination is not in the image's egress list; its name stays inside as log lines do"
        };
        self.write(|| self.logs.system(format!("{}: {text}", self.subject)));
    }

    /// A connection to a destination that is allowed came to nothing, or to an early
    /// end. What a pattern allows is the workload's own text, and what is said of it
    /// may hold it again.
    pub(crate) fn failed_to(&self, is_listed: bool, text: &str) {
        let is_told = is_listed || self.logs.is_released();
        self.failed(about(is_told, text));
    }

    /// Something else came to nothing; none of the text is the workload's.
    pub(crate) fn failed(&self, text: &str) {
        self.write(|| self.logs.error(format!("{}: {text}", self.subject)));
    }

    fn write(&self, line: impl FnOnce()) {
        let verdict = self
            .window
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .count(Instant::now());
        match verdict {
            Verdict::Write => line(),
            Verdict::Last => {
                line();
                self.logs.error(format!(
                    "{}: {MAX_LINES} lines within {} s; further ones are left out for as long",
                    self.subject,
                    WINDOW.as_secs()
                ));
            }
            Verdict::LeaveOut => {}
        }
    }
}

/// What came of a connection, without its destination where that is not told.
fn about(is_told: bool, text: &str) -> &str {
    if is_told {
        text
    } else {
        "a connection to a destination that a pattern allows failed; its name stays inside as log lines do"
    }
}

impl Window {
    fn count(&mut self, now: Instant) -> Verdict {
        if self
            .start
            .is_none_or(|start| now.duration_since(start) >= WINDOW)
        {
            *self = Self {
                start: Some(now),
                lines: 0,
            };
        }
        self.lines = self.lines.saturating_add(1);
        match self.lines {
            ..MAX_LINES => Verdict::Write,
            MAX_LINES => Verdict::Last,
            _ => Verdict::LeaveOut,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_keep_names_inside_where_log_lines_stay() {
        let text = "secret.wild.test:443 failed: secret.wild.test has no address";
        assert_eq!(about(true, text), text);
        let hidden = about(false, text);
        assert!(!hidden.contains("secret"), "{hidden}");
    }

    #[test]
    fn a_window_has_so_many_lines_and_the_next_one_as_many() {
        let mut window = Window::default();
        let start = Instant::now();
        for begin in [start, start + WINDOW] {
            let written = (0..1000)
                .filter(|_| !matches!(window.count(begin), Verdict::LeaveOut))
                .count();
            assert_eq!(written, MAX_LINES as usize);
        }
    }
}
