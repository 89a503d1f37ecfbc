//! What a service manager is told, by one that is a socket.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use link::Text;
use link::control::{EndCause, FromAgent, FromInit};
use nix::sys::signal::Signal;
use tokio::time::{sleep, timeout};

use crate::agent::{Agent, Init, LIMIT};
use crate::image::Builder;

struct Manager {
    socket: UnixDatagram,
    environment: Vec<(&'static str, String)>,
    heard: Vec<String>,
}

impl Manager {
    fn new(folder: &std::path::Path) -> Self {
        let path = folder.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self {
            socket,
            environment: vec![
                ("NOTIFY_SOCKET", path.display().to_string()),
                ("WATCHDOG_USEC", "100000".to_owned()),
            ],
            heard: Vec::new(),
        }
    }

    /// Takes in what was said so far.
    fn listen(&mut self) {
        let mut bytes = [0; 1024];
        while let Ok(count) = self.socket.recv(&mut bytes) {
            let text = String::from_utf8(bytes[..count].to_vec()).unwrap();
            self.heard.push(text);
        }
    }

    fn has(&self, words: &str) -> bool {
        has(&self.heard, words)
    }

    /// Waits until this is said, and gives all that was said since the last time.
    async fn until(&mut self, words: &str) -> Vec<String> {
        let said = async {
            self.listen();
            while !self.has(words) {
                sleep(Duration::from_millis(5)).await;
                self.listen();
            }
        };
        timeout(LIMIT, said).await.expect(words);
        std::mem::take(&mut self.heard)
    }
}

fn has(heard: &[String], words: &str) -> bool {
    heard.iter().any(|message| message.contains(words))
}

#[tokio::test]
async fn notify_tells_of_the_start_the_life_and_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut manager = Manager::new(folder.path());
    let image = Builder::new(&[], &[]);
    let arguments = ["--keep-for", "60s"];
    let mut agent = Agent::spawn_with(folder, image, &arguments, &manager.environment);
    agent.until_init_waits().await;
    // It may take as long as it takes, as long as it lives.
    for _ in 0..2 {
        let heard = manager.until("EXTEND_TIMEOUT_USEC=").await;
        assert!(!has(&heard, "READY=1"), "{heard:?}");
    }
    let init = agent.boot().await;
    let heard = manager.until("READY=1").await;
    assert!(has(&heard, "STATUS=the enclave is ready"), "{heard:?}");
    for _ in 0..2 {
        let heard = manager.until("WATCHDOG=1").await;
        assert!(!has(&heard, "EXTEND_TIMEOUT_USEC"), "{heard:?}");
    }

    // What the agent has started is not taken for it.
    let guard = agent.process(" guard ");
    let environment = std::fs::read(format!("/proc/{guard}/environ")).unwrap();
    let environment = String::from_utf8_lossy(&environment).into_owned();
    for variable in ["NOTIFY_SOCKET", "WATCHDOG_USEC"] {
        assert!(!environment.contains(variable), "{environment}");
    }

    // The next agent is ready once it has the enclave.
    drop(init);
    let folder = agent.killed().await;
    manager.listen();
    manager.heard.clear();
    let image = Builder::new(&[], &[]);
    let mut agent = Agent::spawn_with(folder, image, &arguments, &manager.environment);
    agent.event("attached").await;
    let heard = manager.until("EXTEND_TIMEOUT_USEC=").await;
    assert!(!has(&heard, "READY=1"), "{heard:?}");
    let mut init = Init::connect(&agent, 1).await;
    let ready = FromInit::Ready { at_us: 1 };
    init.send(ready).await;
    manager.until("READY=1").await;

    agent.signal(Signal::SIGTERM);
    manager.until("STOPPING=1").await;
    agent.end_init(0).await;
    agent.ended().await;
}

#[tokio::test]
async fn notify_of_a_stop_before_readiness_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let mut manager = Manager::new(folder.path());
    let image = Builder::new(&[], &[]);
    let agent = Agent::spawn_with(folder, image, &[], &manager.environment);
    agent.until_init_waits().await;
    let mut init = Init::connect(&agent, 1).await;
    manager.listen();
    assert!(!manager.has("READY=1"), "{:?}", manager.heard);
    agent.signal(Signal::SIGTERM);
    let told = init.receive().await;
    assert_eq!(told, Some(FromAgent::Shutdown { grace_ms: None }));
    init.send(FromInit::Ending {
        cause: EndCause::Shutdown,
        detail: Text::default(),
        code: Text::default(),
        losses: link::control::Losses::default(),
        numbered: Vec::new(),
        workload: None,
    })
    .await;
    agent.end_init(0).await;
    let (code, ..) = agent.ended().await;
    assert_eq!(code, 0);
    // Type=notify takes an end without it for a failure.
    manager.until("READY=1").await;
}
