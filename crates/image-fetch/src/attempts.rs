//! How often something is asked for again, and after which pauses.

use std::time::Duration;

use tokio::time::sleep;

/// How often in a row something may break off without a byte.
const ATTEMPTS: u32 = 5;
/// The first pause between these, which doubles.
const PAUSE: Duration = Duration::from_millis(500);

/// Pauses before another attempt: longer each time, and never quite as long.
pub(crate) async fn pause(failures: u32) {
    let pause = PAUSE.saturating_mul(1 << failures.min(ATTEMPTS));
    sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
}

/// Whether there is to be another attempt after so many.
pub(crate) fn is_last(failures: u32) -> bool {
    failures >= ATTEMPTS
}
