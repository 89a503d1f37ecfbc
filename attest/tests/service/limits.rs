//! What clients may not do, and that it harms no other.

use std::fs;
use std::net::{Shutdown, SocketAddr};
use std::sync::Barrier;
use std::thread;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::http::{Connection, Reply, message, request};
use crate::server::{JSON, Server, World, eventually, verify_body};

fn healthy(server: &Server) {
    assert_eq!(server.get("/readyz").status, 200);
}

#[test]
fn a_body_is_too_large_by_its_announced_length_and_by_its_real_one() {
    let world = World::new();
    let server = world.start(&[]);
    let head = |length: &str| {
        format!(
            "POST /v1/verify HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n{length}\r\n\r\n"
        )
    };
    let mut huge = Connection::open(server.address);
    huge.send(head("Content-Length: 1048577"));
    let reply = huge.receive();
    assert_eq!(
        (reply.status, reply.problem().as_str()),
        (413, "body-too-large")
    );
    assert!(huge.rest().is_empty());

    // What is only somewhat too large is read, so that the connection stays.
    let spaces = " ".repeat(65_537);
    let mut connection = Connection::open(server.address);
    for _ in 0..2 {
        connection.send(head("Content-Length: 65537") + &spaces);
        assert_eq!(connection.receive().problem(), "body-too-large");
        let chunks = format!("{:x}\r\n{spaces}\r\n0\r\n\r\n", spaces.len());
        connection.send(head("Transfer-Encoding: chunked") + &chunks);
        assert_eq!(connection.receive().problem(), "body-too-large");
    }

    // The largest document that there can be is small enough.
    let body = verify_body(&vec![0; attestation::MAX_DOCUMENT], &[0; 512]);
    assert_ne!(server.post("/v1/verify", &body).status, 413);
    healthy(&server);
}

#[test]
fn a_body_that_is_no_http_is_malformed_and_not_slow() {
    let world = World::new();
    let server = world.start(&[]);
    for chunks in [
        "-1\r\n".to_owned(),
        "fffffffffffffffff\r\n".to_owned(),
        format!("2;{}\r\n{{}}\r\n0\r\n\r\n", "a".repeat(20_000)),
        "2\r\n{}\r\n0\r\nno trailer\r\n\r\n".to_owned(),
    ] {
        let mut connection = Connection::open(server.address);
        connection.send(format!(
            "POST /v1/verify HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"
        ));
        let reply = connection.receive();
        assert_eq!(
            (reply.status, reply.problem().as_str()),
            (400, "malformed-request")
        );
        assert!(connection.rest().is_empty());
    }
    healthy(&server);
}

#[test]
fn a_head_that_is_too_large_or_no_http_is_refused() {
    let world = World::new();
    let server = world.start(&[]);
    for (head, status) in [
        (
            format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(20_000)),
            "HTTP/1.1 4",
        ),
        (
            format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(20_000)),
            "HTTP/1.1 431",
        ),
        (
            format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(70)),
            "HTTP/1.1 431",
        ),
        ("no http\r\n\r\n".to_owned(), "HTTP/1.1 400"),
        (
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".to_owned(),
            "HTTP/1.1 400",
        ),
    ] {
        let mut connection = Connection::open(server.address);
        connection.send(head);
        let answer = connection.rest();
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with(status), "{answer}");
    }
    healthy(&server);
}

#[test]
fn a_client_that_is_too_slow_is_cut_off() {
    let world = World::new();
    let server = world.start(&[]);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut idle = Connection::open(server.address);
            idle.send(message("GET", "/healthz", &[], &[]));
            assert_eq!(idle.receive().status, 200);
            assert!(idle.rest().is_empty());
        });
        scope.spawn(|| {
            let mut slow_head = Connection::open(server.address);
            slow_head.send("GET /healthz HTTP/1.1\r\nHo");
            let answer = String::from_utf8(slow_head.rest()).unwrap();
            assert!(
                answer.is_empty() || answer.starts_with("HTTP/1.1 408"),
                "{answer}"
            );
        });
        scope.spawn(|| {
            let mut slow_body = Connection::open(server.address);
            slow_body.send(
                "POST /v1/verify HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{",
            );
            let reply = slow_body.receive();
            assert_eq!((reply.status, reply.problem().as_str()), (408, "request-timeout"));
            assert!(slow_body.rest().is_empty());
        });
        // Others are served meanwhile.
        healthy(&server);
    });
    healthy(&server);
}

#[test]
fn a_client_that_has_said_all_gets_its_answer_and_one_that_breaks_off_harms_nobody() {
    let world = World::new();
    let server = world.start(&[]);
    let mut half_closed = Connection::open(server.address);
    let body = verify_body(b"no document", &[0; 56]).to_string();
    half_closed.send(message("POST", "/v1/verify", &[JSON], body.as_bytes()));
    half_closed.0.get_ref().shutdown(Shutdown::Write).unwrap();
    assert_eq!(half_closed.receive().problem(), "unknown-challenge");

    for part in [1, 30, 200] {
        let mut broken = Connection::open(server.address);
        let whole = message("POST", "/v1/verify", &[JSON], body.as_bytes());
        broken.send(&whole[..part]);
        drop(broken);
    }
    eventually("their connections stay", || {
        (server.metric("attest_connections_open") == 0).then_some(())
    });
    healthy(&server);
}

fn get(address: SocketAddr, path: &str, forwarded: &str) -> Reply {
    let headers = [("X-Forwarded-For", forwarded)];
    request(address, "GET", path, &headers, &[])
}

#[test]
fn a_client_that_asks_too_often_is_told_when_to_come_again() {
    let world = World::new();
    let server = world.start(&["--rate-limit", "1", "--behind-proxy"]);
    let limited = |client: &str| {
        (0..100)
            .map(|_| get(server.address, "/v1/policies", client))
            .find(|reply| reply.status == 429)
    };
    let reply = limited("203.0.113.9, 192.0.2.1").unwrap();
    assert_eq!(reply.problem(), "rate-limited");
    let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=2).contains(&wait), "{wait}");
    // What a client says of itself, before the proxy's entry, does not help it, and
    // neither does another port.
    let again = get(server.address, "/v1/policies", "192.0.2.1:5678");
    assert_eq!(again.status, 429);
    let again = get(server.address, "/v1/policies", "203.0.113.10, 192.0.2.1");
    assert_eq!(again.status, 429);
    // Others are not held to it, and probes never are.
    let others = (2..10).filter(|other| {
        get(server.address, "/v1/policies", &format!("192.0.2.{other}")).status == 200
    });
    assert!(others.count() >= 7);
    for _ in 0..10 {
        assert_eq!(get(server.address, "/healthz", "192.0.2.1").status, 200);
    }
    assert!(server.metric("attest_problems_total{problem=\"rate-limited\"}") >= 2);
}

#[test]
fn log_of_a_client_that_asks_too_often_is_a_line_and_a_count() {
    let world = World::new();
    let server = world.start(&["--rate-limit", "1"]);
    let statuses: Vec<u16> = (0..300)
        .map(|number| match number % 3 {
            0 => server.get("/healthz").status,
            _ => server.get("/v1/policies").status,
        })
        .collect();
    let number = |status| statuses.iter().filter(|found| **found == status).count() as u64;
    let (probes, refused) = (100, number(429));
    assert!(refused > 100, "{refused}");
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    let log = fs::read_to_string(world.folder.path().join("log")).unwrap();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for (path, status, all) in [("/v1/policies", 429, refused), ("/healthz", 200, probes)] {
        let written = lines.iter().filter(|line| {
            line["message"] == "request" && line["path"] == path && line["status"] == status
        });
        let written = written.count() as u64;
        // Intervals may end meanwhile.
        assert!((1..=3).contains(&written), "{log}");
        let counted = lines
            .iter()
            .filter(|line| line["message"] == "more requests" && line["status"] == status);
        let counted: u64 = counted
            .map(|line| {
                assert_eq!(line["client"], "127.0.0.1");
                line["count"].as_u64().unwrap()
            })
            .sum();
        assert_eq!(written + counted, all, "{log}");
    }
}

#[test]
fn without_a_proxy_nobody_is_believed_about_addresses() {
    let world = World::new();
    let server = world.start(&["--rate-limit", "1"]);
    let limited = (0..100).find(|number| {
        get(server.address, "/v1/policies", &format!("192.0.2.{number}")).status == 429
    });
    assert!(limited.is_some());
}

#[test]
fn more_work_than_may_wait_is_refused_at_once() {
    const CLIENTS: usize = 32;
    let world = World::new();
    let server = world.start(&["--threads", "1", "--queue", "1"]);
    let document = world.enclave.attest(b"own nonce");
    let body = json!({
        "document": STANDARD.encode(&document),
        "policy": "any",
        "nonce": hex::encode("own nonce"),
    });
    let reply = eventually("nothing is refused", || {
        let start = Barrier::new(CLIENTS);
        let replies: Vec<_> = thread::scope(|scope| {
            let ask = || {
                start.wait();
                server.post("/v1/verify", &body)
            };
            let threads: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(ask)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        assert!(replies.iter().any(|reply| reply.status == 200));
        replies.into_iter().find(|reply| reply.status != 200)
    });
    assert_eq!(
        (reply.status, reply.problem().as_str()),
        (503, "overloaded")
    );
    assert_eq!(reply.header("retry-after"), Some("1"));
    assert_eq!(server.post("/v1/verify", &body).status, 200);
}

#[test]
fn a_connection_beyond_the_limit_takes_the_place_of_the_one_that_has_waited_longest() {
    let world = World::new();
    let server = world.start(&["--max-connections", "2"]);
    let mut held: Vec<_> = (0..2).map(|_| Connection::open(server.address)).collect();
    for connection in &mut held {
        connection.send(message("GET", "/healthz", &[], &[]));
        assert_eq!(connection.receive().status, 200);
    }
    let mut third = Connection::open(server.address);
    third.send(message("GET", "/healthz", &[], &[]));
    assert_eq!(third.receive().status, 200);
    let first = held.remove(0);
    assert!(first.rest().is_empty());
    for connection in [&mut held[0], &mut third] {
        connection.send(message("GET", "/healthz", &[], &[]));
        assert_eq!(connection.receive().status, 200);
    }
    eventually("the first is counted for ever", || {
        (server.metric("attest_connections_open") == 2).then_some(())
    });
    assert_eq!(server.metric("attest_connections_total"), 3);
}
