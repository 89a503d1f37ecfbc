//! Connections from outside to ports of the workload.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use link::copy::JoinError;
use link::places::{Place, Places};
use link::target::{Connect, Refusal, Reply};
use link::{Channel, Endpoint, Listener, Stream, Text, frame, hello};
use manifest::Network;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::capacity::Capacity;
use crate::forward;
use crate::logs::Logs;
use crate::network::Namespace;
use crate::notices::Notices;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// After a failure to accept, as when descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections that are told that there is no place for them; one more is closed.
const MAX_REFUSALS: usize = 64;

/// What ingress connections are carried between.
pub(crate) struct Ends {
    /// Where the agent connects to.
    pub(crate) agent: Endpoint,
    /// Where the workload listens.
    pub(crate) workload: Arc<Namespace>,
}

/// The places of ingress connections. Their clients are the agent's to tell apart, and
/// it knows of an end first: it may have given a place to a new connection that is not
/// free here yet.
pub(crate) fn places(capacity: &Capacity) -> Arc<Places<()>> {
    let total = capacity.places + capacity.ending();
    Places::new(total, total)
}

/// Serves the agent's connections until the enclave ends. One that says nothing
/// keeps its place for as long as the hello and the request may take together.
pub(crate) async fn serve(
    listener: Listener,
    network: Arc<Network>,
    namespace: Arc<Namespace>,
    places: Arc<Places<()>>,
    logs: Logs,
) {
    let notices = Arc::new(Notices::new("ingress", logs));
    let refusals = Arc::new(Semaphore::new(MAX_REFUSALS));
    loop {
        let mut stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                notices.failed(&format!("accepting failed: {error}"));
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        match places.take(()) {
            Ok(place) => {
                let (network, notices) = (Arc::clone(&network), Arc::clone(&notices));
                let namespace = Arc::clone(&namespace);
                tokio::spawn(async move {
                    serve_connection(stream, &network, &namespace, &place, &notices).await;
                });
            }
            Err(full) => {
                notices.failed(&format!("a connection was refused as busy: {full}"));
                if let Ok(permit) = Arc::clone(&refusals).try_acquire_owned() {
                    tokio::spawn(async move {
                        let _permit = permit;
                        // Whoever is turned away may have gone already.
                        let _ = hello::refuse_busy(&mut stream).await;
                    });
                }
            }
        }
    }
}

async fn serve_connection(
    mut stream: Stream,
    network: &Network,
    namespace: &Namespace,
    place: &Place<()>,
    notices: &Notices,
) {
    if hello::accept(&mut stream, |channel| channel == Channel::Ingress)
        .await
        .is_err()
    {
        return;
    }
    let request = timeout(
        REQUEST_TIMEOUT,
        frame::read::<_, Connect>(&mut stream, frame::MAX_TARGET),
    );
    let Ok(Ok(request)) = request.await else {
        return;
    };
    let (reply, workload) = match dial(network, namespace, request.port).await {
        Ok(workload) => (Reply::Connected, Some(workload)),
        Err((refusal, reason)) => (
            Reply::Refused {
                refusal,
                reason: Text::new(reason),
            },
            None,
        ),
    };
    let replying = frame::write(&mut stream, &reply, frame::MAX_TARGET);
    if let Ok(Ok(())) = timeout(REQUEST_TIMEOUT, replying).await
        && let Some(workload) = workload
    {
        let joined = forward::join(workload, stream, place.activity()).await;
        if let Err(error @ JoinError::Evicted) = joined {
            notices.failed(&format!(
                "a connection to port {} was closed: {error}",
                request.port
            ));
        }
    }
}

/// Connects to a port of the workload's at its 127.0.0.1, where servers listen that are for
/// itself and those that are for everybody.
async fn dial(
    network: &Network,
    namespace: &Namespace,
    port: u16,
) -> Result<TcpStream, (Refusal, String)> {
    if !network.ingress.iter().any(|rule| rule.to.get() == port) {
        return Err((
            Refusal::NotAllowed,
            format!("port {port} is not in the image's ingress list"),
        ));
    }
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match timeout(CONNECT_TIMEOUT, namespace.connect(address)).await {
        Ok(Ok(workload)) => Ok(workload),
        Ok(Err(error)) => Err((
            Refusal::Unreachable,
            format!("the workload does not answer on port {port}: {error}"),
        )),
        Err(_) => Err((
            Refusal::TimedOut,
            format!("the workload does not accept on port {port}"),
        )),
    }
}
