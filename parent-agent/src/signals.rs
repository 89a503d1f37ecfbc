//! The signals that ask the agent to stop its enclave.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::error::Error;
use crate::event::Event;

/// Signals that come within this time of the one that was last obeyed are the same request.
/// coreutils' `timeout`, and some service managers, signal a process by its id and again
/// with its group, milliseconds apart.
const ONE_REQUEST: Duration = Duration::from_secs(1);

/// Turns SIGTERM and SIGINT into requests to stop; a second request insists.
pub(crate) fn watch(events: mpsc::Sender<Event>) -> Result<JoinHandle<()>, Error> {
    let mut terminate =
        signal(SignalKind::terminate()).map_err(Error::system("signals cannot be received"))?;
    let mut interrupt =
        signal(SignalKind::interrupt()).map_err(Error::system("signals cannot be received"))?;
    Ok(tokio::spawn(async move {
        let mut requests = Requests::default();
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if !requests.is_another(Instant::now()) {
                continue;
            }
            let stop = Event::Stop {
                grace: None,
                insists: true,
            };
            if events.send(stop).await.is_err() {
                return;
            }
        }
    }))
}

/// Tells requests from repetitions of a signal.
#[derive(Debug, Default)]
struct Requests {
    last: Option<Instant>,
}

impl Requests {
    /// Whether a signal that arrives now is a request of its own.
    fn is_another(&mut self, now: Instant) -> bool {
        let repeats = self
            .last
            .is_some_and(|last| now.duration_since(last) < ONE_REQUEST);
        if !repeats {
            self.last = Some(now);
        }
        !repeats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signal_within_a_second_of_a_request_is_that_request() {
        let start = Instant::now();
        let mut requests = Requests::default();
        let heard: Vec<_> = [0, 1, 999, 1000, 1001, 1999, 5000]
            .into_iter()
            .filter(|&ms| requests.is_another(start + Duration::from_millis(ms)))
            .collect();
        assert_eq!(heard, [0, 1000, 5000]);
    }
}
