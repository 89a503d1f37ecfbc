//! Layers in which programs see different things are refused: what a scanner has examined is
//! what runs.

use tar::EntryType;

use crate::image::{Image, app};
use crate::layer::{Entry, Layer};
use crate::project::Project;
use crate::ramdisk::rootfs;

#[track_caller]
fn layer_refused(layer: Layer, words: &[&str]) {
    let image = Image::new(&[app(), layer]);
    let line = Project::of(&image).refused(3, &[&["layer 2"], words].concat());
    assert!(
        line.contains("programs differ on which of them counts"),
        "{line}"
    );
}

const TWICE: &str = "another entry before it has the same name and is not the same";

#[test]
fn one_meaning_of_a_name_that_is_there_twice() {
    let x = || Layer::new().file("x", "1");
    for layer in [
        x().file("x", "2"),
        x().file("./x", "longer"),
        x().file("x", "1").with(|entry| entry.mode = 0o4755),
        x().file("x", "1").with(|entry| entry.uid = 1),
        x().symlink("x", "app"),
        x().hard_link("x", "app"),
        x().directory("x"),
        x().entry(EntryType::Fifo, "x", 0o644, (0, 0)),
        x().entry(EntryType::Char, "x", 0o644, (0, 0)),
        Layer::new()
            .entry(EntryType::Char, "x", 0o644, (0, 0))
            .file("x", "1"),
        Layer::new().symlink("x", "app").symlink("x", "other"),
        Layer::new().directory("x").symlink("x", "app"),
    ] {
        layer_refused(layer, &["entry ", "x: ", TWICE]);
    }
    // By another path to the same place.
    let layer = Layer::new()
        .directory("d")
        .symlink("l", "d")
        .file("d/x", "1")
        .file("l/x", "2");
    layer_refused(layer, &["entry l/x", TWICE]);
    let layer = Layer::new().file("d/x", "").symlink("d", "e");
    layer_refused(layer, &["entry d: ", "entries before it are below it"]);
}

#[test]
fn one_meaning_of_what_is_there_twice_in_the_same_way() {
    let layer = Layer::new()
        .directory("./")
        .directory("d")
        .file("d/x", "1")
        .directory("d/")
        .with(|entry| entry.mode = 0o700)
        .file("d/x", "1")
        .symlink("l", "d")
        .symlink("l", "d")
        .hard_link("h", "d/x")
        .hard_link("h", "./d/x")
        .entry(EntryType::Char, "c", 0o644, (0, 0))
        .entry(EntryType::Char, "c", 0o644, (0, 0))
        .directory("./");
    let (image, _) = Project::of(&Image::new(&[app(), layer])).build_with_notes();
    let lines = rootfs(&image);
    assert_eq!(
        lines[2..],
        [
            "drwx------ 1 0 0 0 /d",
            "-rw-r--r-- 2 0 0 1 /d/x",
            "-rw-r--r-- 2 0 0 0 /h",
            "lrwxrwxrwx 1 0 0 1 /l -> d",
        ]
    );
}

#[test]
fn one_meaning_of_whiteouts_after_what_they_name() {
    let whiteout = "it is a whiteout for what the same layer has before it";
    for (layer, entry) in [
        (Layer::new().file("x", "").file(".wh.x", ""), "entry .wh.x"),
        (
            Layer::new().file("d/x", "").file(".wh.d", ""),
            "entry .wh.d",
        ),
        (
            Layer::new().file("d/e/x", "").file("d/.wh..wh..opq", ""),
            "entry d/.wh..wh..opq",
        ),
    ] {
        layer_refused(layer, &[entry, whiteout]);
    }
    // Programs agree on these.
    let layer = Layer::new()
        .directory("d")
        .file("d/x", "")
        .directory("d/e")
        .file("d/e/y", "")
        .file("d/.wh..wh..opq", "")
        .file(".wh.z", "")
        .file("z", "");
    Project::of(&Image::new(&[app(), layer])).build();
}

#[test]
fn one_meaning_of_headers() {
    let refused = |layer: Layer, words: &[&str]| {
        Project::of(&Image::new(&[app(), layer])).refused(3, words);
    };
    let global = |records: &[(&str, &[u8])]| {
        Layer::new()
            .pax(records)
            .with(|entry| entry.kind = EntryType::XGlobalHeader)
            .file("x", "")
    };
    refused(global(&[("path", b"y")]), &["global header at byte 0"]);
    refused(global(&[("uid", b"1")]), &["global header at byte 0"]);
    // As `git archive` writes it.
    let image = Image::new(&[app(), global(&[("comment", b"0123")])]);
    Project::of(&image).build();

    let long = "n".repeat(150);
    let both = |path: &str| {
        Layer::new()
            .pax(&[("path", path.as_bytes())])
            .file(&long, "")
    };
    Project::of(&Image::new(&[app(), both(&long)])).build();
    refused(both("y"), &["entry y", "its two long names"]);

    let mut tar = app().tar();
    tar.truncate(tar.len() - 512);
    tar.extend(Layer::new().file("after", "").tar());
    let image = Image::stored(std::slice::from_ref(&tar), vec![tar.clone()]);
    Project::of(&image).refused(3, &["header at byte 1024", "damaged"]);
}

#[test]
fn one_meaning_of_headers_that_are_there_twice() {
    let refused = |layer: Layer, words: &[&str]| {
        let image = Image::new(&[app(), layer]);
        let line = Project::of(&image).refused(3, words);
        assert!(line.contains("programs differ on which counts"), "{line}");
    };
    let header = |kind: u8, contents: &str| {
        let change = |entry: &mut Entry| entry.kind = EntryType::new(kind);
        Layer::new().file("header", contents).with(change)
    };
    let then = |mut one: Layer, other: Layer| {
        one.entries.extend(other.entries);
        one
    };
    // The second header is after the first and its one block of contents.
    let second = "header or long name at byte 1024 is the second of its kind";
    for (kind, two) in [(b'L', ["evil", "app"]), (b'K', ["/evil", "/app"])] {
        let both = then(header(kind, two[0]), header(kind, two[1]));
        refused(then(both, Layer::new().symlink("x", "app")), &[second]);
    }
    let pax = |path: &[u8]| Layer::new().pax(&[("path", path)]);
    // An empty value would take back the name of the first.
    for path in ["y", ""] {
        let both = then(pax(b"evil"), pax(path.as_bytes()));
        refused(then(both, Layer::new().file("x", "")), &[second]);
    }
    for (key, one, other) in [
        ("path", &b"evil"[..], &b""[..]),
        ("path", b"", b"evil"),
        ("path", b"evil", b"y"),
        ("linkpath", b"evil", b""),
        ("size", b"1", b""),
        ("uid", b"0", b"1"),
        ("SCHILY.xattr.security.capability", b"", b"x"),
    ] {
        let layer = Layer::new().pax(&[(key, one), ("mtime", b"1"), (key, other)]);
        let words = format!("header at byte 0 has two values for `{key}`");
        refused(layer.file("x", ""), &[&words]);
    }
    // Each entry may have its own, and what is said twice is said.
    let layer = Layer::new()
        .pax(&[("path", b"y"), ("path", b"y")])
        .file("x", "")
        .pax(&[("path", b"z")])
        .file("x", "");
    let layers = rootfs(&Project::of(&Image::new(&[app(), layer])).build());
    let names: Vec<_> = layers.iter().map(|line| line.rsplit(' ').next()).collect();
    assert_eq!(names[2..], [Some("/y"), Some("/z")]);
}

/// The format of star has the prefix of a name in fewer bytes than `ustar`.
#[test]
fn one_meaning_of_names_in_headers_of_star() {
    let mut header = tar::Header::new_ustar();
    header.set_size(0);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    let bytes = header.as_mut_bytes();
    bytes[0] = b'x';
    bytes[345..345 + 4].copy_from_slice(b"evil");
    let layer = |mut header: tar::Header| {
        header.set_cksum();
        [header.as_bytes(), &Layer::new().tar()[..]].concat()
    };
    let image = |tar: Vec<u8>| Image::stored(&[app().tar(), tar.clone()], vec![app().tar(), tar]);
    Project::of(&image(layer(header.clone()))).build();
    header.as_mut_bytes()[508..].copy_from_slice(b"tar\0");
    let words = ["layer 2", "header at byte 0 is of the star program's own"];
    Project::of(&image(layer(header))).refused(3, &words);
}
