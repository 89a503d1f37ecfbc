//! The demo's story: build, start, use, attest, stop; a secret for one image alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use aws_lc_rs::digest::{SHA256, digest};
use enclave_tests::Hypervisor;

use crate::PROGRAMS;

/// An ordinary user (`nobody` in Debian).
const NOBODY: &str = "65534";

fn demo(hypervisor: Hypervisor, temporary: &Path) -> Command {
    let mut command = PROGRAMS.demo(hypervisor);
    command.env("TMPDIR", temporary);
    command
}

/// Tells the story to its end, and gives its output.
fn told(mut command: Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{stderr}");
    for proof in [
        "left only its logs",
        "KMS gives image A a secret",
        "learns nothing",
        "none of the parent's files",
    ] {
        assert!(text.contains(proof), "{proof}: {text}");
    }
    text
}

/// The only image in a folder that the demo kept.
fn image(temporary: &Path) -> PathBuf {
    let kept: Vec<_> = fs::read_dir(temporary).unwrap().collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    kept[0].as_ref().unwrap().path().join("price-oracle.eif")
}

#[test]
fn demo_attests_under_sim_the_file_that_qemu_measures() {
    let images = Hypervisor::ALL.map(|hypervisor| {
        let temporary = tempfile::tempdir().unwrap();
        let mut command = demo(hypervisor, temporary.path());
        command.arg("--keep");
        let text = told(command);
        match hypervisor {
            Hypervisor::Sim => assert!(text.contains("replayed               refused"), "{text}"),
            Hypervisor::Qemu => {
                assert!(text.contains("whose code is not ours"), "{text}");
                assert!(text.contains("A in QEMU, unsigned    refused"), "{text}");
            }
        }
        let image = fs::read(image(temporary.path())).unwrap();
        hex::encode(digest(&SHA256, &image))
    });
    assert_eq!(images[0], images[1]);
}

#[test]
fn demo_needs_no_privileges() {
    let temporary = tempfile::tempdir().unwrap();
    let mut command = demo(Hypervisor::Sim, temporary.path());
    if nix::unistd::geteuid().is_root() {
        // The programs and the folder must be in that user's reach.
        let programs = temporary.path().join("programs");
        fs::create_dir(&programs).unwrap();
        for name in [
            "image-builder",
            "parent-agent",
            "enclave-init",
            "price-oracle",
            "demo",
        ] {
            fs::copy(PROGRAMS.path(name), programs.join(name)).unwrap();
        }
        fs::copy(&PROGRAMS.kernel, programs.join("kernel")).unwrap();
        let folder = temporary.path().join("tmp");
        fs::create_dir(&folder).unwrap();
        let owner = Some(NOBODY.parse().unwrap());
        std::os::unix::fs::chown(&folder, owner, owner).unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(temporary.path(), open).unwrap();
        command = Command::new("setpriv");
        command
            .args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"])
            .arg(programs.join("demo"))
            .env("TMPDIR", &folder)
            .env_remove("XDG_RUNTIME_DIR");
        for name in ["image-builder", "parent-agent", "enclave-init"] {
            command.arg(format!("--{name}")).arg(programs.join(name));
        }
        command
            .arg("--workload")
            .arg(programs.join("price-oracle"))
            .arg("--kernel")
            .arg(programs.join("kernel"));
    }
    told(command);
}
