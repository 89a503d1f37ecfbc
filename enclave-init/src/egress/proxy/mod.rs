//! The proxy, for programs that prefer one, if the image has it: HTTP (`CONNECT`, and requests
//! for whole URLs of `http`) and SOCKS5 on one port. TLS stays the program's own.

mod body;
mod exchange;
mod http;
mod socks;
mod variables;

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use link::Stream;
use link::places::Place;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

pub(crate) use variables::variables;

use self::http::Head;
use super::destination::Destination;
use super::{Egress, connect, failed};
use crate::forward::Refused;

/// How long a program may take to say where to.
const GREETING_TIMEOUT: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Most connections that have not said yet where to; others wait to be accepted, no
/// longer than one before them may take to say it.
const MAX_GREETING: usize = 256;

/// What a program has said first.
enum Greeting {
    Http(Head),
    Socks(Result<Destination, socks::Failure>),
}

pub(super) async fn serve(listener: TcpListener, egress: Arc<Egress>) {
    let greeting = Arc::new(Semaphore::new(MAX_GREETING));
    loop {
        let Ok((workload, _)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(greeted) = Arc::clone(&greeting).acquire_owned().await else {
            return;
        };
        let egress = Arc::clone(&egress);
        tokio::spawn(async move {
            let mut workload = workload;
            let greeting = timeout(GREETING_TIMEOUT, greet(&mut workload)).await;
            drop(greeted);
            match greeting {
                Ok(Ok(Greeting::Http(head))) => http::serve(workload, &head, &egress).await,
                Ok(Ok(Greeting::Socks(asked))) => socks::serve(workload, asked, &egress).await,
                // A program that says nothing sensible, or nothing, needs no answer.
                Ok(Err(_)) | Err(_) => {}
            }
        });
    }
}

async fn greet(workload: &mut TcpStream) -> io::Result<Greeting> {
    match workload.read_u8().await? {
        socks::VERSION => socks::greet(workload).await.map(Greeting::Socks),
        first => http::read_head(first, workload).await.map(Greeting::Http),
    }
}

/// Why a program gets no connection: what it is told.
enum Denied {
    NotListed(String),
    Failed(Refused),
}

/// A connection to a destination that the image allows. An address that a name has stands
/// for the name: programs resolve names before they ask.
async fn open(
    egress: &Egress,
    destination: Destination,
) -> Result<(Destination, Place<String>, Stream), Denied> {
    let named = |address: Ipv4Addr| egress.names.at(address);
    let name = destination.host().parse().ok().and_then(named);
    let destination = name
        .and_then(|name| Destination::new(&name, destination.port()))
        .unwrap_or(destination);
    if !destination.is_allowed(&egress.network) {
        let reason = format!("{destination} is not in the image's egress list");
        egress.notices.refused(&reason);
        return Err(Denied::NotListed(reason));
    }
    match connect(egress, &destination).await {
        Ok((place, outside)) => Ok((destination, place, outside)),
        Err(refused) => {
            let text = format!("{destination} failed: {}", refused.reason);
            failed(egress, &destination, &text);
            Err(Denied::Failed(refused))
        }
    }
}
