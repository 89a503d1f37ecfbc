//! Making the workload's namespace and the pair of interfaces.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::thread;

use manifest::{CREDENTIALS_ADDRESS, INIT_ADDRESS, OWN_NETWORK, WORKLOAD_ADDRESS};
use nix::libc::{RT_TABLE_LOCAL, RT_TABLE_MAIN};
use nix::sched::{CloneFlags, unshare};
use tokio::sync::oneshot;

use super::namespace::Namespace;
use super::netlink::{End, LinkAddress, Netlink, Route, Way};
use crate::error::{Doing, InitError};

/// `lo`, in every namespace.
const LOOPBACK: i32 = 1;
/// The pair's, in both namespaces; the kernel itself counts up from 2.
const INDEX: i32 = 1000;
/// Locally administered.
const INIT_LINK: LinkAddress = [2, 0, 198, 18, 0, 1];
const WORKLOAD_LINK: LinkAddress = [2, 0, 198, 18, 0, 2];
/// As `lo` has it: packets go from memory to memory. It is the most that a pair can have.
const MTU: u32 = 65_535;
const UNPRIVILEGED_PORTS: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
/// Settings of IPv6 in the init's namespace and in the workload's. The pair has none of it:
/// whoever makes packets could otherwise play the router, and have the kernel keep routes and
/// addresses that no control group accounts for. In the workload's namespace `lo` has IPv6,
/// and takes nobody for a router.
const IPV6_HERE: [(&str, &str); 1] = [("/proc/sys/net/ipv6/conf/workload/disable_ipv6", "1")];
const IPV6_INSIDE: [(&str, &str); 3] = [
    ("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "1"),
    ("/proc/sys/net/ipv6/conf/default/accept_ra", "0"),
    ("/proc/sys/net/ipv6/conf/lo/accept_ra", "0"),
];

/// The network while it is made on a thread of its own, beside other steps of the boot.
pub(crate) struct Making(oneshot::Receiver<Result<Made, InitError>>);

struct Made {
    /// They configure the init's namespace and the workload's.
    here: Netlink,
    inside: Netlink,
    own: OwnedFd,
    workloads: OwnedFd,
}

impl Making {
    /// Begins.
    pub(crate) fn begin() -> Result<Self, InitError> {
        let (sender, made) = oneshot::channel();
        thread::Builder::new()
            .name("network".to_owned())
            // Whoever gave up the boot does not want to know.
            .spawn(move || drop(sender.send(make())))
            .doing(|| "starting the thread that makes the network".to_owned())?;
        Ok(Self(made))
    }

    /// Waits until it is made, and adds routes to these addresses of the outside, and to
    /// the credentials' if the workload gets any. The init's root has been entered.
    pub(crate) async fn finish(
        self,
        addresses: impl Iterator<Item = Ipv4Addr>,
        with_credentials: bool,
    ) -> Result<Namespace, InitError> {
        let made = self.0.await.map_err(|_| {
            let ended = io::Error::other("the thread that makes it has ended");
            InitError::System {
                what: "making the workload's network".to_owned(),
                source: ended,
            }
        })??;
        let credentials = with_credentials.then_some(CREDENTIALS_ADDRESS);
        for address in addresses.chain(credentials) {
            made.add(address)
                .doing(|| format!("adding the route to {address}"))?;
        }
        let namespace = Namespace::new(made.own, made.workloads);
        // As in other container runtimes, any user may listen on any port.
        namespace
            .within(|| fs::write(UNPRIVILEGED_PORTS, "0"))
            .and_then(|written| written)
            .doing(|| "allowing low ports".to_owned())?;
        write_ipv6(&IPV6_HERE)
            .and_then(|()| namespace.within(|| write_ipv6(&IPV6_INSIDE))?)
            .doing(|| "turning IPv6 off between the workload and the init".to_owned())?;
        Ok(namespace)
    }
}

fn write_ipv6(settings: &[(&str, &str)]) -> io::Result<()> {
    for (path, value) in settings {
        match fs::write(path, value) {
            // A kernel without IPv6, which only `sim` can meet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result?,
        }
    }
    Ok(())
}

/// Everything that does not depend on the image. This thread is in the workload's namespace
/// afterwards.
fn make() -> Result<Made, InitError> {
    let doing = || "making the workload's network".to_owned();
    let here = Netlink::open().doing(doing)?;
    let own = here.namespace().doing(doing)?;
    unshare(CloneFlags::CLONE_NEWNET).doing(|| "making a network namespace".to_owned())?;
    let inside = Netlink::open().doing(doing)?;
    let workloads = inside.namespace().doing(doing)?;
    let end = |name, address| End {
        name,
        index: INDEX,
        address,
        mtu: MTU,
    };
    inside
        .make_pair(
            &end("eth0", WORKLOAD_LINK),
            &end("workload", INIT_LINK),
            &own,
        )
        .doing(|| "making a pair of interfaces (CONFIG_VETH)".to_owned())?;
    set_up_inside(&inside).doing(|| "setting up eth0".to_owned())?;
    set_up_here(&here).doing(|| "setting up the init's interface".to_owned())?;
    Ok(Made {
        here,
        inside,
        own,
        workloads,
    })
}

fn set_up_inside(inside: &Netlink) -> io::Result<()> {
    inside.restrict(INDEX)?;
    inside.bring_up(LOOPBACK)?;
    inside.bring_up(INDEX)?;
    inside.add_address(INDEX, WORKLOAD_ADDRESS)?;
    inside.add_neighbour(INDEX, INIT_ADDRESS, INIT_LINK)?;
    inside.add_route(Route {
        to: (INIT_ADDRESS, 32),
        interface: INDEX,
        way: Way::Neighbour {
            from: WORKLOAD_ADDRESS,
        },
        table: RT_TABLE_MAIN,
    })?;
    inside.add_route(through_the_init(OWN_NETWORK))
}

fn set_up_here(here: &Netlink) -> io::Result<()> {
    here.restrict(INDEX)?;
    here.bring_up(LOOPBACK)?;
    here.bring_up(INDEX)?;
    here.add_address(INDEX, INIT_ADDRESS)?;
    here.add_neighbour(INDEX, WORKLOAD_ADDRESS, WORKLOAD_LINK)?;
    // In the table that is looked into first, where the wider route below would win: the
    // workload's address must not be one of the init's own.
    here.add_route(Route {
        to: (WORKLOAD_ADDRESS, 32),
        interface: INDEX,
        way: Way::Neighbour { from: INIT_ADDRESS },
        table: RT_TABLE_LOCAL,
    })?;
    here.add_route(answered_here(OWN_NETWORK))
}

fn through_the_init(to: (Ipv4Addr, u8)) -> Route {
    Route {
        to,
        interface: INDEX,
        way: Way::Through(INIT_ADDRESS),
        table: RT_TABLE_MAIN,
    }
}

fn answered_here(to: (Ipv4Addr, u8)) -> Route {
    Route {
        to,
        interface: LOOPBACK,
        way: Way::Local,
        table: RT_TABLE_LOCAL,
    }
}

impl Made {
    /// Has the init answer for an address.
    fn add(&self, address: Ipv4Addr) -> io::Result<()> {
        self.here.add_route(answered_here((address, 32)))?;
        self.inside.add_route(through_the_init((address, 32)))
    }
}
