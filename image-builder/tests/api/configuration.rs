//! The workload's configuration in an image: the container image's, and the manifest's.

use manifest::{HealthProbe, MEASURED_CONFIG_PATH, MeasuredConfig};
use serde_json::json;

use crate::image::{Image, app};
use crate::project::Project;
use crate::ramdisk::{file, ramdisks};

/// What is measured of an image that is built without a note.
fn config(project: &Project) -> MeasuredConfig {
    measured(&project.build())
}

fn measured(image: &[u8]) -> MeasuredConfig {
    let application = ramdisks(image).pop().unwrap();
    MeasuredConfig::from_json(&file(&application, MEASURED_CONFIG_PATH)).unwrap()
}

#[test]
fn configuration_is_the_images_where_the_manifest_says_nothing() {
    let layer = app()
        .directory("srv")
        .file("etc/passwd", "web:x:33:44::/:/bin/sh\n")
        .file("etc/group", "log:x:55:\n");
    let image = Image::new(&[layer])
        .with("Cmd", json!(["--port", "80"]))
        .with("Env", json!(["PATH=/bin", "A=1", "A=2", "NONE", "E="]))
        .with("WorkingDir", json!("/srv"))
        .with("User", json!("web:log"))
        .with("StopSignal", json!("RTMIN+3"));
    let project = Project::of(&image);
    let workload = config(&project).workloads[0].clone();
    assert_eq!(*workload.command, ["/app", "--port", "80"]);
    let env: Vec<_> = workload.env.iter().collect();
    let expected = [("A", "2"), ("E", ""), ("HOME", "/"), ("PATH", "/bin")];
    let expected = expected.map(|(a, b)| (a.into(), b.into()));
    assert_eq!(
        env,
        expected
            .iter()
            .map(|(a, b)| (a, b))
            .collect::<Vec<(&String, &String)>>()
    );
    assert_eq!(workload.working_directory.as_str(), "/srv");
    assert_eq!(workload.stop_signal.to_string(), "SIGRTMIN+3");
    assert_eq!((workload.user.uid, workload.user.gid), (33, 55));

    project.manifest(
        "[workload]\nentrypoint = [\"app\"]\nenv = { PATH = \"/usr/bin:/\", B = \"3\" }\nuser = \"0\"\nworking_directory = \"/\"\nstop_signal = \"3\"\n",
    );
    let workload = config(&project).workloads[0].clone();
    assert_eq!(*workload.command, ["app"]);
    assert_eq!(workload.env["PATH"], "/usr/bin:/");
    assert_eq!(workload.env["A"], "2");
    assert_eq!(workload.env["B"], "3");
    assert_eq!(workload.working_directory.as_str(), "/");
    assert_eq!(workload.stop_signal.to_string(), "SIGQUIT");
    assert_eq!((workload.user.uid, workload.user.gid), (0, 0));
}

#[test]
fn configuration_that_an_image_leaves_out_has_dockers_defaults() {
    let mut image = Image::new(&[app()]);
    for absent in [json!(null), json!({})] {
        image.config["config"] = absent;
        let project = Project::of(&image);
        project.manifest("[workload]\ncommand = [\"/app\"]\n");
        let workload = config(&project).workloads[0].clone();
        assert_eq!((workload.user.uid, workload.user.gid), (0, 0));
        assert_eq!(workload.working_directory.as_str(), "/");
        assert_eq!(workload.stop_signal.to_string(), "SIGTERM");
        assert_eq!(workload.env.len(), 2);
        assert_eq!(workload.env["HOME"], "/");
        assert!(workload.env["PATH"].contains("/usr/local/bin"));
    }
}

#[test]
fn home_of_the_user_is_home_unless_somebody_sets_it() {
    let passwd = "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/srv/app:/bin/sh\n";
    let layer = app().file("etc/passwd", passwd);
    for (user, variables, more, home) in [
        ("", json!(null), "", "/root"),
        ("app", json!(null), "", "/srv/app"),
        ("1000:7", json!(null), "", "/srv/app"),
        ("4242", json!(null), "", "/"),
        ("app", json!(["HOME="]), "", "/srv/app"),
        ("app", json!(["HOME=/data"]), "", "/data"),
        ("app", json!(["HOME=/data"]), "user = \"0\"\n", "/data"),
        ("app", json!(null), "user = \"0\"\n", "/root"),
        (
            "app",
            json!(["HOME=/data"]),
            "env = { HOME = \"/own\" }\n",
            "/own",
        ),
    ] {
        let image = Image::new(std::slice::from_ref(&layer))
            .with("User", json!(user))
            .with("Env", variables);
        let project = Project::of(&image);
        project.manifest(&format!("[workload]\n{more}"));
        let workload = config(&project).workloads[0].clone();
        assert_eq!(workload.env["HOME"], home, "{user} {more}");
    }
}

#[test]
fn groups_of_the_user_are_those_that_list_it() {
    let layer = app()
        .file("etc/passwd", "root:x:0:0::/root:\napp:x:1000:1000::/:\n")
        .file(
            "etc/group",
            "root:x:0:root\nbin:x:1:root,daemon\nssl:x:101:app\napp:x:1000:app\n",
        );
    for (user, groups) in [
        ("", &[0, 1][..]),
        ("app", &[101, 1000]),
        ("1000", &[101, 1000]),
        ("app:ssl", &[]),
        ("1000:1000", &[]),
        ("4242", &[]),
    ] {
        let image = Image::new(std::slice::from_ref(&layer)).with("User", json!(user));
        let workload = config(&Project::of(&image)).workloads[0].clone();
        assert_eq!(*workload.groups, *groups, "{user}");
    }
}

#[test]
fn command_line_is_made_as_compose_makes_it() {
    let both = (json!(["/app", "-e"]), json!(["-c"]));
    let no_entrypoint = (json!(null), json!(["/app", "-c"]));
    let no_command = (json!(["/app", "-e"]), json!(null));
    for ((entrypoint, command), more, expected) in [
        (&both, "", &["/app", "-e", "-c"][..]),
        (&no_entrypoint, "", &["/app", "-c"]),
        (&no_command, "", &["/app", "-e"]),
        (&both, "command = [\"-x\"]", &["/app", "-e", "-x"]),
        (&both, "command = []", &["/app", "-e"]),
        (&no_entrypoint, "command = [\"/app\"]", &["/app"]),
        (&both, "entrypoint = [\"/app\"]", &["/app"]),
        (&no_entrypoint, "entrypoint = [\"/app\"]", &["/app"]),
        (
            &both,
            "entrypoint = [\"/app\", \"1\"]\ncommand = [\"2\"]",
            &["/app", "1", "2"],
        ),
        (&both, "entrypoint = []\ncommand = [\"/app\"]", &["/app"]),
    ] {
        let image = Image::new(&[app()])
            .with("Entrypoint", entrypoint.clone())
            .with("Cmd", command.clone());
        let project = Project::of(&image);
        project.manifest(&format!("[workload]\n{more}\n"));
        // A command for the image's entrypoint is noted.
        let (image, _) = project.build_with_notes();
        let command = measured(&image).workloads[0].command.clone();
        assert_eq!(*command, *expected, "{more}");
    }
}

#[test]
fn healthcheck_of_the_image_is_the_probe_unless_the_manifest_has_another() {
    let check = json!({
        "Test": ["CMD", "app", "-q"],
        "Interval": 5_000_000_000_u64,
        "Timeout": 2_000_000_000_u64,
        "Retries": 4,
    });
    let image = Image::new(&[app()])
        .with("Env", json!(["PATH=/"]))
        .with("Healthcheck", check);
    let project = Project::of(&image);
    let health = |more: &str| {
        project.manifest(more);
        let (image, lines) = project.build_with_notes();
        let noted = lines.iter().any(|line| line.contains("HEALTHCHECK"));
        (measured(&image).workloads[0].health.clone(), noted)
    };
    let (found, noted) = health("");
    let found = found.unwrap();
    let command = ["app", "-q"].map(str::to_owned).to_vec();
    let command = HealthProbe::Command(command.try_into().unwrap());
    assert_eq!(found.probe, command);
    assert_eq!(found.interval.to_string(), "5s");
    assert_eq!(found.timeout.to_string(), "2s");
    assert_eq!((found.failures, noted), (4, true));
    let (found, noted) = health("[workload]\nhealth = { tcp = 80, failures = 1 }\n");
    assert_eq!((found.unwrap().failures, noted), (1, false));
    assert_eq!(
        health("[workload]\nhealth = { disable = true }\n"),
        (None, false)
    );
    // It would end before it is asked.
    assert_eq!(health("[workload]\nkind = \"batch\"\n"), (None, true));
}

#[test]
fn init_of_the_manifest_is_measured() {
    let project = Project::new();
    assert!(!config(&project).workloads[0].init);
    project.manifest("[workload]\ninit = true\n");
    assert!(config(&project).workloads[0].init);
}
