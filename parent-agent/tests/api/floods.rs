//! An enclave that floods and lies, and clients that say nothing.

use std::time::Duration;

use link::control::{ExitStatus, FromInit, HealthState, WorkloadState};
use link::frame::MAX_CONTROL;
use link::target::Reply;
use link::{Channel, Text, frame};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::agent::{Agent, Init, LIMIT};
use crate::image::Builder;
use crate::ingress::accept;

/// What the agent writes of one kind at once, and what it may earn while a test runs.
const MAX_LINES: usize = 50 + 200;

#[tokio::test]
async fn heartbeat_byte_does_not_end_an_enclave_that_is_connected() {
    let mut agent = Agent::start(&[]).await;
    let mut init = agent.boot().await;
    for _ in 0..3 {
        agent.beat().await;
    }
    let detail = Text::new("still here");
    let state = HealthState::Healthy;
    init.send(FromInit::Health { state, detail }).await;
    assert_eq!(agent.event("health").await["detail"], "still here");
    assert_eq!(agent.status().await["state"], "ready");
    agent.end_init(0).await;
    agent.ended().await;
}

#[tokio::test]
async fn heartbeat_and_another_boot_are_a_machine_that_started_again() {
    let mut agent = Agent::start(&[]).await;
    let _init = agent.boot().await;
    agent.beat().await;
    let _again = Init::say_boot(&agent, 2).await;
    let (_, ended, _) = agent.ended().await;
    assert_eq!(ended["detail"], "its machine started again");
    assert_eq!(ended["cause"], "died");
}

#[tokio::test]
async fn health_flood_is_counted_and_not_printed() {
    let mut agent = Agent::start(&[]).await;
    let mut init = agent.boot().await;
    for number in 0..20_000 {
        let state = HealthState::Unhealthy;
        let detail = Text::new(format!("number {number}"));
        init.send(FromInit::Health { state, detail }).await;
    }
    init.send(FromInit::WorkloadExited {
        status: ExitStatus::Code(1),
        restart_in_ms: Some(1),
        code: Text::default(),
        workload: None,
    })
    .await;
    let mut printed = 0;
    loop {
        let event = agent.next_event().await;
        match event["event"].as_str() {
            Some("health") => printed += 1,
            Some("workload_exited") => break,
            _ => {}
        }
    }
    assert!((1..MAX_LINES).contains(&printed), "{printed}");
    let status = agent.status().await;
    assert_eq!(status["health"]["detail"], "number 19999");
    let left_out = status["lines_left_out"]["health"].as_u64().unwrap();
    assert_eq!(left_out, 20_000 - u64::try_from(printed).unwrap());
    let (_, page) = agent.request("GET", "/metrics", "").await;
    let page = String::from_utf8(page).unwrap();
    let sample = format!("enclave_lines_left_out_total{{line=\"health\"}} {left_out}");
    assert!(page.contains(&sample), "{page}");
    agent.end_init(0).await;
    agent.ended().await;
}

#[tokio::test]
async fn workloads_that_restart_without_end_hide_no_others_end() {
    let mut agent = Agent::start(&[]).await;
    let mut init = agent.boot().await;
    let of = |name: &str, state, detail: &str| FromInit::Workload {
        name: Text::new(name),
        state,
        detail: Text::new(detail),
    };
    for number in 0..2000 {
        let detail = format!("number {number}");
        init.send(of("metrics", WorkloadState::Starting, &detail))
            .await;
        init.send(FromInit::WorkloadExited {
            status: ExitStatus::Code(1),
            restart_in_ms: Some(1),
            code: Text::default(),
            workload: Some(Text::new("metrics")),
        })
        .await;
    }
    init.send(of("web", WorkloadState::Failed, "it has failed"))
        .await;
    let state = HealthState::Unhealthy;
    let detail = Text::new("web: it has failed");
    init.send(FromInit::Health { state, detail }).await;
    let mut printed = 0;
    let web = loop {
        let event = agent.next_event().await;
        match event["event"].as_str() {
            Some("workload") if event["name"] == "web" => break event,
            Some("workload" | "workload_exited") => printed += 1,
            _ => {}
        }
    };
    assert_eq!(web["state"], "failed", "{web}");
    assert!((1..MAX_LINES).contains(&printed), "{printed}");
    let health = agent.event("health").await;
    assert_eq!(health["detail"], "web: it has failed", "{health}");
    agent.end_init(0).await;
    agent.ended().await;
}

#[tokio::test]
async fn boot_steps_flood_is_neither_printed_nor_kept() {
    let mut agent = Agent::start(&[]).await;
    let mut init = agent.boot().await;
    for number in 0..5000 {
        init.send(FromInit::Step {
            name: Text::new(format!("step {number}")),
            at_us: number,
            took_us: 1,
        })
        .await;
    }
    let left_out = loop {
        let status = agent.status().await;
        assert!(status["boot_steps"].as_array().unwrap().len() <= 64);
        let left_out = status["lines_left_out"]["boot-step"].as_u64();
        if let Some(left_out) = left_out.filter(|count| *count > 4700) {
            break left_out;
        }
    };
    assert!(left_out < 5000);
    agent.end_init(0).await;
    agent.ended().await;
}

#[tokio::test]
async fn control_connections_that_come_too_fast_are_closed() {
    let mut agent = Agent::start(&[]).await;
    let mut init = agent.boot().await;
    let mut reading = JoinSet::new();
    for _ in 0..200 {
        let mut stream = agent.open(Channel::Control).await;
        // One that is served may wait 5 s for its first message.
        reading.spawn(async move {
            let read = timeout(Duration::from_secs(3), stream.read_u8()).await;
            read.is_ok()
        });
    }
    let closed = reading
        .join_all()
        .await
        .into_iter()
        .filter(|closed| *closed);
    let closed = closed.count();
    assert!(closed > 100, "{closed}");
    // The enclave's own goes on.
    let detail = Text::new("still here");
    let state = HealthState::Healthy;
    init.send(FromInit::Health { state, detail }).await;
    assert_eq!(agent.event("health").await["detail"], "still here");
    agent.end_init(0).await;
    agent.ended().await;
}

#[tokio::test]
async fn limits_of_the_init_are_in_status_and_metrics() {
    let mut agent = Agent::start(&[]).await;
    let mut init = agent.boot().await;
    let counts = |refused, evicted| link::control::PlaceCounts { refused, evicted };
    init.send(FromInit::Places {
        egress: counts(3, 4),
        ingress: counts(5, 6),
        dropped_datagrams: 7,
    })
    .await;
    let status = loop {
        let status = agent.status().await;
        if status["init_places"]["egress"]["refused"] == 3 {
            break status;
        }
    };
    assert_eq!(status["init_places"]["ingress"]["evicted"], 6);
    assert_eq!(status["init_places"]["dropped_datagrams"], 7);
    let (_, page) = agent.request("GET", "/metrics", "").await;
    let page = String::from_utf8(page).unwrap();
    for sample in [
        "enclave_init_connections_refused_total{direction=\"ingress\"} 5",
        "enclave_init_connections_evicted_total{direction=\"egress\"} 4",
        "enclave_init_datagrams_dropped_total 7",
    ] {
        assert!(page.contains(sample), "{page}");
    }
    agent.end_init(0).await;
    agent.ended().await;
}

/// Connects from this address; `None` if the connection is closed at once.
async fn client(
    from: &str,
    to: &str,
    listener: &link::Listener,
) -> Option<(TcpStream, link::Stream)> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    // A reset may come before the connection is looked at.
    let mut client = socket.connect(to.parse().unwrap()).await.ok()?;
    tokio::select! {
        stream = accept(listener, &Reply::Connected) => Some((client, stream)),
        _ = client.read_u8() => None,
    }
}

#[tokio::test]
async fn ingress_port_stays_open_to_others_than_silent_clients() {
    let image = Builder::new(&[], &[(8080, 80)]);
    let arguments = ["--publish", "0:8080", "--ingress-connections", "4"];
    let mut agent = Agent::run(image, &arguments).await;
    let starting = agent.event("starting").await;
    let to = starting["ports"][0]["listen"].as_str().unwrap().to_owned();
    let listener = agent.listen();
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(client("127.0.0.1", &to, &listener).await.unwrap());
    }
    // They have their share; another client is served.
    assert!(client("127.0.0.1", &to, &listener).await.is_none());
    let mut other = client("127.0.0.2", &to, &listener).await.unwrap();
    other.0.write_all(b"x").await.unwrap();
    assert_eq!(other.1.read_u8().await.unwrap(), b'x');
    assert!(client("127.0.0.3", &to, &listener).await.is_none());
    // After a while those that say nothing give way to those that come.
    let next = async {
        loop {
            if let Some(next) = client("127.0.0.3", &to, &listener).await {
                return next;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let _next = timeout(LIMIT, next).await.unwrap();
    let evicted = silent[0].0.read(&mut [0]).await.unwrap_err();
    assert_eq!(evicted.kind(), std::io::ErrorKind::ConnectionReset);
    other.0.write_all(b"y").await.unwrap();
    assert_eq!(other.1.read_u8().await.unwrap(), b'y');
    let counts: Value = agent.status().await["ingress"][0].clone();
    assert_eq!(counts["evicted"], 1);
    assert!(counts["limited"].as_u64().unwrap() >= 2, "{counts}");
    let (_, page) = agent.request("GET", "/metrics", "").await;
    let page = String::from_utf8(page).unwrap();
    let sample = "enclave_connections_evicted_total{direction=\"ingress\"} 1";
    assert!(page.contains(sample), "{page}");
}

#[tokio::test]
async fn egress_flood_of_refused_destinations_is_counted_and_not_printed() {
    let mut agent = Agent::start(&[]).await;
    let _init = agent.boot().await;
    let count = 1000;
    for number in 0..count {
        let mut stream = agent.open(Channel::Egress).await;
        let connect = link::target::Connect {
            host: Text::new(format!("n{number}.test")),
            port: 1,
        };
        frame::write(&mut stream, &connect, MAX_CONTROL)
            .await
            .unwrap();
        let reply: Reply = frame::read(&mut stream, frame::MAX_TARGET).await.unwrap();
        assert!(matches!(reply, Reply::Refused { .. }));
    }
    agent.end_init(0).await;
    let (_, _, stderr) = agent.ended().await;
    let printed = stderr.matches("egress refused").count();
    assert!((1..MAX_LINES).contains(&printed), "{printed}");
}
