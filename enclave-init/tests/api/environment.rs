//! What the workload finds around itself.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use link::logs::LogStream;
use serde_json::json;

use crate::enclave::{Enclave, Image};

async fn surroundings(image: Image) -> (Enclave, Vec<String>) {
    let (enclave, _control) = image.boot().await;
    enclave.said("SigBlk").await;
    let lines = enclave.lines(LogStream::Application);
    (enclave, lines)
}

#[tokio::test]
async fn environment_has_folder_name_limits_and_nothing_to_read() {
    let image = Image::new(&["surroundings", "wait"])
        .file("srv/app/file", "")
        .with("/workload/working_directory", json!("/srv/app"));
    let (_enclave, lines) = surroundings(image).await;
    for expected in [
        "folder /srv/app",
        "host \"test\"",
        "input 0",
        "leader true",
        "Umask:\t0022",
        "SigBlk:\t0000000000000000",
    ] {
        assert!(
            lines.iter().any(|line| line == expected),
            "{expected}: {lines:#?}"
        );
    }
    let limit = lines
        .iter()
        .find(|line| line.starts_with("descriptors"))
        .unwrap();
    let soft: u64 = limit.split(' ').nth(1).unwrap().parse().unwrap();
    let (_, hard) =
        nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    assert!(soft >= hard.min(65_536), "{limit}");
}

#[tokio::test]
async fn user_is_whom_the_workload_runs_as() {
    for (uid, gid) in [(0, 0), (1000, 100), (65534, 65534)] {
        let image = Image::new(&["surroundings", "wait"])
            .with("/workload/user", json!({"uid": uid, "gid": gid}));
        let (_enclave, lines) = surroundings(image).await;
        assert_eq!(lines[0], format!("uid {uid} gid {gid}"));
    }
}

#[tokio::test]
async fn environment_is_the_images_and_the_inits() {
    let image = Image::new(&["surroundings", "wait"]).with(
        "/workload/env",
        json!({"A": "two words = \"quoted\"", "HOSTNAME": "other"}),
    );
    let (_enclave, lines) = surroundings(image).await;
    let mut variables: Vec<_> = lines
        .iter()
        .filter_map(|line| line.strip_prefix("variable "))
        .collect();
    variables.sort_unstable();
    assert_eq!(
        variables,
        [
            "A=two words = \"quoted\"",
            "ENCLAVE_API=http://198.18.0.1:7070",
            "ENCLAVE_RUNTIME_CONFIG=/run/enclave/runtime-config",
            "HOSTNAME=test",
        ]
    );
}

/// The variables of these that the workload has.
fn proxies(lines: &[String]) -> Vec<&str> {
    let variables = lines
        .iter()
        .filter_map(|line| line.strip_prefix("variable "));
    let mut found: Vec<_> = variables
        .filter(|line| line.to_ascii_lowercase().contains("proxy"))
        .collect();
    found.sort_unstable();
    found
}

#[tokio::test]
async fn proxy_is_named_to_the_workload_only_if_the_image_has_one() {
    let image =
        Image::new(&["surroundings", "wait"]).with("/network/egress", json!(["a.test:443"]));
    let (_enclave, lines) = surroundings(image).await;
    assert_eq!(proxies(&lines), [""; 0]);
    let image = Image::new(&["surroundings", "wait"])
        .with("/workload/env", json!({"https_proxy": "http://mine:1"}))
        .with("/network/proxy", json!(true))
        .with("/network/egress", json!(["a.test:443"]));
    let (_enclave, lines) = surroundings(image).await;
    // What the image sets is whole: another spelling beside it would be another proxy.
    assert_eq!(
        proxies(&lines),
        [
            "HTTP_PROXY=http://198.18.0.1:3128",
            "NO_PROXY=localhost,127.0.0.1,::1,198.18.0.1,169.254.170.2,test",
            "http_proxy=http://198.18.0.1:3128",
            "https_proxy=http://mine:1",
            "no_proxy=localhost,127.0.0.1,::1,198.18.0.1,169.254.170.2,test",
        ]
    );
}

#[tokio::test]
async fn proxy_is_never_asked_for_what_is_inside_whatever_the_image_excepts() {
    const INSIDE: &str = "localhost,127.0.0.1,::1,198.18.0.1,169.254.170.2,test";
    for (set, upper, lower) in [
        (
            json!({"NO_PROXY": "corp.example"}),
            "corp.example,",
            "corp.example,",
        ),
        (json!({"NO_PROXY": "a", "no_proxy": "b"}), "a,", "b,"),
        (json!({"NO_PROXY": "", "no_proxy": "b"}), "b,", "b,"),
        (json!({"no_proxy": ""}), "", ""),
    ] {
        let image = Image::new(&["surroundings", "wait"])
            .with("/workload/env", set)
            .with("/network/proxy", json!(true))
            .with("/network/egress", json!(["a.test:443"]));
        let (_enclave, lines) = surroundings(image).await;
        let expected = [
            format!("NO_PROXY={upper}{INSIDE}"),
            format!("no_proxy={lower}{INSIDE}"),
        ];
        for expected in expected {
            let proxies = proxies(&lines);
            assert!(proxies.contains(&&*expected), "{expected}: {proxies:#?}");
        }
    }
    let image = Image::new(&["surroundings", "wait"])
        .with("/workload/env", json!({"no_proxy": "*"}))
        .with("/network/proxy", json!(true))
        .with("/network/egress", json!(["a.test:443"]));
    let (_enclave, lines) = surroundings(image).await;
    let exceptions = proxies(&lines).into_iter();
    let exceptions: Vec<_> = exceptions
        .filter(|line| line.to_ascii_lowercase().starts_with("no_proxy"))
        .collect();
    assert_eq!(exceptions, ["NO_PROXY=*", "no_proxy=*"]);
}

#[tokio::test]
async fn command_arguments_arrive_as_they_are() {
    let arguments = [
        "arguments",
        "wait",
        "two words",
        "\"quoted\" 'twice'",
        "",
        "$HOME *",
        "\u{e9}\n",
    ];
    let (enclave, _control) = Image::new(&arguments).boot().await;
    enclave.said(&format!("{arguments:?}")).await;
}

#[tokio::test]
async fn environment_has_files_with_names() {
    let image = Image::new(&[
        "show /etc/resolv.conf",
        "show /etc/hostname",
        "show /etc/hosts",
        "wait",
    ])
    .file("etc/resolv.conf", "nameserver 192.0.2.1\n");
    let (enclave, _control) = image.boot().await;
    enclave.said("127.0.0.1 localhost test").await;
    let lines = enclave.lines(LogStream::Application);
    assert!(
        lines[0].starts_with("\"nameserver 198.18.0.1\\n"),
        "{lines:?}"
    );
    assert_eq!(lines[1], "\"test\\n\"");
}

#[tokio::test]
async fn environment_shows_what_may_be_read_of_the_system() {
    let image = Image::new(&[
        "show /proc/sys/net/ipv4/ip_unprivileged_port_start",
        "print /sys/kernel/notes /dev/null",
        "say",
        "wait",
    ]);
    let (enclave, _control) = image.boot().await;
    enclave.said("\"0\\n\"").await;
}

#[tokio::test]
async fn environment_has_what_the_image_has_in_run() {
    let image = Image::new(&[
        "show /run/server/settings",
        "show /run/enclave/runtime-config",
        "say shown",
        "wait",
    ])
    .file("run/server/settings", "port 80")
    .file("run/enclave/runtime-config", "the image's");
    let (enclave, _control) = image.boot().await;
    enclave.said("shown").await;
    let lines = enclave.lines(LogStream::Application);
    assert_eq!(lines[0], "\"port 80\"");
    // The folder is the init's, and the configuration the parent's.
    assert!(!lines[1].contains("the image's"), "{}", lines[1]);
}

#[tokio::test]
async fn environment_has_what_the_image_has_in_tmp() {
    let instructions = [
        "show /tmp/cache/left",
        "mode /tmp /run",
        "write /tmp/new /new",
        "say shown",
        "wait",
    ];
    for read_only in [false, true] {
        let image = Image::new(&instructions)
            .file("tmp/cache/left", "of the build")
            .file("run/file", "")
            .with("/confinement", json!({"read_only_root": read_only}));
        let prepared = image.prepare();
        for (path, mode) in [("tmp", 0o1770), ("run", 0o1771)] {
            let path = prepared.folder.path().join("tree/rootfs").join(path);
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        }
        let mut enclave = prepared.start();
        let _control = enclave.control().await;
        enclave.said("shown").await;
        let new = if read_only { "EROFS" } else { "done" };
        assert_eq!(
            enclave.lines(LogStream::Application),
            [
                "\"of the build\"",
                "mode /tmp: 1770",
                "mode /run: 1771",
                "write /tmp/new: done",
                &format!("write /new: {new}"),
                "shown",
            ]
        );
    }
}

#[tokio::test]
async fn environment_has_a_tmp_as_the_images_that_is_empty_or_not_there() {
    let instructions = ["mode /tmp", "room /tmp", "say shown", "wait"];
    for (made, mode) in [(Some(0o750), "750"), (None, "1777")] {
        let image = Image::new(&instructions).with("/confinement", json!({"tmp_mib": 3}));
        let prepared = image.prepare();
        if let Some(mode) = made {
            let tmp = prepared.folder.path().join("tree/rootfs/tmp");
            fs::create_dir(&tmp).unwrap();
            fs::set_permissions(&tmp, Permissions::from_mode(mode)).unwrap();
        }
        let mut enclave = prepared.start();
        let _control = enclave.control().await;
        enclave.said("shown").await;
        let mode = format!("mode /tmp: {mode}");
        let lines = [mode.as_str(), "room /tmp: 3", "shown"];
        assert_eq!(enclave.lines(LogStream::Application), lines);
    }
}
