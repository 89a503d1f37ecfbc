//! An instance that is a folder: the kernel's files are ordinary ones, `modprobe` and
//! `systemctl` are scripts.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::agent::{command, output};
use crate::fake_aws::FakeAws;

pub(crate) const POOL: &str = "sys/module/nitro_enclaves/parameters/ne_cpus";
pub(crate) const PAGES: &str =
    "sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages";
pub(crate) const FREE: &str =
    "sys/devices/system/node/node0/hugepages/hugepages-2048kB/free_hugepages";
/// Another one after each boot.
pub(crate) const BOOT: &str = "proc/sys/kernel/random/boot_id";
pub(crate) const IMAGE: &[u8] = b"an image";

/// Kills the program that called it where the file `crash` says so.
const CRASH: &str = r#"#!/bin/sh
if [ -e "$ROOT/crash" ] && echo "$*" | grep -q -e "$(cat "$ROOT/crash")"; then
    rm "$ROOT/crash"
    kill -KILL "$PPID"
    exit 1
fi
echo "$*" >> "$ROOT/log"
"#;
pub(crate) const MODPROBE: &str = r#"
mkdir -p "$ROOT/dev" "$ROOT/sys/module/nitro_enclaves/parameters"
touch "$ROOT/dev/nitro_enclaves" "$ROOT/sys/module/nitro_enclaves/parameters/ne_cpus"
"#;
pub(crate) const SYSTEMCTL: &str = r#"
active="$ROOT/run/active"
mkdir -p "$active"
verb=$1
shift
case "$verb" in
    is-active) test -e "$active/$2" ;;
    start|restart)
        for unit; do touch "$active/$unit"; done
        wanted="$ROOT/etc/systemd/system/enclave-vsock.service"
        if [ -e "$wanted" ]; then touch "$active/enclave-vsock.service"; fi ;;
    stop) for unit; do rm -f "$active/$unit"; done ;;
esac
"#;

pub(crate) struct Instance {
    pub(crate) folder: TempDir,
    pub(crate) aws: FakeAws,
}

impl Instance {
    /// Four CPUs on two cores, and no driver yet.
    pub(crate) async fn new() -> Self {
        Self::with_cores(2).await
    }

    /// Cores of two CPUs each.
    pub(crate) async fn with_cores(cores: u32) -> Self {
        Self::with_nodes(cores, 1).await
    }

    /// As many of these cores on each NUMA node.
    pub(crate) async fn with_nodes(cores: u32, nodes: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let instance = Self {
            folder,
            aws: FakeAws::start().await,
        };
        instance.aws.hold("bucket/a", IMAGE);
        let all = format!("0-{}\n", 2 * cores - 1);
        for node in 0..nodes {
            instance.write(
                &format!("sys/devices/system/node/node{node}/meminfo"),
                "Node 0 MemTotal: 8388608 kB\nNode 0 MemFree:        4194304 kB\n",
            );
            instance.give_pages(node, 2048);
        }
        instance.write(BOOT, "first\n");
        instance.write("sys/devices/system/cpu/online", &all);
        for cpu in 0..2 * cores {
            let core = cpu % cores;
            let folder = format!("sys/devices/system/cpu/cpu{cpu}");
            let path = format!("{folder}/topology/thread_siblings_list");
            instance.write(&path, &format!("{core},{}", core + cores));
            let node = format!("node{}", core * nodes / cores);
            let link = instance.path(&format!("{folder}/{node}"));
            symlink(format!("../../node/{node}"), link).unwrap();
        }
        instance.program("modprobe", MODPROBE);
        instance.program("systemctl", SYSTEMCTL);
        instance.configure(&configuration(2));
        instance
    }

    /// Pages of that size can be had on a node. None is reserved, and all would be free.
    pub(crate) fn give_pages(&self, node: u32, kib: u32) {
        let count = pages(node, kib);
        self.write(&count, "0\n");
        let free = count.replace("nr_", "free_");
        symlink("nr_hugepages", self.path(&free)).unwrap();
    }

    /// Takes the pool's CPUs offline, as the driver does: of them the kernel shows no
    /// topology then, and still the node.
    pub(crate) fn take_pool(&self) {
        let pool = self.read(POOL);
        let pool: Vec<u32> = pool.split(',').map(|cpu| cpu.parse().unwrap()).collect();
        let folder = self.path("sys/devices/system/cpu");
        let mut online = Vec::new();
        for cpu in 0.. {
            let topology = folder.join(format!("cpu{cpu}/topology"));
            if !topology.parent().unwrap().exists() {
                break;
            }
            if pool.contains(&cpu) {
                fs::remove_dir_all(topology).unwrap();
            } else {
                online.push(cpu.to_string());
            }
        }
        self.write("sys/devices/system/cpu/online", &online.join(","));
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path))
            .unwrap_or_default()
            .trim()
            .to_owned()
    }

    pub(crate) fn program(&self, name: &str, script: &str) {
        let path = format!("bin/{name}");
        self.write(&path, &format!("{CRASH}{script}"));
        fs::set_permissions(self.path(&path), fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub(crate) fn configure(&self, configuration: &Value) {
        self.write("config.json", &configuration.to_string());
    }

    pub(crate) fn command(&self, subcommand: &str, arguments: &[&str]) -> Command {
        let path = |path: &str| self.path(path).into_os_string();
        let mut command = command(self.folder.path(), subcommand);
        let programs = format!("{}:/usr/bin:/bin", self.path("bin").display());
        command
            .envs(self.aws.environment())
            .env("PATH", programs)
            .env("ROOT", self.folder.path())
            .env("RUST_LOG", "error")
            .arg("--root")
            .arg(self.folder.path())
            .arg("--config")
            .arg(path("config.json"))
            .arg("--image-dir")
            .arg(path("images"))
            .args(arguments);
        command
    }

    pub(crate) async fn bootstrap(&self, arguments: &[&str]) -> Output {
        output(self.command("bootstrap", arguments)).await
    }

    /// The findings, each a name and a state, and the exit code.
    pub(crate) async fn findings(
        &self,
        subcommand: &str,
        arguments: &[&str],
    ) -> (Vec<(String, String)>, i32) {
        let mut all = vec!["--json"];
        all.extend(arguments);
        let output = output(self.command(subcommand, &all)).await;
        let findings: Value = serde_json::from_slice(&output.stdout).unwrap();
        let findings = findings.as_array().unwrap().iter().map(|finding| {
            let field = |name: &str| finding[name].as_str().unwrap().to_owned();
            (field("name"), field("state"))
        });
        (findings.collect(), output.status.code().unwrap())
    }

    /// What the instance is, but for what happened on the way there.
    pub(crate) fn state(&self) -> BTreeMap<PathBuf, String> {
        let mut files = BTreeMap::new();
        collect(self.folder.path(), &mut files);
        files.retain(|path, _| {
            let on_the_way = ["log", "crash", "bin", "config.json"];
            on_the_way
                .iter()
                .all(|name| !path.starts_with(self.path(name)))
        });
        let root = self.folder.path();
        let relative = files.into_iter().map(|(path, text)| {
            let text = text.replace(root.to_str().unwrap(), "ROOT");
            (path.strip_prefix(root).unwrap().to_owned(), text)
        });
        relative.collect()
    }
}

/// Where a node's reserved pages of that size are counted.
pub(crate) fn pages(node: u32, kib: u32) -> String {
    format!("sys/devices/system/node/node{node}/hugepages/hugepages-{kib}kB/nr_hugepages")
}

fn collect(folder: &Path, files: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            let bytes = fs::read(&path).unwrap();
            files.insert(path, String::from_utf8_lossy(&bytes).into_owned());
        }
    }
}

pub(crate) fn configuration(cpus: u32) -> Value {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, IMAGE);
    json!({ "enclaves": [{
        "name": "test",
        "image": { "source": "s3://bucket/a", "sha256": hex::encode(digest) },
        "cpus": cpus,
        "memory_mib": 1024,
    }] })
}
