//! What is in the image is what the layers say.

use std::io::Cursor;

use eif::Eif;
use manifest::{HostConfig, MEASURED_CONFIG_PATH};
use serde_json::json;
use tar::EntryType;

use crate::image::{Image, app};
use crate::layer::{Layer, elf};
use crate::project::Project;
use crate::ramdisk::{file, list, ramdisks, rootfs};

#[track_caller]
fn assert_rootfs(layers: &[Layer], expected: &[&str]) {
    let image = Project::of(&Image::new(layers)).build();
    assert_eq!(rootfs(&image), expected);
}

const ROOT: &str = "drwxr-xr-x 1 0 0 0 ";
const APP: &str = "-rwxr-xr-x 1 0 0 64 /app";

#[test]
fn boot_ramdisk_has_the_init_and_its_mount_points() {
    let image = Project::new().build();
    let [boot, _] = ramdisks(&image).try_into().unwrap();
    let expected = [
        "drwxr-xr-x 1 0 0 0 Jan 1 1970 dev",
        "drwxr-xr-x 1 0 0 0 Jan 1 1970 proc",
        "drwxr-xr-x 1 0 0 0 Jan 1 1970 run",
        "drwxr-xr-x 1 0 0 0 Jan 1 1970 sys",
        "drwxr-xr-x 1 0 0 0 Jan 1 1970 tmp",
        "crw------- 1 0 0 5, 1 Jan 1 1970 dev/console",
        "-rwxr-xr-x 1 0 0 64 Jan 1 1970 init",
    ];
    assert_eq!(list(&boot), expected);
    assert_eq!(file(&boot, "init"), elf());
}

#[test]
fn measured_configuration_is_the_last_of_all_files() {
    let layer = app().file("z", "z").symlink("zz", "z");
    let image = Project::of(&Image::new(&[layer])).build();
    let application = ramdisks(&image).pop().unwrap();
    let lines = list(&application);
    let last = lines.last().unwrap();
    assert!(last.ends_with(MEASURED_CONFIG_PATH), "{last}");
}

#[test]
fn host_configuration_says_what_the_files_take_of_the_memory() {
    let layer = app()
        .file("d/large", "x".repeat(5000))
        .symlink("link", "app");
    let image = Project::of(&Image::new(&[layer])).build();
    let image = Eif::open(Cursor::new(image)).unwrap();
    let metadata = &image.metadata().unwrap().custom_metadata;
    let host = HostConfig::from_metadata(metadata.text()).unwrap().unwrap();
    // The init, the program, the file's two pages and their index, its folder and the link.
    assert_eq!(host.unpacked_bytes, 5 * 1024 + 4 * 4096 + 600);
}

#[test]
fn owners_modes_links_and_pipes_are_kept() {
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(200));
    let layer = app()
        .directory("./")
        .with(|entry| (entry.mode, entry.uid, entry.gid) = (0o711, 1, 2))
        .directory("tmp/")
        .with(|entry| entry.mode = 0o1777)
        .file("/usr/bin/su", "su")
        .with(|entry| (entry.mode, entry.uid, entry.gid) = (0o4750, 1000, 4_294_967_294))
        .hard_link("usr/bin/sudo", "usr/bin/su")
        .symlink("bin", "usr/bin")
        .symlink("dangling", "/no/where")
        .hard_link("same", "dangling")
        .entry(EntryType::Fifo, "pipe", 0o620, (3, 4))
        .file(&long, "deep");
    let deep = format!("-rw-r--r-- 1 0 0 4 /{long}");
    let parent = format!("drwxr-xr-x 1 0 0 0 /{}", "d".repeat(120));
    assert_rootfs(
        &[layer],
        &[
            "drwx--x--x 1 1 2 0 ",
            APP,
            "lrwxrwxrwx 1 0 0 7 /bin -> usr/bin",
            "lrwxrwxrwx 1 0 0 9 /dangling -> /no/where",
            &parent,
            &deep,
            "prw--w---- 1 3 4 0 /pipe",
            "lrwxrwxrwx 1 0 0 9 /same -> /no/where",
            "drwxrwxrwt 1 0 0 0 /tmp",
            "drwxr-xr-x 1 0 0 0 /usr",
            "drwxr-xr-x 1 0 0 0 /usr/bin",
            "-rwsr-x--- 2 1000 4294967294 2 /usr/bin/su",
            "-rwsr-x--- 2 1000 4294967294 0 /usr/bin/sudo",
        ],
    );
}

#[test]
fn whiteouts_hide_lower_layers_wherever_they_are() {
    let lower = app()
        .file("d/old", "1")
        .file("d/kept", "2")
        .file("e/old", "3")
        .directory("e/sub")
        .file("gone", "4")
        .file("back", "5");
    let upper = Layer::new()
        .file("d/new", "6")
        .file("d/.wh.old", "")
        .file("e/new", "7")
        .file("e/.wh..wh..opq", "")
        .file(".wh.gone", "")
        .directory("./.wh.never-was/.")
        .file(".wh.back", "")
        .file("back", "other");
    let again = Layer::new().file(".wh.e", "").file("e", "a file now");
    assert_rootfs(
        &[lower, upper, again],
        &[
            ROOT,
            APP,
            "-rw-r--r-- 1 0 0 5 /back",
            "drwxr-xr-x 1 0 0 0 /d",
            "-rw-r--r-- 1 0 0 1 /d/kept",
            "-rw-r--r-- 1 0 0 1 /d/new",
            "-rw-r--r-- 1 0 0 10 /e",
        ],
    );
}

#[test]
fn whiteouts_and_a_directory_that_is_made_again_give_a_new_one() {
    let lower = app()
        .entry(EntryType::Directory, "d", 0o700, (5, 5))
        .file("d/old", "");
    let upper = Layer::new().file(".wh.d", "").file("d/new", "");
    let new = ["drwxr-xr-x 1 0 0 0 /d", "-rw-r--r-- 1 0 0 0 /d/new"];
    assert_rootfs(&[lower, upper], &[&[ROOT, APP][..], &new].concat());
}

#[test]
fn layers_replace_lower_ones() {
    let lower = app()
        .file("a", "file")
        .file("b/inside", "file")
        .symlink("c", "a")
        .file("first", "data")
        .hard_link("second", "first")
        .directory("d")
        .with(|entry| entry.mode = 0o700)
        .file("d/stays", "");
    let upper = Layer::new()
        .directory("a")
        .file("a/inside", "x")
        .symlink("b", "a")
        .file("c", "no longer a link")
        .file("first", "changed")
        .hard_link("third", "second")
        .directory("d")
        .with(|entry| (entry.mode, entry.gid) = (0o750, 9));
    assert_rootfs(
        &[lower, upper],
        &[
            ROOT,
            "drwxr-xr-x 1 0 0 0 /a",
            "-rw-r--r-- 1 0 0 1 /a/inside",
            APP,
            "lrwxrwxrwx 1 0 0 1 /b -> a",
            "-rw-r--r-- 1 0 0 16 /c",
            "drwxr-x--- 1 0 9 0 /d",
            "-rw-r--r-- 1 0 0 0 /d/stays",
            "-rw-r--r-- 1 0 0 7 /first",
            "-rw-r--r-- 2 0 0 4 /second",
            "-rw-r--r-- 2 0 0 0 /third",
        ],
    );
}

#[test]
fn links_lead_nowhere_but_into_the_image() {
    let lower = app()
        .symlink("up", "../../../../../etc")
        .symlink("abs", "/srv")
        .directory("etc");
    let upper = Layer::new().file("up/x", "").file("abs/y", "");
    assert_rootfs(
        &[lower, upper],
        &[
            ROOT,
            "lrwxrwxrwx 1 0 0 4 /abs -> /srv",
            APP,
            "drwxr-xr-x 1 0 0 0 /etc",
            "-rw-r--r-- 1 0 0 0 /etc/x",
            "drwxr-xr-x 1 0 0 0 /srv",
            "-rw-r--r-- 1 0 0 0 /srv/y",
            "lrwxrwxrwx 1 0 0 18 /up -> ../../../../../etc",
        ],
    );
}

#[test]
fn device_nodes_are_left_out_and_hide_what_was_there() {
    let lower = app().file("dev/null", "not a device");
    let upper = Layer::new()
        .entry(EntryType::Char, "dev/null", 0o666, (0, 0))
        .entry(EntryType::Block, "dev/sda", 0o660, (0, 6));
    let (image, notes) = Project::of(&Image::new(&[lower, upper])).build_with_notes();
    assert_eq!(rootfs(&image), [ROOT, APP, "drwxr-xr-x 1 0 0 0 /dev"]);
    let expected =
        ["device nodes are left out: /dev/null, /dev/sda; the enclave has a /dev of its own"];
    assert_eq!(notes, expected);
}

#[test]
fn left_out_things_are_noted_if_it_is_there_at_the_end() {
    const CAPABILITY: &str = "SCHILY.xattr.security.capability";
    let net_raw = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let lower = app()
        .pax(&[(CAPABILITY, net_raw)])
        .program("bin/ping", elf())
        .pax(&[(CAPABILITY, net_raw)])
        .program("bin/replaced", elf())
        .pax(&[("SCHILY.xattr.user.a\nb", b"1")])
        .directory("data")
        .pax(&[("SCHILY.xattr.user.gone", b"1")])
        .file("gone/file", "")
        .entry(EntryType::Char, "gone/device", 0o666, (0, 0));
    let upper = Layer::new()
        .program("bin/replaced", elf())
        .file(".wh.gone", "");
    let (_, notes) = Project::of(&Image::new(&[lower, upper])).build_with_notes();
    assert_eq!(
        notes,
        [
            "file capabilities are left out: /bin/ping (NET_RAW); in an enclave no program gives its user new privileges: grant those that the workload needs in confinement.capabilities",
            "extended attributes are left out: /data (user.a\\nb); an enclave image cannot hold them",
        ]
    );
}

#[test]
fn directories_of_volumes_and_of_the_start_are_made_where_there_are_none() {
    let layer = app()
        .directory("var/data")
        .with(|entry| (entry.mode, entry.uid) = (0o700, 5))
        .symlink("link", "/var/new");
    let image = Image::new(&[layer])
        .with(
            "Volumes",
            json!({ "/var/data": {}, "/link": {}, "/a/b/": {}, "/": {} }),
        )
        .with("WorkingDir", json!("/work"));
    assert_eq!(
        rootfs(&Project::of(&image).build()),
        [
            ROOT,
            "drwxr-xr-x 1 0 0 0 /a",
            "drwxr-xr-x 1 0 0 0 /a/b",
            APP,
            "lrwxrwxrwx 1 0 0 8 /link -> /var/new",
            "drwxr-xr-x 1 0 0 0 /var",
            "drwx------ 1 5 0 0 /var/data",
            "drwxr-xr-x 1 0 0 0 /var/new",
            "drwxr-xr-x 1 0 0 0 /work",
        ]
    );
    for (volume, word) in [
        ("/app", "its volume /app cannot be a directory"),
        ("/app/x", "not a directory"),
        ("data", "its volume `data` is not an absolute path"),
    ] {
        let image = Image::new(&[app()]).with("Volumes", json!({ volume: {} }));
        Project::of(&image).refused(3, &["image image: ", word]);
    }
}

#[test]
fn extended_headers_are_read() {
    let long = "n".repeat(150);
    let layer = app()
        .pax(&[
            ("path", long.as_bytes()),
            ("uid", b"3000000"),
            ("gid", b"4000000"),
            ("mtime", b"1700000000.5"),
            ("SCHILY.xattr.security.capability", b"\x01\0\n\x02=\n"),
        ])
        .file("short", "x")
        .pax(&[("linkpath", long.as_bytes()), ("comment", b"")])
        .symlink("link", "short")
        .file("after", "")
        .with(|entry| entry.uid = 1);
    assert_rootfs(
        &[layer],
        &[
            ROOT,
            "-rw-r--r-- 1 1 0 0 /after",
            APP,
            &format!("lrwxrwxrwx 1 0 0 150 /link -> {long}"),
            &format!("-rw-r--r-- 1 3000000 4000000 1 /{long}"),
        ],
    );
}

#[test]
fn layers_may_be_empty() {
    let tars = vec![app().tar(), vec![0; 1024], vec![]];
    let image = Image::stored(&tars, tars.clone());
    assert_eq!(rootfs(&Project::of(&image).build()), [ROOT, APP]);
}

#[test]
fn file_contents_are_those_of_the_layers() {
    let large: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let layers = [
        app().file("a", "lower").file("large", large.clone()),
        Layer::new().file("a", "upper").hard_link("z", "large"),
    ];
    let image = Project::of(&Image::new(&layers)).build();
    let application = ramdisks(&image).pop().unwrap();
    assert_eq!(file(&application, "rootfs/a"), b"upper");
    assert!(file(&application, "rootfs/large") == large);
    assert_eq!(file(&application, "rootfs/app"), elf());
}

#[test]
fn left_out_attributes_have_names_that_linux_takes() {
    for (length, is_taken) in [(255, true), (256, false)] {
        let name = format!("SCHILY.xattr.{}", "a".repeat(length));
        let layer = app().pax(&[(&name, b"1")]).file("data", "");
        let project = Project::of(&Image::new(&[layer]));
        if is_taken {
            project.build_with_notes();
        } else {
            project.refused(3, &["data: an extended attribute", "more than 255 bytes"]);
        }
    }
}
