//! Shows that the unit of `docs/agent-restarts.md` does what that page says:
//! `cargo xtask systemd`.
//!
//! A systemd of its own is started in namespaces of its own, with the page's
//! unit. Needs root and a cgroup v2 hierarchy that can be written.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a command's output")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use enclave_tests::{Programs, Workload};
use serde_json::Value;

const PAGE: &str = include_str!("../../../docs/agent-restarts.md");
const UNIT: &str = "enclave@workload.service";
/// Whose image is not there at first.
const LATER: &str = "enclave@later.service";
/// Longer than anything takes; only what fails waits so long.
const LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
/// Where cgroup v2 is, alone or beside v1.
const HIERARCHIES: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// Makes what systemd expects of a machine, in namespaces, and becomes it.
const BOOT: &str = r#"
set -eu
echo $$ > "$1/cgroup.procs"
exec unshare --pid --mount --fork --cgroup --uts --ipc --mount-proc --kill-child sh -c '
    set -eu
    mount --make-rprivate /
    mount -t tmpfs tmpfs /run
    mkdir -p /run/systemd/system
    cp "$1"/*.service "$1"/*.target /run/systemd/system/
    umount --recursive --lazy /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    exec env container=enclave-tests SYSTEMD_UNIT_PATH=/run/systemd/system \
        SYSTEMD_GENERATOR_PATH=/nonexistent SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/nonexistent \
        /lib/systemd/systemd --system --unit=tests.target --log-target=console --show-status=no
' sh "$2"
"#;
/// Started first: nothing.
const TARGET: &str = "[Unit]\nDefaultDependencies=no\n";

fn main() -> anyhow::Result<()> {
    let programs = Programs::from_environment()?;
    let folder = tempfile::Builder::new().prefix("systemd-").tempdir()?;
    let manager = Manager::start(&programs, folder.path())?;

    manager.control(&["start", UNIT])?;
    // It is started once the enclave is ready.
    manager.is(UNIT, "active", "the enclave is ready")?;
    manager.until(1)?;
    let enclave = manager.enclave()?;
    show("start", "an agent and an enclave");

    manager.control(&["reload", UNIT])?;
    manager.until(2)?;
    manager.is_still(&enclave)?;
    show("reload", "another agent, the same enclave");

    manager.control(&["kill", "--signal=KILL", "--kill-whom=main", UNIT])?;
    manager.until(3)?;
    manager.is_still(&enclave)?;
    show("SIGKILL to the agent", "another agent, the same enclave");

    // As a package manager does: a new file takes the name.
    let (program, new) = (manager.path("parent-agent"), manager.path("new"));
    fs::copy(&program, &new)?;
    fs::rename(&new, &program)?;
    manager.control(&["reload", UNIT])?;
    manager.until(4)?;
    manager.is_still(&enclave)?;
    show("reload, the executable replaced", "the same enclave");

    manager.control(&["kill", "--signal=STOP", "--kill-whom=main", UNIT])?;
    manager.until(5)?;
    manager.is_still(&enclave)?;
    show("the agent hangs", "another agent, the same enclave");

    // More often than systemd's own limit allows.
    for agents in 6..14 {
        manager.control(&["kill", "--signal=KILL", "--kill-whom=main", UNIT])?;
        manager.until(agents)?;
    }
    manager.is_still(&enclave)?;
    show("SIGKILL to the agent, 8 times", "the same enclave");

    manager.control(&["restart", UNIT])?;
    manager.is(UNIT, "active", "the enclave is ready")?;
    let other = manager.enclave()?;
    ensure!(other != enclave, "it is the same enclave");
    show("restart", "another enclave");

    manager.kill_enclave()?;
    manager.until(15)?;
    ensure!(manager.enclave()? != other, "it is the same enclave");
    show("the enclave dies", "another enclave, after a pause");

    let (image, later) = (manager.path("workload.eif"), manager.path("later.eif"));
    let started = manager.systemctl(&["start", LATER])?;
    ensure!(!started.status.success(), "it is started without its image");
    fs::copy(&image, &later)?;
    wait(|| manager.is(LATER, "active", "").is_ok())?;
    manager.until(16)?;
    manager.control(&["stop", LATER])?;
    show(
        "start without an image",
        "fails, and is tried until it is there",
    );

    manager.control(&["stop", UNIT])?;
    let left = demo::leftovers::find(folder.path(), &[]);
    let left: Vec<_> = left.iter().filter(|p| p.contains("parent-agent")).collect();
    ensure!(left.is_empty(), "left behind: {left:?}");
    let result = manager.control(&["show", "--property=Result", "--value", UNIT])?;
    ensure!(result == "success", "the unit ended with {result}");
    show("stop", "nothing is left");
    Ok(())
}

fn show(what: &str, result: &str) {
    println!("{what:<34} {result}");
}

/// A systemd with the page's unit.
struct Manager {
    folder: PathBuf,
    cgroup: PathBuf,
    systemd: Child,
}

impl Manager {
    fn start(programs: &Programs, folder: &Path) -> anyhow::Result<Self> {
        let image = Workload::build(programs, &folder.join("image"))?;
        fs::rename(&image.path, folder.join("workload.eif"))?;
        fs::copy(programs.path("parent-agent"), folder.join("parent-agent"))?;
        fs::write(folder.join("role"), "serve")?;
        fs::write(folder.join("tests.target"), TARGET)?;
        fs::write(folder.join("enclave@.service"), unit(folder)?)?;
        let hierarchy = HIERARCHIES
            .iter()
            .find(|path| Path::new(path).join("cgroup.procs").exists())
            .context("this machine has no cgroup v2")?;
        let name = format!("enclave-tests-{}", std::process::id());
        let cgroup = Path::new(hierarchy).join(name);
        fs::create_dir(&cgroup).with_context(|| format!("{}: are you root?", cgroup.display()))?;
        let systemd = Command::new("sh")
            .args(["-c", BOOT, "sh"])
            .args([&cgroup, folder])
            .stdin(Stdio::null())
            .stdout(fs::File::create(folder.join("systemd.log"))?)
            .stderr(fs::File::create(folder.join("systemd.err"))?)
            .spawn()
            .context("cannot run sh")?;
        let manager = Self {
            folder: folder.to_owned(),
            cgroup,
            systemd,
        };
        wait(|| {
            manager
                .systemctl(&["is-active", "tests.target"])
                .is_ok_and(|o| o.status.success())
        })
        .with_context(|| {
            let log = fs::read_to_string(manager.path("systemd.err")).unwrap_or_default();
            format!("systemd does not start: {log}")
        })?;
        Ok(manager)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Has systemd do something, and gives its answer.
    fn control(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.systemctl(arguments)?;
        ensure!(
            output.status.success(),
            "systemctl {}: {}{}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr),
            self.log()
        );
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn systemctl(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let id = self.systemd.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
        let pid1 = children.split_whitespace().next().context("no PID 1")?;
        let mut command = Command::new("nsenter");
        command.args(["--target", pid1, "--pid", "--mount", "--cgroup"]);
        Ok(command.arg("systemctl").args(arguments).output()?)
    }

    /// Waits until so many agents have seen the enclave ready.
    fn until(&self, agents: usize) -> anyhow::Result<()> {
        let is_ready = |event: &Value| event["event"] == "ready" || event["ready"] == true;
        let all_have = || self.events().iter().filter(|event| is_ready(event)).count() >= agents;
        // An agent that takes over knows it before its enclave has told again.
        wait(|| all_have() && self.is(UNIT, "active", "the enclave is ready").is_ok())
            .with_context(|| format!("no agent number {agents}: {}", self.log()))
    }

    fn events(&self) -> Vec<Value> {
        let events = fs::read_to_string(self.path("events")).unwrap_or_default();
        events
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// The process that is the enclave.
    fn enclave(&self) -> anyhow::Result<String> {
        let found = demo::leftovers::find(&self.folder, &[]);
        let mut found = found
            .into_iter()
            .filter(|process| process.contains("sim-pid1"));
        found.next().context("no enclave runs")
    }

    fn is_still(&self, enclave: &str) -> anyhow::Result<()> {
        ensure!(self.enclave()? == enclave, "it is another enclave");
        Ok(())
    }

    /// Whether the unit is in this state, with this status.
    fn is(&self, unit: &str, state: &str, status: &str) -> anyhow::Result<()> {
        let properties = "--property=ActiveState,StatusText";
        let shown = self.control(&["show", properties, unit])?;
        let has = |start: String| shown.lines().any(|line| line.starts_with(&start));
        let is_so = has(format!("ActiveState={state}")) && has(format!("StatusText={status}"));
        ensure!(is_so, "it is not {state}: {shown}");
        Ok(())
    }

    /// Ends the enclave without its agent's doing.
    fn kill_enclave(&self) -> anyhow::Result<()> {
        let enclave = self.enclave()?;
        let pid = enclave.split_whitespace().nth(1).context("no process")?;
        let status = Command::new("kill").args(["-KILL", pid]).status()?;
        ensure!(status.success(), "{enclave} cannot be killed");
        Ok(())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        // Its whole PID namespace ends with it.
        let _ = self.systemd.kill();
        let _ = self.systemd.wait();
        let start = Instant::now();
        while remove_cgroups(&self.cgroup).is_err() && start.elapsed() < LIMIT {
            thread::park_timeout(POLL);
        }
    }
}

fn remove_cgroups(path: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_cgroups(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

fn wait(condition: impl Fn() -> bool) -> anyhow::Result<()> {
    let start = Instant::now();
    while !condition() {
        ensure!(start.elapsed() < LIMIT, "it took longer than {LIMIT:?}");
        thread::park_timeout(POLL);
    }
    Ok(())
}

/// The page's unit, with this machine's paths.
fn unit(folder: &Path) -> anyhow::Result<String> {
    let unit = PAGE
        .split_once("```ini\n")
        .and_then(|(_, rest)| rest.split_once("```"))
        .context("the page has no unit")?
        .0;
    let folder = folder.display();
    let replaced = [
        (
            "/usr/local/bin/parent-agent",
            format!("{folder}/parent-agent"),
        ),
        ("/var/lib/enclaves/%i.eif", format!("{folder}/%i.eif")),
        (
            "--hypervisor qemu",
            format!(
                "--hypervisor sim --json --runtime-config {folder}/role --publish 127.0.0.1:0:8080"
            ),
        ),
        ("[Unit]\n", TARGET.to_owned()),
        ("WatchdogSec=30s", "WatchdogSec=2s".to_owned()),
        // Every start needs the time that the agent asks for.
        ("TimeoutStartSec=60s", "TimeoutStartSec=100ms".to_owned()),
        (
            "[Service]\n",
            format!(
                "[Service]\nEnvironment=XDG_STATE_HOME={folder}/left TMPDIR={folder}\nStandardOutput=append:{folder}/events\nStandardError=append:{folder}/log\n"
            ),
        ),
    ];
    let mut unit = unit.to_owned();
    for (from, to) in replaced {
        ensure!(unit.contains(from), "the page's unit has no {from:?}");
        unit = unit.replace(from, &to);
    }
    Ok(unit)
}
