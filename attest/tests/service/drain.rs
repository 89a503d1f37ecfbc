//! The end: open requests are answered, nothing new is begun, and it is bounded.

use std::net::TcpStream;

use serde_json::json;

use crate::http::Connection;
use crate::server::{JSON, World, eventually, verify_body};

/// Sends a request but for its body, which the server says it is waiting for.
fn begin(connection: &mut Connection, length: usize) {
    connection.send(format!(
        "POST /v1/verify HTTP/1.1\r\nHost: test\r\n{}: {}\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n",
        JSON.0, JSON.1
    ));
    assert_eq!(connection.receive().status, 100);
}

#[test]
fn an_open_request_is_answered_and_then_the_program_ends() {
    let world = World::new();
    let server = world.start(&[]);
    let challenge = server.challenge(&json!({}));
    let body = verify_body(&world.enclave.attest(&challenge), &challenge).to_string();
    let mut open = Connection::open(server.address);
    begin(&mut open, body.len());
    let mut idle = Connection::open(server.address);
    idle.send("GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(idle.receive().status, 200);

    server.signal("TERM");
    assert!(idle.rest().is_empty());
    eventually("it still accepts", || {
        TcpStream::connect(server.address).err()
    });
    open.send(&body);
    let reply = open.receive();
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("connection"), Some("close"));
    assert_eq!(reply.json()["report"]["accepted"], true);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_request_that_does_not_end_does_not_keep_the_program() {
    let world = World::new();
    let server = world.start(&["--drain-timeout", "100ms"]);
    let mut open = Connection::open(server.address);
    begin(&mut open, 100);
    server.signal("INT");
    assert_eq!(server.wait().code(), Some(0));
    assert!(open.rest().is_empty());
}
