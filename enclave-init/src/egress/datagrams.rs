//! Datagrams to destinations that the image allows. A socket of the workload's and a
//! destination make a flow, which has a channel of its own to the agent while it is in use.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, SocketAddrV4, UdpSocket as StdSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use link::Stream;
use link::copy::JoinError;
use link::datagrams::{self, DatagramError, MAX_DATAGRAM, MAX_IDLE, Message};
use link::places::Activity;
use tokio::net::UdpSocket;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep, sleep_until};

use super::destination::Destination;
use super::names::Usage;
use super::{Egress, connect, failed};
use crate::network::Unreachable;

/// Most flows at a time.
const MAX_FLOWS: usize = 256;
/// How long a flow must have carried nothing before another may take its place.
const MIN_IDLE: Duration = Duration::from_secs(5);
/// How long datagrams to a destination that was refused are dropped.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);
/// What waits for the agent of one flow: so many datagrams, and so many bytes; and of all.
const MAX_QUEUED: usize = 64;
const MAX_QUEUED_BYTES: usize = 128 * 1024;
const MAX_QUEUED_BYTES_IN_ALL: usize = 2 * 1024 * 1024;
/// Datagrams that are read in turn before others have theirs.
const BURST: usize = 64;
/// Room for one byte more than is carried.
const BUFFER: usize = MAX_DATAGRAM + 1;
/// After a failure to receive, which the next attempt may meet as well.
const PAUSE: Duration = Duration::from_millis(100);

/// The flows there are.
pub(super) struct Flows {
    table: Mutex<Table>,
    queued: Arc<Semaphore>,
    /// None where the machine does not let packets be made.
    unreachable: Option<Unreachable>,
}

type Table = HashMap<Ends, Entry>;

/// A flow that datagrams can be queued for. It ends when this is gone.
struct Entry {
    queue: mpsc::Sender<Queued>,
    flow: Arc<Flow>,
}

/// The workload's end of a flow, and the address that stands for the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Ends {
    client: SocketAddrV4,
    here: SocketAddrV4,
}

struct Flow {
    queued: Arc<Semaphore>,
    last: Mutex<Instant>,
    dropped: AtomicU64,
}

/// A datagram, and its bytes' share of what may wait.
struct Queued {
    bytes: Vec<u8>,
    _shares: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

/// Where datagrams to one destination arrive, and what its flows need.
struct Gate {
    egress: Arc<Egress>,
    socket: UdpSocket,
    here: SocketAddrV4,
    destination: Destination,
    usage: Arc<Usage>,
}

impl Default for Flows {
    fn default() -> Self {
        Self {
            table: Mutex::default(),
            queued: Arc::new(Semaphore::new(MAX_QUEUED_BYTES_IN_ALL)),
            unreachable: Unreachable::open().ok(),
        }
    }
}

impl Flows {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the workload's end that nobody is at the other one.
    fn tell(&self, Ends { client, here }: Ends) {
        if let Some(unreachable) = &self.unreachable {
            // As on any way, it is no loss if it does not arrive.
            let _ = unreachable.tell(client, here);
        }
    }
}

/// Makes room for a flow: ends the one that has been idle longest, if that is long. False if
/// all are in use.
fn make_room(table: &mut Table) -> bool {
    if table.len() < MAX_FLOWS {
        return true;
    }
    let idlest = table.iter().map(|(ends, entry)| (entry.flow.last(), *ends));
    let Some((last, ends)) = idlest.min_by_key(|(last, _)| *last) else {
        return false;
    };
    last.elapsed() >= MIN_IDLE && table.remove(&ends).is_some()
}

impl Entry {
    /// Queues a datagram, or drops it if too much waits already.
    fn offer(&self, bytes: &[u8], all: &Arc<Semaphore>) {
        self.flow.touch();
        let share = |of: &Arc<Semaphore>| {
            let size = u32::try_from(bytes.len()).ok()?;
            Arc::clone(of).try_acquire_many_owned(size).ok()
        };
        let queued = share(&self.flow.queued).zip(share(all)).and_then(|shares| {
            let queued = Queued {
                bytes: bytes.to_vec(),
                _shares: shares,
            };
            self.queue.try_send(queued).ok()
        });
        if queued.is_none() {
            self.flow.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Flow {
    fn last(&self) -> Instant {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn touch(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Waits until nothing has been carried for as long as a flow may be idle.
    async fn idle(&self) {
        while self.last().elapsed() < MAX_IDLE {
            sleep_until(self.last() + MAX_IDLE).await;
        }
    }
}

/// Takes datagrams to one destination until the future is dropped.
pub(super) async fn serve(
    socket: StdSocket,
    egress: Arc<Egress>,
    usage: Arc<Usage>,
    destination: Destination,
) {
    let socket = UdpSocket::from_std(socket);
    let Ok((socket, SocketAddr::V4(here))) =
        socket.and_then(|socket| socket.local_addr().map(|here| (socket, here)))
    else {
        return;
    };
    let gate = Arc::new(Gate {
        egress,
        socket,
        here,
        destination,
        usage,
    });
    while gate.socket.readable().await.is_ok() {
        if receive(&gate).is_err() {
            sleep(PAUSE).await;
        }
        tokio::task::yield_now().await;
    }
}

/// Takes the datagrams that are there, up to a number. The buffer for them is held only
/// meanwhile: there may be many of these sockets.
fn receive(gate: &Arc<Gate>) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    for _ in 0..BURST {
        match gate.socket.try_recv_from(&mut buffer) {
            Ok((length, SocketAddr::V4(client))) => {
                let bytes = buffer.get(..length).expect("it was read into the buffer");
                take(gate, client, bytes);
            }
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            Ok(_) | Err(_) => break,
        }
    }
    Ok(())
}

/// Takes a datagram for its flow, which begins with its first one.
fn take(gate: &Arc<Gate>, client: SocketAddrV4, bytes: &[u8]) {
    let flows = &gate.egress.flows;
    let ends = Ends {
        client,
        here: gate.here,
    };
    let mut table = flows.table();
    if let Some(entry) = table.get(&ends) {
        entry.offer(bytes, &flows.queued);
        return;
    }
    if !make_room(&mut table) {
        drop(table);
        let text = format!(
            "a datagram to {} was dropped: all {MAX_FLOWS} flows of datagrams are in use",
            gate.destination
        );
        gate.egress.places.refuse();
        failed(&gate.egress, &gate.destination, &text);
        return;
    }
    let (queue, waiting) = mpsc::channel(MAX_QUEUED);
    let flow = Arc::new(Flow {
        queued: Arc::new(Semaphore::new(MAX_QUEUED_BYTES)),
        last: Mutex::new(Instant::now()),
        dropped: AtomicU64::new(0),
    });
    let entry = Entry {
        queue,
        flow: Arc::clone(&flow),
    };
    entry.offer(bytes, &flows.queued);
    table.insert(ends, entry);
    drop(table);
    let (gate, open) = (Arc::clone(gate), gate.usage.open());
    tokio::spawn(async move {
        let _open = open;
        run(&gate, ends, &flow, waiting).await;
        let mut table = gate.egress.flows.table();
        // Another flow may have taken its place.
        if let Some(entry) = table.get(&ends)
            && Arc::ptr_eq(&entry.flow, &flow)
        {
            table.remove(&ends);
        }
    });
}

/// Carries a flow to its end, and tells what became of it.
async fn run(gate: &Gate, ends: Ends, flow: &Flow, mut waiting: mpsc::Receiver<Queued>) {
    let Gate {
        egress,
        destination,
        ..
    } = gate;
    let ended = match connect(egress, destination).await {
        Ok((place, outside)) => {
            tokio::select! {
                carried = carry(gate, ends, flow, &mut waiting, outside, place.activity()) => {
                    carried.map_err(|error| error.to_string())
                }
                () = place.activity().evicted() => Err(JoinError::Evicted.to_string()),
                () = flow.idle() => Ok(()),
            }
        }
        Err(refused) => {
            egress.flows.tell(ends);
            let text = format!("{destination} failed: {}", refused.reason);
            failed(egress, destination, &text);
            // What comes meanwhile is not worth another attempt.
            waiting.close();
            sleep(REFUSED_PAUSE).await;
            return;
        }
    };
    if let Err(error) = ended {
        let text = format!("datagrams to {destination} were cut off: {error}");
        failed(egress, destination, &text);
    }
    let dropped = flow.dropped.load(Ordering::Relaxed);
    if dropped > 0 {
        let text = format!(
            "{dropped} datagrams to {destination} were dropped: more than {MAX_QUEUED} of them, or {MAX_QUEUED_BYTES} bytes, waited for the parent"
        );
        failed(egress, destination, &text);
    }
}

/// Carries datagrams both ways until the flow has lost its entry, or either side fails.
async fn carry(
    gate: &Gate,
    ends: Ends,
    flow: &Flow,
    waiting: &mut mpsc::Receiver<Queued>,
    outside: Stream,
    activity: &Activity,
) -> Result<(), DatagramError> {
    let (mut from, mut to) = tokio::io::split(outside);
    let outward = async {
        while let Some(Queued { bytes, .. }) = waiting.recv().await {
            activity.touch();
            datagrams::write(&mut to, &Message::Datagram(bytes)).await?;
        }
        Ok(())
    };
    let inward = async {
        while let Some(message) = datagrams::read(&mut from).await? {
            activity.touch();
            flow.touch();
            match message {
                Message::Datagram(bytes) => {
                    // One that the workload has no room for is lost, as on any way.
                    let _ = gate.socket.send_to(&bytes, ends.client).await;
                }
                Message::Unreachable => gate.egress.flows.tell(ends),
            }
        }
        Ok(())
    };
    tokio::select! {
        ended = outward => ended,
        ended = inward => ended,
    }
}
