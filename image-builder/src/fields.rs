//! Every field of an image's configuration (OCI image specification, "config.md", and what
//! Docker adds), and what follows from it.

use std::collections::BTreeSet;

use manifest::Manifest;
use serde_json::{Map, Value};

use crate::list::list;

/// Most fields or ports that a note names.
const MOST_NAMED: usize = 8;

/// What follows from a field that is set.
#[derive(Clone, Copy)]
enum Meaning {
    /// It decides what the enclave is, and is read where that is decided.
    Honoured,
    /// It describes the image or the container that it was made in, and container runtimes
    /// do nothing with it either.
    Describes,
    /// Nothing, as in today's container runtimes: this key of the manifest limits the workload.
    Limit(&'static str),
    /// Nothing, which is said if it matters.
    Reported(fn(&Value, &Manifest) -> Option<String>),
}

use Meaning::{Describes, Honoured, Limit, Reported};

/// Fields of the configuration itself.
const IMAGE: [(&str, Meaning); 20] = [
    ("architecture", Honoured),
    ("author", Describes),
    ("comment", Describes),
    ("config", Honoured),
    ("container", Describes),
    ("container_config", Describes),
    ("created", Describes),
    ("docker_version", Describes),
    ("history", Describes),
    ("id", Describes),
    ("moby.buildkit.buildinfo.v1", Describes),
    ("moby.buildkit.cache.v0", Describes),
    ("os", Honoured),
    // Windows's alone.
    ("os.features", Describes),
    ("os.version", Describes),
    ("parent", Describes),
    ("rootfs", Honoured),
    ("size", Describes),
    ("throwaway", Describes),
    ("variant", Describes),
];

/// Fields of its `config`. Those that Docker's `merge` (moby, `daemon/commit.go`) does not
/// take over from an image describe the container that the image was made in.
const PROCESS: [(&str, Meaning); 29] = [
    // Windows's alone.
    ("ArgsEscaped", Describes),
    ("AttachStderr", Describes),
    ("AttachStdin", Describes),
    ("AttachStdout", Describes),
    ("Cmd", Honoured),
    ("CpuShares", Limit("enclave.cpus")),
    ("Domainname", Describes),
    ("Entrypoint", Honoured),
    ("Env", Honoured),
    ("ExposedPorts", Reported(exposed_ports)),
    ("Healthcheck", Honoured),
    ("Hostname", Describes),
    ("Image", Describes),
    ("Labels", Describes),
    ("MacAddress", Describes),
    ("Memory", Limit("confinement.memory_mib")),
    ("MemorySwap", Limit("confinement.memory_mib")),
    ("NetworkDisabled", Describes),
    // For images that are built from this one.
    ("OnBuild", Describes),
    ("OpenStdin", Describes),
    // For instructions of a Dockerfile, and for a health check by a shell.
    ("Shell", Honoured),
    ("StdinOnce", Describes),
    ("StopSignal", Honoured),
    ("StopTimeout", Describes),
    ("Tty", Describes),
    ("User", Honoured),
    ("VolumeDriver", Describes),
    ("Volumes", Honoured),
    ("WorkingDir", Honoured),
];

/// What is to be said of the fields that are set: a line for each, and one for all that are
/// not known.
pub(crate) fn notes(configuration: &Map<String, Value>, manifest: &Manifest) -> Vec<String> {
    let process = configuration.get("config").and_then(Value::as_object);
    let mut notes = Vec::new();
    let mut unknown = BTreeSet::new();
    let parts: [(&str, &[(&str, Meaning)], _); 2] = [
        ("", &IMAGE, Some(configuration)),
        ("config.", &PROCESS, process),
    ];
    for (prefix, known, fields) in parts {
        for (name, value) in fields.into_iter().flatten() {
            if is_empty(value) {
                continue;
            }
            match known.iter().find(|(field, _)| field == name) {
                Some((_, Honoured | Describes)) => {}
                Some((_, Limit(key))) => notes.push(format!(
                    "the image's {name} has no effect, as in today's container runtimes: {key} is what limits the workload"
                )),
                Some((_, Reported(report))) => notes.extend(report(value, manifest)),
                None => {
                    unknown.insert(format!("{prefix}{name}"));
                }
            }
        }
    }
    if let Some(unknown) = list(unknown, MOST_NAMED) {
        notes.push(format!(
            "these fields of the image's configuration have no effect, as image-builder does not know them: {unknown}"
        ));
    }
    notes
}

/// Absent, in one of the ways in which Go writes that.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

/// Exposing a port opens none in a container either, but says that one is wanted.
fn exposed_ports(value: &Value, manifest: &Manifest) -> Option<String> {
    let is_open = |port: &&String| {
        let number = port.strip_suffix("/tcp").unwrap_or(port);
        let mut rules = manifest.network.ingress.iter();
        rules.any(|rule| rule.to.to_string() == number)
    };
    let ports = value.as_object()?.keys();
    let closed: BTreeSet<_> = ports.filter(|port| !is_open(port)).cloned().collect();
    let closed = list(closed, MOST_NAMED)?;
    Some(format!(
        "the image exposes {closed}, which no rule of network.ingress leads to: clients reach what has one, by TCP"
    ))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    /// The specification's fields (version 1.1.1).
    const SPECIFICATION: [&str; 28] = [
        "created",
        "author",
        "architecture",
        "os",
        "os.version",
        "os.features",
        "variant",
        "config",
        "config.User",
        "config.ExposedPorts",
        "config.Env",
        "config.Entrypoint",
        "config.Cmd",
        "config.Volumes",
        "config.WorkingDir",
        "config.Labels",
        "config.StopSignal",
        "config.ArgsEscaped",
        "config.Memory",
        "config.MemorySwap",
        "config.CpuShares",
        "config.Healthcheck",
        "rootfs",
        "history",
        // Docker image specification, version 1.2 and 1.3.
        "id",
        "parent",
        "config.OnBuild",
        "config.Shell",
    ];

    fn said(configuration: &Value, more: &str) -> Vec<String> {
        let text = format!("[enclave]\nname = \"a\"\nimage = \"oci:a\"\n{more}");
        let manifest = Manifest::parse(&text, Path::new("enclave.toml")).unwrap();
        notes(configuration.as_object().unwrap(), &manifest)
    }

    #[test]
    fn fields_of_the_specification_are_all_known() {
        for field in SPECIFICATION {
            let (name, known): (_, &[(&str, Meaning)]) = match field.strip_prefix("config.") {
                Some(name) => (name, &PROCESS),
                None => (field, &IMAGE),
            };
            let found = known.iter().filter(|(known, _)| *known == name);
            assert_eq!(found.count(), 1, "{field}");
        }
    }

    #[test]
    fn fields_without_effect_are_reported() {
        let configuration = json!({
            "architecture": "amd64",
            "Surprise": 1,
            "absent": null,
            "config": {
                "Labels": {"a": "b"},
                "Tty": true,
                "Healthcheck": {"Test": ["CMD-SHELL", "curl -f localhost"], "Interval": 30},
                "ExposedPorts": {"80/tcp": {}, "443": {}, "53/udp": {}},
                "Memory": 1,
                "MemorySwap": 0,
                "CpuShares": 2,
                "Novelty": ["x"],
                "Nothing": {},
            },
        });
        let expected = [
            "the image's CpuShares has no effect, as in today's container runtimes: enclave.cpus is what limits the workload",
            "the image exposes 443, 53/udp, 80/tcp, which no rule of network.ingress leads to: clients reach what has one, by TCP",
            "the image's Memory has no effect, as in today's container runtimes: confinement.memory_mib is what limits the workload",
            "these fields of the image's configuration have no effect, as image-builder does not know them: Surprise, config.Novelty",
        ];
        assert_eq!(said(&configuration, ""), expected);
    }

    #[test]
    fn fields_whose_place_the_manifest_takes_are_not_reported() {
        let configuration = json!({ "config": {
            "ExposedPorts": {"80/tcp": {}},
        }});
        let more = "[network]\ningress = [{ port = 443, to = 80 }]\n";
        assert_eq!(said(&configuration, more), [""; 0]);
        for odd in [
            json!({"config": 7}),
            json!({"config": {"ExposedPorts": [1]}}),
        ] {
            assert_eq!(said(&odd, ""), [""; 0]);
        }
    }
}
