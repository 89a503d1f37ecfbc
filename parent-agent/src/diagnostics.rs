//! The agent's own log, on standard error: each line names the enclave that it is
//! about, once that is known.

use std::fmt;
use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use log_sinks::Output;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// A process has one enclave.
static ENCLAVE: OnceLock<String> = OnceLock::new();

/// Writes what happens from now on to `stderr`, at the levels of `RUST_LOG`.
pub fn set_up(stderr: &Output) {
    let stderr = stderr.clone();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || stderr.clone())
        .with_ansi(io::stderr().is_terminal())
        .event_format(Line(|| ENCLAVE.get().map(String::as_str)))
        .init();
}

/// From now on each line names this enclave. The first name stays.
pub fn name_enclave(name: &str) {
    let _ = ENCLAVE.set(name.to_owned());
}

/// Time, level, module, message and fields, and the enclave's name as the last one.
struct Line(fn() -> Option<&'static str>);

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        SystemTime.format_time(&mut writer)?;
        let (level, target) = (*event.metadata().level(), event.metadata().target());
        match colour(level) {
            colour if writer.has_ansi_escapes() => {
                write!(writer, " \x1b[{colour}m{level:>5}\x1b[0m")?;
            }
            _ => write!(writer, " {level:>5}")?,
        }
        write!(writer, " {target}: ")?;
        context.format_fields(writer.by_ref(), event)?;
        let Self(enclave) = self;
        if let Some(name) = enclave() {
            write!(writer, " enclave={name}")?;
        }
        writeln!(writer)
    }
}

/// Its number in SGR (ECMA-48).
fn colour(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use tracing::{info, warn};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(line: Line, ansi: bool) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(ansi)
            .event_format(line)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            warn!(lines = 3, "the sink is slow");
            info!("ready");
        });
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn each_line_names_the_enclave_that_is_known() {
        let text = written(Line(|| Some("payments-1")), false);
        let [first, second] = text.lines().collect::<Vec<_>>()[..] else {
            panic!("{text}");
        };
        assert!(
            first.ends_with(
                "  WARN parent_agent::diagnostics::tests: the sink is slow lines=3 enclave=payments-1"
            ),
            "{text}"
        );
        assert!(second.ends_with(": ready enclave=payments-1"), "{text}");
    }

    #[test]
    fn before_that_it_names_none_and_colours_are_for_terminals() {
        let text = written(Line(|| None), true);
        assert!(text.contains(" \x1b[33m WARN\x1b[0m "), "{text}");
        assert!(!text.contains("enclave="), "{text}");
    }
}
