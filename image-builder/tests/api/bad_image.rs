//! Container images that are damaged, or made to do harm.

use std::fs;

use serde_json::json;
use tar::EntryType;

use crate::image::{Image, app, sha256};
use crate::layer::{Layer, gzip, zstd};
use crate::project::Project;

/// Every line about an image names it.
#[track_caller]
fn refused(image: &Image, words: &[&str]) {
    let line = Project::of(image).refused(3, words);
    assert!(line.starts_with("image-builder: image image: "), "{line}");
}

#[track_caller]
fn layer_refused(layer: Layer, words: &[&str]) {
    refused(&Image::new(&[app(), layer]), words);
}

fn blob(project: &Project, bytes: &[u8]) -> std::path::PathBuf {
    let digest = sha256(bytes);
    project
        .path("image/blobs/sha256")
        .join(digest.strip_prefix("sha256:").unwrap())
}

#[test]
fn damaged_blobs() {
    let image = Image::new(&[app()]);
    let layer = &image.layers[0];
    let config = image.config.to_string();
    for (bytes, digest) in [
        (layer.as_slice(), sha256(layer)),
        (config.as_bytes(), sha256(config.as_bytes())),
    ] {
        let project = Project::of(&image);
        let path = blob(&project, bytes);
        let mut flipped = bytes.to_vec();
        *flipped.last_mut().unwrap() ^= 1;
        fs::write(&path, &flipped).unwrap();
        project.refused(3, &["image image: ", &digest, "digest", "damaged"]);
        fs::write(&path, &bytes[1..]).unwrap();
        project.refused(
            3,
            &["image image: ", &digest, "bytes instead of", "damaged"],
        );
        fs::remove_file(&path).unwrap();
        project.refused(
            1,
            &["cannot read ", path.file_name().unwrap().to_str().unwrap()],
        );
    }
}

#[test]
fn layers_that_are_not_what_the_configuration_says() {
    let mut image = Image::new(&[app()]);
    image.config["rootfs"]["diff_ids"][0] = json!(sha256(b"other"));
    refused(
        &image,
        &["layer 1 (sha256:", "diff id", &sha256(b"other"), "damaged"],
    );
    for (diff_ids, words) in [
        (json!([]), &["1 layers and 0 diff ids"][..]),
        (json!(null), &["1 layers and 0 diff ids"]),
        (
            json!(["sha256:12"]),
            &[
                "its configuration",
                "`sha256:12` is not a SHA-256 or SHA-512 digest",
            ],
        ),
        (json!(7), &["its configuration", "invalid type"]),
    ] {
        image.config["rootfs"]["diff_ids"] = diff_ids;
        refused(&image, words);
    }
}

#[test]
fn images_for_other_processors() {
    for (key, value, word) in [
        ("architecture", "arm64", "linux/arm64"),
        ("os", "windows", "windows/amd64"),
    ] {
        let mut image = Image::new(&[app()]);
        image.config[key] = json!(value);
        refused(&image, &[word, "--platform linux/amd64"]);
    }
}

#[test]
fn text_of_strangers_stays_on_one_line() {
    let mut image = Image::new(&[app()]);
    image.config["os"] = json!("a\nb\u{1b}[2J\r");
    refused(&image, &["a\\nb\\u{1b}[2J\\r"]);
    layer_refused(Layer::new().file("../a\nb", ""), &["../a\\nb"]);
}

#[test]
fn compressed_layers_that_are_damaged() {
    let tar = app().tar();
    let whole = [gzip(&tar, 6), zstd(&tar)];
    for stored in &whole {
        let truncated = stored[..stored.len() - 20].to_vec();
        let trailing = [stored, &b"trailing bytes"[..]].concat();
        for layer in [truncated, trailing] {
            let image = Image::stored(std::slice::from_ref(&tar), vec![layer]);
            refused(&image, &["layer 1", "cannot be decompressed"]);
        }
    }
    // Several parts, one after the other, are one.
    let (a, b) = tar.split_at(700);
    for layer in [
        [gzip(a, 1), gzip(b, 9)].concat(),
        [zstd(a), zstd(b)].concat(),
    ] {
        Project::of(&Image::stored(std::slice::from_ref(&tar), vec![layer])).build();
    }
}

#[test]
fn truncated_archives() {
    let whole = app().file("b", vec![1; 3000]).tar();
    let refused_at = |length: usize, word: &str| {
        let tar = whole[..length].to_vec();
        refused(
            &Image::stored(std::slice::from_ref(&tar), vec![tar.clone()]),
            &["layer 1", word],
        );
    };
    for length in [1, 511, 513, 1024 + 511, 1024 + 512 + 2999] {
        refused_at(length, "truncated");
    }
    // Everything is there but the end's own mark.
    let tar = whole[..whole.len() - 1024].to_vec();
    Project::of(&Image::stored(
        std::slice::from_ref(&tar),
        vec![tar.clone()],
    ))
    .build();
}

#[test]
fn archives_that_are_none() {
    for tar in [b"no tar at all".repeat(100), {
        let mut tar = app().tar();
        tar[0] ^= 1;
        tar
    }] {
        let image = Image::stored(std::slice::from_ref(&tar), vec![tar.clone()]);
        refused(&image, &["layer 1", "header at byte 0", "damaged"]);
    }
}

#[test]
fn entries_that_lead_out_of_the_image() {
    let escape = "leads out of the image";
    layer_refused(
        Layer::new().file("../etc/passwd", ""),
        &["entry ../etc/passwd", escape],
    );
    layer_refused(Layer::new().file("a/../../b", ""), &[escape]);
    layer_refused(Layer::new().directory(".."), &[escape]);
    layer_refused(Layer::new().symlink("../l", "x"), &[escape]);
    layer_refused(
        Layer::new().hard_link("h", "../../etc/passwd"),
        &["entry h", escape],
    );
    layer_refused(Layer::new().file("../.wh.x", ""), &[escape]);
    layer_refused(Layer::new().file("a/../../.wh..wh..opq", ""), &[escape]);
    let pax = Layer::new().pax(&[("path", b"../x")]).file("x", "");
    layer_refused(pax, &["entry ../x", escape]);
}

#[test]
fn entries_that_linux_cannot_have() {
    let path = "its path or target";
    layer_refused(Layer::new().file(&"x".repeat(256), ""), &[path]);
    layer_refused(Layer::new().file(&"d/".repeat(300), ""), &[path]);
    layer_refused(Layer::new().file(&"long/".repeat(818), ""), &[path]);
    layer_refused(Layer::new().symlink("l", ""), &["entry l", path]);
    layer_refused(
        Layer::new().pax(&[("path", b"a\0b")]).file("x", ""),
        &[path],
    );
    layer_refused(Layer::new().file(".wh.", ""), &[path]);
    layer_refused(Layer::new().file("d/.wh...", ""), &[path]);
    layer_refused(
        Layer::new().symlink("l", "l").file("l/x", ""),
        &["entry l/x", "more than 40 symbolic links"],
    );
    layer_refused(
        Layer::new().file("app/x", ""),
        &["entry app/x", "not a directory"],
    );
    layer_refused(Layer::new().file("/", ""), &["root directory"]);
    layer_refused(
        Layer::new().hard_link("h", "none"),
        &["entry h", "hard link"],
    );
    layer_refused(Layer::new().hard_link("h", "./"), &["entry h", "hard link"]);
    let id = "user or group id is larger";
    for value in [u64::from(u32::MAX), 1 << 40] {
        layer_refused(
            Layer::new().file("f", "").with(|entry| entry.uid = value),
            &["entry f", id],
        );
        layer_refused(
            Layer::new().file("f", "").with(|entry| entry.gid = value),
            &["entry f", id],
        );
    }
}

#[test]
fn entries_that_programs_read_differently() {
    let sparse = "sparse files are not supported";
    layer_refused(
        Layer::new().entry(EntryType::GNUSparse, "s", 0o644, (0, 0)),
        &["entry s", sparse],
    );
    let pax = Layer::new()
        .pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0")])
        .file("s", "1\n0\n512\n");
    layer_refused(pax, &["entry s", sparse]);
    let pax = Layer::new()
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.name", b"var/log/lastlog"),
        ])
        .file("GNUSparseFile.0/lastlog", "1\n0\n512\n");
    layer_refused(pax, &["entry var/log/lastlog", sparse, "give it `-l`"]);
    layer_refused(
        Layer::new().entry(EntryType::new(b'V'), "v", 0, (0, 0)),
        &["entry v", "type"],
    );
    let link = Layer::new()
        .directory("real")
        .file("real/x", "")
        .symlink("link", "real");
    let image = Image::new(&[app(), link, Layer::new().file("link/.wh.x", "")]);
    refused(&image, &["layer 3", "entry link/.wh.x", "symbolic link"]);
}

#[test]
fn extended_headers_that_are_damaged() {
    for contents in [
        "x",
        "9 path",
        "99 path=x\n",
        "9 path=xy\n",
        "7 path\n",
        "14 size=twelve\n",
        "+9 path=x\n",
    ] {
        let layer = Layer::new()
            .file("pax", contents)
            .with(|entry| entry.kind = EntryType::XHeader)
            .file("f", "");
        layer_refused(layer, &["extended header", "damaged"]);
    }
    // A size in the extended header counts, so the archive cannot end here.
    layer_refused(
        Layer::new().pax(&[("size", b"99999")]).file("f", "x"),
        &["truncated"],
    );
    let large = Layer::new()
        .pax(&[("comment", &vec![b'x'; 1 << 20])])
        .file("f", "");
    layer_refused(large, &["more than is allowed"]);
    let large = Layer::new()
        .file("long", vec![b'x'; 5000])
        .with(|entry| entry.kind = EntryType::GNULongName)
        .file("f", "");
    layer_refused(large, &["more than is allowed"]);
}

#[test]
fn documents_that_are_none() {
    for (name, bytes, words) in [
        (
            "index.json",
            &b"{"[..],
            &["index.json", "cannot be read"][..],
        ),
        ("index.json", b"{}", &["missing field `manifests`"]),
        (
            "index.json",
            b"{\"manifests\": []}",
            &["no image for linux/amd64"],
        ),
    ] {
        let project = Project::new();
        project.write(&format!("image/{name}"), bytes);
        project.refused(3, words);
    }
    let project = Project::new();
    let large = format!("{{\"manifests\": [], \"x\": \"{}\"}}", "y".repeat(4 << 20));
    project.write("image/index.json", large);
    project.refused(3, &["index.json has ", "more than the 4194304"]);
    fs::remove_file(project.path("image/index.json")).unwrap();
    project.refused(1, &["cannot read image/index.json", "No such file"]);
    fs::remove_dir_all(project.path("image")).unwrap();
    project.refused(
        1,
        &[
            "cannot read image/index.json",
            "check `image` in the manifest",
        ],
    );
}
