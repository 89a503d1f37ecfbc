//! The way out: names that the manifest allows resolve to addresses of the
//! enclave's own loopback interface, and a connection to one of them is carried
//! to the parent, which dials the real destination.

mod names;
mod notices;
mod proxy;
mod resolver;

use std::net::Ipv4Addr;
use std::sync::Arc;

use link::Endpoint;
use manifest::{NAME_SERVER_PORT, Network, PROXY_PORT};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::Semaphore;

use crate::error::{Doing, InitError};
use crate::forward::MAX_CONNECTIONS;
use crate::logs::Logs;
use names::Names;
use notices::Notices;

/// Where the workload finds the name server.
pub(crate) const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 53);
/// Where the workload finds the HTTP proxy.
pub(crate) const PROXY: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, PROXY_PORT);

/// What the egress services share.
struct Egress {
    agent: Endpoint,
    network: Arc<Network>,
    notices: Notices,
    names: Names,
    places: Arc<Semaphore>,
}

impl Egress {
    fn new(agent: Endpoint, network: Arc<Network>, logs: Logs) -> Arc<Self> {
        Arc::new(Self {
            agent,
            network,
            notices: Notices::new(logs),
            names: Names::default(),
            places: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        })
    }
}

/// Starts the name server, and the proxy if any destination is allowed.
pub(crate) async fn start(
    agent: Endpoint,
    network: Arc<Network>,
    logs: Logs,
) -> Result<(), InitError> {
    let socket = UdpSocket::bind((NAME_SERVER, NAME_SERVER_PORT))
        .await
        .doing(|| "listening for names".to_owned())?;
    let egress = Egress::new(agent, network, logs);
    if egress.network.has_egress() {
        let listener = TcpListener::bind(PROXY)
            .await
            .doing(|| "listening for the proxy".to_owned())?;
        tokio::spawn(proxy::serve(listener, Arc::clone(&egress)));
    }
    tokio::spawn(resolver::serve(socket, egress));
    Ok(())
}
