//! What the workload says of itself, as services say it to systemd (`sd_notify(3)`).

use std::fs::{Permissions, set_permissions};
use std::future::pending;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::error::{Doing, InitError};
use crate::mounts::own_folder;
use crate::passing::{self, receive};
use crate::readiness::{News, Readiness};

/// Where each workload finds its socket.
pub(crate) const SOCKET: &str = "/run/enclave/notify.sock";
/// Its name in the workload's own folder.
const FILE: &str = "notify.sock";
/// Longest message, in bytes. Of what is longer the line is withheld that was cut.
const MAX_MESSAGE: usize = 4096;
/// Between two messages at least, whichever way they come: a workload that says more waits.
const PAUSE: Duration = Duration::from_millis(1);
/// Messages of an earlier run that are forgotten at once; the kernel queues far fewer.
const MAX_FORGOTTEN: usize = 1024;

/// The socket, for every run of the workload.
#[derive(Debug)]
pub(crate) struct Notifications {
    socket: UnixDatagram,
    /// Where descriptors that come with messages are closed. While that takes its time, no
    /// further message is received.
    closing: mpsc::Sender<Vec<OwnedFd>>,
    /// What is said over the local API instead.
    readiness: Readiness,
}

impl Notifications {
    /// Makes the socket of the workload of this place, if the image has it say that it is
    /// ready.
    pub(crate) fn of(workload: usize, readiness: &Readiness) -> Result<Option<Self>, InitError> {
        let says = readiness.is_said();
        says.then(|| Self::bind(workload, readiness.clone()))
            .transpose()
    }

    /// Nobody but the workload can reach it.
    fn bind(workload: usize, readiness: Readiness) -> Result<Self, InitError> {
        let path = own_folder(workload).join(FILE);
        let binding = || format!("making {SOCKET}");
        let socket = UnixDatagram::bind(&path).doing(binding)?;
        // The workload's user may be any.
        set_permissions(&path, Permissions::from_mode(0o666)).doing(binding)?;
        let closing = passing::closing(1).doing(binding)?;
        Ok(Self {
            socket,
            closing,
            readiness,
        })
    }

    /// Forgets what was said so far: it was another run that has said it.
    pub(crate) fn forget(&self) {
        // While descriptors of earlier ones are still being closed, these wait.
        let Ok(place) = self.closing.try_reserve() else {
            return;
        };
        let mut descriptors = Vec::new();
        for _ in 0..MAX_FORGOTTEN {
            let Ok((_, passed)) = receive(self.socket.as_fd(), &mut []) else {
                break;
            };
            descriptors.extend(passed);
        }
        if !descriptors.is_empty() {
            place.send(descriptors);
        }
    }

    /// The next message, or what was said over the local API. Cancellation safe.
    pub(crate) async fn next(&self) -> News {
        // Before both, so that neither way is heard alone, however much comes the other one.
        sleep(PAUSE).await;
        tokio::select! {
            news = self.message() => news,
            news = self.readiness.news() => news,
        }
    }

    async fn message(&self) -> News {
        loop {
            let Ok(place) = self.closing.reserve().await else {
                // The thread has ended, which it does not while there is this.
                return pending().await;
            };
            // A byte more than the longest, which tells a message that was cut.
            let mut message = [0; MAX_MESSAGE + 1];
            let receiving = || receive(self.socket.as_fd(), &mut message);
            let received = self.socket.async_io(Interest::READABLE, receiving).await;
            if let Ok((length, passed)) = received {
                if !passed.is_empty() {
                    place.send(passed);
                }
                return News::read(message.get(..length).unwrap_or_default());
            }
            sleep(PAUSE).await;
        }
    }
}

impl News {
    /// Reads what there is of assignments; what is not known means nothing.
    fn read(message: &[u8]) -> Self {
        let mut news = Self::default();
        let message = match message.rsplitn(2, |byte| *byte == b'\n').nth(1) {
            Some(whole) if message.len() > MAX_MESSAGE => whole,
            None if message.len() > MAX_MESSAGE => &[],
            _ => message,
        };
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

    /// Enough for what is heard by chance, half of the time.
    const TIMES: usize = 100;

    #[tokio::test(start_paused = true)]
    async fn notify_messages_are_heard_beside_any_number_over_the_local_api() {
        let (theirs, socket) = UnixDatagram::pair().unwrap();
        let readiness = Readiness::said();
        let notifications = Notifications {
            socket,
            closing: passing::closing(1).unwrap(),
            readiness: readiness.clone(),
        };
        let status = |words: &[u8]| News {
            status: Some(words.to_vec()),
            ..News::default()
        };
        theirs.send(b"WATCHDOG=1").await.unwrap();
        let mut heard = Vec::new();
        for _ in 0..TIMES {
            // There is always one more.
            readiness.speaker().hear(status(b"busy")).unwrap();
            heard.push(notifications.next().await);
        }
        assert!(heard.iter().any(|news| news.is_alive));
        // And the other way round.
        readiness.speaker().hear(status(b"calm")).unwrap();
        heard.clear();
        for _ in 0..TIMES {
            theirs.send(b"WATCHDOG=1").await.unwrap();
            heard.push(notifications.next().await);
        }
        assert!(heard.contains(&status(b"calm")));
    }

    #[tokio::test]
    async fn notify_messages_of_an_earlier_run_are_all_forgotten() {
        let (theirs, socket) = UnixDatagram::pair().unwrap();
        let notifications = Notifications {
            socket,
            closing: passing::closing(1).unwrap(),
            readiness: Readiness::said(),
        };
        for message in [&b"STATUS=a"[..], b"STATUS=b", b"WATCHDOG=1", b"READY=1"] {
            theirs.send(message).await.unwrap();
        }
        notifications.forget();
        theirs.send(b"STATUS=new").await.unwrap();
        let heard = notifications.next().await;
        assert_eq!(heard.status.as_deref(), Some(&b"new"[..]));
    }

    #[test]
    fn notify_messages_are_lines_and_unknown_ones_mean_nothing() {
        let news = News::read(b"STATUS=loading 40%\nREADY=1\nMAINPID=7\nWATCHDOG=1\n");
        assert!(news.is_ready && news.is_alive && !news.is_stopping);
        assert_eq!(news.status.unwrap(), b"loading 40%");
        assert!(News::read(b"STOPPING=1").is_stopping);
        // What was cut may be half of a secret.
        let mut long = b"READY=1\nSTATUS=".to_vec();
        long.resize(MAX_MESSAGE, b'x');
        assert!(News::read(&long).status.is_some());
        long.push(b'x');
        let news = News::read(&long);
        assert!(news.is_ready && news.status.is_none());
        assert_eq!(News::read(&[b'x'; MAX_MESSAGE + 1]), News::default());
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
