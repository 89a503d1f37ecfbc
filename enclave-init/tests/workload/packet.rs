//! Packets of the workload's own making, as `CAP_NET_RAW` allows them.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};
use std::os::fd::AsRawFd;

use nix::libc;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrLike,
    sendto, socket,
};

use crate::network;

const INIT: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const OWN: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const IPV6: u16 = 0x86dd;
/// The number of `eth0`.
const INTERFACE: i32 = 1000;

/// Asks for the address of a name in the name of `source`, and does not wait for an answer.
pub(crate) fn query(source: Ipv4Addr, name: &str) {
    send(&datagram(source, (INIT, 53), &network::query(name, 1)));
    println!("sent from {source}");
}

/// Sends a text to an address and port, by way of the init whatever the address is.
pub(crate) fn tell(address: Ipv4Addr, port: u16, text: &str) {
    send(&datagram(OWN, (address, port), text.as_bytes()));
    println!("sent to {address}");
}

fn datagram(source: Ipv4Addr, to: (Ipv4Addr, u16), contents: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + contents.len()).unwrap();
    let mut packet = vec![0x45, 0];
    packet.extend((20 + length).to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, UDP, 0, 0]);
    packet.extend(source.octets());
    packet.extend(to.0.octets());
    let checksum = checksum(&packet).to_be_bytes();
    packet[10..12].copy_from_slice(&checksum);
    for field in [5353, to.1, length, 0] {
        packet.extend(field.to_be_bytes());
    }
    packet.extend(contents);
    packet
}

/// Says to all on the other end of `eth0` that there is a router here, and a network in
/// which each may give itself an address (RFC 4861, section 4.2; RFC 4862, section 5.5.3).
pub(crate) fn advertise(prefix: Ipv6Addr) {
    let source: Ipv6Addr = "fe80::1".parse().unwrap();
    let everybody: Ipv6Addr = "ff02::1".parse().unwrap();
    // A router for 1800 s, and a prefix: 64 bits, on this link, for addresses too.
    let mut message = vec![134, 0, 0, 0, 64, 0];
    message.extend(1800_u16.to_be_bytes());
    message.extend([0; 8]);
    message.extend([3, 4, 64, 0xc0]);
    message.extend([0xff; 8]);
    message.extend([0; 4]);
    message.extend(prefix.octets());
    let length = u16::try_from(message.len()).unwrap();
    let mut summed = [source.octets(), everybody.octets()].concat();
    summed.extend(u32::from(length).to_be_bytes());
    summed.extend([0, 0, 0, ICMPV6]);
    summed.extend(&message);
    message[2..4].copy_from_slice(&checksum(&summed).to_be_bytes());
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([ICMPV6, 255]);
    packet.extend(source.octets());
    packet.extend(everybody.octets());
    packet.extend(message);
    send_on_link(&packet);
    println!("advertised {prefix}");
}

/// Sends a packet on `eth0`, whatever this end of it thinks of IPv6.
fn send_on_link(packet: &[u8]) {
    let flags = SockFlag::empty();
    let socket = socket(AddressFamily::Packet, SockType::Datagram, flags, None).unwrap();
    let mut address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).unwrap(),
        sll_protocol: IPV6.to_be(),
        sll_ifindex: INTERFACE,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0; 8],
    };
    // As every packet to this group of all nodes has it (RFC 2464, section 7).
    address.sll_addr[..6].copy_from_slice(&[0x33, 0x33, 0, 0, 0, 1]);
    // SAFETY: it points to a whole `sockaddr_ll`, whose length and family say so.
    let to = unsafe {
        let length = libc::socklen_t::try_from(size_of_val(&address)).unwrap();
        LinkAddr::from_raw((&raw const address).cast(), Some(length)).unwrap()
    };
    let sent = sendto(socket.as_raw_fd(), packet, &to, MsgFlags::empty()).unwrap();
    assert_eq!(sent, packet.len());
}

/// Of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|two| u32::from(two[0]) << 8 | u32::from(two[1]));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap()
}

fn send(packet: &[u8]) {
    // Such a socket takes whole packets (raw(7)).
    let flags = SockFlag::empty();
    let socket = socket(AddressFamily::Inet, SockType::Raw, flags, SockProtocol::Raw).unwrap();
    let to = SockaddrIn::from(SocketAddrV4::new(INIT, 0));
    let sent = sendto(socket.as_raw_fd(), packet, &to, MsgFlags::empty()).unwrap();
    assert_eq!(sent, packet.len());
}
