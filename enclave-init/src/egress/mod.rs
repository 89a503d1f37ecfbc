//! The way out: names that the manifest allows resolve to addresses of the enclave's own
//! network, at which the init listens, as it does at the addresses that the manifest spells
//! out. A connection to one of them is carried to the parent, which dials the real
//! destination; so are datagrams.

mod datagrams;
mod destination;
mod names;
mod proxy;
mod records;
mod resolver;

use std::sync::Arc;

use link::copy::JoinError;
use link::places::{Place, Places};
use link::target::Refusal;
use link::{Endpoint, Stream};
use manifest::{INIT_ADDRESS, NAME_SERVER_PORT, Network, PROXY_PORT};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use crate::capacity::Capacity;
use crate::error::{Doing, InitError};
use crate::forward::{self, Refused};
use crate::logs::Logs;
use crate::notices::Notices;
use datagrams::Flows;
use destination::Destination;
use names::Names;

pub(crate) use proxy::variables as proxy_variables;

/// What the egress services share, and what the init itself goes out by.
pub(crate) struct Egress {
    agent: Endpoint,
    network: Arc<Network>,
    notices: Notices,
    names: Names,
    flows: Flows,
    /// The places of questions about records.
    questions: Semaphore,
    /// The places of connections, shared by their destinations, `host:port`.
    places: Arc<Places<String>>,
}

impl Egress {
    fn new(agent: Endpoint, network: Arc<Network>, capacity: Capacity, logs: Logs) -> Arc<Self> {
        Arc::new(Self {
            agent,
            network,
            notices: Notices::new("egress", logs),
            names: Names::default(),
            flows: Flows::default(),
            questions: Semaphore::new(records::MAX_QUESTIONS),
            places: Places::shared(capacity.places),
        })
    }

    /// The places that all connections share.
    pub(crate) fn places(&self) -> &Arc<Places<String>> {
        &self.places
    }

    /// A connection of the init's own, to a destination that the image allows as it does
    /// the workload's, and the connection's place.
    pub(crate) async fn open(
        &self,
        host: &str,
        port: u16,
    ) -> Result<(Place<String>, Stream), Refused> {
        let allowed = Destination::new(host, port)
            .filter(|destination| destination.is_allowed(&self.network));
        let Some(destination) = allowed else {
            return Err(Refused {
                refusal: Refusal::NotAllowed,
                reason: format!("{host}:{port} is not in the image's egress list"),
            });
        };
        connect(self, &destination).await
    }
}

/// Starts the name server, listeners at the addresses that the image spells out, and the
/// proxy if the image has one; returns what the init itself goes out by.
pub(crate) async fn start(
    agent: Endpoint,
    network: Arc<Network>,
    capacity: Capacity,
    logs: Logs,
) -> Result<Arc<Egress>, InitError> {
    let name_server = (INIT_ADDRESS, NAME_SERVER_PORT);
    let names = || "listening for names".to_owned();
    let datagrams = UdpSocket::bind(name_server).await.doing(names)?;
    let streams = TcpListener::bind(name_server).await.doing(names)?;
    let egress = Egress::new(agent, network, capacity, logs);
    for address in egress.network.addresses() {
        names::listen_at(&egress, address)
            .doing(|| format!("listening at {address}, which the egress list has"))?;
    }
    if egress.network.proxy {
        let listener = TcpListener::bind((INIT_ADDRESS, PROXY_PORT))
            .await
            .doing(|| "listening for the proxy".to_owned())?;
        tokio::spawn(proxy::serve(listener, Arc::clone(&egress)));
    }
    tokio::spawn(resolver::serve(datagrams, streams, Arc::clone(&egress)));
    Ok(egress)
}

/// A place, and a connection of the agent's to a destination that is allowed.
async fn connect(
    egress: &Egress,
    destination: &Destination,
) -> Result<(Place<String>, Stream), Refused> {
    let busy = |why: &dyn ToString| Refused {
        refusal: Refusal::Busy,
        reason: format!("refused as busy: {}", why.to_string()),
    };
    let place = egress
        .places
        .take(destination.to_string())
        .map_err(|full| busy(&full))?;
    let outside = tokio::select! {
        outside = forward::open(
            &egress.agent,
            destination.channel(),
            destination.host(),
            destination.port(),
        ) => outside?,
        () = place.activity().evicted() => return Err(busy(&JoinError::Evicted)),
    };
    place.activity().begin();
    Ok((place, outside))
}

/// Carries a connection to its end.
async fn carry(
    egress: &Egress,
    workload: TcpStream,
    outside: Stream,
    destination: &Destination,
    place: &Place<String>,
) {
    let joined = forward::join(workload, outside, place.activity()).await;
    ended(egress, destination, &joined);
}

/// Tells of a connection whose place others needed; every other end is its sides' matter.
fn ended(egress: &Egress, destination: &Destination, joined: &Result<(), JoinError>) {
    if let Err(error @ JoinError::Evicted) = joined {
        let text = format!("a connection to {destination} was closed: {error}");
        failed(egress, destination, &text);
    }
}

/// Tells of a connection that came to nothing, or to an early end.
fn failed(egress: &Egress, destination: &Destination, text: &str) {
    let is_listed = destination.is_listed(&egress.network);
    egress.notices.failed_to(is_listed, text);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What allows these rules, and gives names addresses of loopback: there is no other
    /// network where these tests run.
    pub(super) fn egress(rules: &[impl AsRef<str>]) -> Egress {
        let rules: Vec<_> = rules.iter().map(AsRef::as_ref).collect();
        let network = serde_json::from_value(serde_json::json!({ "egress": rules })).unwrap();
        let agent = "unix:/nowhere".parse().unwrap();
        let logs = Logs::new(manifest::Logs::default(), false);
        let egress = Egress::new(agent, Arc::new(network), Capacity::simulated(), logs);
        let mut egress = Arc::into_inner(egress).unwrap();
        egress.names = Names::on_loopback();
        egress
    }
}
