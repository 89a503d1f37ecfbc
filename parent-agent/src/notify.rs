//! What the service manager is told: `sd_notify(3)`.
//!
//! A unit of `Type=notify` is started once its enclave is ready. Until then the
//! agent asks for more time, so that a long fetch is no failure and a hung agent is
//! one; from then on it says that it lives, as often as `WatchdogSec=` wants.
//! Without a service manager all of this does nothing.

use std::env;
use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use enclave_host::guard::SERVICE_VARIABLES;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tracing::debug;

/// How often the agent says that it lives where nobody watches.
const INTERVAL: Duration = Duration::from_secs(15);
/// How much longer its start or its end may take each time; more than two
/// intervals.
const EXTENSION: Duration = Duration::from_secs(60);
/// Longest status, in bytes.
const MAX_STATUS: usize = 256;

/// The service manager, if there is one.
#[derive(Debug, Clone)]
pub struct Notifier(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    manager: Option<(UnixDatagram, SocketAddr)>,
    interval: Duration,
    /// What was said of the service.
    is_ready: Told,
    is_stopping: Told,
    /// Whether a loop says itself that it lives.
    is_supervised: AtomicBool,
}

/// Something that is said once, and again if it was not heard.
#[derive(Debug, Default)]
struct Told {
    is_so: AtomicBool,
    is_heard: AtomicBool,
}

impl Notifier {
    /// The service manager that the environment names.
    pub fn from_environment() -> Self {
        let [socket, watchdog, pid] = SERVICE_VARIABLES.map(env::var_os);
        Self::new(socket.as_deref(), watchdog.as_deref(), pid.as_deref())
    }

    fn new(socket: Option<&OsStr>, watchdog: Option<&OsStr>, pid: Option<&OsStr>) -> Self {
        let manager = socket.and_then(address).and_then(|address| {
            let socket = UnixDatagram::unbound().ok()?;
            socket.set_nonblocking(true).ok()?;
            Some((socket, address))
        });
        let number = |text: &OsStr| text.to_str()?.parse::<u64>().ok();
        let is_for_us = pid.is_none_or(|pid| number(pid) == Some(std::process::id().into()));
        let watched = watchdog
            .filter(|_| is_for_us)
            .and_then(number)
            .filter(|limit| *limit > 0)
            .map(|limit| (Duration::from_micros(limit) / 2).max(Duration::from_millis(1)));
        Self(Arc::new(Inner {
            manager,
            interval: watched.map_or(INTERVAL, |watched| watched.min(INTERVAL)),
            is_ready: Told::default(),
            is_stopping: Told::default(),
            is_supervised: AtomicBool::new(false),
        }))
    }

    /// When to call [`alive`](Self::alive).
    pub fn beats(&self) -> Interval {
        let mut beats = interval(self.0.interval);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beats
    }

    /// The service is what it was started for. Said once.
    pub fn ready(&self) {
        self.tell(&self.0.is_ready, "READY=1");
    }

    /// The service is about to end. Said once.
    pub fn stopping(&self) {
        self.tell(&self.0.is_stopping, "STOPPING=1");
    }

    /// What the service does, in a line for people.
    pub fn status(&self, text: &str) {
        let line = plain_text::plain_start(text, MAX_STATUS / char::MAX.len_utf8() - 1);
        self.send(&format!("STATUS={line}"));
    }

    /// The process does its work.
    pub fn alive(&self) {
        let Inner {
            is_ready,
            is_stopping,
            ..
        } = &*self.0;
        for (told, message) in [(is_ready, "READY=1"), (is_stopping, "STOPPING=1")] {
            if told.is_so.load(Ordering::Relaxed) {
                self.tell(told, message);
            }
        }
        let is_serving =
            is_ready.is_so.load(Ordering::Relaxed) && !is_stopping.is_so.load(Ordering::Relaxed);
        if is_serving {
            self.send("WATCHDOG=1");
        } else {
            let extension = EXTENSION.as_micros();
            self.send(&format!("WATCHDOG=1\nEXTEND_TIMEOUT_USEC={extension}"));
        }
    }

    /// Says that the process lives, but for the time that a loop does so itself.
    pub async fn keep_alive(self) {
        let mut beats = self.beats();
        loop {
            beats.tick().await;
            if !self.0.is_supervised.load(Ordering::Relaxed) {
                self.alive();
            }
        }
    }

    /// From now on the caller says that the process lives, until it drops this.
    pub fn supervise(&self) -> Supervised {
        self.0.is_supervised.store(true, Ordering::Relaxed);
        Supervised(self.clone())
    }

    fn tell(&self, told: &Told, message: &str) {
        told.is_so.store(true, Ordering::Relaxed);
        if !told.is_heard.load(Ordering::Relaxed) && self.send(message) {
            told.is_heard.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the message is on its way. One that the manager has no room for is
    /// not waited for.
    fn send(&self, message: &str) -> bool {
        let Some((socket, address)) = &self.0.manager else {
            return true;
        };
        match socket.send_to_addr(message.as_bytes(), address) {
            Ok(_) => true,
            Err(error) => {
                debug!(%error, "the service manager was not told");
                false
            }
        }
    }
}

/// A time in which a loop says itself that it lives.
#[derive(Debug)]
pub struct Supervised(Notifier);

impl Drop for Supervised {
    fn drop(&mut self) {
        let Self(notifier) = self;
        notifier.0.is_supervised.store(false, Ordering::Relaxed);
    }
}

/// A path, or after an `@` an abstract name.
fn address(socket: &OsStr) -> Option<SocketAddr> {
    match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name).ok(),
        [b'/', ..] => SocketAddr::from_pathname(socket).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 1024];
        let count = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..count].to_vec()).unwrap()
    }

    #[test]
    fn a_manager_is_told_over_a_path_and_over_an_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        let name = format!("enclave-notify-{}", std::process::id());
        let by_name =
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let abstract_name = OsString::from(format!("@{name}"));
        for (socket, variable) in [(by_path, path.as_os_str()), (by_name, &abstract_name)] {
            let notifier = Notifier::new(Some(variable), None, None);
            notifier.status("waits\nfor its image");
            assert_eq!(received(&socket), r"STATUS=waits\nfor its image");
            notifier.alive();
            let extended = "WATCHDOG=1\nEXTEND_TIMEOUT_USEC=60000000";
            assert_eq!(received(&socket), extended);
            notifier.ready();
            notifier.ready();
            notifier.alive();
            notifier.stopping();
            notifier.alive();
            let all = [(); 4].map(|()| received(&socket));
            assert_eq!(all, ["READY=1", "WATCHDOG=1", "STOPPING=1", extended]);
        }
    }

    #[test]
    fn what_a_manager_had_no_room_for_is_said_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let notifier = Notifier::new(Some(path.as_os_str()), None, None);
        // Nobody is there yet.
        notifier.ready();
        let socket = UnixDatagram::bind(&path).unwrap();
        notifier.alive();
        assert_eq!(received(&socket), "READY=1");
        assert_eq!(received(&socket), "WATCHDOG=1");
    }

    #[test]
    fn the_watchdog_is_fed_twice_in_its_time_if_it_is_ours() {
        let own = OsString::from(std::process::id().to_string());
        let interval = |limit: &str, pid: &OsStr| {
            let notifier = Notifier::new(None, Some(OsStr::new(limit)), Some(pid));
            notifier.0.interval
        };
        assert_eq!(interval("20000000", &own), Duration::from_secs(10));
        assert_eq!(interval("600000000", &own), INTERVAL);
        assert_eq!(interval("20000000", OsStr::new("1")), INTERVAL);
        for bad in ["", "0", "x", "-1"] {
            assert_eq!(interval(bad, &own), INTERVAL, "{bad}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_says_that_it_lives_is_not_spoken_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let notifier = Notifier::new(Some(path.as_os_str()), None, None);
        notifier.ready();
        assert_eq!(received(&socket), "READY=1");
        let keeping = tokio::spawn(notifier.clone().keep_alive());
        let beaten = || {
            let mut bytes = [0; 64];
            let mut count = 0;
            while socket.recv(&mut bytes).is_ok() {
                count += 1;
            }
            count
        };
        let supervised = notifier.supervise();
        tokio::time::sleep(INTERVAL * 10).await;
        assert_eq!(beaten(), 0);
        drop(supervised);
        tokio::time::sleep(INTERVAL * 2).await;
        assert!(beaten() >= 1);
        keeping.abort();
    }

    #[test]
    fn without_a_manager_nothing_happens() {
        for socket in [None, Some(""), Some("relative"), Some("vsock:2:1")] {
            let notifier = Notifier::new(socket.map(OsStr::new), None, None);
            assert!(notifier.0.manager.is_none());
            notifier.ready();
            notifier.alive();
        }
    }
}
