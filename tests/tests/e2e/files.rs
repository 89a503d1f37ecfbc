//! The image's files, and those that the workload writes: as in an ordinary container, the
//! same under `sim` as in a machine.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::LazyLock;

use enclave_tests::{Agent, Hypervisor, Workload};

use crate::{PROGRAMS, under_both};

under_both!(files_are_as_in_an_ordinary_container);

const MEMORY: u64 = 256 << 20;

/// Root, whose files these may not be: they are those of whoever runs the tests.
const MANIFEST: &str = r#"
[enclave]
name = "files"
image = "rootfs:root"
memory_mib = 256

[workload]
entrypoint = ["/app"]
user = "0:0"

[network]
egress = []
ingress = [{ port = 8080, to = 8080 }]
"#;

static IMAGE: LazyLock<Workload> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("files");
    let build = || {
        write_root(&folder.join("root"));
        Workload::build_from(&PROGRAMS, &folder, "test-workload", &[], MANIFEST)
    };
    Workload::shared(&PROGRAMS, &folder, "test-workload", build).unwrap()
});

/// An image that has files where file systems are mounted in an enclave.
fn write_root(root: &Path) {
    let _ = fs::remove_dir_all(root);
    let at = |path: &str| root.join(path);
    for folder in ["tmp/cache", "run/lock", "var/tmp", "dev/shm"] {
        fs::create_dir_all(at(folder)).unwrap();
    }
    fs::copy(PROGRAMS.path("test-workload"), at("app")).unwrap();
    for (file, size) in [
        ("tmp/left", 3_000_000),
        ("tmp/cache/deep", 5),
        ("run/lock/file", 6),
        ("var/tmp/left", 7),
        ("dev/shm/left", 8),
    ] {
        fs::write(at(file), vec![b'x'; size]).unwrap();
    }
    fs::hard_link(at("tmp/cache/deep"), at("linked")).unwrap();
    for (path, mode) in [
        ("", 0o757),
        ("tmp", 0o1757),
        ("tmp/left", 0o640),
        ("tmp/cache", 0o755),
        ("tmp/cache/deep", 0o644),
        ("run", 0o757),
        ("run/lock", 0o1777),
        ("run/lock/file", 0o604),
        ("var", 0o755),
        ("var/tmp", 0o1775),
        ("var/tmp/left", 0o644),
    ] {
        fs::set_permissions(at(path), Permissions::from_mode(mode)).unwrap();
    }
}

async fn files_are_as_in_an_ordinary_container(hypervisor: Hypervisor) {
    let mut agent = Agent::start(&PROGRAMS, &IMAGE, hypervisor, "files", &[]).unwrap();
    for line in [
        "/tmp: 1757",
        "/tmp/left: 640, 3000000 bytes, 1 names",
        // In two folders, of which one might be another file system.
        "/tmp/cache/deep: 644, 5 bytes, 2 names",
        "/linked: 644, 5 bytes, 2 names",
        "/run: 757",
        "/run/lock: 1777",
        "/run/lock/file: 604, 6 bytes, 1 names",
        "/var/tmp: 1775",
        "/var/tmp/left: 644, 7 bytes, 1 names",
        // Hidden by a file system everywhere.
        "/dev/shm/left: none",
    ] {
        agent.line(line).await.unwrap();
    }
    for folder in ["/", "/tmp", "/run", "/dev/shm"] {
        let begin = format!("{folder} has ");
        let said = agent
            .event(|event| {
                event["stream"] == "application"
                    && event["text"]
                        .as_str()
                        .is_some_and(|text| text.starts_with(&begin))
            })
            .await
            .unwrap();
        let text = said["text"].as_str().unwrap();
        let mut numbers = text.split(' ').filter_map(|word| word.parse::<u64>().ok());
        let (free, total) = (numbers.next().unwrap(), numbers.next().unwrap());
        assert!(0 < free && free <= total && total < MEMORY, "{text}");
        for line in [
            "attributes: kept",
            "reserved 1048576 bytes, true in use",
            "more than there is: Err(ENOSPC), then 1048576 bytes",
            "full: StorageFull with 0 bytes left",
            "free again: true",
        ] {
            agent.line(&format!("{folder}: {line}")).await.unwrap();
        }
    }
    agent.line("listening").await.unwrap();
    let attested = agent.command("attest", &["--nonce", "c0ffee"]).await;
    assert!(!attested.unwrap().is_empty());
    assert_eq!(agent.stopped().await.unwrap().end()["cause"], "stopped");
}
