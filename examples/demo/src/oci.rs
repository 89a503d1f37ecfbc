//! A static program as an OCI image layout (OCI Image Format, version 1), the
//! same bytes for the same program.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

/// The folder of the program in the image, which is its user's home.
const FOLDER: &str = "app/";
/// Nobody but the service itself; a static program needs no other file.
const PASSWD: &str = "app:x:1000:1000::/app:/sbin/nologin\n";
const GROUP: &str = "app:x:1000:\nkeys:x:101:app\n";
const USER: &str = "1000:1000";
const USER_ID: u64 = 1000;
/// The bits that a program runs as its owner or group with (chmod(2)).
const SET_ID: u32 = 0o6000;

/// A blob of the layout.
struct Blob {
    digest: String,
    size: u64,
}

/// Writes the layout into `folder`, which is made, and returns the size of its
/// only layer in bytes. The program keeps its name.
pub fn write(folder: &Path, program: &Path) -> anyhow::Result<u64> {
    write_with(folder, program, &[])
}

/// The same with further programs and the libraries that they load, each at its
/// own absolute path.
pub fn write_with(folder: &Path, program: &Path, others: &[PathBuf]) -> anyhow::Result<u64> {
    let contents = fs::read(program)
        .with_context(|| format!("cannot read the workload {}", program.display()))?;
    let name = program.file_name().and_then(|name| name.to_str());
    let name = name.with_context(|| format!("{} has no name", program.display()))?;
    let path = format!("{FOLDER}{name}");
    let write = || -> io::Result<u64> {
        fs::create_dir_all(folder.join("blobs/sha256"))?;
        let layer = write_blob(folder, &layer(&path, &contents, others)?)?;
        let config = write_blob(folder, &json_bytes(&config(&path, &layer)))?;
        let manifest = write_blob(folder, &json_bytes(&manifest(&config, &layer)))?;
        fs::write(folder.join("index.json"), json_bytes(&index(&manifest)))?;
        fs::write(
            folder.join("oci-layout"),
            json_bytes(&json!({ "imageLayoutVersion": "1.0.0" })),
        )?;
        Ok(layer.size)
    };
    write().with_context(|| format!("cannot write the container image to {}", folder.display()))
}

fn layer(path: &str, program: &[u8], others: &[PathBuf]) -> io::Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    append_of(USER_ID, &mut tar, FOLDER, 0o755, &[])?;
    append(&mut tar, path, 0o755, program)?;
    append(&mut tar, "etc/", 0o755, &[])?;
    append(&mut tar, "etc/group", 0o644, GROUP.as_bytes())?;
    append(&mut tar, "etc/passwd", 0o644, PASSWD.as_bytes())?;
    let mut folders = BTreeSet::new();
    for other in others {
        let path = other.strip_prefix("/").map_err(io::Error::other)?;
        for folder in path.ancestors().skip(1) {
            folders.insert(format!("{}/", folder.display()));
        }
    }
    for folder in folders.iter().filter(|folder| *folder != "/") {
        append(&mut tar, folder, 0o755, &[])?;
    }
    for other in others {
        let path = other.display().to_string();
        let contents = fs::read(other)?;
        let mode = 0o755 | fs::metadata(other)?.permissions().mode() & SET_ID;
        append(&mut tar, path.trim_start_matches('/'), mode, &contents)?;
    }
    tar.into_inner()
}

/// A file of root's.
fn append(tar: &mut Builder<Vec<u8>>, path: &str, mode: u32, contents: &[u8]) -> io::Result<()> {
    append_of(0, tar, path, mode, contents)
}

/// A file of this user's, and of the group with the same number.
fn append_of(
    owner: u64,
    tar: &mut Builder<Vec<u8>>,
    path: &str,
    mode: u32,
    contents: &[u8],
) -> io::Result<()> {
    let mut header = Header::new_ustar();
    header.set_entry_type(if path.ends_with('/') {
        EntryType::Directory
    } else {
        EntryType::Regular
    });
    header.set_mode(mode);
    header.set_size(contents.len().try_into().map_err(io::Error::other)?);
    header.set_uid(owner);
    header.set_gid(owner);
    header.set_mtime(0);
    tar.append_data(&mut header, path, contents)
}

fn config(path: &str, layer: &Blob) -> Value {
    json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "User": USER,
            "Entrypoint": [format!("/{path}")],
            "WorkingDir": "/app",
        },
        "rootfs": { "type": "layers", "diff_ids": [layer.digest] },
    })
}

fn manifest(config: &Blob, layer: &Blob) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
    })
}

fn index(manifest: &Blob) -> Value {
    let mut descriptor = descriptor("application/vnd.oci.image.manifest.v1+json", manifest);
    if let Some(fields) = descriptor.as_object_mut() {
        let platform = json!({ "architecture": architecture(), "os": "linux" });
        fields.insert("platform".to_owned(), platform);
    }
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [descriptor],
    })
}

fn descriptor(media_type: &str, blob: &Blob) -> Value {
    json!({ "mediaType": media_type, "digest": blob.digest, "size": blob.size })
}

/// The processor's name in OCI (that of Go).
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn json_bytes(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn write_blob(folder: &Path, bytes: &[u8]) -> io::Result<Blob> {
    let hash = hex::encode(digest(&SHA256, bytes));
    fs::write(folder.join("blobs/sha256").join(&hash), bytes)?;
    Ok(Blob {
        digest: format!("sha256:{hash}"),
        size: bytes.len().try_into().map_err(io::Error::other)?,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;

    use super::*;

    fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(current) = folders.pop() {
            for entry in fs::read_dir(current).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let name = path.strip_prefix(folder).unwrap().to_owned();
                    files.insert(name, fs::read(path).unwrap());
                }
            }
        }
        files
    }

    fn layout(name: &str) -> (tempfile::TempDir, PathBuf) {
        let temporary = tempfile::tempdir().unwrap();
        let program = temporary.path().join("program");
        fs::write(&program, b"\x7fELF of a kind").unwrap();
        let folder = temporary.path().join(name);
        write(&folder, &program).unwrap();
        (temporary, folder)
    }

    #[test]
    fn the_same_program_gives_the_same_bytes() {
        let (_first, a) = layout("a");
        let (_second, b) = layout("b");
        assert_eq!(files(&a), files(&b));
    }

    #[test]
    fn every_descriptor_leads_to_its_blob() {
        let (_temporary, folder) = layout("image");
        let files = files(&folder);
        let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
        let blob = |descriptor: &Value| {
            let hash = descriptor["digest"].as_str().unwrap();
            let hash = hash.strip_prefix("sha256:").unwrap();
            let bytes = &files[&Path::new("blobs/sha256").join(hash)];
            assert_eq!(hex::encode(digest(&SHA256, bytes)), hash);
            assert_eq!(descriptor["size"], bytes.len());
            bytes.clone()
        };
        let index = json(&files[Path::new("index.json")]);
        let manifest = json(&blob(&index["manifests"][0]));
        let config = json(&blob(&manifest["config"]));
        let layer = blob(&manifest["layers"][0]);
        // An uncompressed layer is its own diff.
        assert_eq!(
            config["rootfs"]["diff_ids"][0],
            manifest["layers"][0]["digest"]
        );

        let mut archive = tar::Archive::new(&layer[..]);
        let mut names = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().to_str().unwrap().to_owned();
            if name == "app/program" {
                let mut contents = Vec::new();
                entry.read_to_end(&mut contents).unwrap();
                assert_eq!(contents, b"\x7fELF of a kind");
                assert_eq!(entry.header().mode().unwrap(), 0o755);
            }
            assert_eq!(entry.header().mtime().unwrap(), 0);
            names.push(name);
        }
        assert_eq!(
            names,
            ["app/", "app/program", "etc/", "etc/group", "etc/passwd"]
        );
    }

    #[test]
    fn a_missing_program_is_named() {
        let temporary = tempfile::tempdir().unwrap();
        let error = write(&temporary.path().join("image"), Path::new("/no/oracle")).unwrap_err();
        assert_eq!(error.to_string(), "cannot read the workload /no/oracle");
    }
}
