//! An address of the loopback interface for each allowed name.
//!
//! A listener on such an address takes its port from programs that listen on
//! all addresses (`0.0.0.0`), and the other way round: whoever connects out to a
//! port listens on it at 127.0.0.1, which is also where ingress arrives.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, TcpListener as StdListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use super::Egress;
use crate::forward;

/// The first address: 127.64.0.0/10 is the names'.
const FIRST: u32 = u32::from_be_bytes([127, 64, 0, 1]);
/// Most names; a wildcard rule could allow any number.
const MAX_NAMES: usize = 1024;
/// Most listeners, one for each name and port.
const MAX_LISTENERS: usize = 4096;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The names that have an address. They keep it for good: programs keep
/// addresses longer than any answer says.
#[derive(Debug, Default)]
pub(super) struct Names(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    addresses: HashMap<String, Ipv4Addr>,
    listeners: usize,
}

/// The address of a name in lower case, its listeners running; `None` if no
/// rule allows it.
pub(super) fn address(egress: &Arc<Egress>, name: &str) -> io::Result<Option<Ipv4Addr>> {
    let ports = egress.network.ports(name);
    if ports.is_empty() {
        return Ok(None);
    }
    let mut known = egress
        .names
        .0
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if let Some(address) = known.addresses.get(name) {
        return Ok(Some(*address));
    }
    if known.addresses.len() >= MAX_NAMES || known.listeners + ports.len() > MAX_LISTENERS {
        return Err(io::Error::other(format!(
            "more than {MAX_NAMES} names, or {MAX_LISTENERS} of their ports, are in use"
        )));
    }
    let offset = u32::try_from(known.addresses.len()).unwrap_or_default();
    let address = Ipv4Addr::from_bits(FIRST + offset);
    // All of them or none: a name is tried again at the next query.
    let listeners = ports
        .into_iter()
        .map(|port| Ok((listen(address, port)?, port)))
        .collect::<io::Result<Vec<_>>>()?;
    known.listeners += listeners.len();
    known.addresses.insert(name.to_owned(), address);
    for (listener, port) in listeners {
        tokio::spawn(accept(listener, Arc::clone(egress), name.to_owned(), port));
    }
    Ok(Some(address))
}

fn listen(address: Ipv4Addr, port: u16) -> io::Result<TcpListener> {
    let listener = StdListener::bind((address, port)).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => io::Error::other(format!(
            "a program listens on port {port} of all addresses: have it listen on 127.0.0.1"
        )),
        _ => error,
    })?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

async fn accept(listener: TcpListener, egress: Arc<Egress>, name: String, port: u16) {
    loop {
        let Ok((workload, _)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(place) = Arc::clone(&egress.places).acquire_owned().await else {
            return;
        };
        let (egress, name) = (Arc::clone(&egress), name.clone());
        tokio::spawn(async move {
            let _place = place;
            carry(&egress, workload, &name, port).await;
        });
    }
}

async fn carry(egress: &Egress, workload: TcpStream, name: &str, port: u16) {
    match forward::open(&egress.agent, name, port).await {
        Ok(outside) => forward::join(workload, outside).await,
        Err(refused) => egress
            .notices
            .failed(&format!("{name}:{port} failed: {}", refused.reason)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::Logs;

    fn egress(rules: &[String]) -> Arc<Egress> {
        let rules = serde_json::json!({ "egress": rules });
        let network = serde_json::from_value(rules).unwrap();
        let agent = "unix:/nowhere".parse().unwrap();
        Egress::new(
            agent,
            Arc::new(network),
            Logs::new(manifest::Logs::default(), false),
        )
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
    }

    #[tokio::test]
    async fn a_name_whose_port_is_taken_is_tried_again() {
        let (first, second) = (free_port(), free_port());
        let (low, high) = (first.min(second), first.max(second));
        assert_ne!(low, high);
        let egress = egress(&[format!("a.test:{low}"), format!("a.test:{high}")]);
        let taken = StdListener::bind((Ipv4Addr::UNSPECIFIED, high)).unwrap();
        let error = address(&egress, "a.test").unwrap_err().to_string();
        assert!(
            error.contains(&format!("port {high} of all addresses")),
            "{error}"
        );
        drop(taken);
        let found = address(&egress, "a.test").unwrap().unwrap();
        TcpStream::connect((found, low)).await.unwrap();
        TcpStream::connect((found, high)).await.unwrap();
    }

    #[tokio::test]
    async fn names_and_listeners_are_bounded() {
        let port = free_port();
        let egress = egress(&[format!("*.test:{port}")]);
        egress.names.0.lock().unwrap().listeners = MAX_LISTENERS;
        let error = address(&egress, "a.test").unwrap_err().to_string();
        assert!(error.contains("are in use"), "{error}");
    }
}
