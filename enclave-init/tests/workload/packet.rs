//! Packets of the workload's own making, as `CAP_NET_RAW` allows them.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};

use crate::network;

const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const UDP: u8 = 17;

/// Asks for the address of a name in the name of `source`, and does not wait for an answer.
pub(crate) fn query(source: Ipv4Addr, name: &str) {
    let query = network::query(name, 1);
    let length = u16::try_from(8 + query.len()).unwrap();
    let mut packet = vec![0x45, 0];
    packet.extend((20 + length).to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, UDP, 0, 0]);
    packet.extend(source.octets());
    packet.extend(NAME_SERVER.octets());
    let checksum = checksum(&packet).to_be_bytes();
    packet[10..12].copy_from_slice(&checksum);
    for field in [5353, 53, length, 0] {
        packet.extend(field.to_be_bytes());
    }
    packet.extend(query);
    send(&packet);
    println!("sent from {source}");
}

fn checksum(header: &[u8]) -> u16 {
    let words = header
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
    let to = SockaddrIn::from(SocketAddrV4::new(NAME_SERVER, 0));
    let sent = sendto(socket.as_raw_fd(), packet, &to, MsgFlags::empty()).unwrap();
    assert_eq!(sent, packet.len());
}
