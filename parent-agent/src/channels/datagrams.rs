//! Datagrams between one socket of the workload's and one destination outside.
//!
//! The kernel lets only datagrams of the destination's address and port in, as the socket is
//! connected to it. What the enclave does not read stays in the socket's buffer, and what
//! does not fit there is lost, as UDP may.
//!
//! A flow that is answered stays with its destination's address. One that is not ends when the
//! name has moved, so that the next datagram begins another: a program that sends all the
//! time, and cannot see the address behind the name, would send to nobody for ever.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use link::Stream;
use link::copy::JoinError;
use link::datagrams::{self, DatagramError, MAX_DATAGRAM, Message, Room};
use link::places::Activity;
use link::target::Refusal;
use manifest::Protocol;
use tokio::io::{Interest, ReadHalf, WriteHalf};
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::egress::{Admitted, Destination, Egress, Refused};
use crate::throttle::Line;
use crate::traffic::Traffic;

/// Room for one datagram more than is carried, so that a longer one shows.
const BUFFER: usize = MAX_DATAGRAM + 1;
/// What is on its way from the enclave, of all flows.
const MAX_ARRIVING_BYTES: usize = 16 * 1024 * 1024;
/// How long a flow must have had no answer before its name is looked up again.
const SILENCE: Duration = Duration::from_secs(30);

static ARRIVING: Room = Room::new(MAX_ARRIVING_BYTES);

/// What a flow has carried of late.
#[derive(Debug, Default)]
struct Recent {
    sent: AtomicBool,
    received: AtomicBool,
}

/// Serves one flow to its end, which is the enclave's matter.
pub(super) async fn serve(egress: &Egress, mut stream: Stream) {
    let reach = async |target: &Destination| reach(egress, target).await;
    let Some(Admitted {
        outside: (outside, address),
        target,
        destination,
        place,
        traffic,
    }) = egress.admit(&mut stream, Protocol::Udp, reach).await
    else {
        return;
    };
    let open = traffic.joined();
    let activity = place.activity();
    let recent = Recent::default();
    let carrying = carry(stream, &outside, activity, &recent, &open.0);
    let carried = tokio::select! {
        carried = carrying => carried.map_err(|error| error.to_string()),
        () = moved(egress, &target, address, &recent) => {
            debug!(destination, "an egress flow has ended: its name has moved");
            return;
        }
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

/// A socket that has the destination for its only peer, at this address.
async fn reach(egress: &Egress, target: &Destination) -> Result<(UdpSocket, SocketAddr), Refused> {
    let mut failed = Refused {
        refusal: Refusal::NameNotFound,
        reason: format!("{} has no address", target.host),
    };
    for address in egress.addresses_in_turn(target).await? {
        match connect(address).await {
            Ok(socket) => return Ok((socket, address)),
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

/// Waits until a flow to this address is not answered, and the name has only others.
async fn moved(egress: &Egress, target: &Destination, address: SocketAddr, recent: &Recent) {
    loop {
        sleep(SILENCE).await;
        let is_sent = recent.sent.swap(false, Ordering::Relaxed);
        let is_answered = recent.received.swap(false, Ordering::Relaxed);
        if !is_sent || is_answered {
            continue;
        }
        match egress.addresses(target).await {
            Ok(addresses) if !addresses.contains(&address) => return,
            // While it cannot be looked up, the address may be right.
            Ok(_) | Err(_) => {}
        }
    }
}

/// Carries datagrams both ways until the enclave closes the channel, or either side fails.
async fn carry(
    stream: Stream,
    socket: &UdpSocket,
    activity: &Activity,
    recent: &Recent,
    traffic: &Traffic,
) -> Result<(), DatagramError> {
    let (from_enclave, to_enclave) = tokio::io::split(stream);
    let refused = Notify::new();
    let note = |count: &AtomicU64, of_late: &AtomicBool, carried: Carried| {
        // What cannot be sent is a reason to look the name up, too.
        of_late.store(true, Ordering::Relaxed);
        match carried {
            Carried::Bytes(bytes) => {
                activity.touch();
                count.fetch_add(bytes as u64, Ordering::Relaxed);
            }
            Carried::Nothing => {
                traffic.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    let sending = send(from_enclave, socket, &refused, |carried| {
        note(&traffic.out, &recent.sent, carried);
    });
    let receiving = receive(socket, to_enclave, &refused, |carried| {
        note(&traffic.into, &recent.received, carried);
    });
    tokio::select! {
        ended = sending => ended,
        ended = receiving => ended,
    }
}

/// What became of a datagram.
enum Carried {
    Bytes(usize),
    Nothing,
}

/// What comes from the destination.
enum Received {
    Message(Message),
    /// A datagram that is longer than any that is carried.
    TooLong,
    Nothing,
}

async fn send(
    mut from: ReadHalf<Stream>,
    socket: &UdpSocket,
    refused: &Notify,
    note: impl Fn(Carried),
) -> Result<(), DatagramError> {
    while let Some((message, _share)) = datagrams::read(&mut from, &ARRIVING).await? {
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
        note(match sent {
            Ok(_) => Carried::Bytes(bytes.len()),
            Err(_) => Carried::Nothing,
        });
    }
    Ok(())
}

async fn receive(
    socket: &UdpSocket,
    mut to: WriteHalf<Stream>,
    refused: &Notify,
    note: impl Fn(Carried),
) -> Result<(), DatagramError> {
    loop {
        let received = tokio::select! {
            received = next(socket) => received?,
            () = refused.notified() => Received::Message(Message::Unreachable),
        };
        match received {
            Received::Message(message) => {
                datagrams::write(&mut to, &message).await?;
                if let Message::Datagram(bytes) = message {
                    note(Carried::Bytes(bytes.len()));
                }
            }
            Received::TooLong => note(Carried::Nothing),
            Received::Nothing => {}
        }
    }
}

/// The next datagram, or the news that nobody is there. A flow that waits has no buffer.
async fn next(socket: &UdpSocket) -> io::Result<Received> {
    let ready = socket.ready(Interest::READABLE | Interest::ERROR).await?;
    if ready.is_error() {
        // Without an error any more, the socket is ready for none until the next.
        let taken = socket.try_io(Interest::ERROR, || match socket.take_error()? {
            Some(error) => Ok(error),
            None => Err(io::ErrorKind::WouldBlock.into()),
        });
        if let Ok(error) = taken {
            return Ok(if is_refused(&Err(error)) {
                Received::Message(Message::Unreachable)
            } else {
                Received::Nothing
            });
        }
    }
    let mut bytes = Vec::with_capacity(BUFFER);
    let received = socket.try_recv_buf(&mut bytes);
    if is_refused(&received) {
        return Ok(Received::Message(Message::Unreachable));
    }
    match received {
        Ok(length) if length <= MAX_DATAGRAM => Ok(Received::Message(Message::Datagram(bytes))),
        Ok(_) => Ok(Received::TooLong),
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
            debug!(%error, "a datagram could not be received");
            Ok(Received::Nothing)
        }
        Err(_) => Ok(Received::Nothing),
    }
}

fn is_refused(result: &io::Result<usize>) -> bool {
    matches!(result, Err(error) if error.kind() == io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use link::Text;
    use link::target::Connect;
    use tokio::time::timeout;

    use super::*;
    use crate::resolve::tests::name_server;

    #[tokio::test(start_paused = true)]
    async fn datagrams_that_nobody_answers_follow_a_name_that_moves() {
        let zone = &[("moving.example.", "moving"), ("one.example.", "192.0.2.7")];
        let rules = ["moving.example:123/udp", "one.example:123/udp"];
        let rules = rules.map(|rule| rule.parse().unwrap());
        let egress = Egress::new(Vec::from(rules), name_server(zone).await, 1, None);
        let is_moved = async |host, sent, received| {
            let connect = Connect {
                host: Text::new(host),
                port: 123,
            };
            let target = Destination::new(connect, Protocol::Udp);
            let recent = Recent {
                sent: AtomicBool::new(sent),
                received: AtomicBool::new(received),
            };
            let address = "192.0.2.7:123".parse().unwrap();
            let moved = moved(&egress, &target, address, &recent);
            timeout(SILENCE * 3, moved).await.is_ok()
        };
        assert!(is_moved("moving.example", true, false).await);
        // One that is answered stays, and so does one that has nothing to be answered.
        assert!(!is_moved("moving.example", true, true).await);
        assert!(!is_moved("moving.example", false, false).await);
        assert!(!is_moved("one.example", true, false).await);
        assert!(!is_moved("absent.example", true, false).await);
    }
}
