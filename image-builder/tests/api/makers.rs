//! Images of the programs that people make them with: skopeo, buildah and umoci write and
//! read them, and nothing of these tests. `cargo xtask images layers` runs them; they are ignored
//! elsewhere, because the programs have to be installed and need root.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::Path;
use std::process::Command;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, TestRunner};

use crate::image::{Compression, Image, tagged, write_index};
use crate::layer::elf;
use crate::merge::{Operation, history, layers, lines};
use crate::project::{MANIFEST, Project};

/// How many images of random layers are unpacked.
const RANDOM_IMAGES: usize = 300;

/// Runs a command line of words, in the project's folder, and gives what it prints.
#[track_caller]
fn run(project: &Project, command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap())
        .args(words)
        .current_dir(project.folder())
        .env("CONTAINERS_STORAGE_CONF", project.path("storage.conf"))
        .output()
        .unwrap_or_else(|error| panic!("{command}: {error}"));
    assert!(output.status.success(), "{command}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Makes an image of two layers with buildah: the second hides a file, replaces a folder
/// and links to a file of the first.
fn make(project: &Project) {
    let own = |name: &str| project.path(name).display().to_string();
    project.write(
        "storage.conf",
        format!(
            "[storage]\ndriver = \"vfs\"\nrunroot = \"{}\"\ngraphroot = \"{}\"\n",
            own("run"),
            own("storage")
        ),
    );
    let container = run(project, "buildah from scratch");
    let root = run(project, &format!("buildah mount {container}"));
    let root = Path::new(&root);
    fs::write(root.join("app"), elf()).unwrap();
    run(
        project,
        &format!("chmod 755 {}", root.join("app").display()),
    );
    fs::create_dir_all(root.join("d/gone")).unwrap();
    fs::write(root.join("d/gone/x"), "1").unwrap();
    fs::write(root.join("d/hidden"), "2").unwrap();
    fs::write(root.join("kept"), "3").unwrap();
    symlink("d", root.join("link")).unwrap();
    run(
        project,
        &format!("buildah config --entrypoint [\"/app\"] {container}"),
    );
    run(project, &format!("buildah commit --rm {container} first"));
    let container = run(project, "buildah from first");
    let root = run(project, &format!("buildah mount {container}"));
    let root = Path::new(&root);
    fs::remove_file(root.join("d/hidden")).unwrap();
    fs::remove_dir_all(root.join("d/gone")).unwrap();
    fs::write(root.join("d/gone"), "a file now").unwrap();
    fs::hard_link(root.join("kept"), root.join("same")).unwrap();
    run(
        project,
        &format!("chown 7:8 {}", root.join("d/gone").display()),
    );
    run(project, &format!("buildah commit --rm {container} second"));
}

#[test]
#[ignore = "needs buildah, skopeo and umoci, and root"]
fn makers_give_the_same_measurements_in_every_form() {
    let project = Project::new();
    make(&project);
    fs::remove_dir_all(project.path("image")).unwrap();
    for command in [
        "buildah push second oci:image:1.0",
        "buildah push --format v2s2 second docker-archive:buildah.tar:server:1.0",
        "buildah push --compression-format zstd second oci:zstd:1.0",
        "skopeo copy oci:image:1.0 oci-archive:oci.tar:host/server:1.0",
        "skopeo copy oci:image:1.0 docker-archive:docker.tar:server:1.0",
        "skopeo copy --dest-compress-format zstd oci:image:1.0 oci-archive:zstd.tar",
        "skopeo copy --format v2s2 oci:image:1.0 dir:dir",
        "skopeo copy dir:dir oci:copied",
        "gzip --keep docker.tar",
        "zstd --quiet --keep oci.tar",
        "umoci unpack --image image:1.0 bundle",
        "tar --create --file root.tar --directory bundle/rootfs .",
    ] {
        run(&project, command);
    }
    let entrypoint = "[workload]\nentrypoint = [\"/app\"]\n";
    let mut measured = BTreeMap::new();
    for reference in [
        "oci:image",
        "oci:image:1.0",
        "docker-archive:buildah.tar:localhost/server:1.0",
        "docker-archive:buildah.tar",
        "oci:zstd",
        "oci-archive:oci.tar:host/server:1.0",
        "docker-archive:docker.tar",
        "docker-archive:docker.tar.gz",
        "oci-archive:oci.tar.zst",
        "oci-archive:zstd.tar",
        "oci:copied",
        "rootfs:bundle/rootfs",
        "rootfs-archive:root.tar",
    ] {
        let manifest = MANIFEST.replace("oci:image", reference);
        project.write("enclave.toml", format!("{manifest}{entrypoint}"));
        let output = project.command().arg("--json").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if reference.ends_with("localhost/server:1.0") && !output.status.success() {
            // Which name it writes depends on the version of buildah.
            assert!(said.contains("its tags: "), "{said}");
            continue;
        }
        assert!(output.status.success(), "{reference}: {said}");
        measured.insert(reference, String::from_utf8(output.stdout).unwrap());
    }
    let different: BTreeSet<_> = measured.values().collect();
    assert_eq!(different.len(), 1, "{measured:#?}");
    let lines = crate::ramdisk::rootfs(&fs::read(project.path("out.eif")).unwrap());
    assert!(
        lines.contains(&"-rw-r--r-- 1 7 8 10 /d/gone".to_owned()),
        "{lines:?}"
    );
    assert!(
        !lines.iter().any(|line| line.ends_with("hidden")),
        "{lines:?}"
    );
}

/// The same lines as those of an image, of a folder.
fn lines_of(root: &Path) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    let mut names: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{folder}{}", entry.file_name().to_str().unwrap());
            if path == "app" {
                continue;
            }
            let metadata = fs::symlink_metadata(entry.path()).unwrap();
            let (kind, owner) = (metadata.file_type(), metadata.uid());
            lines.insert(if kind.is_dir() {
                folders.push(format!("{path}/"));
                format!("{path} directory {owner}")
            } else if kind.is_symlink() {
                format!("{path} symlink")
            } else if kind.is_fifo() {
                format!("{path} fifo")
            } else {
                let text = fs::read_to_string(entry.path()).unwrap();
                let linked = names.entry(metadata.ino()).or_default();
                linked.insert(path.clone());
                format!("{path} file {owner} {text}")
            });
        }
    }
    lines.extend(names.into_values().map(|names| format!("{names:?}")));
    lines
}

#[test]
#[ignore = "needs umoci, and root"]
fn makers_unpack_random_layers_to_what_is_built() {
    let mut runner = TestRunner::new(Config::default());
    let (mut compared, mut tried) = (0, 0);
    while compared < RANDOM_IMAGES {
        tried += 1;
        assert!(tried < 50 * RANDOM_IMAGES, "too few images can be built");
        let history = history().new_tree(&mut runner).unwrap().current();
        // Of a link to itself, as GNU tar writes for a file that it is given twice, umoci
        // removes what it is to link to.
        let links_to_itself = |operation: &Operation| match operation {
            Operation::HardLink(path, target) => path == target,
            _ => false,
        };
        if history.iter().flatten().any(links_to_itself) {
            continue;
        }
        let image = Image::compressed(&layers(&history), Compression::None);
        let project = Project::of(&image);
        let output = project.command().output().unwrap();
        if !output.status.success() {
            assert_eq!(output.status.code(), Some(3), "{output:?}");
            continue;
        }
        let folder = project.path("image");
        write_index(&folder, &[tagged(image.write_blobs(&folder), "1.0")]);
        let unpacked = Command::new("umoci")
            .args(["unpack", "--image", "image:1.0", "bundle"])
            .current_dir(project.folder())
            .output()
            .unwrap();
        assert!(unpacked.status.success(), "{unpacked:?} {history:#?}");
        let built = lines(&fs::read(project.path("out.eif")).unwrap());
        let unpacked = lines_of(&project.path("bundle/rootfs"));
        assert_eq!(built, unpacked, "{history:#?}");
        compared += 1;
    }
}
