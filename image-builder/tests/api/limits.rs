//! What an image may cost the machine that it is built on.

use std::io::Write;
use std::process::Command;

use serde_json::json;

use crate::image::{Image, app, for_platform, sha256, write_index, write_nested_index};
use crate::layer::Layer;
use crate::project::{MANIFEST, Project, error_line};

const MIB: usize = 1024 * 1024;

/// A tar archive with one file of zeros, and its zstd form, which is small.
fn zeros(mebibytes: usize) -> (String, Vec<u8>) {
    file_of_zeros("zeros", mebibytes)
}

fn file_of_zeros(name: &str, mebibytes: usize) -> (String, Vec<u8>) {
    let mut header = Layer::new().file(name, "").entries[0].clone();
    header.contents.clear();
    let mut head = tar::Header::from_byte_slice(&header.tar()).clone();
    head.set_size((mebibytes * MIB) as u64);
    head.set_cksum();
    let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    let mut write = |bytes: &[u8]| {
        digest.update(bytes);
        encoder.write_all(bytes).unwrap();
    };
    write(head.as_bytes());
    let block = vec![0; MIB];
    for _ in 0..mebibytes {
        write(&block);
    }
    write(&[0; 1024]);
    let digest = format!("sha256:{}", hex::encode(digest.finish()));
    (digest, encoder.finish().unwrap())
}

fn image(layers: &[(String, Vec<u8>)]) -> Image {
    let mut image = Image::new(&[app()]);
    for (diff_id, stored) in layers {
        image.layers.push(stored.clone());
        let diff_ids = image.config["rootfs"]["diff_ids"].as_array_mut().unwrap();
        diff_ids.push(diff_id.clone().into());
    }
    image
}

#[test]
fn layers_that_unpack_to_too_much() {
    // 64 MiB of memory allow 256 MiB of layers, in one or in several.
    let bomb = zeros(257);
    assert!(bomb.1.len() < MIB);
    let words = [
        "image image: ",
        "more than 256 MiB",
        "the largest file is /zeros with",
        "memory_mib",
    ];
    Project::of(&image(&[bomb])).refused(3, &words);
    let half = zeros(129);
    Project::of(&image(&[half.clone(), half])).refused(3, &words);
}

#[test]
fn archives_that_unpack_to_too_much() {
    let project = Project::new();
    let (_, stored) = zeros(321);
    project.write("image.tar", stored);
    project.write(
        "enclave.toml",
        MANIFEST.replace("oci:image", "docker-archive:image.tar"),
    );
    let words = [
        "more than 320 MiB when decompressed",
        "decompress it first",
        "`unzstd`",
    ];
    project.refused(3, &words);
}

#[test]
fn large_files_are_named() {
    // `useradd -u 2000000000` makes one of 544 GB.
    let lastlog = file_of_zeros("var/log/lastlog", 257);
    let words = ["the largest file is /var/log/lastlog with 257 MiB", "`-l`"];
    Project::of(&image(&[lastlog])).refused(3, &words);
    let lastlog = file_of_zeros("./var/log/lastlog", 80);
    let words = [
        "enclave.toml:4: ",
        "the largest is /var/log/lastlog with 80 MiB (useradd",
        "enclave.memory_mib to at least",
    ];
    Project::of(&image(&[lastlog])).refused(2, &words);
}

#[test]
fn links_that_multiply() {
    let mut layer = app();
    for number in 0..50 {
        let next = number + 1;
        layer = layer.symlink(&format!("l{number}"), &format!("l{next}/../l{next}"));
    }
    let layer = layer.directory("l50").file("l0/x", "");
    let words = ["entry l0/x", "more than 40 symbolic links"];
    Project::of(&Image::new(&[layer])).refused(3, &words);
}

/// Each name is short, and leads through links with thousands of names.
#[test]
fn links_that_take_long() {
    let far = "d/".repeat(200);
    let step = format!("{}l", "d/../".repeat(790));
    let mut layer = app().directory(&far);
    for number in 0..39 {
        let next = number + 1;
        layer = layer.symlink(&format!("l{number}"), &format!("{step}{next}"));
    }
    layer = layer.symlink("l39", &far);
    for number in 0..1000 {
        layer = layer.file(&format!("l0/{number}"), "");
    }
    let words = [
        "entry l0/",
        "symbolic links with more than 4000000 names together",
    ];
    Project::of(&Image::new(&[layer])).refused(3, &words);
}

#[test]
fn frames_that_need_too_much_memory() {
    let tar = app().tar();
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(28).unwrap();
    encoder.write_all(&tar).unwrap();
    encoder.flush().unwrap();
    let layer = encoder.finish().unwrap();
    let image = Image::stored(&[tar], vec![layer]);
    Project::of(&image).refused(3, &["layer 1", "cannot be decompressed", "memory"]);
}

#[test]
fn more_layers_than_an_image_can_have() {
    let mut layers = vec![app()];
    layers.resize(513, Layer::new());
    Project::of(&Image::new(&layers)).refused(3, &["513 layers", "at most 512"]);
    layers.truncate(512);
    Project::of(&Image::new(&layers)).build();
}

#[test]
fn memory_does_not_grow_with_the_image() {
    let project = Project::of(&image(&[zeros(160)]));
    project.write("enclave.toml", MANIFEST.replace("= 64", "= 1024"));
    let output = project.command_after("ulimit -v 98304").output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Fails within 96 MiB of address space, and with these words.
#[track_caller]
fn refused_within_memory(project: &Project, words: &[&str]) {
    let output = project.command_after("ulimit -v 98304").output().unwrap();
    let line = error_line(&output);
    assert_eq!(output.status.code(), Some(3), "{line}");
    for word in words {
        assert!(line.contains(word), "`{word}` is not in: {line}");
    }
    assert!(line.len() < 4096, "{} bytes", line.len());
}

#[test]
fn memory_does_not_grow_with_tags() {
    let project = Project::new();
    let folder = project.path("image");
    // Each would have the name of the index.
    let images: Vec<_> = (0..4000)
        .map(|number| {
            let digest = sha256(format!("{number}").as_bytes());
            let image = json!({ "mediaType": "x", "digest": digest, "size": 1 });
            for_platform(image, "linux", "amd64")
        })
        .collect();
    let mut one = write_nested_index(&folder, &images);
    let name = |length: usize| format!("docker.io/{}", "x".repeat(length));
    for (length, word) in [
        (4_000_000, "one of its tags has 4000010 bytes"),
        (503, "one of its tags has 513 bytes"),
        (502, "4000 images for linux/amd64"),
    ] {
        one["annotations"] = json!({ "io.containerd.image.name": name(length) });
        write_index(&folder, std::slice::from_ref(&one));
        refused_within_memory(&project, &["image image: ", word]);
    }
}

#[test]
fn memory_does_not_grow_with_entries_of_one_image() {
    let project = Project::new();
    let folder = project.path("image");
    let mut image = for_platform(image(&[]).write_blobs(&folder), "linux", "amd64");
    image["annotations"] = json!({ "x": "y".repeat(4_000_000) });
    let one = write_nested_index(&folder, &[image]);
    write_index(&folder, &vec![one; 2000]);
    let output = project.command_after("ulimit -v 98304").output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn memory_does_not_grow_with_configurations() {
    let project = Project::new();
    let mut archive = Layer::new();
    let mut images = Vec::new();
    for number in 0..32 {
        let mut config = image(&[]).config;
        config["created"] = json!(number.to_string());
        let name = format!("{number}.json");
        let padding = " ".repeat(4_000_000);
        archive = archive.file(&name, format!("{config}{padding}"));
        images.push(json!({ "Config": name, "RepoTags": [], "Layers": [] }));
    }
    let archive = archive.file("manifest.json", json!(images).to_string());
    project.write("image.tar", archive.tar());
    project.write(
        "enclave.toml",
        MANIFEST.replace("oci:image", "docker-archive:image.tar"),
    );
    refused_within_memory(&project, &["32 images for linux/amd64"]);
}

/// `script` gives the program a terminal.
#[test]
fn a_terminal_is_told_what_takes_long() {
    let tar = app().file("zeros", vec![0; 33 * MIB]).tar();
    let image = Image::stored(std::slice::from_ref(&tar), vec![tar.clone()]);
    assert_eq!(image.config["rootfs"]["diff_ids"][0], sha256(&tar));
    let project = Project::of(&image);
    project.write("enclave.toml", MANIFEST.replace("= 64", "= 256"));
    // Not on a terminal: `build` asserts that nothing is said.
    project.build();
    let command = format!(
        "{} build --kernel kernel --init enclave-init --output out.eif",
        env!("CARGO_BIN_EXE_image-builder")
    );
    let output = Command::new("script")
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .current_dir(project.folder())
        .env("TMPDIR", project.path("tmp"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("unpacking layer 1 of 1, 33.0 MiB"), "{text}");
    assert!(text.contains("compressing 33.0 MiB of files"), "{text}");
}
