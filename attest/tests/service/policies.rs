//! Policies: reloaded whole or not at all.

use std::fs;

use serde_json::json;

use crate::server::{Server, World, eventually, verify_body};

fn names(server: &Server) -> Vec<String> {
    let policies = server.get("/v1/policies").json();
    let policies = policies["policies"].as_array().unwrap().clone();
    policies
        .iter()
        .map(|policy| policy["id"].as_str().unwrap().to_owned())
        .collect()
}

fn reloads(server: &Server, result: &str) -> u64 {
    server.metric(&format!(
        "attest_policy_reloads_total{{result=\"{result}\"}}"
    ))
}

#[test]
fn a_change_is_seen_and_a_wrong_one_leaves_all_as_it_was() {
    let world = World::new();
    let server = world.start(&[]);
    assert_eq!(names(&server), ["any", "payments"]);

    world.write("new.toml", "allow_any_image = true\n");
    eventually("the new policy is not loaded", || {
        (names(&server) == ["any", "new", "payments"]).then_some(())
    });

    // Wrong first: the removal must not be seen by itself.
    world.write("new.toml", "allow_every_image = true\n");
    fs::remove_file(world.policies().join("any.json")).unwrap();
    eventually("the wrong policy is not noticed", || {
        (reloads(&server, "failed") > 0).then_some(())
    });
    assert_eq!(names(&server), ["any", "new", "payments"]);
    let log = server.log();
    let line = log
        .lines()
        .find(|line| line.contains("policies not reloaded"))
        .unwrap();
    assert!(
        line.contains("new.toml") && line.contains("allow_every_image"),
        "{line}"
    );

    world.write("new.toml", "allow_any_image = true\n");
    eventually("the right policies are not loaded", || {
        (names(&server) == ["new", "payments"]).then_some(())
    });
}

#[test]
fn a_folder_that_has_been_emptied_leaves_the_policies_in_force() {
    let world = World::new();
    let server = world.start(&[]);
    fs::rename(world.policies(), world.folder.path().join("moved")).unwrap();
    eventually("the change is not noticed", || {
        (reloads(&server, "failed") > 0).then_some(())
    });
    assert_eq!(names(&server), ["any", "payments"]);
}

#[test]
fn measurements_that_a_policy_names_are_reloaded_with_it() {
    let world = World::new();
    let server = world.start(&[]);
    let accepted = || {
        let challenge = server.challenge(&json!({}));
        let body = verify_body(&world.enclave.attest(&challenge), &challenge);
        server.post("/v1/verify", &body).json()["report"]["accepted"]
            .as_bool()
            .unwrap()
    };
    assert!(accepted());
    let file = world.policies().join("images/payments.json");
    let text = fs::read_to_string(&file).unwrap().replace("0303", "0404");
    fs::write(&file, text).unwrap();
    eventually("the old image is still accepted", || {
        (!accepted()).then_some(())
    });
}

#[test]
fn sighup_reloads_what_is_not_watched() {
    let world = World::new();
    let outside = world.folder.path().join("outside.json");
    fs::copy(world.policies().join("images/payments.json"), &outside).unwrap();
    world.write("payments.toml", "[[images]]\nfile = \"../outside.json\"\n");
    let server = world.start(&[]);
    let digest = || server.get("/v1/policies").json()["policies"][1]["digest"].clone();
    let before = digest();
    let text = fs::read_to_string(&outside)
        .unwrap()
        .replace("0303", "0404");
    fs::write(&outside, text).unwrap();
    server.signal("HUP");
    eventually("it is not reloaded", || (digest() != before).then_some(()));
    assert_eq!(reloads(&server, "loaded"), 1);
}
