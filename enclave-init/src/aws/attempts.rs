//! Attempts at what may fail now and succeed later.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

/// The pause before the second attempt; it is doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// How long attempts are made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) deadline: Instant,
    pub(crate) longest_pause: Duration,
}

impl Patience {
    /// Makes attempts until one succeeds, or fails for good, or there is no time for
    /// another. The failure is the last one, or `timed_out` if no attempt has ended; with it
    /// comes how many attempts there were.
    pub(crate) async fn attempt<T, E, F: Future<Output = Result<T, E>>>(
        self,
        timed_out: E,
        is_transient: impl Fn(&E) -> bool,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, (E, u32)> {
        let mut pause = FIRST_PAUSE;
        let mut attempts = 0_u32;
        let mut last = timed_out;
        loop {
            attempts = attempts.saturating_add(1);
            match timeout_at(self.deadline, attempt()).await {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(failure)) if !is_transient(&failure) => return Err((failure, attempts)),
                Ok(Err(failure)) => last = failure,
                Err(_) => {}
            }
            if Instant::now() + pause >= self.deadline {
                return Err((last, attempts));
            }
            sleep(pause).await;
            pause = pause.saturating_mul(2).min(self.longest_pause);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// What comes of attempts that end so, one after the other, and after how long; one that
    /// has no end hangs.
    async fn attempted(ends: &[Option<Result<(), bool>>]) -> (Result<(), (bool, u32)>, Duration) {
        let start = Instant::now();
        let patience = Patience {
            deadline: start + Duration::from_secs(10),
            longest_pause: Duration::from_secs(1),
        };
        let number = Cell::new(0);
        let ended = patience.attempt(
            true,
            |is_transient| *is_transient,
            || {
                let end = ends.get(number.replace(number.get() + 1)).copied();
                async move {
                    match end.flatten() {
                        Some(end) => end,
                        None => std::future::pending().await,
                    }
                }
            },
        );
        (ended.await, start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_are_made_as_long_as_they_may_help() {
        let (ended, took) = attempted(&[Some(Err(true)), Some(Err(true)), Some(Ok(()))]).await;
        assert_eq!((ended, took), (Ok(()), Duration::from_millis(750)));
        let (ended, took) = attempted(&[Some(Err(true)), Some(Err(false))]).await;
        assert_eq!((ended, took), (Err((false, 2)), FIRST_PAUSE));
        // After 0, 0.25, 0.75, 1.75, … 9.75 s; the next one would be too late.
        let (ended, took) = attempted(&[Some(Err(true)); 20]).await;
        assert_eq!(
            (ended, took),
            (Err((true, 12)), Duration::from_millis(9750))
        );
        // It is cut off at the deadline.
        let (ended, took) = attempted(&[None]).await;
        assert_eq!((ended, took), (Err((true, 1)), Duration::from_secs(10)));
    }
}
