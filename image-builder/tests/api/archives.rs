//! Archives of images in all their forms, and names for them that are wrong.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::image::{sha256, tagged, write_index};
use crate::layer::{Layer, gzip, zstd};
use crate::project::{MANIFEST, Project};
use crate::sources::{assert_builds, image};

fn choose(project: &Project, reference: &str) {
    project.write("enclave.toml", MANIFEST.replace("oci:image", reference));
}

/// The files below a folder, as an archive of it has them.
fn archive_of(folder: &Path, prefix: &str) -> Layer {
    let mut archive = Layer::new();
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    for name in names {
        let path = folder.join(&name);
        if path.is_dir() {
            archive = archive.directory(&format!("{prefix}{name}/"));
            let inner = archive_of(&path, &format!("{prefix}{name}/"));
            archive.entries.extend(inner.entries);
        } else {
            archive = archive.file(&format!("{prefix}{name}"), fs::read(path).unwrap());
        }
    }
    archive
}

/// A zstd frame that decompresses to nothing.
const SKIPPABLE: &[u8] = b"\x5e\x2a\x4d\x18\x04\0\0\0skip";

#[test]
fn archives_of_layouts_are_read_compressed_or_not() {
    let project = Project::new();
    let folder = project.path("image");
    let one = image("one").write_blobs(&folder);
    let two = image("two").write_blobs(&folder);
    write_index(&folder, &[tagged(one, "1.0"), tagged(two, "host/two:2.0")]);
    let tar = archive_of(&folder, "").tar();
    for bytes in [
        tar.clone(),
        gzip(&tar, 6),
        zstd(&tar),
        [SKIPPABLE, &zstd(&tar)].concat(),
        archive_of(&folder, "./").tar(),
    ] {
        project.write("image.tar", bytes);
        choose(&project, "oci-archive:image.tar:1.0");
        assert_builds(&project, "one");
        choose(&project, "oci-archive:image.tar:host/two:2.0");
        assert_builds(&project, "two");
    }
    choose(&project, "oci-archive:image.tar");
    project.refused(
        3,
        &[
            "2 images",
            "`oci-archive:image.tar:TAG`",
            "1.0, host/two:2.0",
        ],
    );
    // As containerd's image store saves images for several platforms.
    choose(&project, "docker-archive:image.tar:1.0");
    assert_builds(&project, "one");
}

#[test]
fn archives_of_docker_are_read_compressed_or_not() {
    let project = Project::new();
    let tar = image("one").docker_archive(&["server:1.0"]).tar();
    for bytes in [
        gzip(&tar, 1),
        zstd(&tar),
        [zstd(&tar), SKIPPABLE.to_vec()].concat(),
    ] {
        project.write("image.tar", bytes);
        for kind in ["docker-archive", "oci-archive"] {
            choose(&project, &format!("{kind}:image.tar:server:1.0"));
            assert_builds(&project, "one");
        }
    }
    project.write("image.tar", gzip(&tar, 1));
    assert!(fs::read_dir(project.path("tmp")).unwrap().next().is_none());
}

#[test]
fn archives_that_docker_and_others_list_are_read_as_they_are_called() {
    let project = Project::new();
    let folder = project.path("image");
    let one = image("one");
    write_index(&folder, &[tagged(image("two").write_blobs(&folder), "2.0")]);
    one.write_blobs(&folder);
    let config = sha256(one.config.to_string().as_bytes()).replace(':', "/");
    let layer = sha256(&one.layers[0]).replace(':', "/");
    let manifest = json!([{
        "Config": format!("blobs/{config}"),
        "RepoTags": ["server:1.0"],
        "Layers": [format!("blobs/{layer}")],
    }]);
    let archive = archive_of(&folder, "").file("manifest.json", manifest.to_string());
    project.write("image.tar", archive.tar());
    choose(&project, "docker-archive:image.tar");
    assert_builds(&project, "one");
    choose(
        &project,
        &format!(
            "docker-archive:image.tar@{}",
            config.replace("sha256/", "sha256:")
        ),
    );
    assert_builds(&project, "one");
    choose(&project, "oci-archive:image.tar");
    assert_builds(&project, "two");
    let twice = archive.clone().file("manifest.json", "[]");
    project.write("image.tar", twice.tar());
    project.refused(
        3,
        &["entry manifest.json", "the same name", "programs differ"],
    );
}

#[test]
fn archives_of_docker_with_one_tag_twice_name_the_ids() {
    let (one, two) = (image("one"), image("two"));
    let entry = |number: u32| {
        json!({
            "Config": format!("{number}.json"),
            "Layers": [format!("{number}.tar")],
            "RepoTags": ["server:1.0"],
        })
    };
    let archive = Layer::new()
        .file("1.tar", one.layers[0].clone())
        .file("2.tar", two.layers[0].clone())
        .file("1.json", one.config.to_string())
        .file("2.json", two.config.to_string());
    let project = Project::new();
    let list = |entries: &[u32]| {
        let entries: Vec<_> = entries.iter().map(|number| entry(*number)).collect();
        let archive = archive
            .clone()
            .file("manifest.json", json!(entries).to_string());
        project.write("image.tar", archive.tar());
    };
    choose(&project, "docker-archive:image.tar:server:1.0");
    list(&[1, 1]);
    assert_builds(&project, "one");
    list(&[1, 2]);
    let id = sha256(two.config.to_string().as_bytes());
    project.refused(
        3,
        &[
            "2 images for linux/amd64",
            "`docker-archive:image.tar@sha256:",
            &id,
        ],
    );
    choose(&project, &format!("docker-archive:image.tar@{id}"));
    assert_builds(&project, "two");
    choose(
        &project,
        &format!("docker-archive:image.tar@{}", sha256(b"")),
    );
    project.refused(
        3,
        &["no image with the id sha256:", "docker images --no-trunc"],
    );
}

#[test]
fn archives_and_folders_under_the_wrong_name_are_told_the_right_one() {
    let project = Project::new();
    let folder = project.path("image");
    project.write("layout.tar", archive_of(&folder, "").tar());
    project.write(
        "docker.tar",
        image("one")
            .docker_archive(&[])
            .file("repositories", "{}")
            .tar(),
    );
    project.write("root.tar", Layer::new().program("usr/bin/app", "x").tar());
    fs::create_dir_all(project.path("root/usr")).unwrap();
    fs::create_dir_all(project.path("dir")).unwrap();
    for name in ["dir/manifest.json", "dir/version"] {
        project.write(name, "{}");
    }
    project.write(
        "old.tar",
        Layer::new()
            .file("repositories", "{}")
            .directory("0123")
            .tar(),
    );
    for (reference, words) in [
        (
            "oci:layout.tar",
            &["it is a file", "`oci-archive:layout.tar`"][..],
        ),
        ("oci-archive:image", &["OCI image layout", "`oci:image`"]),
        ("docker-archive:image", &["OCI image layout", "`oci:image`"]),
        ("rootfs:image", &["OCI image layout", "`oci:image`"]),
        ("rootfs-archive:image", &["OCI image layout", "`oci:image`"]),
        (
            "rootfs:root.tar",
            &["it is a file", "`rootfs-archive:root.tar`"],
        ),
        ("rootfs-archive:root", &["it is a folder", "`rootfs:root`"]),
        (
            "rootfs-archive:layout.tar",
            &["archive of images", "`oci-archive:layout.tar`"],
        ),
        (
            "rootfs-archive:docker.tar",
            &["archive of images", "`docker-archive:docker.tar`"],
        ),
        (
            "oci:root",
            &["root file system", "`rootfs:root`", "workload.entrypoint"],
        ),
        (
            "docker-archive:root",
            &["root file system", "`rootfs:root`"],
        ),
        (
            "docker-archive:root.tar",
            &["root file system", "`rootfs-archive:root.tar`"],
        ),
        (
            "oci:dir",
            &["`skopeo copy dir:dir oci:dir-oci`", "write `oci:dir-oci`"],
        ),
        (
            "docker-archive:old.tar",
            &["before version 1.10", "docker load"],
        ),
    ] {
        choose(&project, reference);
        project.refused(3, words);
    }
}
