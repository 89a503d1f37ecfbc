//! The header that tells a workload who its client is: version 2 of the PROXY
//! protocol (<https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt>,
//! section 2.2).

use std::net::{IpAddr, SocketAddr};

/// What every header begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command PROXY: the connection is somebody else's.
const VERSION_AND_COMMAND: u8 = 0x21;
/// TCP over IPv4, and over IPv6.
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// The header of a connection from `source` to `destination`.
pub(crate) fn header(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let mut addresses = Vec::new();
    // A socket of both families names IPv4 clients by mapped addresses.
    let family = match (source.ip().to_canonical(), destination.ip().to_canonical()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            addresses.extend(source.octets());
            addresses.extend(destination.octets());
            TCP4
        }
        (source, destination) => {
            addresses.extend(v6(source));
            addresses.extend(v6(destination));
            TCP6
        }
    };
    addresses.extend(source.port().to_be_bytes());
    addresses.extend(destination.port().to_be_bytes());
    let length = if family == TCP4 { 12_u16 } else { 36 };
    let mut header = SIGNATURE.to_vec();
    header.extend([VERSION_AND_COMMAND, family]);
    header.extend(length.to_be_bytes());
    header.extend(addresses);
    header
}

fn v6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proxy_header::{ParseConfig, Protocol, ProxyHeader};

    use super::*;

    /// What another implementation reads: who, and to where. Nothing follows.
    fn read(header: &[u8]) -> (SocketAddr, SocketAddr) {
        let (read, count) = ProxyHeader::parse(header, ParseConfig::default()).unwrap();
        assert_eq!(count, header.len());
        assert_eq!(read.tlvs().count(), 0);
        let found = read.proxied_address().unwrap();
        assert_eq!(found.protocol, Protocol::Stream);
        (found.source, found.destination)
    }

    #[test]
    fn the_bytes_are_those_of_the_specification() {
        let header = header(
            "192.0.2.7:4660".parse().unwrap(),
            "198.51.100.1:443".parse().unwrap(),
        );
        assert_eq!(
            header,
            [
                0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a, 0x21, 0x11,
                0, 12, 192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x34, 0x01, 0xbb
            ]
        );
    }

    #[test]
    fn mapped_addresses_are_told_as_what_they_are() {
        let mapped = header(
            "[::ffff:192.0.2.7]:1".parse().unwrap(),
            "[::ffff:127.0.0.1]:2".parse().unwrap(),
        );
        let plain = header(
            "192.0.2.7:1".parse().unwrap(),
            "127.0.0.1:2".parse().unwrap(),
        );
        assert_eq!(mapped, plain);
    }

    proptest! {
        #[test]
        fn another_implementation_reads_what_is_written(
            source in any::<([u8; 4], u16)>(),
            destination in any::<([u8; 4], u16)>(),
            source6 in any::<([u16; 8], u16)>(),
            destination6 in any::<([u16; 8], u16)>(),
        ) {
            let (source, destination) = (SocketAddr::from(source), SocketAddr::from(destination));
            prop_assert_eq!(read(&header(source, destination)), (source, destination));
            let (source, destination) = (SocketAddr::from(source6), SocketAddr::from(destination6));
            let (found, to) = read(&header(source, destination));
            prop_assert_eq!((found.ip().to_canonical(), found.port()), (source.ip().to_canonical(), source.port()));
            prop_assert_eq!((to.ip().to_canonical(), to.port()), (destination.ip().to_canonical(), destination.port()));
        }
    }
}
