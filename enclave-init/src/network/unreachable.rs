//! Telling the workload that nobody listens where its datagram went: ICMP's "port
//! unreachable" (RFC 792), as the destination itself would send it. A socket of the workload's
//! that is connected there fails with ECONNREFUSED.

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};

const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const ICMP_HEADER: usize = 8;
/// The message: its own header, and the beginning of the datagram that it is about.
const MESSAGE: usize = ICMP_HEADER + IP_HEADER + UDP_HEADER;
const ICMP: u8 = 1;
const UDP: u8 = 17;
const TIME_TO_LIVE: u8 = 64;
const DESTINATION_UNREACHABLE: u8 = 3;
const PORT: u8 = 3;

/// A socket that whole packets are sent by; it receives none.
#[derive(Debug)]
pub(crate) struct Unreachable(OwnedFd);

impl Unreachable {
    pub(crate) fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let protocol = SockProtocol::Raw;
        let socket = socket(AddressFamily::Inet, SockType::Raw, flags, protocol)?;
        Ok(Self(socket))
    }

    /// Tells whoever sent a datagram from `client` that nobody is at `destination`.
    pub(crate) fn tell(&self, client: SocketAddrV4, destination: SocketAddrV4) -> io::Result<()> {
        let packet = packet(client, destination);
        let to = SockaddrIn::from(SocketAddrV4::new(*client.ip(), 0));
        sendto(self.0.as_raw_fd(), &packet, &to, MsgFlags::empty())?;
        Ok(())
    }
}

fn packet(client: SocketAddrV4, destination: SocketAddrV4) -> Vec<u8> {
    let datagram = [
        &ip_header(UDP, UDP_HEADER, client, destination)[..],
        &client.port().to_be_bytes(),
        &destination.port().to_be_bytes(),
        // Its length and checksum; nobody looks at them.
        &[0, 8, 0, 0],
    ]
    .concat();
    let message = |checksum: u16| {
        let [high, low] = checksum.to_be_bytes();
        let header = [DESTINATION_UNREACHABLE, PORT, high, low, 0, 0, 0, 0];
        [&header[..], &datagram].concat()
    };
    let message = message(checksum(&message(0)));
    [&ip_header(ICMP, MESSAGE, destination, client)[..], &message].concat()
}

/// A header without options before so many bytes.
fn ip_header(protocol: u8, length: usize, from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
    let length = u16::try_from(IP_HEADER + length).expect("it is of a few bytes");
    let [high, low] = length.to_be_bytes();
    let header = |checksum: u16| {
        let [first, second] = checksum.to_be_bytes();
        let fixed = [
            0x45,
            0,
            high,
            low,
            0,
            0,
            0,
            0,
            TIME_TO_LIVE,
            protocol,
            first,
            second,
        ];
        [&fixed[..], &from.ip().octets(), &to.ip().octets()].concat()
    };
    header(checksum(&header(0)))
}

/// The Internet checksum (RFC 1071) of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2).map(|pair| match pair {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        _ => 0,
    });
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !u16::try_from(sum).expect("two foldings leave 16 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_about_the_datagram_and_its_checksums_hold() {
        let client = "198.18.0.2:40000".parse().unwrap();
        let destination = "198.18.1.0:123".parse().unwrap();
        let packet = packet(client, destination);
        assert_eq!(packet.len(), 56);
        // What is summed up with its own checksum comes to zero.
        for part in [&packet[..20], &packet[20..], &packet[28..48]] {
            assert_eq!(checksum(part), 0);
        }
        assert_eq!(packet[9], ICMP);
        assert_eq!(packet[12..20], [198, 18, 1, 0, 198, 18, 0, 2]);
        assert_eq!(packet[20..22], [3, 3]);
        assert_eq!(packet[37], UDP);
        assert_eq!(packet[40..48], [198, 18, 0, 2, 198, 18, 1, 0]);
        assert_eq!(packet[48..52], [0x9c, 0x40, 0, 123]);
    }
}
