//! rtnetlink(7), as far as the enclave's network needs it: messages that make something, and
//! the kernel's acknowledgements.
//!
//! An encoder of our own: the crates for it carry every message that there is, and make PID 1
//! half a mebibyte larger, for six kinds of message that are written and never read.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

/// `VETH_INFO_PEER` (Linux, `include/uapi/linux/veth.h`).
const VETH_INFO_PEER: u16 = 1;
/// `IFLA_INET_CONF`, and the index of `rp_filter` in it (`include/uapi/linux/ip.h`).
const IFLA_INET_CONF: u16 = 1;
const IPV4_DEVCONF_RP_FILTER: u16 = 8;
/// In the width that messages have.
const INET: u16 = narrow(libc::AF_INET);
const FAMILY: u8 = INET.to_le_bytes()[0];
const UP: u16 = narrow(libc::IFF_UP);
const ERROR: u16 = narrow(libc::NLMSG_ERROR);
const NESTED: u16 = narrow(libc::NLA_F_NESTED);
const NEW: u16 = narrow(libc::NLM_F_CREATE | libc::NLM_F_EXCL);
const REPLACE: u16 = narrow(libc::NLM_F_CREATE | libc::NLM_F_REPLACE);
const REQUEST: u16 = narrow(libc::NLM_F_REQUEST | libc::NLM_F_ACK);
/// Bytes of `struct nlmsghdr`, and of an acknowledgement without the message that it is for.
const HEADER: usize = 16;
const ACKNOWLEDGEMENT: usize = HEADER + 4;
/// Largest answer that is read; what is beyond it is the request again.
const MAX_ANSWER: usize = 4096;

/// The link addresses of both ends: each side knows the other's without asking.
pub(super) type LinkAddress = [u8; 6];

/// One end of a pair.
pub(super) struct End<'a> {
    pub(super) name: &'a str,
    pub(super) index: i32,
    pub(super) address: LinkAddress,
    pub(super) mtu: u32,
}

/// Where packets to a destination go.
#[derive(Clone, Copy)]
pub(super) enum Way {
    /// To this host itself.
    Local,
    /// To a neighbour, from this address.
    Neighbour { from: Ipv4Addr },
    /// Through that neighbour.
    Through(Ipv4Addr),
}

/// A route: which destinations, by which interface, and how.
#[derive(Clone, Copy)]
pub(super) struct Route {
    pub(super) to: (Ipv4Addr, u8),
    pub(super) interface: i32,
    pub(super) way: Way,
    /// `RT_TABLE_MAIN`, or `RT_TABLE_LOCAL`, which is looked into first.
    pub(super) table: u8,
}

/// A socket that configures the network namespace that it was made in.
pub(super) struct Netlink(OwnedFd);

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let protocol = SockProtocol::NetlinkRoute;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        Ok(Self(socket))
    }

    /// The namespace that it configures.
    pub(super) fn namespace(&self) -> io::Result<OwnedFd> {
        // SAFETY: the descriptor is open for the length of the call, which takes no
        // argument and returns a descriptor that is nobody else's (netdevice(7)).
        unsafe {
            let namespace = libc::ioctl(self.0.as_raw_fd(), libc::SIOCGSKNS);
            if namespace < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(OwnedFd::from_raw_fd(namespace))
        }
    }

    /// Makes a pair of interfaces: `here`, and `there` in another namespace.
    pub(super) fn make_pair(
        &self,
        here: &End<'_>,
        there: &End<'_>,
        other: impl AsFd,
    ) -> io::Result<()> {
        let end = |end: &End<'_>| {
            let mut attributes = Attributes::default();
            attributes.text(libc::IFLA_IFNAME, end.name);
            attributes.add(libc::IFLA_ADDRESS, &end.address);
            attributes.add(libc::IFLA_MTU, &end.mtu.to_ne_bytes());
            attributes
        };
        let mut peer = end(there);
        let other = other.as_fd().as_raw_fd();
        peer.add(libc::IFLA_NET_NS_FD, &other.to_ne_bytes());
        let peer = [&link(there.index, 0)[..], &peer.0].concat();
        let mut attributes = end(here);
        attributes.nest(libc::IFLA_LINKINFO, &veth(&peer));
        self.make(libc::RTM_NEWLINK, NEW, &link(here.index, 0), &attributes)
    }

    /// Has an interface take packets only from where it would send the answer to.
    pub(super) fn restrict(&self, interface: i32) -> io::Result<()> {
        let mut conf = Attributes::default();
        conf.add(IPV4_DEVCONF_RP_FILTER, &1_u32.to_ne_bytes());
        let mut inet = Attributes::default();
        inet.nest(IFLA_INET_CONF, &conf);
        let mut families = Attributes::default();
        families.nest(INET, &inet);
        let mut attributes = Attributes::default();
        attributes.nest(libc::IFLA_AF_SPEC, &families);
        self.make(libc::RTM_NEWLINK, 0, &link(interface, 0), &attributes)
    }

    /// Brings an interface up.
    pub(super) fn bring_up(&self, interface: i32) -> io::Result<()> {
        let up = link(interface, UP.into());
        self.make(libc::RTM_NEWLINK, 0, &up, &Attributes::default())
    }

    /// Gives an interface an address, and no network.
    pub(super) fn add_address(&self, interface: i32, address: Ipv4Addr) -> io::Result<()> {
        // `struct ifaddrmsg`.
        let mut header = vec![FAMILY, 32, 0, libc::RT_SCOPE_UNIVERSE];
        header.extend(interface.to_ne_bytes());
        let mut attributes = Attributes::default();
        attributes.add(libc::IFA_LOCAL, &address.octets());
        self.make(libc::RTM_NEWADDR, NEW, &header, &attributes)
    }

    /// Tells the link address of a neighbour, for good.
    pub(super) fn add_neighbour(
        &self,
        interface: i32,
        address: Ipv4Addr,
        link_address: LinkAddress,
    ) -> io::Result<()> {
        // `struct ndmsg`.
        let mut header = vec![FAMILY, 0, 0, 0];
        header.extend(interface.to_ne_bytes());
        header.extend(libc::NUD_PERMANENT.to_ne_bytes());
        header.extend([0, 0]);
        let mut attributes = Attributes::default();
        attributes.add(libc::NDA_DST, &address.octets());
        attributes.add(libc::NDA_LLADDR, &link_address);
        self.make(libc::RTM_NEWNEIGH, REPLACE, &header, &attributes)
    }

    /// Adds a route.
    pub(super) fn add_route(&self, route: Route) -> io::Result<()> {
        let (scope, kind) = match route.way {
            Way::Local => (libc::RT_SCOPE_HOST, libc::RTN_LOCAL),
            Way::Neighbour { .. } => (libc::RT_SCOPE_LINK, libc::RTN_UNICAST),
            Way::Through(_) => (libc::RT_SCOPE_UNIVERSE, libc::RTN_UNICAST),
        };
        let (to, prefix) = route.to;
        // `struct rtmsg`.
        let header = [
            FAMILY,
            prefix,
            0,
            0,
            route.table,
            libc::RTPROT_STATIC,
            scope,
            kind,
            0,
            0,
            0,
            0,
        ];
        let mut attributes = Attributes::default();
        attributes.add(libc::RTA_DST, &to.octets());
        attributes.add(libc::RTA_OIF, &route.interface.to_ne_bytes());
        match route.way {
            Way::Local => {}
            Way::Neighbour { from } => attributes.add(libc::RTA_PREFSRC, &from.octets()),
            Way::Through(neighbour) => attributes.add(libc::RTA_GATEWAY, &neighbour.octets()),
        }
        self.make(libc::RTM_NEWROUTE, NEW, &header, &attributes)
    }

    /// Sends a message, and waits for the kernel's acknowledgement.
    fn make(
        &self,
        kind: u16,
        flags: u16,
        header: &[u8],
        attributes: &Attributes,
    ) -> io::Result<()> {
        let length = HEADER + header.len() + attributes.0.len();
        let length = u32::try_from(length).expect("messages are of a few attributes");
        // `struct nlmsghdr`; its sequence number and port are of no use to one request
        // at a time.
        let mut message = Vec::new();
        message.extend(length.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend((REQUEST | flags).to_ne_bytes());
        message.extend([0; 8]);
        message.extend(header);
        message.extend(&attributes.0);
        send(self.0.as_raw_fd(), &message, MsgFlags::empty())?;
        let mut answer = [0; MAX_ANSWER];
        let received = recv(self.0.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        acknowledged(answer.get(..received).expect("it was read into the buffer"))
    }
}

/// A constant of the kernel's that has at most 16 bits.
const fn narrow(value: libc::c_int) -> u16 {
    assert!(0 <= value && value <= 0xffff, "it has at most 16 bits");
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "asserted above"
    )]
    {
        value as u16
    }
}

/// What an acknowledgement says (`struct nlmsgerr`).
fn acknowledged(answer: &[u8]) -> io::Result<()> {
    let strange = || io::Error::other("the kernel's answer is no acknowledgement");
    let answer: &[u8; ACKNOWLEDGEMENT] = answer.first_chunk().ok_or_else(strange)?;
    let [_, _, _, _, kind @ .., a, b, c, d] = answer;
    if !kind.starts_with(&ERROR.to_ne_bytes()) {
        return Err(strange());
    }
    match i32::from_ne_bytes([*a, *b, *c, *d]) {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error.wrapping_neg())),
    }
}

/// Whether the kernel can make pairs of interfaces; nothing is made.
pub(crate) fn check_pairs() -> io::Result<()> {
    let mut attributes = Attributes::default();
    attributes.text(libc::IFLA_IFNAME, "eth0");
    // No interface can have this address. That is the error of a kernel that knows pairs:
    // one that does not says so before it looks at the address.
    attributes.add(libc::IFLA_ADDRESS, &LinkAddress::default());
    attributes.nest(libc::IFLA_LINKINFO, &veth(&[]));
    let made = Netlink::open()?.make(libc::RTM_NEWLINK, NEW, &link(0, 0), &attributes);
    match made {
        Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => Ok(()),
        result => result,
    }
}

/// `struct ifinfomsg` with these flags set.
fn link(index: i32, flags: u32) -> [u8; 16] {
    let mut header = [0; 16];
    let fields = [
        index.to_ne_bytes(),
        flags.to_ne_bytes(),
        flags.to_ne_bytes(),
    ];
    for (to, from) in header.iter_mut().skip(4).zip(fields.as_flattened()) {
        *to = *from;
    }
    header
}

/// The kind of an interface that has a peer, and what there is to say of the peer.
fn veth(peer: &[u8]) -> Attributes {
    let mut data = Attributes::default();
    if !peer.is_empty() {
        data.add(VETH_INFO_PEER, peer);
    }
    let mut info = Attributes::default();
    info.text(libc::IFLA_INFO_KIND, "veth");
    info.nest(libc::IFLA_INFO_DATA, &data);
    info
}

/// Attributes of a message: length, kind, value, and zeros up to a multiple of 4 bytes.
#[derive(Default)]
struct Attributes(Vec<u8>);

impl Attributes {
    fn add(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(4 + value.len()).expect("attributes are of a few bytes");
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn text(&mut self, kind: u16, value: &str) {
        self.add(kind, &[value.as_bytes(), &[0]].concat());
    }

    fn nest(&mut self, kind: u16, inner: &Self) {
        self.add(kind | NESTED, &inner.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_nested() {
        let mut inner = Attributes::default();
        inner.text(1, "veth");
        assert_eq!(inner.0.len(), 12);
        let mut outer = Attributes::default();
        outer.nest(18, &inner);
        let head = [16_u16.to_ne_bytes(), 0x8012_u16.to_ne_bytes()];
        assert_eq!(outer.0, [head.as_flattened(), &inner.0].concat());
    }

    #[test]
    fn an_acknowledgement_is_read_and_anything_else_is_an_error() {
        let answer = |kind: u16, error: i32| {
            let mut bytes = vec![0; 4];
            bytes.extend(kind.to_ne_bytes());
            bytes.extend([0; 10]);
            bytes.extend(error.to_ne_bytes());
            bytes
        };
        acknowledged(&answer(2, 0)).unwrap();
        let error = acknowledged(&answer(2, -libc::EEXIST)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EEXIST));
        assert!(acknowledged(&answer(16, 0)).is_err());
        assert!(acknowledged(&answer(2, 0)[..19]).is_err());
        assert!(acknowledged(&answer(2, i32::MIN)).is_err());
    }
}
