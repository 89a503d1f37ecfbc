//! An address of the loopback interface for each allowed name.

use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::time::sleep;

use super::Egress;
use crate::forward;

/// The first address: 127.64.0.0/10 is the names'.
const FIRST: u32 = u32::from_be_bytes([127, 64, 0, 1]);
/// Most names; a wildcard rule could allow any number.
const MAX_NAMES: usize = 1024;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The names that have an address. An asynchronous lock, because a name's
/// listeners are bound before anybody learns its address.
#[derive(Default)]
pub(super) struct Names(Mutex<HashMap<String, Ipv4Addr>>);

/// The address of a name, its listeners running; `None` if no rule allows it.
pub(super) async fn address(egress: &Arc<Egress>, name: &str) -> io::Result<Option<Ipv4Addr>> {
    let rules = egress
        .network
        .egress
        .iter()
        .filter(|rule| rule.host().matches(name));
    let ports: Vec<u16> = rules.map(|rule| rule.port().get()).collect();
    if ports.is_empty() {
        return Ok(None);
    }
    let mut names = egress.names.0.lock().await;
    if let Some(address) = names.get(name) {
        return Ok(Some(*address));
    }
    if names.len() >= MAX_NAMES {
        return Err(io::Error::other(format!(
            "more than {MAX_NAMES} names are in use"
        )));
    }
    let offset = u32::try_from(names.len()).unwrap_or_default();
    let address = Ipv4Addr::from_bits(FIRST + offset);
    for port in ports {
        let listener = TcpListener::bind((address, port)).await?;
        tokio::spawn(accept(listener, Arc::clone(egress), name.to_owned(), port));
    }
    names.insert(name.to_owned(), address);
    Ok(Some(address))
}

async fn accept(listener: TcpListener, egress: Arc<Egress>, name: String, port: u16) {
    loop {
        let Ok(place) = Arc::clone(&egress.places).acquire_owned().await else {
            return;
        };
        let Ok((workload, _)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
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
        Err(refused) => egress.logs.error(format!(
            "egress to {name}:{port} failed: {}",
            refused.reason
        )),
    }
}
