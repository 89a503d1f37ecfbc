//! Datagrams between one socket of the workload's and one destination outside.
//!
//! The kernel lets only datagrams of the destination's address and port in, as the socket is
//! connected to it. What the enclave does not read stays in the socket's buffer, and what
//! does not fit there is lost, as UDP may.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};

use link::Stream;
use link::copy::JoinError;
use link::datagrams::{self, DatagramError, MAX_DATAGRAM, Message};
use link::places::Activity;
use link::target::Refusal;
use manifest::Protocol;
use tokio::io::{Interest, ReadHalf, WriteHalf};
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tracing::{debug, warn};

use super::egress::{Admitted, Destination, Egress, Refused};
use crate::throttle::Line;

/// Room for one datagram more than is carried, so that a longer one shows.
const BUFFER: usize = MAX_DATAGRAM + 1;

/// Serves one flow to its end, which is the enclave's matter.
pub(super) async fn serve(egress: &Egress, mut stream: Stream) {
    let reach = async |target: &Destination| reach(egress, target).await;
    let Some(Admitted {
        outside,
        destination,
        place,
        traffic,
    }) = egress.admit(&mut stream, Protocol::Udp, reach).await
    else {
        return;
    };
    let open = traffic.joined();
    let activity = place.activity();
    let carrying = carry(stream, &outside, activity, &open.0.out, &open.0.into);
    let carried = tokio::select! {
        carried = carrying => carried.map_err(|error| error.to_string()),
        () = activity.evicted() => {
            traffic.evict();
            if Line::Evicted.may_be_written() {
                warn!(destination, reason = %JoinError::Evicted, "an egress flow was closed");
            }
            return;
        }
    };
    if let Err(error) = carried {
        debug!(error, destination, "an egress flow has failed");
    }
}

/// A socket that has the destination for its only peer.
async fn reach(egress: &Egress, target: &Destination) -> Result<UdpSocket, Refused> {
    let mut failed = Refused {
        refusal: Refusal::NameNotFound,
        reason: format!("{} has no address", target.host),
    };
    for address in egress.addresses(target).await? {
        match connect(address).await {
            Ok(socket) => return Ok(socket),
            Err(error) => {
                failed = Refused {
                    refusal: Refusal::Unreachable,
                    reason: format!("{address}: {error}"),
                };
            }
        }
    }
    Err(failed)
}

async fn connect(address: SocketAddr) -> io::Result<UdpSocket> {
    let any = match address {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(address).await?;
    Ok(socket)
}

/// Carries datagrams both ways until the enclave closes the channel, or either side fails.
async fn carry(
    stream: Stream,
    socket: &UdpSocket,
    activity: &Activity,
    out: &AtomicU64,
    into: &AtomicU64,
) -> Result<(), DatagramError> {
    let (from_enclave, to_enclave) = tokio::io::split(stream);
    let refused = Notify::new();
    let note = |count: &AtomicU64, bytes: usize| {
        activity.touch();
        count.fetch_add(bytes as u64, Ordering::Relaxed);
    };
    tokio::select! {
        sent = send(from_enclave, socket, &refused, |bytes| note(out, bytes)) => sent,
        received = receive(socket, to_enclave, &refused, |bytes| note(into, bytes)) => received,
    }
}

async fn send(
    mut from: ReadHalf<Stream>,
    socket: &UdpSocket,
    refused: &Notify,
    note: impl Fn(usize),
) -> Result<(), DatagramError> {
    while let Some(message) = datagrams::read(&mut from).await? {
        let Message::Datagram(bytes) = message else {
            return Err(io::Error::from(io::ErrorKind::InvalidData).into());
        };
        let mut sent = socket.send(&bytes).await;
        if is_refused(&sent) {
            // That is the answer to an earlier one; this one has not been sent.
            refused.notify_one();
            sent = socket.send(&bytes).await;
        }
        // One that cannot be sent is lost, as it could be further on.
        if sent.is_ok() {
            note(bytes.len());
        }
    }
    Ok(())
}

async fn receive(
    socket: &UdpSocket,
    mut to: WriteHalf<Stream>,
    refused: &Notify,
    note: impl Fn(usize),
) -> Result<(), DatagramError> {
    loop {
        let message = tokio::select! {
            message = next(socket) => message?,
            () = refused.notified() => Some(Message::Unreachable),
        };
        let Some(message) = message else { continue };
        datagrams::write(&mut to, &message).await?;
        if let Message::Datagram(bytes) = message {
            note(bytes.len());
        }
    }
}

/// The next datagram, or the news that nobody is there; none for one that is too long. A
/// flow that waits has no buffer.
async fn next(socket: &UdpSocket) -> io::Result<Option<Message>> {
    let ready = socket.ready(Interest::READABLE | Interest::ERROR).await?;
    if ready.is_error() {
        // Without an error any more, the socket is ready for none until the next.
        let taken = socket.try_io(Interest::ERROR, || match socket.take_error()? {
            Some(error) => Ok(error),
            None => Err(io::ErrorKind::WouldBlock.into()),
        });
        if let Ok(error) = taken {
            return Ok(is_refused(&Err(error)).then_some(Message::Unreachable));
        }
    }
    let mut bytes = Vec::with_capacity(BUFFER);
    let received = socket.try_recv_buf(&mut bytes);
    if is_refused(&received) {
        return Ok(Some(Message::Unreachable));
    }
    match received {
        Ok(length) if length <= MAX_DATAGRAM => Ok(Some(Message::Datagram(bytes))),
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
            debug!(%error, "a datagram could not be received");
            Ok(None)
        }
        Ok(_) | Err(_) => Ok(None),
    }
}

fn is_refused(result: &io::Result<usize>) -> bool {
    matches!(result, Err(error) if error.kind() == io::ErrorKind::ConnectionRefused)
}
