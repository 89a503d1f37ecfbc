//! What the workload says of itself, as services say it to systemd (`sd_notify(3)`).

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use manifest::{HealthProbe, MeasuredConfig};
use tokio::net::UnixDatagram;
use tokio::time::sleep;

use crate::error::{Doing, InitError};
use crate::mounts::in_scratch;

/// Where the workload finds the socket.
pub(crate) const SOCKET: &str = "/run/enclave/notify.sock";
/// Longest message, in bytes; what is longer is cut.
const MAX_MESSAGE: usize = 4096;
/// Between two messages at least: a workload that says more waits.
const PAUSE: Duration = Duration::from_millis(1);

/// The socket, for every run of the workload.
#[derive(Debug)]
pub(crate) struct Notifications(UnixDatagram);

/// What a message says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    pub(crate) is_ready: bool,
    pub(crate) is_alive: bool,
    pub(crate) is_stopping: bool,
    /// In words, of which no more than the workload's own lines may leave.
    pub(crate) status: Option<Vec<u8>>,
}

impl Notifications {
    /// Makes the socket, if the image has the workload say so.
    pub(crate) fn of(config: &MeasuredConfig) -> Result<Option<Self>, InitError> {
        let health = config.workload.health.as_ref();
        let says = health.is_some_and(|health| matches!(health.probe, HealthProbe::Notify { .. }));
        says.then(Self::bind).transpose()
    }

    /// Nobody but the workload can reach it.
    fn bind() -> Result<Self, InitError> {
        let path = in_scratch(SOCKET);
        let binding = || format!("making {SOCKET}");
        let socket = UnixDatagram::bind(&path).doing(binding)?;
        // The workload's user may be any.
        set_permissions(&path, Permissions::from_mode(0o666)).doing(binding)?;
        Ok(Self(socket))
    }

    /// Forgets what was said so far: it was another run that has said it.
    pub(crate) fn forget(&self) {
        while self.0.try_recv(&mut []).is_ok() {}
    }

    /// The next message.
    pub(crate) async fn next(&self) -> News {
        loop {
            let mut message = [0; MAX_MESSAGE];
            let received = self.0.recv(&mut message).await;
            sleep(PAUSE).await;
            if let Ok(length) = received {
                return News::read(message.get(..length).unwrap_or_default());
            }
        }
    }
}

impl News {
    /// Reads what there is of assignments; what is not known means nothing.
    fn read(message: &[u8]) -> Self {
        let mut news = Self::default();
        for line in message.split(|byte| *byte == b'\n') {
            match line {
                b"READY=1" => news.is_ready = true,
                b"WATCHDOG=1" => news.is_alive = true,
                b"STOPPING=1" => news.is_stopping = true,
                _ => {
                    if let Some(status) = line.strip_prefix(b"STATUS=") {
                        news.status = Some(status.to_vec());
                    }
                }
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notify_messages_are_lines_and_unknown_ones_mean_nothing() {
        let news = News::read(b"STATUS=loading 40%\nREADY=1\nMAINPID=7\nWATCHDOG=1\n");
        assert!(news.is_ready && news.is_alive && !news.is_stopping);
        assert_eq!(news.status.unwrap(), b"loading 40%");
        assert!(News::read(b"STOPPING=1").is_stopping);
        for nothing in [
            &b""[..],
            b"READY=0",
            b"READY=1 ",
            b"READY",
            b"\xff\0READY=1",
            b"WATCHDOG=trigger",
        ] {
            assert_eq!(News::read(nothing), News::default(), "{nothing:?}");
        }
    }
}
