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
use link::datagrams::{self, DatagramError, MAX_DATAGRAM, MAX_IDLE, Message, Room};
use link::places::{Activity, Full, Place, Places};
use tokio::net::UdpSocket;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep, sleep_until};

use super::destination::Destination;
use super::names::Usage;
use super::{Egress, connect, failed};
use crate::network::Unreachable;

/// Most flows at a time, and the part of the connections' places that they may take.
const MAX_FLOWS: usize = 256;
const PART_OF_PLACES: usize = 2;
/// How long a flow must have carried nothing before another may take its place.
const MIN_IDLE: Duration = Duration::from_secs(5);
/// How long datagrams to a destination that was refused are dropped.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);
/// What waits for the agent of one flow: so many datagrams, and so many bytes; and of all.
const MAX_QUEUED: usize = 64;
const MAX_QUEUED_BYTES: usize = 128 * 1024;
const MAX_QUEUED_BYTES_IN_ALL: usize = 2 * 1024 * 1024;
/// What is on its way from the agent, of all flows.
const MAX_ARRIVING_BYTES: usize = 4 * 1024 * 1024;
/// Datagrams that are read in turn before others have theirs.
const BURST: usize = 64;
/// Room for one byte more than is carried.
const BUFFER: usize = MAX_DATAGRAM + 1;
/// After a failure to receive, which the next attempt may meet as well.
const PAUSE: Duration = Duration::from_millis(100);

static ARRIVING: Room = Room::new(MAX_ARRIVING_BYTES);

/// The flows there are.
pub(super) struct Flows {
    table: Mutex<Table>,
    /// The flows' places, shared by their destinations. Each has one among the connections'
    /// too, which is given up far later.
    places: Arc<Places<String>>,
    queued: Arc<Semaphore>,
    /// Datagrams that were dropped, of all flows that there ever were.
    dropped: Arc<AtomicU64>,
    /// None where the machine does not let packets be made.
    unreachable: Option<Unreachable>,
}

type Table = HashMap<Ends, Entry>;

/// A flow that datagrams can be queued for.
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
    place: Place<String>,
    queued: Arc<Semaphore>,
    /// When the workload sent last. What comes from outside keeps no flow open: the parent
    /// could otherwise reach the port for as long as it likes, whoever has it by then
    /// (RFC 4787, section 4.3).
    sent: Mutex<Instant>,
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

impl Flows {
    /// Flows beside so many connections.
    pub(super) fn new(connections: usize) -> Self {
        let places = MAX_FLOWS.min(connections / PART_OF_PLACES);
        Self {
            table: Mutex::default(),
            places: Places::shared_for(places, MIN_IDLE),
            queued: Arc::new(Semaphore::new(MAX_QUEUED_BYTES_IN_ALL)),
            dropped: Arc::default(),
            unreachable: Unreachable::open().ok(),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn dropped(&self) -> &Arc<AtomicU64> {
        &self.dropped
    }

    fn drop_one(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Tells the workload's end that nobody is at the other one.
    fn tell(&self, Ends { client, here }: Ends) {
        if let Some(unreachable) = &self.unreachable {
            // As on any way, it is no loss if it does not arrive.
            let _ = unreachable.tell(client, here);
        }
    }
}

impl Entry {
    /// Queues a datagram, or drops it if too much waits already.
    fn offer(&self, bytes: &[u8], flows: &Flows) {
        self.flow.place.activity().touch();
        self.flow.sends();
        if self.queue.is_closed() {
            // The destination has been refused, which has been told.
            flows.drop_one();
            return;
        }
        let share = |of: &Arc<Semaphore>| {
            let size = u32::try_from(bytes.len()).ok()?;
            Arc::clone(of).try_acquire_many_owned(size).ok()
        };
        let queued = share(&self.flow.queued)
            .zip(share(&flows.queued))
            .and_then(|shares| {
                let queued = Queued {
                    bytes: bytes.to_vec(),
                    _shares: shares,
                };
                self.queue.try_send(queued).ok()
            });
        if queued.is_none() {
            self.flow.dropped.fetch_add(1, Ordering::Relaxed);
            flows.drop_one();
        }
    }
}

impl Flow {
    fn sent(&self) -> Instant {
        *self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sends(&self) {
        *self.sent.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Waits until the workload has sent nothing for as long as a flow may be idle.
    async fn idle(&self) {
        while self.sent().elapsed() < MAX_IDLE {
            sleep_until(self.sent() + MAX_IDLE).await;
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
        entry.offer(bytes, flows);
        return;
    }
    let place = match flows.places.take(gate.destination.to_string()) {
        Ok(place) => place,
        Err(full) => {
            drop(table);
            let all = match full {
                Full::Total(all) => format!("all {all} flows of datagrams"),
                Full::Share(all) => format!("all {all} flows that one destination may have"),
            };
            let text = format!(
                "a datagram to {} was dropped: {all} are in use",
                gate.destination
            );
            gate.egress.places.refuse();
            flows.drop_one();
            failed(&gate.egress, &gate.destination, &text);
            return;
        }
    };
    let (queue, mut waiting) = mpsc::channel(MAX_QUEUED);
    let flow = Arc::new(Flow {
        place,
        queued: Arc::new(Semaphore::new(MAX_QUEUED_BYTES)),
        sent: Mutex::new(Instant::now()),
        dropped: AtomicU64::new(0),
    });
    let entry = Entry {
        queue,
        flow: Arc::clone(&flow),
    };
    entry.offer(bytes, flows);
    table.insert(ends, entry);
    drop(table);
    let (gate, open) = (Arc::clone(gate), gate.usage.open());
    tokio::spawn(async move {
        let _open = open;
        tokio::select! {
            () = run(&gate, ends, &flow, &mut waiting) => {}
            // Another one needs its place.
            () = flow.place.activity().evicted() => {
                gate.egress.places.evict();
                tell_cut_off(&gate, &JoinError::Evicted.to_string());
            }
        }
        waiting.close();
        // What was still to be sent has nowhere to go.
        while waiting.try_recv().is_ok() {
            gate.egress.flows.drop_one();
        }
        tell_dropped(&gate, &flow);
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
async fn run(gate: &Gate, ends: Ends, flow: &Flow, waiting: &mut mpsc::Receiver<Queued>) {
    let Gate {
        egress,
        destination,
        ..
    } = gate;
    let ended = match connect(egress, destination).await {
        Ok((place, outside)) => {
            tokio::select! {
                carried = carry(gate, ends, flow, waiting, outside, place.activity()) => {
                    carried.map_err(|error| error.to_string())
                }
                () = place.activity().evicted() => Err(JoinError::Evicted.to_string()),
                () = flow.idle() => Ok(()),
            }
        }
        Err(refused) => {
            // What comes meanwhile is not worth another attempt.
            waiting.close();
            egress.flows.tell(ends);
            let text = format!("{destination} failed: {}", refused.reason);
            failed(egress, destination, &text);
            sleep(REFUSED_PAUSE).await;
            return;
        }
    };
    if let Err(error) = ended {
        tell_cut_off(gate, &error);
    }
}

fn tell_cut_off(gate: &Gate, error: &str) {
    let destination = &gate.destination;
    let text = format!("datagrams to {destination} were cut off: {error}");
    failed(&gate.egress, destination, &text);
}

/// Tells how many datagrams of a flow that has ended found too many before them.
fn tell_dropped(gate: &Gate, flow: &Flow) {
    let Gate {
        egress,
        destination,
        ..
    } = gate;
    let dropped = flow.dropped.load(Ordering::Relaxed);
    if dropped > 0 {
        let text = format!(
            "{dropped} datagrams to {destination} were dropped: more than {MAX_QUEUED} of them, or {MAX_QUEUED_BYTES} bytes, waited for the parent"
        );
        failed(egress, destination, &text);
    }
}

/// Carries datagrams both ways until the parent ends the flow, or either side fails.
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
        while let Some((message, _share)) = datagrams::read(&mut from, &ARRIVING).await? {
            activity.touch();
            flow.place.activity().touch();
            match message {
                Message::Datagram(bytes) => {
                    // One that the workload has no room for is lost, as on any way.
                    if gate.socket.send_to(&bytes, ends.client).await.is_err() {
                        gate.egress.flows.drop_one();
                    }
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

#[cfg(test)]
mod tests {
    use link::Channel;
    use link::frame::{self, MAX_TARGET};
    use link::hello;
    use link::target::{Connect, Reply};
    use tokio::io::AsyncReadExt;
    use tokio::net::UnixListener;
    use tokio::task::yield_now;
    use tokio::time::{advance, timeout};

    use super::*;
    use crate::egress::{names, tests};

    /// What allows datagrams to `a.test` and `b.test` beside so many connections, at this
    /// port; and the flows that its agent is asked for.
    fn egress(connections: usize) -> (Arc<Egress>, u16, mpsc::Receiver<Stream>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent");
        let listener = UnixListener::bind(&path).unwrap();
        let free = StdSocket::bind("0.0.0.0:0").unwrap();
        let port = free.local_addr().unwrap().port();
        let rules = ["a.test", "b.test"].map(|name| format!("{name}:{port}/udp"));
        let mut egress = tests::egress(&rules);
        egress.agent = format!("unix:{}", path.display()).parse().unwrap();
        egress.flows = Flows::new(connections);
        let (flows, asked) = mpsc::channel(64);
        tokio::spawn(async move {
            let _folder = folder;
            loop {
                let mut stream = Stream::Unix(listener.accept().await.unwrap().0);
                let is_flow = |channel| channel == Channel::Datagrams;
                hello::accept(&mut stream, is_flow).await.unwrap();
                let _: Connect = frame::read(&mut stream, MAX_TARGET).await.unwrap();
                frame::write(&mut stream, &Reply::Connected, MAX_TARGET)
                    .await
                    .unwrap();
                flows.send(stream).await.unwrap();
            }
        });
        (Arc::new(egress), port, asked)
    }

    async fn client() -> UdpSocket {
        UdpSocket::bind("127.0.0.1:0").await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn datagrams_from_outside_keep_no_flow_open() {
        let (egress, port, mut asked) = egress(16);
        let at = names::address(&egress, "a.test").unwrap().unwrap();
        let client = client().await;
        client.send_to(b"x", (at, port)).await.unwrap();
        let mut stream = asked.recv().await.unwrap();
        let sent = datagrams::read(&mut stream, &ARRIVING).await.unwrap();
        assert_eq!(sent.unwrap().0, Message::Datagram(b"x".into()));
        let start = Instant::now();
        let answer = Message::Datagram(b"y".into());
        while datagrams::write(&mut stream, &answer).await.is_ok() && start.elapsed() < MAX_IDLE * 2
        {
            sleep(Duration::from_secs(10)).await;
        }
        let lasted = start.elapsed();
        assert!((MAX_IDLE..MAX_IDLE * 2).contains(&lasted), "{lasted:?}");
        assert!(egress.flows.table().is_empty());
        // What the workload sends does.
        client.send_to(b"x", (at, port)).await.unwrap();
        let mut stream = asked.recv().await.unwrap();
        for _ in 0..3 {
            sleep(MAX_IDLE * 3 / 4).await;
            client.send_to(b"x", (at, port)).await.unwrap();
            datagrams::read(&mut stream, &ARRIVING)
                .await
                .unwrap()
                .unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn datagrams_of_one_destination_leave_room_for_another() {
        let (egress, port, mut asked) = egress(8);
        let [first, second] =
            ["a.test", "b.test"].map(|name| names::address(&egress, name).unwrap().unwrap());
        // Four flows in all, of which one destination may have three.
        let mut held = Vec::new();
        for _ in 0..3 {
            let client = client().await;
            client.send_to(b"x", (first, port)).await.unwrap();
            held.push((client, asked.recv().await.unwrap()));
        }
        let more = client().await;
        more.send_to(b"x", (first, port)).await.unwrap();
        while egress.places.counts().refused == 0 {
            yield_now().await;
        }
        let other = client().await;
        other.send_to(b"x", (second, port)).await.unwrap();
        let mut stream = asked.recv().await.unwrap();
        datagrams::read(&mut stream, &ARRIVING)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(egress.flows.table().len(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn datagrams_that_the_parent_does_not_take_hold_no_place() {
        let (egress, port, mut asked) = egress(8);
        let at = names::address(&egress, "a.test").unwrap().unwrap();
        let mut held = Vec::new();
        for _ in 0..3 {
            let client = client().await;
            client.send_to(b"x", (at, port)).await.unwrap();
            held.push((client, asked.recv().await.unwrap()));
        }
        // More than the channel holds, so that the flow stands in a write.
        let (client, _) = &held[0];
        for _ in 0..64 {
            client.send_to(&[0; 16 * 1024], (at, port)).await.unwrap();
            yield_now().await;
        }
        let dropped = || {
            let table = egress.flows.table();
            let all = table.values().map(|entry| &entry.flow.dropped);
            all.map(|dropped| dropped.load(Ordering::Relaxed))
                .sum::<u64>()
        };
        while dropped() == 0 {
            client.send_to(&[0; 16 * 1024], (at, port)).await.unwrap();
            yield_now().await;
        }
        for (client, _) in &held[1..] {
            client.send_to(b"x", (at, port)).await.unwrap();
        }
        advance(MIN_IDLE).await;
        let last = super::tests::client().await;
        last.send_to(b"x", (at, port)).await.unwrap();
        let _stream = asked.recv().await.unwrap();
        // Nobody has read anything, and the first flow is gone for all that.
        let gone = async {
            while egress.flows.table().len() > 3 || egress.places.taken() > 3 {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(1), gone).await.unwrap();
        assert_eq!(egress.places.counts().evicted, 1);
        let mut rest = Vec::new();
        held[0].1.read_to_end(&mut rest).await.unwrap();
    }
}
