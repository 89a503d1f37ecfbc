//! Users of the image, and whom files belong to: the same under `sim` as in a machine.
//! Where `sim` has one user alone (no root, and no `newuidmap` or no subordinate ids), there
//! is nothing to show.

use std::process::Command;
use std::sync::LazyLock;

use enclave_tests::{Agent, Hypervisor, Workload};
use nix::unistd::geteuid;

use crate::{PROGRAMS, image_of, under_both};

under_both!(users_and_owners_are_the_images);

/// An entrypoint that starts as root, as those of databases and web servers do.
const MANIFEST: &str = r#"
[enclave]
name = "users"
image = "oci:image"
memory_mib = 256

[workload]
user = "0:0"

[confinement]
profile = "container"

[network]
egress = []
ingress = [{ port = 8080, to = 8080 }]
"#;

static IMAGE: LazyLock<Workload> = LazyLock::new(|| image_of("users", MANIFEST));

/// Whether this user can have others under `sim`: `unshare` finds and maps them as it does.
fn has_users() -> bool {
    let mut mapped = Command::new("unshare");
    mapped.args(["--map-root-user", "--map-auto", "true"]);
    geteuid().is_root() || mapped.status().is_ok_and(|status| status.success())
}

#[expect(clippy::print_stderr, reason = "a test that is left out says so")]
async fn users_and_owners_are_the_images(hypervisor: Hypervisor) {
    if hypervisor == Hypervisor::Sim && !has_users() {
        eprintln!("not tested: this user has no others (docs/sim-and-qemu.md, Users)");
        return;
    }
    let mut agent = Agent::start(&PROGRAMS, &IMAGE, hypervisor, "users", &[]).unwrap();
    for line in [
        "first: 0:0 [0]",
        // Of the image.
        "/: 0:0 755",
        "/app: 1000:1000 755 at 0",
        "/app/test-workload: 0:0 755 at 0",
        // Of the init.
        "/run/enclave: 0:0 755",
        "/run/enclave/runtime-config: 0:0 644",
        "/tmp: 0:0 1777",
        "/etc/resolv.conf: 0:0 644",
        // Of the workload.
        "/tmp/of-33: 33:65534 600",
        "/tmp/of-65535: 65534:65533 640",
        "/tmp/su: 0:0 4755",
        // Another user, who is in two more groups.
        "then: 1000:1000 [101, 1000]",
        "/tmp/of-33: EACCES",
        // A group's.
        "/tmp/of-101: readable",
        "/tmp/root: EACCES",
        "chown: EPERM",
        // No program of root's makes its caller root.
        "as /tmp/su: 1000:1000 [101, 1000]",
        "tried",
    ] {
        agent.line(line).await.unwrap();
    }
    assert_eq!(agent.stopped().await.unwrap().end()["cause"], "stopped");
}
