//! Images, and what they are made of.

use std::io::{Cursor, Write};

use aws_lc_rs::digest::{SHA256, digest};
use eif::cpio::{Entry, Kind, Writer};
use eif::{Architecture, BuildMetadata, Metadata};
use serde_json::json;

use crate::configuration::host;
use crate::write;

pub(crate) fn write_all() {
    ramdisks();
    layers();
    archives();
    write("agent_image", "image", &image());
}

fn ramdisks() {
    write("agent_ramdisk", "tree", &tree());
    write("agent_ramdisk", "tree.gz", &gzip(&tree()));
    let links = archive(&[
        ("a", Kind::File, 7, 2, b""),
        ("b", Kind::File, 7, 2, b"abc"),
        ("c", Kind::Symlink, 8, 1, b"../victim"),
        ("d", Kind::Symlink, 9, 1, b"../outside"),
        ("d", Kind::Directory, 10, 1, b""),
        ("d/e", Kind::File, 11, 1, b"x"),
    ]);
    write("agent_ramdisk", "links", &links);
    write("cpio_read", "links", &links);
}

/// A tar archive of entries with a name, a type, a target and contents.
fn layer(entries: &[(&str, tar::EntryType, &str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, kind, link, contents) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(*kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(1);
        header.set_size(contents.len() as u64);
        if !link.is_empty() {
            header.set_link_name(link).expect("a short target");
        }
        archive
            .append_data(&mut header, name, *contents)
            .expect("an entry");
    }
    archive.into_inner().expect("an archive")
}

/// Archives of images and of a root file system, each behind the byte that says which.
fn archives() {
    use tar::EntryType::{Regular, Symlink};
    let digest = |bytes: &[u8]| hex::encode(digest(&SHA256, bytes));
    let root = layer(&[
        ("app", Regular, "", b"#!/app"),
        ("link", Symlink, "app", b""),
    ]);
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "variant": "v2",
        "rootfs": { "diff_ids": [format!("sha256:{}", digest(&root))] },
    })
    .to_string()
    .into_bytes();
    let descriptor = |kind: &str, bytes: &[u8]| {
        json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": format!("sha256:{}", digest(bytes)),
            "size": bytes.len(),
        })
    };
    let manifest = json!({
        "config": descriptor("config.v1+json", &config),
        "layers": [descriptor("layer.v1.tar", &root)],
    })
    .to_string()
    .into_bytes();
    let mut chosen = descriptor("manifest.v1+json", &manifest);
    chosen["platform"] = json!({ "os": "linux", "architecture": "amd64", "variant": "v2" });
    let index = json!({ "manifests": [chosen] }).to_string().into_bytes();
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", digest(bytes));
    let layout = layer(&[
        ("index.json", Regular, "", &index),
        ("oci-layout", Regular, "", b"{}"),
        (&blob(&manifest), Regular, "", &manifest),
        (&blob(&config), Regular, "", &config),
        (&blob(&root), Regular, "", &root),
    ]);
    let list =
        json!([{ "Config": "config.json", "RepoTags": ["a:b"], "Layers": ["link/layer.tar"] }]);
    let docker = layer(&[
        ("0/layer.tar", Regular, "", &root),
        ("link/layer.tar", Symlink, "../0/layer.tar", b""),
        ("config.json", Regular, "", &config),
        ("manifest.json", Regular, "", list.to_string().as_bytes()),
    ]);
    for (name, kind, archive) in [
        ("docker", 0, &docker),
        ("docker.gz", 0, &gzip(&docker)),
        ("layout", 1, &layout),
        ("layout-of-docker", 0, &layout),
        ("root", 2, &root),
        ("root.gz", 2, &gzip(&root)),
    ] {
        write(
            "image_builder_archive",
            name,
            &[&[kind][..], archive].concat(),
        );
    }
}

fn layers() {
    use tar::EntryType;
    let tree = layer(&[
        ("etc", EntryType::Directory, "", b""),
        ("etc/passwd", EntryType::Regular, "", b"root:x:0:0::/:\n"),
        ("etc/link", EntryType::Symlink, "passwd", b""),
        ("etc/same", EntryType::Link, "etc/passwd", b""),
    ]);
    write("image_builder_layer", "tree.tar", &tree);
    let whiteouts = layer(&[
        (".wh.app", EntryType::Regular, "", b""),
        ("app", EntryType::Regular, "", b"#!/app"),
        ("srv", EntryType::Directory, "", b""),
        ("srv/.wh..wh..opq", EntryType::Regular, "", b""),
    ]);
    write("image_builder_layer", "whiteouts.tar", &whiteouts);
    let needs_libraries = layer(&[
        (
            "app",
            EntryType::Regular,
            "",
            &dynamic(&["liba.so", "libb.so"], "$ORIGIN/lib:"),
        ),
        (LOADER, EntryType::Regular, "", &dynamic(&[], "")),
        (
            "lib/liba.so",
            EntryType::Regular,
            "",
            &dynamic(&["libc.so"], ""),
        ),
        (
            "opt/libb.so",
            EntryType::Regular,
            "",
            &dynamic(&[], "/$LIB"),
        ),
        (
            "etc/ld.so.conf",
            EntryType::Regular,
            "",
            b"include conf/*.x\n",
        ),
        ("etc/conf/a.x", EntryType::Regular, "", b"/opt # here\n"),
        ("etc/ld.so.cache", EntryType::Regular, "", b"x\0libc.so\0"),
    ]);
    write("image_builder_layer", "libraries.tar", &needs_libraries);
    let long = "d/".repeat(60);
    write(
        "image_builder_layer",
        "long-name.tar",
        &layer(&[(&format!("{long}x"), EntryType::Regular, "", b"x")]),
    );
}

/// The loader of [`dynamic`] programs.
const LOADER: &str = "lib64/ld-linux-x86-64.so.2";

/// An x86-64 program that needs libraries (System V ABI, chapters 4 and 5): headers, the
/// dynamic section and its strings, all at the address of their place in the file.
fn dynamic(needed: &[&str], runpath: &str) -> Vec<u8> {
    let mut strings = format!("/{LOADER}\0").into_bytes();
    let mut entries = Vec::new();
    let texts = needed.iter().map(|name| (1, *name));
    for (tag, text) in texts.chain([(29, runpath)]) {
        entries.push((tag, strings.len() as u64));
        strings.extend(text.bytes());
        strings.push(0);
    }
    let section = 64 + 3 * 56;
    let place = section + 16 * (entries.len() as u64 + 2);
    entries.extend([(5_u64, place), (0, 0)]);
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0".to_vec();
    bytes.resize(64, 0);
    (bytes[32], bytes[54], bytes[56]) = (64, 56, 3);
    for (kind, offset, size) in [
        (1_u32, 0, place + strings.len() as u64),
        (2, section, place - section),
        (3, place, LOADER.len() as u64 + 2),
    ] {
        let mut segment = [0; 56];
        segment[..4].copy_from_slice(&kind.to_le_bytes());
        segment[8..16].copy_from_slice(&u64::to_le_bytes(offset));
        segment[16..24].copy_from_slice(&offset.to_le_bytes());
        segment[32..40].copy_from_slice(&size.to_le_bytes());
        bytes.extend(segment);
    }
    for (tag, value) in entries {
        bytes.extend(u64::to_le_bytes(tag));
        bytes.extend(u64::to_le_bytes(value));
    }
    bytes.extend(strings);
    bytes
}

/// A whole image, as the agent opens them.
fn image() -> Vec<u8> {
    let metadata = Metadata {
        image_name: "fuzz".to_owned(),
        image_version: "1".to_owned(),
        build_metadata: BuildMetadata {
            build_time: "1970-01-01T00:00:00Z".to_owned(),
            build_tool: "seeds".to_owned(),
            build_tool_version: "1".to_owned(),
            operating_system: "Linux".to_owned(),
            kernel_version: "6.12".to_owned(),
        },
        docker_info: json!({}).into(),
        custom_metadata: json!({ manifest::HOST_CONFIG_KEY: host() }).into(),
    };
    let (boot, application) = (gzip(&tree()), tree());
    let mut file = Cursor::new(Vec::new());
    eif::write(
        eif::Image {
            architecture: Architecture::X86_64,
            default_memory: 1 << 26,
            default_cpus: 2,
            kernel: &mut b"kernel".as_slice(),
            command_line: "reboot=k",
            metadata: &metadata,
            ramdisks: vec![&mut boot.as_slice(), &mut application.as_slice()],
            signer: None,
        },
        &mut file,
    )
    .expect("an image");
    file.into_inner()
}

fn tree() -> Vec<u8> {
    archive(&[
        ("bin", Kind::Directory, 1, 2, b""),
        ("bin/sh", Kind::File, 2, 1, b"shell"),
        ("bin/bash", Kind::Symlink, 3, 1, b"sh"),
        ("console", Kind::CharDevice, 4, 1, b""),
    ])
}

fn archive(entries: &[(&str, Kind, u32, u32, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (name, kind, inode, links, contents) in entries {
        let entry = entry(name, *kind, *inode, *links, contents.len());
        writer.append(&entry, *contents).expect("an entry");
    }
    writer.finish().expect("an archive")
}

fn entry(name: &str, kind: Kind, inode: u32, links: u32, size: usize) -> Entry {
    let permissions = if kind == Kind::Directory {
        0o755
    } else {
        0o644
    };
    let size = u32::try_from(size).expect("a short file");
    Entry {
        inode,
        links,
        ..Entry::new(name, kind, permissions, size)
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).expect("memory");
    gzip.finish().expect("memory")
}
