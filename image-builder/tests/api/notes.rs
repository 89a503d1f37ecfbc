//! What is allowed and should be known, and what is too large, is said.

use serde_json::json;

use crate::image::{Image, app};
use crate::project::Project;

/// What the builder notes about an image of this manifest, in which the workload is not
/// root.
fn notes(tables: &str) -> Vec<String> {
    let project = Project::new();
    project.manifest(&format!("[workload]\nuser = \"1000\"\n{tables}"));
    project.build_with_notes().1
}

#[test]
fn notes_say_what_means_less_than_it_seems() {
    for (tables, expected) in [
        (
            "[confinement]\nprofile = \"container\"\n",
            "confinement.profile = \"container\" gives capabilities to root alone",
        ),
        (
            "[logs]\nrelease = \"debug-only\"\n",
            "logs.release = \"debug-only\" releases lines in debug mode alone",
        ),
        (
            "command = [\"/app\", \"--fast\"]\n",
            "workload.command is passed to the image's entrypoint, `/app`: to run it by itself, set workload.entrypoint = []",
        ),
        (
            "[network]\negress = [\"a.example:443\", \"127.0.0.1:443\"]\n",
            "the egress rule `127.0.0.1:443` is for the parent's own loopback address, and only through the proxy, which this enclave does not have: set network.proxy = true",
        ),
        (
            "[network]\negress = [\"127.0.0.1:443\"]\nproxy = true\n",
            "the egress rule `127.0.0.1:443` is for the parent's own loopback address, and only through the proxy; what",
        ),
        (
            "[network]\negress = [\"localhost:443\"]\n",
            "the egress rule `localhost:443` is for the parent's own",
        ),
        (
            "aws_credentials = true\n",
            "workload.aws_credentials is of no use to a workload that can connect to nothing",
        ),
    ] {
        let said = notes(tables);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with(expected), "{said:?}");
    }
}

#[test]
fn notes_are_not_about_what_is_as_it_seems() {
    for tables in [
        "",
        "entrypoint = []\ncommand = [\"/app\"]\n",
        "entrypoint = [\"/app\"]\n",
        "[logs]\nrelease = \"debug-only\"\n[attestation]\nallow_debug = true\n",
        "[logs]\nrelease = \"debug-only\"\n[attestation]\nself_check = \"report\"\n",
        "aws_credentials = true\n[network]\naws_services = [\"kms\"]\n",
        "[network]\negress = [\"10.0.0.1:443\", \"*.localhost.example:443\"]\n",
    ] {
        assert_eq!(notes(tables), [""; 0], "{tables}");
    }
}

#[test]
fn notes_name_fields_of_the_image_without_effect() {
    let mut image = Image::new(&[app()])
        .with("ExposedPorts", json!({ "80/tcp": {} }))
        .with(
            "Healthcheck",
            json!({ "Test": ["CMD", "/app", "-q"], "StartInterval": 1_000_000_000 }),
        )
        .with("Labels", json!({ "maintainer": "somebody" }))
        .with("Surprise", json!(true));
    image.config["history"] = json!([{ "created_by": "COPY" }]);
    let (_, notes) = Project::of(&image).build_with_notes();
    for (note, part) in notes.iter().zip([
        "the image's HEALTHCHECK probes the workload: `/app -q`, every 30s; its start interval is not used; the enclave is ready once it has succeeded, and ends if it has not within 10m",
        "the image exposes 80/tcp, which no rule of network.ingress leads to",
        "as image-builder does not know them: config.Surprise",
    ]) {
        assert!(note.contains(part), "{note}");
    }
    assert_eq!(notes.len(), 3, "{notes:?}");
}

#[test]
fn notes_name_a_proxy_of_the_images_environment_and_not_its_password() {
    let mut image = Image::new(&[app()]);
    image.config["config"]["Env"] = json!(["http_proxy=http://user:hush@corp:3128"]);
    let project = Project::of(&image);
    let (_, notes) = project.build_with_notes();
    let expected = "the image sets http_proxy: the workload's programs will ask that proxy";
    assert!(
        notes.iter().any(|note| note.starts_with(expected)),
        "{notes:?}"
    );
    assert!(!notes.concat().contains("hush"), "{notes:?}");
    project.manifest("[workload]\nenv = { http_proxy = \"\" }\n");
    let (_, notes) = project.build_with_notes();
    assert!(!notes.concat().contains("proxy"), "{notes:?}");
}

#[test]
fn a_configuration_that_is_too_large_names_its_largest_part() {
    let project = Project::new();
    // Each has less than a policy's file may have, and all have more than the
    // configuration.
    let values: Vec<_> = (1..=600).map(|value| format!("\"{value:096x}\"")).collect();
    let values = values.join(", ");
    project.write("large.toml", format!("[pcrs]\n0 = [{values}]\n"));
    let peers: Vec<_> = (0..5)
        .map(|number| {
            format!("[[attestation.peers]]\nname = \"p{number}\"\npolicy = \"large.toml\"\n")
        })
        .collect();
    let peers = peers.concat();
    project.manifest(&peers);
    let words = [
        "enclave.toml:5: ",
        "most of them are [attestation]'s",
        "the peers' policies",
    ];
    project.refused(2, &words);

    // The manifest has a limit, too: the image's environment is beside it.
    let long = "x".repeat(100_000);
    let mut image = Image::new(&[app()]);
    image.config["config"]["Env"] = json!([format!("A={long}")]);
    let project = Project::of(&image);
    project.manifest(&format!(
        "[workload]\nentrypoint = [\"/app\", \"{long}\"]\nenv = {{ B = \"{long}\" }}\n"
    ));
    project.refused(
        2,
        &[
            "enclave.toml:5: ",
            "[workload]'s",
            "the command and the environment",
        ],
    );
}
