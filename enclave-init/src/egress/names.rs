//! An address of the enclave's own network for each allowed name, and listeners there.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{Ipv4Addr, TcpListener as StdListener, UdpSocket as StdSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use link::copy::Socket;
use manifest::{Network, Protocol};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::destination::{self, Destination};
use super::{Egress, carry, connect, datagrams, failed};

/// The first address, and how many there are: the enclave's own network without its first
/// 256 addresses, which are the init's and the workload's, and its last one.
const FIRST: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 0);
const ADDRESSES: u32 = (1 << 17) - 256 - 1;
/// Most names that patterns allow and that have an address at a time: a pattern could
/// allow any number. Those that the manifest spells out always have one.
const MAX_NAMES: usize = 1024;
/// Most listeners of such names, one for each name and port.
const MAX_LISTENERS: usize = 4096;
/// How long nobody must have asked for a name, nor be connected to it, before its
/// address is taken for another. Programs keep an answer for the
/// [`TTL`](super::resolver::TTL_SECONDS), which is half of it.
pub(super) const MIN_UNUSED: Duration = Duration::from_secs(120);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The names that have an address. They keep it while there is room, since programs
/// keep addresses longer than any answer says; then the one that was unused longest
/// gives its own up. An address is not given out again before all the others were:
/// until then a program that still has it finds nobody there.
#[derive(Debug)]
pub(super) struct Names {
    known: Mutex<Known>,
    first: Ipv4Addr,
    max: usize,
}

#[derive(Debug, Default)]
struct Known {
    names: HashMap<String, Name>,
    addresses: HashSet<Ipv4Addr>,
    /// The next address, counted from the first.
    next: u32,
}

#[derive(Debug)]
struct Name {
    address: Ipv4Addr,
    /// Whether the manifest spells it out.
    is_listed: bool,
    usage: Arc<Usage>,
    /// Dropped with the name, and with them their sockets.
    listeners: JoinSet<()>,
}

/// The ports that are allowed at one host.
struct Ports {
    tcp: Vec<u16>,
    udp: Vec<u16>,
}

impl Ports {
    fn of(network: &Network, host: &str) -> Self {
        Self {
            tcp: network.ports(host, Protocol::Tcp),
            udp: network.ports(host, Protocol::Udp),
        }
    }

    fn len(&self) -> usize {
        self.tcp.len() + self.udp.len()
    }
}

/// What decides whether a name is given up.
#[derive(Debug)]
pub(super) struct Usage {
    last: Mutex<Instant>,
    open: AtomicUsize,
}

/// A connection to a name, or a flow of datagrams, while it is open.
pub(super) struct Open(Arc<Usage>);

impl Usage {
    fn touch(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    pub(super) fn open(self: &Arc<Self>) -> Open {
        self.touch();
        self.open.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(self))
    }

    /// When it was used last, if that was long ago.
    fn unused_since(&self) -> Option<Instant> {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_unused = self.open.load(Ordering::Relaxed) == 0 && last.elapsed() >= MIN_UNUSED;
        is_unused.then_some(last)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.touch();
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Default for Names {
    fn default() -> Self {
        Self {
            known: Mutex::default(),
            first: FIRST,
            max: MAX_NAMES,
        }
    }
}

impl Names {
    /// The name that has this address, if one has.
    pub(super) fn at(&self, address: Ipv4Addr) -> Option<String> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut names = known.names.iter();
        let (name, _) = names.find(|(_, name)| name.address == address)?;
        Some(name.clone())
    }

    #[cfg(test)]
    pub(super) fn on_loopback() -> Self {
        Self {
            first: Ipv4Addr::new(127, 64, 1, 0),
            ..Self::default()
        }
    }
}

impl Known {
    /// Makes room for a name with so many ports; false if all are in use.
    fn make_room(&mut self, ports: usize, max: usize) -> bool {
        loop {
            let patterns = self.names.values().filter(|name| !name.is_listed);
            let (names, listeners) = patterns.fold((0, 0), |(names, listeners), name| {
                (names + 1, listeners + name.listeners.len())
            });
            if names < max && listeners + ports <= MAX_LISTENERS {
                return true;
            }
            let candidates = self.names.iter().filter(|(_, name)| !name.is_listed);
            let unused = candidates.filter_map(|(text, name)| {
                let since = name.usage.unused_since()?;
                Some((since, text.clone()))
            });
            let Some((_, text)) = unused.min() else {
                return false;
            };
            if let Some(name) = self.names.remove(&text) {
                self.addresses.remove(&name.address);
            }
        }
    }

    /// An address that no name has.
    fn next_address(&mut self, first: Ipv4Addr) -> Ipv4Addr {
        loop {
            let address = Ipv4Addr::from_bits(first.to_bits() + self.next);
            self.next = (self.next + 1) % ADDRESSES;
            // Names are far fewer than addresses.
            if !self.addresses.contains(&address) {
                return address;
            }
        }
    }
}

/// The address of a name in lower case, its listeners running; `None` if no
/// rule allows it.
pub(super) fn address(egress: &Arc<Egress>, name: &str) -> io::Result<Option<Ipv4Addr>> {
    let ports = Ports::of(&egress.network, name);
    if ports.len() == 0 {
        return Ok(None);
    }
    let Names { known, first, max } = &egress.names;
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(name) = known.names.get(name) {
        name.usage.touch();
        return Ok(Some(name.address));
    }
    let is_listed = destination::is_listed(name, &egress.network);
    if !is_listed && !known.make_room(ports.len(), *max) {
        return Err(io::Error::other(format!(
            "{max} names that patterns allow, or {MAX_LISTENERS} of their ports, were used within the last {} s",
            MIN_UNUSED.as_secs()
        )));
    }
    let address = known.next_address(*first);
    // All of them or none: a name is tried again at the next query.
    let (usage, listeners) = listen(egress, address, name, &ports)?;
    known.addresses.insert(address);
    let new = Name {
        address,
        is_listed,
        usage,
        listeners,
    };
    known.names.insert(name.to_owned(), new);
    Ok(Some(address))
}

/// Listens at an address that the image spells out, until the enclave ends.
pub(super) fn listen_at(egress: &Arc<Egress>, address: Ipv4Addr) -> io::Result<()> {
    let host = address.to_string();
    let ports = Ports::of(&egress.network, &host);
    let (_, mut listeners) = listen(egress, address, &host, &ports)?;
    listeners.detach_all();
    Ok(())
}

/// Listens at all of these ports, or at none.
fn listen(
    egress: &Arc<Egress>,
    address: Ipv4Addr,
    host: &str,
    ports: &Ports,
) -> io::Result<(Arc<Usage>, JoinSet<()>)> {
    let destination = |protocol, port| {
        let destination = Destination::over(protocol, host, port);
        destination.ok_or_else(|| io::Error::other("it is not the name of a host"))
    };
    let bind = |port: &u16| {
        let listener = StdListener::bind((address, *port))?;
        listener.set_nonblocking(true)?;
        Ok((
            TcpListener::from_std(listener)?,
            destination(Protocol::Tcp, *port)?,
        ))
    };
    let bind_udp = |port: &u16| {
        let socket = StdSocket::bind((address, *port))?;
        socket.set_nonblocking(true)?;
        Ok((socket, destination(Protocol::Udp, *port)?))
    };
    let tcp = ports.tcp.iter().map(bind).collect::<io::Result<Vec<_>>>()?;
    let udp: io::Result<Vec<_>> = ports.udp.iter().map(bind_udp).collect();
    let usage = Arc::new(Usage {
        last: Mutex::new(Instant::now()),
        open: AtomicUsize::new(0),
    });
    let mut listeners = JoinSet::new();
    for (socket, destination) in udp? {
        let (egress, usage) = (Arc::clone(egress), Arc::clone(&usage));
        listeners.spawn(datagrams::serve(socket, egress, usage, destination));
    }
    for (socket, destination) in tcp {
        let (egress, usage) = (Arc::clone(egress), Arc::clone(&usage));
        listeners.spawn(accept(socket, egress, usage, destination));
    }
    Ok((usage, listeners))
}

async fn accept(
    listener: TcpListener,
    egress: Arc<Egress>,
    usage: Arc<Usage>,
    destination: Destination,
) {
    loop {
        let Ok((workload, _)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (egress, destination) = (Arc::clone(&egress), destination.clone());
        let open = usage.open();
        tokio::spawn(async move {
            let _open = open;
            match connect(&egress, &destination).await {
                Ok((place, outside)) => {
                    carry(&egress, workload, outside, &destination, &place).await;
                }
                Err(refused) => {
                    // No program takes a reset for an answer that is complete.
                    workload.reset_on_close();
                    let text = format!("{destination} failed: {}", refused.reason);
                    failed(&egress, &destination, &text);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;
    use tokio::time::advance;

    use super::*;
    use crate::egress::tests;

    fn egress(rules: &[String]) -> Arc<Egress> {
        Arc::new(tests::egress(rules))
    }

    /// A port that nobody on this machine listens on at the moment.
    fn free_port() -> u16 {
        let listener = StdListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        listener.local_addr().unwrap().port()
    }

    #[tokio::test]
    async fn a_name_has_one_address_and_listeners_there() {
        let port = free_port();
        let egress = egress(&[format!("a.test:{port}"), format!("*.test:{port}")]);
        let first = address(&egress, "a.test").unwrap().unwrap();
        assert_eq!(address(&egress, "a.test").unwrap(), Some(first));
        assert_ne!(address(&egress, "b.test").unwrap(), Some(first));
        assert_eq!(address(&egress, "test").unwrap(), None);
        TcpStream::connect((first, port)).await.unwrap();
        assert_eq!(egress.names.at(first).as_deref(), Some("a.test"));
        assert_eq!(egress.names.at(Ipv4Addr::new(127, 64, 9, 9)), None);
    }

    #[tokio::test]
    async fn addresses_that_the_image_spells_out_have_listeners() {
        let port = free_port();
        let address = Ipv4Addr::new(127, 65, 0, 1);
        let egress = egress(&[format!("{address}:{port}")]);
        listen_at(&egress, address).unwrap();
        TcpStream::connect((address, port)).await.unwrap();
        let error = listen_at(&egress, address).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn a_name_whose_port_is_taken_is_tried_again() {
        let (first, second) = (free_port(), free_port());
        let (low, high) = (first.min(second), first.max(second));
        assert_ne!(low, high);
        let egress = egress(&[format!("a.test:{low}"), format!("a.test:{high}")]);
        let taken = StdListener::bind((Ipv4Addr::UNSPECIFIED, high)).unwrap();
        let error = address(&egress, "a.test").unwrap_err().to_string();
        assert!(error.contains("in use"), "{error}");
        drop(taken);
        let found = address(&egress, "a.test").unwrap().unwrap();
        TcpStream::connect((found, low)).await.unwrap();
        TcpStream::connect((found, high)).await.unwrap();
    }

    fn egress_of(max: usize, rules: &[String]) -> Arc<Egress> {
        let mut egress = tests::egress(rules);
        egress.names.max = max;
        Arc::new(egress)
    }

    #[tokio::test(start_paused = true)]
    async fn unused_names_are_given_up_when_there_is_no_room() {
        let port = free_port();
        let egress = egress_of(
            3,
            &[format!("*.test:{port}"), format!("listed.other:{port}")],
        );
        let name = |name: &str| address(&egress, name);
        let held = name("a.test").unwrap().unwrap();
        let connection = {
            let known = egress.names.known.lock().unwrap();
            known.names["a.test"].usage.open()
        };
        let unused = name("b.test").unwrap().unwrap();
        let asked_for = name("c.test").unwrap();
        let error = name("d.test").unwrap_err().to_string();
        assert!(error.contains("within the last 120 s"), "{error}");
        // What the manifest spells out has an address all the same.
        assert!(name("listed.other").unwrap().is_some());
        advance(MIN_UNUSED).await;
        assert_eq!(name("c.test").unwrap(), asked_for);
        let new = name("d.test").unwrap().unwrap();
        // Nobody is at the old address any more, and it is not the new one.
        sleep(Duration::from_millis(1)).await;
        assert_ne!(new, unused);
        assert!(TcpStream::connect((unused, port)).await.is_err());
        TcpStream::connect((new, port)).await.unwrap();
        assert!(name("e.test").is_err());
        assert_eq!(name("a.test").unwrap(), Some(held));
        drop(connection);
    }

    #[tokio::test(start_paused = true)]
    async fn names_asked_for_once_do_not_close_egress() {
        let port = free_port();
        let egress = egress_of(8, &[format!("*.test:{port}")]);
        let mut seen = HashSet::new();
        for round in 0..20 {
            for number in 0..8 {
                let name = format!("n{round}-{number}.test");
                assert!(seen.insert(address(&egress, &name).unwrap().unwrap()));
            }
            advance(MIN_UNUSED).await;
        }
        assert_eq!(egress.names.known.lock().unwrap().names.len(), 8);
    }

    #[test]
    fn addresses_go_round() {
        let mut known = Known {
            next: ADDRESSES - 1,
            ..Known::default()
        };
        known.addresses.insert(FIRST);
        let mut next = || known.next_address(FIRST);
        assert_eq!(next(), Ipv4Addr::new(198, 19, 255, 254));
        assert_eq!(next(), Ipv4Addr::new(198, 18, 1, 1));
    }
}
