//! Finding the one image that is meant.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;
use tar::EntryType;

use crate::image::{Compression, Image, app, tagged, write_index};
use crate::layer::{Layer, gzip};
use crate::project::{MANIFEST, Project};
use crate::ramdisk::ramdisks;

/// Images that can be told apart.
pub(crate) fn image(name: &str) -> Image {
    Image::compressed(&[app().file(name, "")], Compression::None)
}

#[track_caller]
pub(crate) fn assert_builds(project: &Project, name: &str) {
    let lines = crate::ramdisk::rootfs(&project.build());
    assert!(
        lines.iter().any(|line| line.ends_with(&format!("/{name}"))),
        "{lines:?}"
    );
}

#[test]
fn a_layout_of_several_tags() {
    let project = Project::new();
    let folder = project.path("image");
    let one = image("one").write_blobs(&folder);
    let two = image("two").write_blobs(&folder);
    let all = [
        tagged(one.clone(), "1.0"),
        tagged(two.clone(), "2.0"),
        tagged(one.clone(), "stable"),
    ];
    write_index(&folder, &all);
    project.refused(3, &["2 images", "`oci:image:TAG`", "1.0, 2.0, stable"]);
    let choose = |tag: &str| {
        let manifest = MANIFEST.replace("oci:image", &format!("oci:image:{tag}"));
        project.write("enclave.toml", manifest);
    };
    choose("2.0");
    assert_builds(&project, "two");
    choose("stable");
    assert_builds(&project, "one");
    choose("3.0");
    project.refused(3, &["no image with the tag `3.0`", "1.0, 2.0, stable"]);
    // An image has a digest without having a tag.
    let two = two["digest"].as_str().unwrap();
    project.write(
        "enclave.toml",
        MANIFEST.replace("oci:image", &format!("oci:image@{two}")),
    );
    assert_builds(&project, "two");
    choose("1.0");
    write_index(
        &folder,
        &[tagged(one.clone(), "1.0"), tagged(all[1].clone(), "1.0")],
    );
    let line = project.refused(3, &["2 images", "tags: 1.0;", two]);
    // What the error says to write is what works.
    let (_, advised) = line.split_once("as in `oci:image@").unwrap();
    let (advised, _) = advised.split_once('`').unwrap();
    project.write(
        "enclave.toml",
        MANIFEST.replace("oci:image", &format!("oci:image@{advised}")),
    );
    project.build();
    // One image with two tags is still one.
    project.write("enclave.toml", MANIFEST);
    write_index(
        &folder,
        &[tagged(one.clone(), "1.0"), tagged(one, "stable")],
    );
    assert_builds(&project, "one");
}

#[test]
fn lists_that_go_writes_as_null() {
    let project = Project::new();
    let folder = project.path("image");
    let mut manifest = image("one").write_blobs(&folder);
    manifest["annotations"] = json!(null);
    write_index(&folder, &[manifest]);
    assert_builds(&project, "one");
}

#[test]
fn paths_start_at_the_manifests_folder() {
    let project = Project::new();
    let expected = project.build();
    fs::create_dir(project.path("elsewhere")).unwrap();
    let mut command = project.command();
    command
        .current_dir(project.path("elsewhere"))
        .args(["--manifest", "../enclave.toml"]);
    // The other paths are the caller's.
    for name in ["kernel", "enclave-init"] {
        symlink(project.path(name), project.path("elsewhere").join(name)).unwrap();
    }
    assert!(command.output().unwrap().status.success());
    assert!(fs::read(project.path("elsewhere/out.eif")).unwrap() == expected);
}

fn archive_project(archive: &Layer, tag: &str) -> Project {
    let project = Project::new();
    project.write("image.tar", archive.tar());
    let reference = format!("docker-archive:image.tar{tag}");
    project.write("enclave.toml", MANIFEST.replace("oci:image", &reference));
    project
}

#[test]
fn a_docker_archive_of_several_images() {
    let manifest = |config: &str, layer: &str, tags: &[&str]| json!({ "Config": config, "Layers": [layer], "RepoTags": tags });
    let (one, two) = (image("one"), image("two"));
    let archive = Layer::new()
        .file("1.tar", one.layers[0].clone())
        .file("2.tar", gzip(&two.layers[0], 6))
        .file("1.json", one.config.to_string())
        .file("2.json", two.config.to_string())
        .file(
            "manifest.json",
            json!([
                manifest("1.json", "1.tar", &["server:1.0", "server:latest"]),
                manifest("2.json", "2.tar", &["server:2.0"]),
            ])
            .to_string(),
        );
    assert_builds(&archive_project(&archive, ":server:latest"), "one");
    assert_builds(&archive_project(&archive, ":server:2.0"), "two");
    let tags = "server:1.0, server:2.0, server:latest";
    archive_project(&archive, "").refused(3, &["image image.tar: ", "2 images", tags]);
    archive_project(&archive, ":server:3").refused(3, &["`server:3`", tags]);
}

#[test]
fn a_docker_archive_with_links_to_links() {
    let image = image("one");
    let stored = image.docker_archive(&["a:b"]);
    let layer = stored.entries[0].clone();
    let mut archive = Layer::new()
        .directory("abc/")
        .file("abc/layer.tar", layer.contents)
        .symlink("second/layer.tar", "../abc/layer.tar")
        .hard_link("third.tar", "abc/layer.tar")
        .symlink("0/layer.tar", "../second/layer.tar");
    archive.entries.extend(stored.entries[1..].to_vec());
    assert_builds(&archive_project(&archive, ""), "one");
}

#[test]
fn docker_archives_that_are_damaged() {
    let whole = image("one").docker_archive(&[]);
    let project = archive_project(&whole, "");
    let bytes = whole.tar();
    for (bytes, words) in [
        (
            gzip(&bytes, 6)[..100].to_vec(),
            &["cannot be decompressed"][..],
        ),
        (b"\xfd7zXZ\0 and so on".to_vec(), &["`xz --decompress`"]),
        (b"PK\x03\x04".repeat(200), &["not a tar archive"]),
        (bytes[..1000].to_vec(), &["truncated"]),
        (vec![0; 1024], &["manifest.json is missing"]),
        (vec![], &["manifest.json is missing"]),
    ] {
        project.write("image.tar", bytes);
        project.refused(3, &[&["image image.tar: "], words].concat());
    }
    for (index, word) in [(0, "0/layer.tar is missing"), (1, "config.json is missing")] {
        let mut partial = whole.clone();
        partial.entries.remove(index);
        archive_project(&partial, "").refused(3, &[word]);
    }
    let mut large = whole.clone();
    large.entries[2].contents.resize(5 << 20, b' ');
    archive_project(&large, "").refused(3, &["manifest.json has 5242880 bytes"]);
    let mut swapped = whole.clone();
    swapped.entries[0].contents = app().file("evil", "").tar();
    archive_project(&swapped, "").refused(3, &["layer 1 (0/layer.tar)", "diff id", "damaged"]);
    let mut outside = whole.clone();
    outside.entries[0].kind = EntryType::Symlink;
    outside.entries[0].contents.clear();
    outside.entries[0].target = b"/etc/passwd".to_vec();
    archive_project(&outside, "").refused(3, &["0/layer.tar is missing"]);
    let project = archive_project(&whole, "");
    fs::remove_file(project.path("image.tar")).unwrap();
    project.refused(1, &["cannot read image.tar"]);
}

#[test]
fn both_ramdisks_are_there() {
    assert_eq!(ramdisks(&Project::new().build()).len(), 2);
}
