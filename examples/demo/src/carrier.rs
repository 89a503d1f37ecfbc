//! The parent instance between an enclave and the KMS: it carries their connections, keeps
//! what passes, and may change it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// A TLS record's header, and the type of encrypted ones (RFC 8446, section 5.1).
const HEADER_BYTES: usize = 5;
const APPLICATION_DATA: u8 = 23;
/// What a client has sent encrypted once its request is on the way: the end of the
/// handshake, and the request.
const RECORDS_OF_REQUEST: usize = 2;
/// How long the end of an answer to a replay is awaited.
const REPLAY_TIMEOUT: Duration = Duration::from_secs(5);

/// Carries connections until it is dropped.
pub(crate) struct Carrier {
    pub(crate) address: SocketAddr,
    carried: Arc<Mutex<Vec<Connection>>>,
    _task: JoinSet<()>,
}

/// What has passed on a connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Connection {
    pub(crate) up: Vec<u8>,
    pub(crate) down: Vec<u8>,
    /// How many encrypted records went up.
    encrypted: usize,
    /// Whether a byte of an answer was changed.
    pub(crate) is_changed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

impl Carrier {
    /// Carries connections to this address, and changes one byte of the answer on the first.
    pub(crate) async fn start(to: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.context("no port for the parent's connections")?;
        let address = listener.local_addr()?;
        let carried = Arc::new(Mutex::new(Vec::new()));
        let mut task = JoinSet::new();
        task.spawn(accept(listener, to, carried.clone()));
        Ok(Self {
            address,
            carried,
            _task: task,
        })
    }

    /// What has passed, connection by connection.
    pub(crate) fn carried(&self) -> Vec<Connection> {
        let carried = self.carried.lock().unwrap_or_else(PoisonError::into_inner);
        carried.clone()
    }
}

impl Connection {
    /// Sends all that went up once more, and gives what comes back until the other end ends
    /// the connection.
    pub(crate) async fn replay(&self, to: SocketAddr) -> anyhow::Result<Vec<u8>> {
        let replay = async {
            let mut stream = TcpStream::connect(to).await?;
            let mut answer = Vec::new();
            // It may be ended before all of it is sent.
            let _ = stream.write_all(&self.up).await;
            let _ = stream.read_to_end(&mut answer).await;
            Ok(answer)
        };
        timeout(REPLAY_TIMEOUT, replay)
            .await
            .context("the KMS does not end a connection with replayed bytes")?
    }

    fn of(&mut self, way: Way) -> &mut Vec<u8> {
        match way {
            Way::Up => &mut self.up,
            Way::Down => &mut self.down,
        }
    }
}

async fn accept(listener: TcpListener, to: SocketAddr, carried: Arc<Mutex<Vec<Connection>>>) {
    let mut connections = JoinSet::new();
    loop {
        // A connection that failed is the enclave's to report.
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        let Ok(server) = TcpStream::connect(to).await else {
            continue;
        };
        let number = {
            let mut carried = carried.lock().unwrap_or_else(PoisonError::into_inner);
            carried.push(Connection::default());
            carried.len() - 1
        };
        let carried = carried.clone();
        connections.spawn(async move {
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            // An end of either ends both.
            tokio::select! {
                () = carry(Way::Up, from_client, to_server, number, &carried) => {}
                () = carry(Way::Down, from_server, to_client, number, &carried) => {}
            }
        });
    }
}

async fn carry(
    way: Way,
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    number: usize,
    carried: &Mutex<Vec<Connection>>,
) {
    while let Some(mut record) = record(&mut from).await {
        let is_encrypted = record.first() == Some(&APPLICATION_DATA);
        {
            let mut carried = carried.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(connection) = carried.get_mut(number) else {
                return;
            };
            connection.of(way).extend(&record);
            match way {
                Way::Up => connection.encrypted += usize::from(is_encrypted),
                Way::Down if number == 0 && connection.encrypted >= RECORDS_OF_REQUEST => {
                    if let Some(last) = record.last_mut() {
                        *last ^= 1;
                        connection.is_changed = true;
                    }
                }
                Way::Down => {}
            }
        }
        if to.write_all(&record).await.is_err() {
            return;
        }
    }
}

async fn record(from: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mut header = [0; HEADER_BYTES];
    from.read_exact(&mut header).await.ok()?;
    let [_, _, _, high, low] = header;
    let mut body = vec![0; usize::from(u16::from_be_bytes([high, low]))];
    from.read_exact(&mut body).await.ok()?;
    Some([header.as_slice(), &body].concat())
}
