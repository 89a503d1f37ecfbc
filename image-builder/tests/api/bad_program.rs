//! Workloads that could not be started, found when the image is built.

use serde_json::json;

use crate::image::{Image, app};
use crate::layer::{Layer, dynamic_elf, elf, elf_for};
use crate::project::{MANIFEST, Project};

#[track_caller]
fn refused(image: &Image, more: &str, words: &[&str]) {
    let project = Project::of(image);
    project.manifest(more);
    let line = project.refused(2, words);
    assert!(line.contains("enclave.toml:"), "{line}");
}

#[track_caller]
fn builds(layer: Layer) {
    Project::of(&Image::new(&[layer])).build();
}

#[test]
fn programs_that_are_not_there() {
    let layer = app().program("opt/server/bin/server", elf());
    let image = Image::new(&[layer]);
    let command = |program: &str| format!("[workload]\nentrypoint = [\"{program}\"]\n");
    let meant = "did you mean /opt/server/bin/server?";
    for (program, word) in [
        ("/server", meant),
        ("server", meant),
        ("./server", meant),
        (
            "/none",
            "set workload.entrypoint to a program that is in the image",
        ),
    ] {
        let words = ["enclave.toml:6: ", program, word];
        refused(&image, &command(program), &words);
    }
    refused(&image, &command("/opt"), &["/opt is not a file"]);
}

#[test]
fn images_that_say_nothing_of_a_program() {
    let image = Image::new(&[app()]).with("Entrypoint", json!(null));
    let words = ["no entrypoint and no command", "set workload.entrypoint"];
    refused(&image, "", &words);
    let nothing = "[workload]\nentrypoint = []\n";
    refused(&image, nothing, &["enclave.toml:6: there is no program"]);
    let image = Image::new(&[app()]).with("Entrypoint", json!([""]));
    refused(&image, "", &["the program, is empty"]);
    // The image's command is for the image's entrypoint.
    let image = Image::new(&[app()]).with("Cmd", json!(["/app"]));
    refused(&image, nothing, &["there is no program"]);
    let empty = "[workload]\nentrypoint = []\ncommand = [\"\", \"x\"]\n";
    refused(&image, empty, &["enclave.toml:7: ", "is empty"]);
}

#[test]
fn programs_that_are_not_executable() {
    let image = Image::new(&[Layer::new().file("app", elf())]);
    refused(&image, "", &["/app is not executable", "chmod +x"]);
    let layer = app().with(|entry| (entry.mode, entry.uid) = (0o700, 5));
    let image = Image::new(&[layer]);
    let words = [
        "/app is not executable for user 9:9",
        "belongs to 5:0",
        "0700",
    ];
    refused(&image, "[workload]\nuser = \"9:9\"\n", &words);
    let words = ["user 0:0, who is root without root's capabilities"];
    refused(&image, "", &words);
    for table in [
        "[workload]\nuser = \"5\"\n",
        "[confinement]\nprofile = \"container\"\n",
    ] {
        let project = Project::of(&image);
        project.manifest(table);
        let output = project.command().output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn programs_in_folders_that_are_closed_to_their_user() {
    let layer = app()
        .file("etc/passwd", "app:x:9:9::/:/bin/sh\n")
        .file("etc/group", "tls:x:101:app\n")
        .directory("opt")
        .with(|entry| (entry.mode, entry.gid) = (0o750, 101))
        .program("opt/server", elf())
        .with(|entry| (entry.mode, entry.gid) = (0o750, 101))
        .directory("srv")
        .symlink("srv/link", "../opt/server")
        .program("script", "#!/opt/server\n");
    let image = Image::new(&[layer]);
    let workload = |user: &str, program: &str, folder: &str| {
        format!(
            "[workload]\nuser = \"{user}\"\nentrypoint = [\"{program}\"]\nworking_directory = \"{folder}\"\nenv = {{ PATH = \"/none:/opt\" }}\n"
        )
    };
    for program in ["/opt/server", "/srv/link", "server", "/script"] {
        // The group is named, so the others do not count.
        refused(
            &image,
            &workload("app:9", program, "/"),
            &[
                "is in a folder that is closed to user 9:9: /opt belongs to 0:101 and has the mode 0750",
                "workload.user",
            ],
        );
        for user in ["app", "9:tls"] {
            let project = Project::of(&image);
            project.manifest(&workload(user, program, "/"));
            project.build();
        }
    }
    // The init enters the working directory, whose own folder need not be open.
    let layer = app()
        .directory("opt")
        .with(|entry| entry.mode = 0o700)
        .directory("opt/app")
        .program("opt/app/server", elf());
    let image = Image::new(&[layer]);
    let project = Project::of(&image);
    project.manifest(&workload("9", "./server", "/opt/app"));
    project.build();
    refused(
        &image,
        &workload("9", "/opt/app/server", "/opt/app"),
        &["/opt belongs to 0:0"],
    );
}

#[test]
fn programs_that_linux_cannot_execute() {
    for (contents, word) in [
        (b"".to_vec(), "neither a 64-bit ELF program nor a script"),
        (b"MZ".to_vec(), "neither a 64-bit ELF program nor a script"),
        (elf_for(183), "not built for x86_64"),
        (elf_for(3), "not built for x86_64"),
        (
            dynamic_elf("/lib64/ld-linux-x86-64.so.2"),
            "needs the loader /lib64/ld-linux-x86-64.so.2",
        ),
    ] {
        let image = Image::new(&[Layer::new().program("app", contents)]);
        refused(&image, "", &["/app ", word]);
    }
    builds(
        Layer::new()
            .program("app", dynamic_elf("/lib/ld.so"))
            .program("usr/lib/ld.so", elf())
            .symlink("lib", "usr/lib"),
    );
}

#[test]
fn scripts_whose_interpreter_cannot_be_executed() {
    let script = |line: &str| Layer::new().program("app", line);
    for (layer, word) in [
        (
            script("#!/bin/sh\n"),
            "script for `/bin/sh`, which the image does not have",
        ),
        (script("#!\n"), "script for ``"),
        (
            script("#! /bin/sh -e\n").program("bin/sh", "not a program"),
            "/bin/sh is neither",
        ),
        (
            script("#!/bin/sh\n").file("bin/sh", elf()),
            "/bin/sh is not executable",
        ),
        (
            script("#!/bin/sh\n").program("bin/sh", dynamic_elf("/ld")),
            "/bin/sh needs the loader /ld",
        ),
        (
            script("#!/bin/sh\r\n").program("bin/sh", elf()),
            "Windows line ends",
        ),
        (script("#!/app\n"), "a script for a script"),
        (
            script("#!/usr/bin/env python3\n").program("usr/bin/env", elf()),
            "`python3`",
        ),
    ] {
        refused(&Image::new(&[layer]), "", &[word]);
    }
    builds(
        script("#! /bin/sh -e\n")
            .program("bin/busybox", elf())
            .symlink("bin/sh", "busybox"),
    );
    builds(
        script("#!/usr/bin/env python3\n")
            .program("usr/bin/env", elf())
            .program("usr/local/bin/python3", elf()),
    );
}

#[test]
fn working_directories_that_are_not_there() {
    let words = ["does not exist", "workload.working_directory"];
    let image = Image::new(&[app()]).with("WorkingDir", json!("/app"));
    refused(&image, "", &[&["/app"][..], &words].concat());
    // Only the image's own is made.
    let image = Image::new(&[app()]);
    let table = "[workload]\nworking_directory = \"/srv\"\n";
    refused(
        &image,
        table,
        &[&["enclave.toml:6: ", "/srv"][..], &words].concat(),
    );
    let image = Image::new(&[app()]).with("WorkingDir", json!("srv"));
    refused(&image, "", &["the image's working_directory `srv`"]);
}

#[test]
fn users_that_are_not_there() {
    let passwd = "a:x:4294967295:1::/:/bin/sh\n";
    let image = Image::new(&[app().file("etc/passwd", passwd)]);
    let workload = |user: &str| format!("[workload]\nuser = \"{user}\"\n");
    refused(
        &image,
        &workload("b"),
        &["enclave.toml:6: ", "`b`", "/etc/passwd"],
    );
    refused(&image, &workload("a"), &["`a`", "/etc/passwd"]);
    refused(&image, &workload("1:g"), &["`g`", "/etc/group"]);
    let image = Image::new(&[app()]).with("User", json!("b c"));
    refused(&image, "", &["the image's user `b c`"]);
    let image = Image::new(&[app().file("etc/passwd", vec![b'\n'; (1 << 20) + 1])]);
    refused(&image, &workload("b"), &["/etc/passwd", "1048576 bytes"]);
}

#[test]
fn stop_signals_that_linux_does_not_have() {
    let image = Image::new(&[app()]).with("StopSignal", json!("SIGBYE"));
    refused(
        &image,
        "",
        &[
            "the image's StopSignal: `SIGBYE` is not a signal",
            "`SIGQUIT`",
        ],
    );
    refused(
        &image,
        "[workload]\nstop_signal = \"33\"\n",
        &["enclave.toml:6: ", "`33` is not a signal"],
    );
    let project = Project::of(&image.with("StopSignal", json!("")));
    project.build();
}

#[test]
fn images_that_do_not_fit_into_the_memory() {
    let noise: Vec<u8> = {
        // Not compressible: a linear congruential generator.
        let mut state: u64 = 1;
        let next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            u8::try_from(state >> 56).unwrap()
        };
        std::iter::repeat_with(next).take(17 << 20).collect()
    };
    let image = Image::new(&[app().file("noise", noise)]);
    let words = [
        "enclave.toml:4: ",
        "the enclave image has 18 MiB and its files take 18 MiB",
        "memory_mib to at least ",
    ];
    let project = Project::of(&image);
    let line = project.refused(2, &words);
    // What it says is enough.
    let needed = line.split("at least ").nth(1).unwrap();
    let needed = needed.split(' ').next().unwrap();
    let enough = MANIFEST.replace("= 64", &format!("= {needed}"));
    project.write("enclave.toml", enough);
    project.build();

    let image = Image::new(&[app().file("zeros", vec![0; 65 << 20])]);
    refused(
        &image,
        "",
        &[
            "enclave.toml:4: ",
            "the image's files take 66 MiB of memory",
            "enclave.memory_mib to at least 106 (it is 64)",
        ],
    );
}

#[test]
fn programs_of_probes_and_changes_that_are_not_there() {
    let image = Image::new(&[app().file("check", elf())]);
    for (command, word) in [
        (
            "/none",
            "set workload.health.command to a program that is in the image",
        ),
        ("/check", "/check is not executable"),
    ] {
        let health = format!("[workload]\nhealth = {{ command = [\"{command}\"] }}\n");
        refused(&image, &health, &["enclave.toml:6: ", word]);
        let image = Image::new(&[app().file("check", elf())])
            .with("Healthcheck", json!({"Test": ["CMD", command, "-q"]}));
        let words = ["the image's HEALTHCHECK: ", "disable = true"];
        refused(&image, "", &words);
    }
    let shell = Image::new(&[app()]).with("Healthcheck", json!({"Test": ["CMD-SHELL", "true"]}));
    refused(&shell, "", &["HEALTHCHECK: /bin/sh does not exist"]);
    let odd = Image::new(&[app()]).with("Healthcheck", json!({"Test": "true"}));
    refused(&odd, "", &["the image's HEALTHCHECK: it is not understood"]);
    let secrets = r#"
[[secrets]]
name = "token"
kms = { ssm = "/app/token" }
env = "TOKEN"
refresh = "1h"
on_change = { command = ["/none"] }
[kms]
endpoint = "https://kms.eu-west-1.amazonaws.com"
[workload]
aws_credentials = true
[network]
aws_services = ["kms", "ssm"]
"#;
    let words = ["/none does not exist", "set on_change.command"];
    refused(&image, secrets, &words);
}

#[test]
fn programs_that_are_systemd() {
    let layer = Layer::new()
        .program("usr/lib/systemd/systemd", elf())
        .symlink("usr/sbin/init", "../lib/systemd/systemd")
        .symlink("sbin", "usr/sbin")
        .program("s6-svscan", elf())
        .symlink("init", "s6-svscan");
    for program in ["/sbin/init", "/usr/lib/systemd/systemd"] {
        let image =
            Image::new(std::slice::from_ref(&layer)).with("Entrypoint", json!([program, "--x"]));
        let words = [program, "is systemd", "s6-overlay, tini or dumb-init"];
        refused(&image, "", &words);
    }
    let image = Image::new(&[layer]).with("Entrypoint", json!(["/init"]));
    Project::of(&image).build();
}
