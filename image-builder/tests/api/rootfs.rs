//! Root file systems instead of container images.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::process::Command;

use crate::layer::{Layer, elf, gzip};
use crate::project::{Project, error_line};
use crate::ramdisk::rootfs;

const WORKLOAD: &str = "memory_mib = 64\n[workload]\nentrypoint = [\"/usr/bin/app\"]\n";

fn manifest(reference: &str) -> String {
    format!("[enclave]\nname = \"test\"\nimage = \"{reference}\"\n{WORKLOAD}")
}

/// A project with a folder `root` that has a program.
fn folder() -> Project {
    let project = Project::new();
    fs::create_dir_all(project.path("root/usr/bin")).unwrap();
    project.write("root/usr/bin/app", elf());
    let app = project.path("root/usr/bin/app");
    fs::set_permissions(app, Permissions::from_mode(0o755)).unwrap();
    project.write("enclave.toml", manifest("rootfs:root"));
    project
}

#[test]
fn rootfs_folders_are_taken_as_they_are() {
    let project = folder();
    let root = project.path("root");
    let set = |name: &str, mode| {
        fs::set_permissions(root.join(name), Permissions::from_mode(mode)).unwrap();
    };
    fs::create_dir(root.join("tmp")).unwrap();
    set("tmp", 0o1777);
    set("usr", 0o755);
    set("usr/bin", 0o755);
    set("", 0o711);
    project.write("root/.wh.file", "no whiteout");
    set(".wh.file", 0o640);
    symlink("usr/bin", root.join("bin")).unwrap();
    fs::hard_link(root.join("usr/bin/app"), root.join("usr/bin/same")).unwrap();
    let status = Command::new("mkfifo")
        .arg(root.join("pipe"))
        .status()
        .unwrap();
    assert!(status.success());
    set("pipe", 0o600);
    drop(UnixListener::bind(root.join("socket")).unwrap());
    let owner = fs::metadata(&root).unwrap();
    let (uid, gid) = (owner.uid(), owner.gid());
    let (image, notes) = project.build_with_notes();
    let own = |mode: &str, links: u32, rest: &str| format!("{mode} {links} {uid} {gid} {rest}");
    assert_eq!(
        rootfs(&image),
        [
            own("drwx--x--x", 1, "0 "),
            own("-rw-r-----", 1, "11 /.wh.file"),
            own("lrwxrwxrwx", 1, "7 /bin -> usr/bin"),
            own("prw-------", 1, "0 /pipe"),
            own("drwxrwxrwt", 1, "0 /tmp"),
            own("drwxr-xr-x", 1, "0 /usr"),
            own("drwxr-xr-x", 1, "0 /usr/bin"),
            own("-rwxr-xr-x", 2, "64 /usr/bin/app"),
            own("-rwxr-xr-x", 2, "0 /usr/bin/same"),
        ]
    );
    let sockets = "sockets are left out: /socket; ";
    assert!(
        notes.iter().any(|note| note.starts_with(sockets)),
        "{notes:?}"
    );
    // A user's own files stay the user's, which is said.
    let theirs = format!("files belong to user {uid}, who builds the image");
    let said = notes.iter().any(|note| note.starts_with(&theirs));
    assert_eq!(said, uid != 0, "{notes:?}");
    // Built again, the same; and as an archive, but for the names' order.
    assert!(project.build_with_notes().0 == image);
}

#[test]
fn rootfs_archives_are_read_compressed_or_not() {
    let tar = Layer::new()
        .directory("./usr/bin")
        .program("./usr/bin/app", elf())
        .file(".wh.file", "no whiteout")
        .tar();
    let project = Project::new();
    project.write("enclave.toml", manifest("rootfs-archive:root.tar"));
    for bytes in [tar.clone(), gzip(&tar, 6)] {
        project.write("root.tar", bytes);
        assert_eq!(rootfs(&project.build())[1], "-rw-r--r-- 1 0 0 11 /.wh.file");
    }
    project.write("root.tar", b"\xfd7zXZ\0 and so on");
    project.refused(
        3,
        &[
            "image root.tar: ",
            "decompress it first, with `xz --decompress`",
        ],
    );
    project.write("root.tar", &gzip(&tar, 6)[..90]);
    project.refused(3, &["image root.tar: ", "cannot be decompressed"]);
    let twice = Layer::new()
        .program("usr/bin/app", elf())
        .program("usr/bin/app", "x");
    project.write("root.tar", twice.tar());
    project.refused(3, &["entry usr/bin/app", "programs differ"]);
}

#[test]
fn rootfs_without_an_entrypoint_says_so() {
    let project = folder();
    let reference = "[enclave]\nname = \"test\"\nimage = \"rootfs:root\"\nmemory_mib = 64\n";
    project.write("enclave.toml", reference);
    project.refused(
        2,
        &["the image has no entrypoint", "set workload.entrypoint"],
    );
}

#[test]
fn rootfs_files_that_are_too_large_are_named() {
    let project = folder();
    fs::create_dir_all(project.path("root/var/log")).unwrap();
    // `useradd -u 2000000000` makes one of 544 GB, of which the disk holds next to nothing.
    let lastlog = fs::File::create(project.path("root/var/log/lastlog")).unwrap();
    lastlog.set_len(2_000_000_000 * 292).unwrap();
    let output = project.command().output().unwrap();
    let line = error_line(&output);
    assert_eq!(output.status.code(), Some(3));
    for word in [
        "its files have more than 256 MiB",
        "/var/log/lastlog with 556946 MiB",
        "`-l`",
    ] {
        assert!(line.contains(word), "{line}");
    }
    assert!(fs::read_dir(project.path("tmp")).unwrap().next().is_none());
}

#[test]
fn rootfs_that_is_not_there_is_named() {
    let project = folder();
    fs::remove_dir_all(project.path("root")).unwrap();
    project.refused(1, &["cannot read root: ", "check `image` in the manifest"]);
    project.write("enclave.toml", manifest("rootfs-archive:root"));
    project.refused(1, &["cannot read root: ", "check `image` in the manifest"]);
}

/// Mounted from the same file system, too: of what is mounted nobody who made the folder knows.
#[test]
fn rootfs_in_which_something_is_mounted_is_refused() {
    let project = folder();
    project.write("secret", "secret");
    project.write("root/x", "");
    fs::create_dir(project.path("root/d")).unwrap();
    for (mount, path) in [
        ("--bind secret root/x", "/x"),
        ("--bind root/usr root/d", "/d"),
        ("-t tmpfs tmpfs root/d", "/d"),
    ] {
        let command = project.command_after(&format!("mount {mount}"));
        let output = Command::new("unshare")
            .args(["--map-root-user", "--mount"])
            .arg(command.get_program())
            .args(command.get_args())
            .current_dir(project.folder())
            .env("TMPDIR", project.path("tmp"))
            .output()
            .unwrap();
        let line = error_line(&output);
        assert_eq!(output.status.code(), Some(3), "{line}");
        let words = format!("a file system or file is mounted at {path} in it: unmount it");
        assert!(line.contains(&words), "{line}");
    }
}
