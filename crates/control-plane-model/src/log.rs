//! Logs of functions and tasks.

use tracing_subscriber::EnvFilter;

use crate::environment::optional;

/// Logs as JSON lines on standard output, from `LOG_LEVEL` up.
pub fn start() {
    let level = optional("LOG_LEVEL").unwrap_or_else(|| "info".to_owned());
    let filter =
        EnvFilter::try_new(level.to_ascii_lowercase()).unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_target(false)
        .with_env_filter(filter)
        // It would be said on standard error, and panic where nobody reads it.
        .log_internal_errors(false)
        .init();
}
