//! What the workload may and may not do, as far as `sim` confines it.

use link::logs::LogStream;
use serde_json::{Value, json};

use crate::enclave::{Enclave, Image, ending_with_code};

/// What the workload says after these instructions.
async fn said(instructions: &[&str], confinement: Value, uid: u32) -> (Enclave, Vec<String>) {
    let mut instructions = instructions.to_vec();
    instructions.extend(["say end", "wait"]);
    let image = Image::new(&instructions)
        .with("/confinement", confinement)
        .with("/workload/user", json!({"uid": uid, "gid": uid}));
    let (enclave, control) = image.boot().await;
    enclave.said("end").await;
    // The enclave is asked for nothing more, but it ends without its agent.
    std::mem::forget(control);
    let lines = enclave.lines(LogStream::Application);
    (enclave, lines)
}

fn expect(lines: &[String], expected: &[&str]) {
    for expected in expected {
        assert!(
            lines.iter().any(|line| line == expected),
            "{expected}: {lines:#?}"
        );
    }
}

#[tokio::test]
async fn confinement_leaves_no_privileges() {
    for uid in [0, 1000] {
        let (_enclave, lines) = said(&["status"], json!({}), uid).await;
        let none = "0000000000000000";
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            expect(&lines, &[&format!("status {set} {none}")]);
        }
        expect(&lines, &["status NoNewPrivs 1", "status Seccomp 2"]);
    }
}

#[tokio::test]
async fn confinement_capabilities_are_those_that_are_named() {
    // CHOWN and NET_BIND_SERVICE.
    let named = "0000000000000401";
    let confinement = json!({"capabilities": ["NET_BIND_SERVICE", "CHOWN"]});
    for uid in [0, 1000] {
        let (_enclave, lines) = said(&["status"], confinement.clone(), uid).await;
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            expect(&lines, &[&format!("status {set} {named}")]);
        }
    }
    let container = json!({"profile": "container"});
    let (_enclave, lines) = said(&["status"], container.clone(), 0).await;
    // Docker's a80425fb without MKNOD.
    expect(
        &lines,
        &[
            "status CapEff 00000000a00425fb",
            "status CapBnd 00000000a00425fb",
        ],
    );
    let (_enclave, lines) = said(&["status"], container, 1000).await;
    expect(&lines, &["status CapEff 0000000000000000"]);
}

#[tokio::test]
async fn confinement_refuses_what_leads_out() {
    for (uid, confinement) in [
        (0, json!({})),
        (1000, json!({})),
        (0, json!({"profile": "container"})),
    ] {
        let instructions = [
            "try unix inet inet6 netlink low_port unshare_files",
            "try vsock alg packet io_uring ptrace process_vm user_namespace network_namespace",
            "try clone_namespace clone3 setns mount umount reboot clock bpf perf keyring module",
            "try kexec handle unknown device",
        ];
        let (_enclave, lines) = said(&instructions, confinement, uid).await;
        expect(
            &lines,
            &[
                "try unix: done",
                "try inet: done",
                "try inet6: done",
                "try netlink: done",
                "try low_port: done",
                "try unshare_files: done",
                "try vsock: EAFNOSUPPORT",
                "try alg: EAFNOSUPPORT",
                "try packet: EAFNOSUPPORT",
                "try io_uring: ENOSYS",
                "try ptrace: EPERM",
                "try process_vm: EPERM",
                "try user_namespace: EPERM",
                "try network_namespace: EPERM",
                "try clone_namespace: EPERM",
                "try clone3: ENOSYS",
                "try setns: EPERM",
                "try mount: EPERM",
                "try umount: EPERM",
                "try reboot: EPERM",
                "try clock: EPERM",
                "try bpf: EPERM",
                "try perf: EPERM",
                "try keyring: ENOSYS",
                "try module: EPERM",
                "try kexec: EPERM",
                "try handle: EPERM",
                "try unknown: ENOSYS",
                "try device: EPERM",
            ],
        );
    }
}

#[tokio::test]
async fn confinement_makes_exceptions_that_are_named() {
    let confinement = json!({"allow": ["user-namespaces"]});
    let instructions = ["try vsock io_uring ptrace clone3 user_namespace"];
    let (_enclave, lines) = said(&instructions, confinement, 0).await;
    expect(
        &lines,
        &[
            "try vsock: EAFNOSUPPORT",
            "try io_uring: ENOSYS",
            "try ptrace: EPERM",
            "try clone3: EINVAL",
            "try user_namespace: done",
        ],
    );
}

#[tokio::test]
async fn confinement_profile_of_containers_lets_root_change_owners_and_roots() {
    let instructions = ["try chroot"];
    let (_enclave, lines) = said(&instructions, json!({}), 0).await;
    expect(&lines, &["try chroot: EPERM"]);
    let (_enclave, lines) = said(&instructions, json!({"profile": "container"}), 0).await;
    expect(&lines, &["try chroot: done"]);
}

#[tokio::test]
async fn confinement_hides_the_machine() {
    let instructions = [
        "list /dev",
        "list /proc/self/fd",
        "list /proc/acpi",
        "open /proc/kcore /proc/interrupts",
        "write /proc/sys/kernel/hostname /proc/sysrq-trigger",
    ];
    let (_enclave, lines) = said(&instructions, json!({}), 0).await;
    expect(
        &lines,
        &[
            "list /dev: fd full null ptmx pts random shm stderr stdin stdout tty urandom zero",
            // The fourth is the folder itself.
            "list /proc/self/fd: 0 1 2 3",
            "open /proc/interrupts: 0",
            "write /proc/sys/kernel/hostname: EROFS",
        ],
    );
    // The host's kernel may have the file or not.
    for (file, answers) in [
        ("open /proc/kcore", ["0", "ENOENT"]),
        ("write /proc/sysrq-trigger", ["EROFS", "ENOENT"]),
    ] {
        let line = lines.iter().find(|line| line.starts_with(file)).unwrap();
        assert!(
            answers.iter().any(|answer| line.ends_with(answer)),
            "{line}"
        );
    }
}

#[tokio::test]
async fn confinement_keeps_processes_and_signals_to_themselves() {
    let instructions = [
        "status",
        "signal 1 SIGTERM",
        "signal 1 SIGKILL",
        "signal -1 SIGUSR1",
        "say end",
        "wait",
    ];
    let with_reaper = ["open /proc/1/environ", "orphans 3"];
    for has_reaper in [false, true] {
        let mut instructions = instructions.to_vec();
        let mut image = Image::new(&instructions);
        if has_reaper {
            instructions.splice(4..4, with_reaper);
            image = Image::new(&instructions).with_reaper();
        }
        let (mut enclave, control) = image.boot().await;
        enclave.said("end").await;
        std::mem::forget(control);
        let lines = enclave.lines(LogStream::Application);
        // Its parent is the init, outside.
        expect(
            &lines,
            &["status PPid 0", "signal 1: done", "signal -1: ESRCH"],
        );
        if has_reaper {
            expect(&lines, &["status Pid 2", "no process is left"]);
            let line = lines.iter().find(|line| line.contains("environ"));
            let line = line.unwrap();
            assert!(
                line.ends_with("EACCES") || line.ends_with("EPERM"),
                "{line}"
            );
        } else {
            expect(&lines, &["status Pid 1"]);
        }
        assert!(
            enclave.launcher.try_wait().unwrap().is_none(),
            "it still runs"
        );
    }
}

#[tokio::test]
async fn confinement_bounds_files_in_memory() {
    let confinement = json!({"tmp_mib": 3, "run_mib": 2, "shm_mib": 1});
    let (_enclave, lines) = said(&["room /tmp /run /dev/shm"], confinement, 0).await;
    expect(
        &lines,
        &["room /tmp: 3", "room /run: 2", "room /dev/shm: 1"],
    );
}

#[tokio::test]
async fn confinement_says_under_sim_that_memory_and_processes_have_no_limits() {
    let (enclave, _) = said(&[], json!({"pids": 9}), 0).await;
    let lines = enclave.lines(LogStream::System);
    let wanted = "under sim nothing limits the workload's memory and processes";
    let found: Vec<_> = lines.iter().filter(|line| line.contains(wanted)).collect();
    assert!(
        matches!(*found, [line] if line.ends_with(" MiB and 9 processes")),
        "{lines:?}"
    );
}

#[tokio::test]
async fn confinement_can_keep_the_images_files_as_they_are() {
    let instructions = [
        "write /new /etc/hostname /etc/hosts /tmp/a /run/a /dev/shm/a",
        "show /etc/hostname",
    ];
    let (_enclave, lines) = said(&instructions, json!({"read_only_root": true}), 0).await;
    expect(
        &lines,
        &[
            "write /new: EROFS",
            "write /etc/hostname: EROFS",
            "write /etc/hosts: EROFS",
            "write /tmp/a: done",
            "write /run/a: done",
            "write /dev/shm/a: done",
            "\"test\\n\"",
        ],
    );
    let (_enclave, lines) = said(&["write /new"], json!({}), 0).await;
    expect(&lines, &["write /new: done"]);
}

#[tokio::test]
async fn confinement_leaves_no_core_files() {
    let (_enclave, lines) = said(&["show /proc/self/limits"], json!({}), 0).await;
    let limits = lines.iter().find(|line| line.contains("Max core")).unwrap();
    let limits: Vec<_> = limits.split("\\n").collect();
    let core = limits
        .iter()
        .find(|line| line.starts_with("Max core"))
        .unwrap();
    let words: Vec<_> = core.split_whitespace().collect();
    assert_eq!(words[..6], ["Max", "core", "file", "size", "0", "0"]);
}

/// An enclave whose workload, root with namespaces of its own, first does this.
fn usurping(how: &str) -> Image {
    // It ends after the attempt.
    let usurp = format!("first usurp {how}");
    let instructions = [
        usurp.as_str(),
        "look",
        "status",
        "list /dev",
        "say end",
        "wait",
    ];
    Image::new(&instructions)
        .with("/confinement", json!({"allow": ["user-namespaces"]}))
        .with_reaper()
        .restarted(3)
}

#[tokio::test]
async fn confinement_view_is_made_anew_when_the_workload_has_removed_it() {
    let (enclave, control) = usurping("program").boot().await;
    enclave.said("end").await;
    std::mem::forget(control);
    let lines = enclave.lines(LogStream::Application);
    expect(
        &lines,
        &[
            // It was in the workload's power.
            "remove proc: Ok(())",
            "remove dev: Ok(())",
            "input \"\"",
            "reign false",
            "status Pid 2",
            "status PPid 0",
            "status Seccomp 2",
            "list /dev: fd full null ptmx pts random shm stderr stdin stdout tty urandom zero",
        ],
    );
}

/// The link leads to the root of PID 1 of the workload's namespace, which is the init's.
#[tokio::test]
async fn confinement_is_not_left_by_the_working_directory() {
    for target in ["/proc/1/root", "/proc/self/cwd"] {
        let relink = format!("first relink /srv {target}");
        let (enclave, mut control) = Image::new(&[&relink, "say inside", "wait"])
            .file("srv/kept", "")
            .with("/workload/working_directory", "/srv".into())
            .restarted(3)
            .boot()
            .await;
        let (_, detail, code) = ending_with_code(&mut control).await;
        assert_eq!(code, "workload.start", "{detail}");
        assert!(detail.contains("working directory"), "{detail}");
        assert!(detail.contains("symbolic link"), "{detail}");
        assert!(enclave.lines(LogStream::Application).is_empty());
    }
}

#[tokio::test]
async fn confinement_keeps_shared_memory_and_queues_from_the_next_run() {
    let instructions = [
        "try shared_memory message_queue semaphores",
        "first exit 0",
        "say end",
        "wait",
    ];
    let (enclave, control) = Image::new(&instructions).restarted(1).boot().await;
    enclave.said("end").await;
    std::mem::forget(control);
    let lines = enclave.lines(LogStream::Application);
    // Another of the same name is made by each of the two runs.
    for kind in ["shared_memory", "message_queue", "semaphores"] {
        let made = format!("try {kind}: done");
        let count = lines.iter().filter(|line| **line == made).count();
        assert_eq!(count, 2, "{kind}: {lines:#?}");
    }
}

#[tokio::test]
async fn confinement_follows_no_link_that_the_workload_has_planted() {
    let (enclave, mut control) = usurping("links").boot().await;
    let (_, detail, code) = ending_with_code(&mut control).await;
    assert_eq!(code, "workload.start", "{detail}");
    assert!(detail.contains("mounting its /proc"), "{detail}");
    assert!(detail.contains("not a folder"), "{detail}");
    drop(enclave);
}
