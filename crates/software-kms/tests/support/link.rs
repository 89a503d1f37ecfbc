//! A connection through somebody who sees and changes it, TLS record by record.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// A TLS record's header (RFC 8446, section 5.1).
const HEADER_BYTES: usize = 5;
/// The type of records that are for old middleboxes and say nothing.
const CHANGE_CIPHER_SPEC: u8 = 20;
/// How long a record is held back for the next one, and an answer awaited that nobody may
/// send.
const HOLD: Duration = Duration::from_millis(100);

/// From the enclave, or to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Up,
    Down,
}

/// What is done with a record.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mutation {
    Flip,
    LeaveOut,
    Repeat,
    SwapWithNext,
}

impl Mutation {
    pub(crate) const ALL: [Self; 4] =
        [Self::Flip, Self::LeaveOut, Self::Repeat, Self::SwapWithNext];
}

/// What has gone through.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) up: Vec<u8>,
    pub(crate) down: Vec<u8>,
}

impl Seen {
    fn of(&mut self, way: Way) -> &mut Vec<u8> {
        match way {
            Way::Up => &mut self.up,
            Way::Down => &mut self.down,
        }
    }

    /// How many records went this way, but for those that say nothing.
    pub(crate) fn records(&self, way: Way) -> usize {
        let mut rest = match way {
            Way::Up => self.up.as_slice(),
            Way::Down => self.down.as_slice(),
        };
        let mut count = 0;
        while let [kind, _, _, high, low, ..] = rest {
            count += usize::from(*kind != CHANGE_CIPHER_SPEC);
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            rest = &rest[HEADER_BYTES + length..];
        }
        count
    }

    /// Sends what went up to somebody, and returns what comes back.
    pub(crate) async fn replay(&self, to: SocketAddr) -> Vec<u8> {
        let mut stream = TcpStream::connect(to).await.unwrap();
        let mut answer = Vec::new();
        // It may be refused before all of it is sent.
        let _ = stream.write_all(&self.up).await;
        let _ = timeout(HOLD, stream.read_to_end(&mut answer)).await;
        answer
    }
}

/// An address that leads to another one, for one connection after the other.
pub(crate) struct Link {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    seen: Mutex<Seen>,
    is_changed: AtomicBool,
}

type Change = Option<(Way, usize, Mutation)>;

impl Link {
    /// Changes the record of this number that goes this way, counted from 0.
    pub(crate) async fn start(to: SocketAddr, change: Change) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(to).await.unwrap();
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                // An end of either ends both.
                tokio::select! {
                    () = shared.carry(Way::Up, change, from_client, to_server) => {}
                    () = shared.carry(Way::Down, change, from_server, to_client) => {}
                }
            }
        });
        Self { address, state }
    }

    pub(crate) fn seen(&self) -> Seen {
        self.state.seen.lock().unwrap().clone()
    }

    pub(crate) fn is_changed(&self) -> bool {
        self.state.is_changed.load(Ordering::SeqCst)
    }
}

impl State {
    async fn carry(
        &self,
        way: Way,
        change: Change,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
    ) {
        let mut number = 0;
        while let Some(mut record) = record(&mut from).await {
            self.seen.lock().unwrap().of(way).extend(&record);
            let says_nothing = record[0] == CHANGE_CIPHER_SPEC;
            let mutation = match change {
                Some((changed, at, mutation))
                    if changed == way && at == number && !says_nothing =>
                {
                    self.is_changed.store(true, Ordering::SeqCst);
                    Some(mutation)
                }
                _ => None,
            };
            number += usize::from(!says_nothing);
            match mutation {
                None => {}
                Some(Mutation::Flip) => {
                    let middle = HEADER_BYTES + (record.len() - HEADER_BYTES) / 2;
                    record[middle] ^= 1;
                }
                Some(Mutation::LeaveOut) => match timeout(HOLD, next(&mut from)).await {
                    Ok(Some(next)) => record = next,
                    _ => return,
                },
                Some(Mutation::Repeat) => record = [record.clone(), record].concat(),
                Some(Mutation::SwapWithNext) => match timeout(HOLD, next(&mut from)).await {
                    Ok(Some(next)) => record = [next, record].concat(),
                    _ => return,
                },
            }
            if to.write_all(&record).await.is_err() {
                return;
            }
        }
    }
}

async fn record(from: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mut header = [0; HEADER_BYTES];
    from.read_exact(&mut header).await.ok()?;
    let [_, _, _, high, low] = header;
    let mut record = header.to_vec();
    record.resize(
        HEADER_BYTES + usize::from(u16::from_be_bytes([high, low])),
        0,
    );
    from.read_exact(&mut record[HEADER_BYTES..]).await.ok()?;
    Some(record)
}

/// The next record that says something.
async fn next(from: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    loop {
        let record = record(from).await?;
        if record[0] != CHANGE_CIPHER_SPEC {
            return Some(record);
        }
    }
}
