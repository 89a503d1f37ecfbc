//! Images for several platforms, and what stands beside images in an index.

use std::fs;
use std::path::Path;

use aws_lc_rs::digest::{SHA512, digest};
use serde_json::{Value, json};

use crate::image::{Image, app, for_platform, tagged, write_blob, write_index, write_nested_index};
use crate::project::Project;
use crate::sources::{assert_builds, image};

#[test]
fn platforms_of_an_index() {
    let project = Project::new();
    let folder = project.path("image");
    let arm = for_platform(image("arm").write_blobs(&folder), "linux", "arm64");
    let amd = for_platform(image("amd").write_blobs(&folder), "linux", "amd64");
    // As BuildKit adds to every image.
    let attestation = for_platform(image("x").write_blobs(&folder), "unknown", "unknown");
    let all = [arm.clone(), amd.clone(), attestation];
    write_index(&folder, &all);
    assert_builds(&project, "amd");
    let nested = write_nested_index(&folder, &all);
    write_index(&folder, std::slice::from_ref(&nested));
    assert_builds(&project, "amd");

    write_index(&folder, &[arm]);
    let words = ["image image: ", "linux/arm64", "--platform linux/amd64"];
    project.refused(3, &words);
    let twice = for_platform(image("other").write_blobs(&folder), "linux", "amd64");
    write_index(&folder, &[amd, twice]);
    project.refused(3, &["2 images for linux/amd64", "tag"]);
    let mut deeper = nested;
    for _ in 0..5 {
        deeper = write_nested_index(&folder, &[deeper]);
    }
    write_index(&folder, &[deeper]);
    project.refused(3, &["indices", "more than 4 deep"]);
}

fn for_variant(descriptor: Value, variant: &str) -> Value {
    let mut descriptor = for_platform(descriptor, "linux", "amd64");
    descriptor["platform"]["variant"] = json!(variant);
    descriptor
}

#[track_caller]
fn assert_builds_for(project: &Project, platform: &str, name: &str) {
    let mut command = project.command();
    let output = command.args(["--platform", platform]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let lines = crate::ramdisk::rootfs(&fs::read(project.path("out.eif")).unwrap());
    assert!(
        lines.iter().any(|line| line.ends_with(&format!("/{name}"))),
        "{lines:?}"
    );
}

#[test]
fn platform_chooses_among_variants() {
    let project = Project::new();
    let folder = project.path("image");
    let [base, two, three] = ["base", "two", "three"].map(|name| image(name).write_blobs(&folder));
    let all = [
        for_variant(three.clone(), "v3"),
        for_platform(base, "linux", "amd64"),
        for_variant(two, "v2"),
    ];
    write_index(&folder, &all);
    assert_builds(&project, "base");
    for (platform, name) in [
        ("linux/amd64", "base"),
        ("linux/amd64/v2", "two"),
        ("linux/amd64/v3", "three"),
        ("linux/amd64/v4", "three"),
    ] {
        assert_builds_for(&project, platform, name);
    }
    let refused = |platform: &str, code: i32, words: &[&str]| {
        let mut command = project.command();
        command.args(["--platform", platform]);
        project.refuses(command, code, words);
    };
    refused(
        "linux/arm64",
        2,
        &["--platform linux/arm64", "the kernel is for", "linux/amd64"],
    );
    // The only one is the one that is meant, and what it demands is said.
    write_index(&folder, &all[..1]);
    let (_, notes) = project.build_with_notes();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(
        notes[0].starts_with("the image is for linux/amd64/v3"),
        "{notes:?}"
    );
    refused(
        "linux/amd64",
        3,
        &[
            "no image for linux/amd64",
            "only for: linux/amd64/v3",
            "or another --platform",
        ],
    );
    // The index may say less than the configuration.
    let mut more = image("more");
    more.config["variant"] = json!("v3");
    let more = for_platform(more.write_blobs(&folder), "linux", "amd64");
    write_index(&folder, &[more]);
    let (_, notes) = project.build_with_notes();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(
        notes[0].starts_with("the image is for linux/amd64/v3"),
        "{notes:?}"
    );
    // Without a platform in the index, the configuration says it.
    let mut newer = image("newer");
    newer.config["variant"] = json!("v3");
    write_index(
        &folder,
        &[
            newer.write_blobs(&folder),
            image("plain").write_blobs(&folder),
        ],
    );
    assert_builds(&project, "plain");
    assert_builds_for(&project, "linux/amd64/v3", "newer");
}

#[test]
fn platform_that_is_none_is_a_wrong_command_line() {
    let project = Project::new();
    let mut command = project.command();
    let output = command.args(["--platform", "amd64"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("write linux/amd64 or linux/arm64"), "{text}");
}

/// A manifest of something that is no image.
fn artifact(folder: &Path, config: &str, more: &Value) -> Value {
    let empty = write_blob(folder, config, b"{}");
    let mut manifest = json!({ "schemaVersion": 2, "config": empty, "layers": [] });
    for (key, value) in more.as_object().unwrap() {
        manifest[key] = value.clone();
    }
    let kind = "application/vnd.oci.image.manifest.v1+json";
    write_blob(folder, kind, manifest.to_string().as_bytes())
}

#[test]
fn platforms_are_not_asked_of_what_refers_to_images() {
    let project = Project::new();
    let folder = project.path("image");
    let image_config = "application/vnd.oci.image.config.v1+json";
    let named = artifact(
        &folder,
        image_config,
        &json!({ "artifactType": "application/spdx+json" }),
    );
    let by_config = artifact(
        &folder,
        "application/vnd.oci.empty.v1+json",
        &json!({ "x": 1 }),
    );
    let mut by_index = artifact(&folder, image_config, &json!({ "x": 2 }));
    by_index["artifactType"] = json!("application/vnd.example");
    // A signature of cosign: a configuration for no platform.
    let mut signature = image("signature");
    signature.config["architecture"] = json!("");
    signature.config["os"] = json!("");
    let mut signature = signature.write_blobs(&folder);
    signature["annotations"] = json!({ "x": "y" });
    let one = image("one").write_blobs(&folder);
    write_index(&folder, &[named, by_config, by_index, signature, one]);
    assert_builds(&project, "one");
}

#[test]
fn platforms_in_the_names_of_containerd() {
    let project = Project::new();
    let folder = project.path("image");
    let mut one = tagged(image("one").write_blobs(&folder), "1.0");
    one["annotations"]["io.containerd.image.name"] = json!("docker.io/library/server:1.0");
    let two = tagged(image("two").write_blobs(&folder), "2.0");
    write_index(&folder, &[one, two]);
    for tag in ["1.0", "server:1.0", "docker.io/library/server:1.0"] {
        let manifest = crate::project::MANIFEST;
        project.write(
            "enclave.toml",
            manifest.replace("oci:image", &format!("oci:image:{tag}")),
        );
        assert_builds(&project, "one");
    }
}

#[test]
fn sha512_digests_are_checked() {
    let write = |folder: &Path, media_type: &str, bytes: &[u8]| {
        let hex = hex::encode(digest(&SHA512, bytes));
        let blobs = folder.join("blobs/sha512");
        fs::create_dir_all(&blobs).unwrap();
        fs::write(blobs.join(&hex), bytes).unwrap();
        json!({ "mediaType": media_type, "digest": format!("sha512:{hex}"), "size": bytes.len() })
    };
    let mut image = Image::new(&[app()]);
    let tar = app().tar();
    image.config["rootfs"]["diff_ids"][0] =
        json!(format!("sha512:{}", hex::encode(digest(&SHA512, &tar))));
    let project = Project::new();
    let folder = project.path("image");
    fs::remove_dir_all(folder.join("blobs")).unwrap();
    let config = write(
        &folder,
        "application/vnd.oci.image.config.v1+json",
        image.config.to_string().as_bytes(),
    );
    let layer = write(
        &folder,
        "application/vnd.oci.image.layer.v1.tar+gzip",
        &image.layers[0],
    );
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [layer] });
    let kind = "application/vnd.oci.image.manifest.v1+json";
    write_index(
        &folder,
        &[write(&folder, kind, manifest.to_string().as_bytes())],
    );
    let built = project.build();
    // The digests of what is stored do not matter for what runs.
    assert!(built.len() == Project::new().build().len());
    let hex = layer["digest"].as_str().unwrap().replace("sha512:", "");
    let path = folder.join("blobs/sha512").join(hex);
    let mut damaged = fs::read(&path).unwrap();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(path, damaged).unwrap();
    project.refused(3, &["layer 1 (sha512:", "its digest is sha512:", "damaged"]);
}

#[test]
fn encrypted_layers_are_named() {
    let project = Project::new();
    let folder = project.path("image");
    let image = Image::new(&[app()]);
    let layer = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted";
    let layer = write_blob(&folder, layer, &image.layers[0]);
    let config = image.config.to_string();
    let config = write_blob(
        &folder,
        "application/vnd.oci.image.config.v1+json",
        config.as_bytes(),
    );
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [layer] });
    let kind = "application/vnd.oci.image.manifest.v1+json";
    write_index(
        &folder,
        &[write_blob(&folder, kind, manifest.to_string().as_bytes())],
    );
    project.refused(3, &["is encrypted", "skopeo copy --decryption-key"]);
}
