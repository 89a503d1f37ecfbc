//! `bootstrap` on an [instance](crate::instance) that is a folder.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::agent::{LIMIT, command, error_line, output};
use crate::instance::{
    BOOT, FREE, IMAGE, Instance, MODPROBE, PAGES, POOL, SYSTEMCTL, configuration, pages,
};

/// Where a successful bootstrap ends.
async fn ready() -> BTreeMap<PathBuf, String> {
    let instance = Instance::new().await;
    assert!(instance.bootstrap(&[]).await.status.success());
    instance.state()
}

#[tokio::test]
async fn bootstrap_makes_a_bare_instance_ready_step_by_step() {
    let instance = Instance::new().await;
    let before = instance.state();
    let (plan, code) = instance.findings("bootstrap", &["--dry-run"]).await;
    assert_eq!(code, 0);
    assert_eq!(plan.len(), 6);
    assert!(plan.iter().all(|(_, state)| state == "todo"), "{plan:?}");
    let mut after = instance.state();
    after.retain(|path, _| !path.starts_with("run"));
    assert_eq!(after, before);

    let output = instance.bootstrap(&[]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    for step in ["driver", "memory", "cpus", "image", "unit", "service"] {
        assert!(text.contains(&format!("{step:<10}done")), "{text}");
    }
    assert_eq!(instance.read(PAGES), "512");
    assert_eq!(instance.read(POOL), "1,3");
    let unit = instance.read("etc/systemd/system/enclave@.service");
    assert!(
        unit.contains("--name %i --hypervisor nitro --image-dir"),
        "{unit}"
    );
    let log = instance.read("log");
    let order = [
        "daemon-reload",
        "enable enclave@test.service",
        "\nstart enclave@test.service",
    ];
    let places: Vec<_> = order.map(|call| log.find(call).unwrap()).into();
    assert!(places.is_sorted(), "{log}");

    // A second time there is nothing to do.
    let state = instance.state();
    let (findings, code) = instance.findings("bootstrap", &[]).await;
    assert_eq!(code, 0);
    assert!(
        findings.iter().all(|(_, state)| state == "ok"),
        "{findings:?}"
    );
    assert_eq!(instance.state(), state);
}

#[tokio::test]
async fn bootstrap_killed_at_every_step_runs_again_to_the_same_end() {
    let expected = ready().await;
    for moment in ["^nitro_enclaves", "daemon-reload", "^enable", "^start"] {
        let instance = Instance::new().await;
        instance.write("crash", moment);
        let killed = instance.bootstrap(&[]).await;
        assert_eq!(killed.status.code(), None, "{moment}");
        assert!(!instance.path("crash").exists(), "{moment}");
        let again = instance.bootstrap(&[]).await;
        assert!(again.status.success(), "{moment}");
        assert_eq!(instance.state(), expected, "{moment}");
    }
}

#[tokio::test]
async fn bootstrap_killed_while_it_fetches_runs_again_to_the_same_end() {
    let instance = Instance::new().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let mut command = instance.command("bootstrap", &[]);
    let mut child = command.env("AWS_ENDPOINT_URL", url).spawn().unwrap();
    let _asked = timeout(LIMIT, silent.accept()).await.unwrap().unwrap();
    child.kill().await.unwrap();
    assert!(instance.bootstrap(&[]).await.status.success());
    assert_eq!(instance.state(), ready().await);
}

/// Breaks an instance, or mends it.
type Change = fn(&Instance);

#[tokio::test]
async fn bootstrap_failures_have_codes_and_advice_and_are_no_dead_end() {
    let expected = ready().await;
    let failures: [(i32, &str, Change, Change); 6] = [
        (
            20,
            "EnclaveOptions",
            |it| it.program("modprobe", "echo not found >&2; exit 1\n"),
            |it| it.program("modprobe", MODPROBE),
        ),
        (
            21,
            "fragmented",
            |it| {
                fs::remove_file(it.path(FREE)).unwrap();
                it.write(FREE, "100\n");
            },
            |it| {
                fs::remove_file(it.path(FREE)).unwrap();
                symlink("nr_hugepages", it.path(FREE)).unwrap();
            },
        ),
        (
            22,
            "has 2 CPUs for enclaves",
            |it| it.configure(&configuration(4)),
            |it| it.configure(&configuration(2)),
        ),
        (
            23,
            "is not there: publish it",
            |it| it.aws.state().objects.clear(),
            |it| {
                let key = "bucket/a".to_owned();
                it.aws.state().objects.insert(key, IMAGE.into());
            },
        ),
        (
            24,
            "cannot be",
            |it| it.write("etc/systemd", "a file"),
            |it| fs::remove_file(it.path("etc/systemd")).unwrap(),
        ),
        (
            25,
            "without systemd run",
            |it| it.program("systemctl", "echo no bus >&2; exit 1\n"),
            |it| it.program("systemctl", SYSTEMCTL),
        ),
    ];
    for (code, words, break_it, mend) in failures {
        let instance = Instance::new().await;
        break_it(&instance);
        let failed = instance.bootstrap(&[]).await;
        assert_eq!(failed.status.code(), Some(code), "{words}");
        let error = error_line(&failed);
        assert!(error.contains(words), "{error}");
        mend(&instance);
        assert!(instance.bootstrap(&[]).await.status.success(), "{code}");
        let mut state = instance.state();
        state.retain(|path, _| !path.starts_with("run") || path.starts_with("run/active"));
        assert_eq!(state, expected, "{code}");
    }
}

#[tokio::test]
async fn bootstrap_gives_back_pages_that_do_not_suffice() {
    let instance = Instance::new().await;
    instance.write(PAGES, "7\n");
    fs::remove_file(instance.path(FREE)).unwrap();
    instance.write(FREE, "7\n");
    let failed = instance.bootstrap(&[]).await;
    assert_eq!(failed.status.code(), Some(21));
    let error = error_line(&failed);
    assert!(
        error.contains("gave 14 of 1024 MiB") && error.contains("4096 MiB of the node"),
        "{error}"
    );
    assert_eq!(instance.read(PAGES), "7");
}

#[tokio::test]
async fn bootstrap_after_a_boot_reserves_memory_and_cpus_and_nothing_else() {
    let instance = Instance::new().await;
    assert!(instance.bootstrap(&[]).await.status.success());
    // What was reserved is noted for one boot.
    let state = || {
        let mut state = instance.state();
        state.retain(|path, _| !path.ends_with("boot_id") && !path.ends_with("huge-pages.json"));
        state
    };
    let first = state();
    let unit = instance.read("etc/systemd/system/enclave-resources.service");
    let arguments = "--until cpus";
    assert!(unit.ends_with(arguments), "{unit}");
    let nitro = instance.read("etc/systemd/system/enclave@.service.d/nitro.conf");
    assert!(
        nitro.contains("\nWants=enclave-resources.service "),
        "{nitro}"
    );

    instance.write(BOOT, "second\n");
    instance.write(PAGES, "0\n");
    instance.write(POOL, "\n");
    fs::remove_file(instance.path("run/active/enclave@test.service")).unwrap();
    instance.aws.state().objects.clear();
    let (findings, code) = instance.findings("bootstrap", &["--until", "cpus"]).await;
    assert_eq!(code, 0);
    let names: Vec<_> = findings.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["driver", "memory", "cpus"]);
    assert_eq!(instance.read(PAGES), "512");
    assert_eq!(instance.read(POOL), "1,3");
    assert!(instance.bootstrap(&[]).await.status.success());
    assert_eq!(state(), first);
    // The pages of the first boot are not given back a second time.
    instance.write(PAGES, "600\n");
    let (_, code) = instance.findings("bootstrap", &["--undo"]).await;
    assert_eq!((code, instance.read(PAGES).as_str()), (0, "88"));
}

#[tokio::test]
async fn bootstrap_restarts_the_enclaves_of_a_changed_configuration() {
    let instance = Instance::new().await;
    assert!(instance.bootstrap(&[]).await.status.success());
    let mut changed = configuration(2);
    changed["enclaves"][0]["runtime_configuration"] = "other".into();
    instance.configure(&changed);
    // Killed before the restart it is not forgotten.
    instance.write("crash", "^restart");
    assert_eq!(instance.bootstrap(&[]).await.status.code(), None);
    assert!(instance.bootstrap(&[]).await.status.success());
    assert!(
        instance
            .read("log")
            .contains("\nrestart enclave@test.service")
    );
    let (findings, _) = instance.findings("bootstrap", &[]).await;
    assert!(
        findings.iter().all(|(_, state)| state == "ok"),
        "{findings:?}"
    );
}

#[tokio::test]
async fn bootstrap_undo_takes_back_what_was_done() {
    let instance = Instance::new().await;
    assert!(instance.bootstrap(&[]).await.status.success());
    let (findings, code) = instance.findings("bootstrap", &["--undo"]).await;
    assert_eq!(code, 0);
    assert!(
        findings.iter().all(|(_, state)| state == "undone"),
        "{findings:?}"
    );
    assert_eq!(instance.read(PAGES), "0");
    assert_eq!(instance.read(POOL), "");
    assert!(!instance.path("run/active/enclave@test.service").exists());
    assert!(
        !instance
            .path("etc/systemd/system/enclave@.service")
            .exists()
    );
    assert!(instance.bootstrap(&[]).await.status.success());
    assert_eq!(instance.state(), ready().await);
}

#[tokio::test]
async fn bootstrap_undo_leaves_the_pages_of_others() {
    let instance = Instance::new().await;
    instance.write(PAGES, "7\n");
    assert!(instance.bootstrap(&[]).await.status.success());
    assert_eq!(instance.read(PAGES), "512");
    for _ in 0..2 {
        let (_, code) = instance.findings("bootstrap", &["--undo"]).await;
        assert_eq!((code, instance.read(PAGES).as_str()), (0, "7"));
    }
}

#[tokio::test]
async fn bootstrap_rounds_memory_up_to_whole_pages() {
    let instance = Instance::new().await;
    instance.configure(&several(&[("a", 2, 129)]));
    assert!(instance.bootstrap(&[]).await.status.success());
    assert_eq!(instance.read(PAGES), "65");
}

#[tokio::test]
async fn bootstrap_reserves_large_pages_where_memory_is_made_of_them() {
    let large = pages(0, 1_048_576);
    let instance = Instance::with_cores(4).await;
    instance.give_pages(0, 1_048_576);
    instance.configure(&several(&[("a", 2, 2048), ("b", 2, 1536)]));
    assert!(instance.bootstrap(&[]).await.status.success());
    assert_eq!(
        (instance.read(&large), instance.read(PAGES)),
        ("2".to_owned(), "768".to_owned())
    );
    let (findings, _) = instance.findings("bootstrap", &[]).await;
    assert!(findings.iter().all(|(_, state)| state == "ok"));
    let (_, code) = instance.findings("bootstrap", &["--undo"]).await;
    assert_eq!(code, 0);
    assert_eq!(
        (instance.read(&large), instance.read(PAGES)),
        ("0".to_owned(), "0".to_owned())
    );

    // The kernel has one.
    let instance = Instance::with_cores(4).await;
    instance.give_pages(0, 1_048_576);
    let free = instance.path(&large.replace("nr_", "free_"));
    fs::remove_file(&free).unwrap();
    fs::write(&free, "1\n").unwrap();
    instance.configure(&several(&[("a", 2, 2048), ("b", 2, 1536)]));
    assert!(instance.bootstrap(&[]).await.status.success());
    assert_eq!(instance.read(PAGES), "1280");
}

#[tokio::test]
async fn bootstrap_stays_on_the_numa_node_of_cpus_that_are_offline() {
    let instance = Instance::with_nodes(4, 2).await;
    // The second node has two cores for enclaves, the first one.
    assert!(instance.bootstrap(&[]).await.status.success());
    assert_eq!(instance.read(POOL), "3,7");
    assert_eq!(instance.read(&pages(1, 2048)), "512");
    instance.take_pool();
    let (findings, code) = instance.findings("bootstrap", &[]).await;
    assert_eq!(code, 0);
    assert!(
        findings.iter().all(|(_, state)| state == "ok"),
        "{findings:?}"
    );
    assert_eq!(instance.read(&pages(0, 2048)), "0");

    // More than the pool has, on the same node, and more than any node has.
    instance.configure(&configuration(4));
    fs::remove_file(instance.path("run/active/enclave@test.service")).unwrap();
    let plan = instance.bootstrap(&["--dry-run"]).await;
    let text = String::from_utf8(plan.stdout).unwrap();
    let wanted = "replace the pool, which has the CPUs 3,7, by one of 4 CPUs of NUMA node 1";
    assert!(text.contains(wanted), "{text}");
    instance.configure(&configuration(6));
    let failed = instance.bootstrap(&[]).await;
    assert_eq!(failed.status.code(), Some(22));
    let error = error_line(&failed);
    assert!(
        error.contains("NUMA node 1 has 4 CPUs for enclaves"),
        "{error}"
    );
}

#[tokio::test]
async fn bootstrap_without_nitro_reserves_nothing() {
    let instance = Instance::new().await;
    let (findings, code) = instance
        .findings("bootstrap", &["--hypervisor", "sim"])
        .await;
    assert_eq!(code, 0);
    let names: Vec<_> = findings.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["image", "unit", "service"]);
    assert_eq!(instance.read(PAGES), "0");
}

#[tokio::test]
async fn preflight_and_doctor_name_every_problem_at_once() {
    let instance = Instance::new().await;
    instance.program("modprobe", MODPROBE);
    let state = |findings: &[(String, String)], name: &str| {
        let found = findings.iter().find(|(known, _)| known == name);
        found.map(|(_, state)| state.clone()).unwrap()
    };
    let (findings, code) = instance
        .findings("preflight", &["--hypervisor", "sim"])
        .await;
    assert_eq!(code, 0);
    assert_eq!(state(&findings, "config"), "ok");
    assert_eq!(state(&findings, "image"), "todo");
    assert_eq!(state(&findings, "aws"), "ok");
    let (findings, code) = instance.findings("doctor", &["--hypervisor", "sim"]).await;
    // The first problem.
    assert_eq!(code, 23);
    for name in ["image", "unit", "service", "test"] {
        assert_eq!(state(&findings, name), "fail", "{findings:?}");
    }
    instance.configure(&json!({ "enclaves": 1 }));
    let (findings, code) = instance.findings("preflight", &[]).await;
    assert_eq!(code, 2);
    assert_eq!(findings, [("config".to_owned(), "fail".to_owned())]);
}

/// Enclaves with these CPUs and this memory in MiB.
fn several(enclaves: &[(&str, u32, u32)]) -> Value {
    let one = configuration(2)["enclaves"][0].clone();
    let enclaves: Vec<Value> = enclaves
        .iter()
        .map(|(name, cpus, memory)| {
            let mut enclave = one.clone();
            enclave["name"] = (*name).into();
            enclave["cpus"] = (*cpus).into();
            enclave["memory_mib"] = (*memory).into();
            enclave
        })
        .collect();
    json!({ "enclaves": enclaves })
}

#[tokio::test]
async fn bootstrap_gives_four_enclaves_one_dispatcher_and_resources_of_their_own() {
    let instance = Instance::with_cores(8).await;
    instance.configure(&several(&[
        ("a", 2, 512),
        ("b", 4, 1024),
        ("c", 2, 256),
        ("d", 6, 128),
    ]));
    let output = instance.bootstrap(&[]).await;
    assert!(output.status.success(), "{output:?}");
    // 1920 MiB, and seven cores: all but the first.
    assert_eq!(instance.read(PAGES), "960");
    let pool: Vec<String> = (1..8)
        .chain(9..16)
        .map(|cpu: u32| cpu.to_string())
        .collect();
    assert_eq!(instance.read(POOL), pool.join(","));
    let log = instance.read("log");
    let units = ["a", "b", "c", "d"].map(|name| format!("enclave@{name}.service"));
    // All at once: one that fails leaves the others alone.
    assert!(
        log.contains(&format!("\nstart {}", units.join(" "))),
        "{log}"
    );
    let vsock = instance.read("etc/systemd/system/enclave-vsock.service");
    assert!(vsock.contains("parent-agent dispatch\n"), "{vsock}");
    let nitro = instance.read("etc/systemd/system/enclave@.service.d/nitro.conf");
    for wish in ["\nWants=", "\nAfter="] {
        let line = nitro.split(wish).nth(1).unwrap().lines().next().unwrap();
        assert!(line.contains("enclave-vsock.service"), "{nitro}");
    }
    let (findings, code) = instance.findings("bootstrap", &[]).await;
    assert_eq!(code, 0);
    assert!(
        findings.iter().all(|(_, state)| state == "ok"),
        "{findings:?}"
    );

    let (_, code) = instance.findings("bootstrap", &["--undo"]).await;
    assert_eq!(code, 0);
    assert!(!instance.path("run/active/enclave-vsock.service").exists());
    assert!(
        !instance
            .path("etc/systemd/system/enclave-vsock.service")
            .exists()
    );
}

#[tokio::test]
async fn bootstrap_refuses_half_a_core_before_the_driver_does() {
    let instance = Instance::with_cores(8).await;
    // Together they would fill two cores.
    instance.configure(&several(&[("a", 1, 128), ("b", 3, 128)]));
    let failed = instance.bootstrap(&[]).await;
    assert_eq!(failed.status.code(), Some(22));
    let error = error_line(&failed);
    assert!(
        error.contains("`a` has 1 CPUs") && error.ends_with("give it 2"),
        "{error}"
    );
    instance.configure(&several(&[("a", 2, 128), ("b", 4, 128)]));
    assert!(instance.bootstrap(&[]).await.status.success());
}

#[tokio::test]
async fn bootstrap_leaves_an_enclave_that_is_not_ready_to_systemd() {
    let instance = Instance::new().await;
    let failing = "if [ $1 = start ]; then echo timeout >&2; exit 1; fi";
    let failing = format!("{failing}\n{SYSTEMCTL}");
    instance.program("systemctl", &failing);
    let failed = instance.bootstrap(&[]).await;
    assert_eq!(failed.status.code(), Some(25));
    let error = error_line(&failed);
    assert!(error.contains("systemd keeps trying"), "{error}");
    instance.program("systemctl", SYSTEMCTL);
    assert!(instance.bootstrap(&[]).await.status.success());
    assert_eq!(instance.state(), ready().await);
}

#[tokio::test]
async fn bootstrap_killed_at_any_moment_runs_again_to_the_same_end() {
    let expected = ready().await;
    let mut killed = 0;
    for number in 0.. {
        let instance = Instance::new().await;
        let mut command = instance.command("bootstrap", &[]);
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        let moment = std::time::Duration::from_millis(5 * number);
        let has_ended = timeout(moment, child.wait()).await.is_ok();
        if !has_ended {
            killed += 1;
            child.kill().await.unwrap();
        }
        let again = instance.bootstrap(&[]).await;
        assert!(again.status.success(), "{moment:?}: {again:?}");
        assert_eq!(instance.state(), expected, "{moment:?}");
        if has_ended {
            break;
        }
    }
    assert!(killed > 0);
}

#[tokio::test]
async fn bootstrap_without_a_metadata_service_says_so_and_goes_on_later() {
    let instance = Instance::new().await;
    let from = |source: &'static str| {
        let mut command = command(instance.folder.path(), "bootstrap");
        command
            .envs(instance.aws.environment())
            .env(
                "PATH",
                format!("{}:/usr/bin:/bin", instance.path("bin").display()),
            )
            .env("ROOT", instance.folder.path())
            .env("RUST_LOG", "error")
            // Nobody listens there.
            .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")
            .args(["--config", source, "--root"])
            .arg(instance.folder.path());
        command
    };
    let before = instance.state();
    for source in ["imds:tags", "imds:user-data"] {
        let failed = output(from(source)).await;
        assert_eq!(failed.status.code(), Some(4), "{source}");
        let error = error_line(&failed);
        assert!(
            error.contains("metadata service does not answer"),
            "{error}"
        );
        assert_eq!(instance.state(), before);
    }
    assert!(instance.bootstrap(&[]).await.status.success());
    assert_eq!(instance.state(), ready().await);
}

#[tokio::test]
async fn bootstrap_without_name_resolution_fetches_the_image_later() {
    let instance = Instance::new().await;
    let mut nowhere = configuration(2);
    // No name server knows it (RFC 2606).
    nowhere["enclaves"][0]["image"]["source"] = "https://images.invalid/a.eif".into();
    instance.configure(&nowhere);
    let failed = instance.bootstrap(&[]).await;
    assert_eq!(failed.status.code(), Some(23));
    let error = error_line(&failed);
    assert!(error.contains("images.invalid"), "{error}");
    instance.configure(&configuration(2));
    assert!(instance.bootstrap(&[]).await.status.success());
    assert_eq!(instance.state(), ready().await);
}

#[tokio::test]
async fn bootstrap_names_a_kernel_without_huge_pages() {
    let instance = Instance::new().await;
    fs::remove_file(instance.path(FREE)).unwrap();
    fs::remove_file(instance.path(PAGES)).unwrap();
    let failed = instance.bootstrap(&[]).await;
    assert_eq!(failed.status.code(), Some(21));
    let error = error_line(&failed);
    assert!(error.contains("hugepages"), "{error}");
}
