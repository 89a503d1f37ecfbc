//! The command line: what it prints, what it refuses, and its exit codes.

use std::fs;

use serde_json::json;

use crate::server::{World, set_mode};

/// The exit code and the message of a start that fails.
fn failure(world: &World, options: &[&str]) -> (i32, String) {
    let output = world.command(options).output().unwrap();
    assert!(output.stdout.is_empty(), "{output:?}");
    let message = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), message)
}

#[test]
fn the_start_is_one_line() {
    let world = World::new();
    let server = world.start(&[]);
    assert_eq!(
        server.line,
        format!(
            "attest: serving 2 policies on http://{}, keys in {}, metrics on http://{}\n",
            server.address,
            world.data().display(),
            server.metrics
        )
    );
}

#[test]
fn a_wrong_configuration_ends_with_2_and_says_what_is_wrong() {
    let world = World::new();
    for (options, expected) in [
        (["--listen", "localhost"], "--listen"),
        (["--threads", "0"], "--threads"),
        (["--result-lifetime", "0s"], "at least a second"),
        (["--rotate-keys-every", "10m"], "at least an hour"),
        (["--policies", "/nonexistent"], "/nonexistent"),
        (["--data", "/dev/null/data"], "/dev/null/data"),
        (["--root", "/dev/null"], "/dev/null"),
    ] {
        let (code, message) = failure(&world, &options);
        assert_eq!(code, 2, "{message}");
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_wrong_policy_ends_the_start_with_2_and_names_the_line() {
    let world = World::new();
    world.write("broken.toml", "allow_any_image = true\nnonsense = 1\n");
    let (code, message) = failure(&world, &[]);
    assert_eq!(code, 2);
    assert!(message.contains("broken.toml: line 2"), "{message}");
}

#[test]
fn a_data_folder_has_one_owner() {
    let world = World::new();
    let _server = world.start(&[]);
    let (code, message) = failure(&world, &[]);
    assert_eq!(code, 2);
    assert!(message.contains("challenges.redb is in use"), "{message}");
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let world = World::new();
    let server = world.start(&[]);
    server.signal("TERM");
    server.wait();
    let key = fs::read_dir(world.data().join("keys"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    for (path, mode, good, remedy) in [
        (key, 0o644, 0o600, "chmod 600"),
        (
            world.data().join("challenge.key"),
            0o640,
            0o600,
            "chmod 600",
        ),
        (world.data(), 0o770, 0o700, "chmod 700"),
    ] {
        set_mode(&path, mode);
        let (code, message) = failure(&world, &[]);
        assert_eq!(code, 2);
        let shown = path.display().to_string();
        assert!(
            message.contains(remedy) && message.contains(&shown),
            "{message}"
        );
        set_mode(&path, good);
    }
    drop(world.start(&[]));
}

#[test]
fn an_address_in_use_ends_with_4() {
    let first = World::new();
    let server = first.start(&[]);
    let second = World::new();
    let address = server.address.to_string();
    let (code, message) = failure(&second, &["--listen", &address]);
    assert_eq!(code, 4, "{message}");
    assert!(
        message.contains(&format!("cannot listen on {address}")),
        "{message}"
    );
}

#[test]
fn metrics_are_nowhere_else_than_where_they_were_asked_for() {
    let world = World::new();
    let server = world.start(&[]);
    assert_eq!(server.get("/metrics").problem(), "not-found");
    server.challenge(&json!({}));
    assert_eq!(server.metric("attest_challenges_issued_total"), 1);
    assert_eq!(server.metric("attest_policies"), 2);
    assert_eq!(server.metric("attest_ready"), 1);
}
