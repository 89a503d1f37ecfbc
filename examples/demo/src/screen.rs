//! What a person sees.

use std::io::{IsTerminal, stderr, stdout};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use command_output::{errln, outln};

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";
/// How many characters of somebody's words are in a row.
const WIDTH: usize = 92;

/// Standard output, with colours only where it is a terminal.
///
/// A reader that went away (`demo | head`) is not the demo's concern; what else cannot be
/// written is said in the end.
pub(crate) struct Screen {
    colours: bool,
    start: Instant,
    phases: Mutex<Vec<Phase>>,
    findings: Mutex<Vec<String>>,
}

struct Phase {
    short: &'static str,
    start: Instant,
    took: Duration,
}

impl Screen {
    pub(crate) fn new() -> Self {
        Self {
            colours: stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
            start: Instant::now(),
            phases: Mutex::default(),
            findings: Mutex::default(),
        }
    }

    /// The first line.
    pub(crate) fn title(&self, title: &str, subtitle: &str) {
        line(&self.paint(BOLD, title));
        line(&self.paint(DIM, subtitle));
    }

    /// Begins a part; `short` names it in the summary of times.
    pub(crate) fn phase(&self, short: &'static str, title: &str) {
        self.end_phase();
        let mut phases = locked(&self.phases);
        phases.push(Phase {
            short,
            start: Instant::now(),
            took: Duration::ZERO,
        });
        let number = phases.len();
        line("");
        line(&self.paint(BOLD, &format!("{number}. {title}")));
    }

    /// One fact of the part.
    #[expect(clippy::unused_self, reason = "the other lines are the screen's too")]
    pub(crate) fn fact(&self, label: &str, text: &str) {
        line(&format!("   {label:<22} {text}"));
    }

    /// A fact with somebody's words, in as many rows as it takes.
    pub(crate) fn quoted(&self, label: &str, text: &str) {
        let mut row = String::new();
        let mut label = label;
        for word in text.split_whitespace() {
            if !row.is_empty() && row.chars().count() + word.chars().count() >= WIDTH {
                self.fact(label, &row);
                label = "";
                row.clear();
            }
            if !row.is_empty() {
                row.push(' ');
            }
            row.push_str(word);
        }
        self.fact(label, &row);
    }

    /// One fact that the summary repeats, because it was checked.
    pub(crate) fn proven(&self, finding: impl Into<String>) {
        locked(&self.findings).push(finding.into());
    }

    /// A line that the enclave logged.
    pub(crate) fn log(&self, stream: &str, text: &str) {
        line(&self.paint(DIM, &format!("   │ {stream:<12} {text}")));
    }

    /// A remark.
    pub(crate) fn note(&self, text: &str) {
        line(&self.paint(DIM, text));
    }

    /// What was proven, what was not, and how long it took.
    pub(crate) fn summary(&self, not_shown: &[&str]) {
        self.end_phase();
        line("");
        line(&self.paint(BOLD, "Proven"));
        for finding in locked(&self.findings).iter() {
            line(&format!("   {} {finding}", self.paint(GREEN, "✓")));
        }
        line(&self.paint(BOLD, "Not shown here"));
        for item in not_shown {
            line(&format!("   - {item}"));
        }
        let parts: Vec<_> = locked(&self.phases)
            .iter()
            .map(|phase| format!("{} {}", phase.short, seconds(phase.took)))
            .collect();
        let total = seconds(self.start.elapsed());
        line("");
        line(&format!(
            "{} {}",
            self.paint(BOLD, &format!("{total} in total:")),
            parts.join(", ")
        ));
    }

    fn end_phase(&self) {
        if let Some(phase) = locked(&self.phases).last_mut() {
            phase.took = phase.start.elapsed();
        }
    }

    fn paint(&self, style: &str, text: &str) -> String {
        if self.colours {
            format!("\x1b[{style}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Says why the demo failed, in one line.
pub(crate) fn failure(error: &anyhow::Error) {
    let colours = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let label = if colours {
        format!("\x1b[{RED}mdemo failed:\x1b[0m")
    } else {
        "demo failed:".to_owned()
    };
    errln!("{label} {error:#}");
}

/// The value, also after a panic elsewhere.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A length of time as people write it.
pub(crate) fn seconds(time: Duration) -> String {
    if time < Duration::from_millis(1) {
        format!("{} µs", time.as_micros())
    } else if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}

/// A size as people write it.
pub(crate) fn mebibytes(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10) / (1024 * 1024);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

fn line(text: &str) {
    outln!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_have_readable_units() {
        assert_eq!(seconds(Duration::from_micros(250)), "250 µs");
        assert_eq!(seconds(Duration::from_millis(42)), "42 ms");
        assert_eq!(seconds(Duration::from_millis(2345)), "2.3 s");
        assert_eq!(mebibytes(4 * 1024 * 1024 + 512 * 1024), "4.5 MiB");
    }
}
