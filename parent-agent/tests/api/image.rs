//! Small images whose init is a shell script that waits to be told its exit
//! code. What an init says over its sockets, the tests say in its place.

use std::fs::File;
use std::path::{Path, PathBuf};

use eif::cpio::{Entry, Kind, Writer};
use eif::{Architecture, BuildMetadata, Image, Metadata, Signer};
use serde_json::{Value, json};

/// Prints a line, then ends with the code that is written into the pipe `end` beside the
/// sockets: what it has in its own root is not seen outside.
const INIT: &str = "#!/bin/sh
echo \"console of $1\"
mkfifo \"$5/end.tmp\"
mv \"$5/end.tmp\" \"$5/end\"
read code < \"$5/end\"
exit \"$code\"
";

/// What an image holds.
pub(crate) struct Builder {
    host: Option<Value>,
    init: Option<&'static str>,
    padding: usize,
    owned: Vec<Owned>,
    signer: Option<Signer>,
}

/// An entry without contents that belongs to somebody.
pub(crate) struct Owned {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) permissions: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Builder {
    /// An image with these egress rules and ingress ports.
    pub(crate) fn new(egress: &[String], ingress: &[(u16, u16)]) -> Self {
        let ingress: Vec<_> = ingress
            .iter()
            .map(|(port, to)| json!({ "port": port, "to": to }))
            .collect();
        Self {
            host: Some(json!({
                "schema": 1,
                "name": "test",
                "cpus": 1,
                "memory_mib": 64,
                "egress": egress,
                "ingress": ingress,
            })),
            init: Some(INIT),
            padding: 0,
            owned: Vec::new(),
            signer: None,
        }
    }

    /// Services of AWS that the image's manifest has.
    pub(crate) fn aws_services(mut self, services: &[&str]) -> Self {
        if let Some(host) = &mut self.host {
            host["aws_services"] = json!(services);
        }
        self
    }

    /// Has the workload get the instance's credentials.
    pub(crate) fn aws_credentials(mut self) -> Self {
        if let Some(host) = &mut self.host {
            host["aws_credentials"] = Value::Bool(true);
        }
        self
    }

    /// Has its clients announced to the workload.
    pub(crate) fn proxy_protocol(mut self) -> Self {
        if let Some(rules) = self
            .host
            .as_mut()
            .and_then(|host| host["ingress"].as_array_mut())
        {
            for rule in rules {
                rule["proxy_protocol"] = Value::Bool(true);
            }
        }
        self
    }

    /// What its files are said to take of the memory.
    pub(crate) fn unpacked(mut self, bytes: u64) -> Self {
        if let Some(host) = &mut self.host {
            host["unpacked_bytes"] = json!(bytes);
        }
        self
    }

    pub(crate) fn without_host_config(mut self) -> Self {
        self.host = None;
        self
    }

    pub(crate) fn init(mut self, init: Option<&'static str>) -> Self {
        self.init = init;
        self
    }

    /// A file of this many bytes besides the init.
    pub(crate) fn padding(mut self, bytes: usize) -> Self {
        self.padding = bytes;
        self
    }

    /// More entries.
    pub(crate) fn owned(mut self, owned: Vec<Owned>) -> Self {
        self.owned = owned;
        self
    }

    /// Signs the image.
    pub(crate) fn signed(mut self, signer: Signer) -> Self {
        self.signer = Some(signer);
        self
    }

    /// Writes the image into `folder`.
    pub(crate) fn write(self, folder: &Path) -> PathBuf {
        let metadata = Metadata {
            image_name: "test".to_owned(),
            image_version: "1".to_owned(),
            build_metadata: BuildMetadata {
                build_time: "1970-01-01T00:00:00Z".to_owned(),
                build_tool: "test".to_owned(),
                build_tool_version: "0".to_owned(),
                operating_system: "Linux".to_owned(),
                kernel_version: "0".to_owned(),
            },
            docker_info: Value::Null.into(),
            custom_metadata: self
                .host
                .map_or(Value::Null, |host| json!({ "Host": host }))
                .into(),
        };
        let init = self.init.map(|init| file("init", 0o755, init.as_bytes()));
        let boot = archive(init);
        let padding = vec![0; self.padding];
        let owned = self.owned.into_iter().map(|owned| Entry {
            uid: owned.uid,
            gid: owned.gid,
            ..Entry::new(owned.name, owned.kind, owned.permissions, 0)
        });
        let owned = owned.map(|entry| (entry, &b""[..]));
        let application = archive(owned.chain([file("padding", 0o644, &padding)]));
        let path = folder.join("test.eif");
        eif::write(
            Image {
                architecture: Architecture::X86_64,
                default_memory: 64 << 20,
                default_cpus: 1,
                kernel: &mut &b"not a kernel"[..],
                command_line: "",
                metadata: &metadata,
                ramdisks: vec![&mut boot.as_slice(), &mut application.as_slice()],
                signer: self.signer.as_ref(),
            },
            &mut File::create(&path).unwrap(),
        )
        .unwrap();
        path
    }
}

fn file<'a>(name: &str, permissions: u32, contents: &'a [u8]) -> (Entry, &'a [u8]) {
    let size = contents.len().try_into().unwrap();
    (Entry::new(name, Kind::File, permissions, size), contents)
}

fn archive<'a>(entries: impl IntoIterator<Item = (Entry, &'a [u8])>) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, contents) in entries {
        writer.append(&entry, contents).unwrap();
    }
    writer.finish().unwrap()
}
