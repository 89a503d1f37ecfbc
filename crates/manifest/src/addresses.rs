//! The addresses of an enclave's own network: the pair of interfaces between the workload's
//! network namespace and the init's, and what the init serves there.
//!
//! 198.18.0.0/15 is reserved for benchmarking (RFC 2544, appendix C.2.2; RFC 6890), so no host
//! of the outside has an address in it. Some libraries call it private.

use std::net::Ipv4Addr;

/// The first address of the enclave's own network, and its prefix.
pub const OWN_NETWORK: (Ipv4Addr, u8) = (Ipv4Addr::new(198, 18, 0, 0), 15);
/// The init, to the workload: its name server, the local API and the proxy.
pub const INIT_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// The workload, on its interface `eth0`.
pub const WORKLOAD_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
/// Where the workload asks for AWS credentials: the address of ECS's agent, which newer ones
/// of AWS's SDKs accept over plain HTTP.
pub const CREDENTIALS_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 170, 2);

/// The name server's port, over UDP and TCP.
pub const NAME_SERVER_PORT: u16 = 53;
/// The local API's port.
pub const API_PORT: u16 = 7070;
/// The proxy's port, if the image has one.
pub const PROXY_PORT: u16 = 3128;

/// Whether the address is one of the enclave's own network.
pub(crate) fn is_own(address: Ipv4Addr) -> bool {
    let (first, prefix) = OWN_NETWORK;
    let host_bits = 32 - u32::from(prefix);
    address.to_bits() >> host_bits == first.to_bits() >> host_bits || address == CREDENTIALS_ADDRESS
}

/// Whether a packet to the address can leave a machine.
pub(crate) fn is_unicast(address: Ipv4Addr) -> bool {
    // 0.0.0.0/8 is this host, 224.0.0.0/4 multicast, and 240.0.0.0/4 nobody's (RFC 6890).
    !address.is_loopback() && address.octets()[0] != 0 && address.octets()[0] < 224
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_enclave_are_told_from_others() {
        for (address, own, unicast) in [
            ("198.17.255.255", false, true),
            ("198.18.0.0", true, true),
            ("198.19.255.255", true, true),
            ("198.20.0.0", false, true),
            ("169.254.170.2", true, true),
            ("169.254.169.254", false, true),
            ("127.0.0.1", false, false),
            ("0.1.2.3", false, false),
            ("223.255.255.255", false, true),
            ("224.0.0.1", false, false),
            ("255.255.255.255", false, false),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(
                (is_own(address), is_unicast(address)),
                (own, unicast),
                "{address}"
            );
        }
    }
}
