//! Ports of the enclave's own services. They listen on loopback addresses for the
//! workload alone, so no ingress leads to them.

use crate::units::Port;

/// The local API, on 127.0.0.1.
pub const API_PORT: u16 = 7070;
/// The HTTP proxy, on 127.0.0.1.
pub const PROXY_PORT: u16 = 3128;
/// The name server, on 127.0.0.53.
pub const NAME_SERVER_PORT: u16 = 53;

/// All of them, and what each is.
const RESERVED: [(u16, &str); 3] = [
    (API_PORT, "the enclave's local API"),
    (PROXY_PORT, "the enclave's HTTP proxy"),
    (NAME_SERVER_PORT, "the enclave's name server"),
];

/// What a port of the enclave is reserved for, if it is.
pub fn reserved_for(port: Port) -> Option<&'static str> {
    let mut reserved = RESERVED.iter();
    reserved
        .find(|(number, _)| *number == port.get())
        .map(|(_, service)| *service)
}
