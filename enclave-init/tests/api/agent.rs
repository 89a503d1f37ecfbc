//! The agent's side of the sockets: heartbeat, control, logs, egress.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use link::control::{FromAgent, FromInit};
use link::frame::{MAX_CONTROL, MAX_LOGS, Reader, Writer};
use link::logs::{self, LogStream, Source};
use link::records::{Answer, Kind, MAX_ANSWER, Question, Service, Strings};
use link::target::Refusal;
use link::{Bytes, Channel, Endpoint, Listener, Stream, Text, frame, hello, target};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

/// How the agent behaves.
#[derive(Debug, Clone)]
pub(crate) struct Behaviour {
    pub(crate) runtime_config: Vec<u8>,
    /// The byte that a heartbeat is answered with.
    pub(crate) heartbeat: u8,
    /// The bytes that each log connection carries before it is cut, in turn;
    /// afterwards they are not cut.
    pub(crate) cuts: Vec<u64>,
    /// Whether batches are taken at once, or only as permits are given.
    pub(crate) takes_logs: bool,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            runtime_config: Vec::new(),
            heartbeat: link::port::HEARTBEAT_BYTE,
            cuts: Vec::new(),
            takes_logs: true,
        }
    }
}

/// A log record as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) stream: LogStream,
    pub(crate) sequence: u64,
    pub(crate) source: Source,
    pub(crate) continues: bool,
    pub(crate) data: Vec<u8>,
    pub(crate) workload: Option<String>,
}

impl Received {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.data).into_owned()
    }
}

/// What the agent has seen, in the order that it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    Heartbeat,
    Control,
    Logs,
}

/// What the agent's connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    behaviour: Behaviour,
    pub(crate) seen: Mutex<Vec<Seen>>,
    /// Records held, each once and in order.
    pub(crate) records: watch::Sender<Vec<Received>>,
    last: Mutex<BTreeMap<LogStream, u64>>,
    /// How many log connections there were, and records that came again.
    connections: Mutex<usize>,
    pub(crate) repeated: Mutex<usize>,
    /// How many batches came compressed.
    pub(crate) compressed: Mutex<usize>,
    /// One for each batch that may be taken.
    pub(crate) batches: Semaphore,
}

/// One control connection.
pub(crate) struct Control {
    reader: Reader<ReadHalf<Stream>>,
    writer: Writer<WriteHalf<Stream>>,
    pub(crate) boot: Vec<u8>,
}

/// One egress connection, its target not answered yet.
pub(crate) struct Outgoing {
    pub(crate) target: target::Connect,
    stream: Stream,
}

/// The agent, serving until it is dropped.
pub(crate) struct Agent {
    pub(crate) shared: Arc<Shared>,
    pub(crate) controls: mpsc::Receiver<Control>,
    pub(crate) egress: mpsc::Receiver<Outgoing>,
    tasks: JoinSet<()>,
}

impl Agent {
    /// Serves the sockets in `folder`.
    pub(crate) fn start(folder: &Path, behaviour: Behaviour) -> Self {
        let shared = Arc::new(Shared {
            batches: Semaphore::new(if behaviour.takes_logs {
                Semaphore::MAX_PERMITS
            } else {
                0
            }),
            behaviour,
            seen: Mutex::default(),
            records: watch::Sender::default(),
            last: Mutex::default(),
            connections: Mutex::default(),
            repeated: Mutex::default(),
            compressed: Mutex::default(),
        });
        let listen = |port| {
            let path = folder.join(format!("host_{port}"));
            Listener::bind(&Endpoint::Unix { path }).unwrap()
        };
        let (control, controls) = mpsc::channel(16);
        let (outgoing, egress) = mpsc::channel(16);
        let mut tasks = JoinSet::new();
        tasks.spawn(answer_heartbeats(
            listen(link::port::HEARTBEAT),
            Arc::clone(&shared),
        ));
        let (listener, for_task) = (listen(link::port::AGENT), Arc::clone(&shared));
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(
                    stream,
                    Arc::clone(&for_task),
                    control.clone(),
                    outgoing.clone(),
                ));
            }
        });
        Self {
            shared,
            controls,
            egress,
            tasks,
        }
    }

    /// Stops serving and closes every connection but those handed out.
    pub(crate) async fn stop(&mut self) {
        self.tasks.shutdown().await;
    }
}

async fn answer_heartbeats(listener: Listener, shared: Arc<Shared>) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        if stream.read_u8().await.ok() != Some(link::port::HEARTBEAT_BYTE) {
            continue;
        }
        shared.seen.lock().unwrap().push(Seen::Heartbeat);
        // An init that is being killed needs no answer.
        let _ = stream.write_u8(shared.behaviour.heartbeat).await;
    }
}

async fn serve(
    mut stream: Stream,
    shared: Arc<Shared>,
    controls: mpsc::Sender<Control>,
    outgoing: mpsc::Sender<Outgoing>,
) {
    let Ok(channel) = hello::accept(&mut stream, |channel| channel != Channel::Ingress).await
    else {
        return;
    };
    // A connection that breaks is the init's to open again.
    match channel {
        Channel::Control => {
            shared.seen.lock().unwrap().push(Seen::Control);
            if let Some(control) = Control::begin(stream, &shared.behaviour).await {
                let _ = controls.send(control).await;
            }
        }
        Channel::Logs => {
            shared.seen.lock().unwrap().push(Seen::Logs);
            take_logs(stream, &shared).await;
        }
        Channel::Egress | Channel::Datagrams => {
            if let Ok(target) = frame::read(&mut stream, frame::MAX_TARGET).await {
                let _ = outgoing.send(Outgoing { target, stream }).await;
            }
        }
        Channel::Records => {
            if let Ok(question) = frame::read(&mut stream, frame::MAX_TARGET).await {
                let answer = look_up(&question);
                let _ = frame::write(&mut stream, &answer, MAX_ANSWER).await;
            }
        }
        Channel::Ingress => unreachable!("not served"),
    }
}

/// What the agent's name servers know.
fn look_up(question: &Question) -> Answer {
    let service = |port, target: &str| Service {
        priority: 1,
        weight: 2,
        port,
        target: Text::new(target),
    };
    let strings = |text: &[u8]| Strings(vec![Bytes::new(text).unwrap()]);
    match (&*question.name, question.kind) {
        ("_mongodb._tcp.cluster.db.test", Kind::Srv) => Answer::Services {
            ttl: 5,
            records: vec![
                service(27017, "a.db.test"),
                service(27018, "b.elsewhere.test"),
                service(1, "no host"),
                // What the workload would find in the enclave itself.
                service(8080, "127.0.0.1"),
                service(8080, "localhost"),
                service(7070, "198.18.0.1"),
            ],
        },
        ("many.db.test", Kind::Txt) => Answer::Texts {
            ttl: 5,
            records: vec![strings(&[b'x'; 100]); 64],
        },
        ("cluster.db.test", Kind::Txt) => Answer::Texts {
            ttl: 5,
            records: vec![strings(b"authSource=admin"), Strings::default()],
        },
        ("lies.db.test", Kind::Txt) => Answer::Services {
            ttl: 5,
            records: Vec::new(),
        },
        ("nothing.db.test", Kind::Txt) => Answer::Texts {
            ttl: 5,
            records: Vec::new(),
        },
        ("broken.db.test", Kind::Txt) => Answer::Refused {
            refusal: Refusal::TimedOut,
            reason: Text::new("asleep\r\n"),
        },
        _ => Answer::Refused {
            refusal: Refusal::NameNotFound,
            reason: Text::new("nobody"),
        },
    }
}

/// Takes records until the connection ends or is cut.
async fn take_logs(stream: Stream, shared: &Shared) {
    let cut = {
        let mut connections = shared.connections.lock().unwrap();
        *connections += 1;
        shared.behaviour.cuts.get(*connections - 1).copied()
    };
    let (read, write) = tokio::io::split(stream);
    let mut reader = Reader::new(read.take(cut.unwrap_or(u64::MAX)), MAX_LOGS);
    let mut writer = Writer::new(write, MAX_LOGS);
    let Ok(Some(logs::FromInit::Open { .. })) = reader.receive().await else {
        return;
    };
    let mut decompressor = logs::Decompressor::new().unwrap();
    loop {
        let last = shared.last.lock().unwrap().clone().into_iter().collect();
        if writer
            .send(&logs::FromAgent::Stored { last })
            .await
            .is_err()
        {
            return;
        }
        shared.batches.acquire().await.unwrap().forget();
        let Ok(Some(message)) = reader.receive().await else {
            return;
        };
        if matches!(message, logs::FromInit::Compressed { .. }) {
            *shared.compressed.lock().unwrap() += 1;
        }
        let records = decompressor.records(message).unwrap().unwrap();
        for record in records {
            let mut last = shared.last.lock().unwrap();
            let last = last.entry(record.stream).or_default();
            if record.sequence <= *last {
                *shared.repeated.lock().unwrap() += 1;
                continue;
            }
            *last = record.sequence;
            shared.records.send_modify(|records| {
                records.push(Received {
                    stream: record.stream,
                    sequence: record.sequence,
                    source: record.source,
                    continues: record.continues,
                    data: record.data.to_vec(),
                    workload: record.workload.map(str::to_owned),
                });
            });
        }
    }
}

impl Control {
    async fn begin(stream: Stream, behaviour: &Behaviour) -> Option<Self> {
        let (read, write) = tokio::io::split(stream);
        let mut control = Self {
            reader: Reader::new(read, MAX_CONTROL),
            writer: Writer::new(write, MAX_CONTROL),
            boot: Vec::new(),
        };
        let Some(FromInit::Boot { boot, .. }) = control.reader.receive().await.ok()? else {
            panic!("a control connection does not begin with its boot");
        };
        control.boot = boot.into_vec();
        let runtime_config = Bytes::new(behaviour.runtime_config.clone()).unwrap();
        let start = FromAgent::Start { runtime_config };
        // An init that only has a failure to tell has closed already.
        let _ = control.writer.send(&start).await;
        Some(control)
    }

    /// The next message; `None` when the init has closed the connection.
    pub(crate) async fn receive(&mut self) -> Option<FromInit> {
        self.reader.receive().await.ok().flatten()
    }

    pub(crate) async fn send(&mut self, message: FromAgent) {
        self.writer.send(&message).await.unwrap();
    }

    /// Closes the connection, and waits until the init has done the same: what it
    /// sends before it has noticed is lost. Not by a drop: a process that is being
    /// forked meanwhile may hold a copy of the socket.
    pub(crate) async fn hang_up(self) {
        let Self {
            mut reader, writer, ..
        } = self;
        writer.into_inner().shutdown().await.unwrap();
        while let Ok(Some(_)) = reader.receive::<FromInit>().await {}
    }

    /// Sends a frame with this body, and only listens from then on.
    pub(crate) async fn send_raw(self, body: &[u8]) -> Reader<ReadHalf<Stream>> {
        self.send_body(body).await.reader
    }

    /// Sends a frame with this body.
    pub(crate) async fn send_body(self, body: &[u8]) -> Self {
        let mut stream = self.writer.into_inner();
        let length = u32::try_from(body.len()).unwrap();
        stream.write_u32(length).await.unwrap();
        stream.write_all(body).await.unwrap();
        stream.flush().await.unwrap();
        Self {
            writer: Writer::new(stream, MAX_CONTROL),
            ..self
        }
    }
}

impl Outgoing {
    /// Answers; the connection carries the target's bytes then.
    pub(crate) async fn reply(mut self, reply: target::Reply) -> Stream {
        frame::write(&mut self.stream, &reply, frame::MAX_TARGET)
            .await
            .unwrap();
        self.stream
    }
}
