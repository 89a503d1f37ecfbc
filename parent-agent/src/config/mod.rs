//! What the enclaves of an instance are: one document, in JSON or TOML.
//!
//! It is parsed once, whole, and everything that is wrong with it is named at
//! once. docs/agent-configuration.md describes it.

mod fields;
mod image;
pub mod imds;
pub mod source;

use std::collections::BTreeSet;
use std::str::FromStr;

use image_fetch::ImageConfig;
use log_sinks::cloudwatch::config::{LogGroup, RetentionDays};
use manifest::{Cpus, EnclaveName, Interval, MemoryMib};
use serde_json::Value;
use thiserror::Error;

use crate::gate::GateConfig;
use crate::ingress::Publish;
use crate::limit::{Connections, Limit, Rate};
use crate::recorder::MetricsNamespace;

use fields::Fields;

pub use source::{Source, SourceError};

/// Most bytes of a document: what instance user data may have is less.
pub const MAX_BYTES: usize = 64 * 1024;
/// Most enclaves of an instance: the driver's own limit.
pub const MAX_ENCLAVES: usize = 4;
/// Bytes of an enclave's identifier.
const MAX_ID: usize = 128;

/// Services of AWS, and bytes of the name of one.
const MAX_SERVICES: usize = 32;
const MAX_SERVICE: usize = 64;

/// What is wrong with a document.
#[derive(Debug, Error)]
#[error("the configuration {source_name} cannot be used: {}", problems.join("; "))]
pub struct ConfigError {
    /// Where the document is from.
    pub source_name: String,
    /// Everything that is wrong, each with its place.
    pub problems: Vec<String>,
}

/// The enclaves of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The region of every request to AWS, if not the environment's or the
    /// instance's.
    pub region: Option<String>,
    /// The enclaves, one to [`MAX_ENCLAVES`].
    pub enclaves: Vec<EnclaveConfig>,
}

/// One enclave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnclaveConfig {
    /// Its name on this instance.
    pub name: EnclaveName,
    /// Its identifier in the control plane.
    pub id: String,
    /// Its image.
    pub image: ImageConfig,
    /// Virtual CPUs, if not the manifest's.
    pub cpus: Option<Cpus>,
    /// Memory, if not the manifest's.
    pub memory_mib: Option<MemoryMib>,
    /// How long it may be silent while it boots, if not what its size asks for.
    pub boot_timeout: Option<Interval>,
    /// Whether it runs in debug mode.
    pub debug: bool,
    /// Handed to the workload and measured into PCR16.
    pub runtime_configuration: Option<String>,
    /// Ports opened elsewhere than on the loopback address.
    pub publish: Vec<Publish>,
    /// Of the manifest's services of AWS those that are open, if not all; a name
    /// that the manifest lacks opens nothing.
    pub aws_services: Option<Vec<String>>,
    /// The limits of connections out of the enclave.
    pub egress: Limit,
    /// The limits of connections into the enclave.
    pub ingress: Limit,
    /// The log group in CloudWatch; without one nothing is sent there.
    pub log_group: Option<LogGroup>,
    /// How long a group that the agent makes keeps its events.
    pub log_retention: Option<RetentionDays>,
    /// Where CloudWatch makes metrics of the enclave.
    pub metrics_namespace: Option<MetricsNamespace>,
    /// The attestation gate of the control plane.
    pub gate: Option<GateConfig>,
}

impl Config {
    /// Parses a document, which is JSON if it begins with `{` and TOML otherwise.
    pub fn parse(text: &str, source_name: &str) -> Result<Self, ConfigError> {
        let failed = |problems: Vec<String>| ConfigError {
            source_name: source_name.to_owned(),
            problems: problems
                .iter()
                .map(|problem| plain_text::plain_words(problem))
                .collect(),
        };
        if text.len() > MAX_BYTES {
            return Err(failed(vec![format!("it has more than {MAX_BYTES} bytes")]));
        }
        let value: Value = if text.trim_start().starts_with('{') {
            serde_json::from_str(text).map_err(|error| failed(vec![error.to_string()]))?
        } else {
            toml::from_str(text).map_err(|error| failed(vec![error.to_string()]))?
        };
        let mut problems = Vec::new();
        let config = Self::read(&value, &mut problems);
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(failed(problems)),
        }
    }

    /// The enclave `name`, or the only one.
    pub fn enclave(&self, name: Option<&EnclaveName>) -> Option<&EnclaveConfig> {
        match (name, self.enclaves.as_slice()) {
            (Some(name), enclaves) => enclaves.iter().find(|enclave| enclave.name == *name),
            (None, [only]) => Some(only),
            (None, _) => None,
        }
    }

    /// The enclaves' names, for people.
    pub fn names(&self) -> String {
        let names: Vec<_> = self.enclaves.iter().map(|e| e.name.as_str()).collect();
        names.join(", ")
    }

    fn read(value: &Value, problems: &mut Vec<String>) -> Option<Self> {
        let mut fields = Fields::of(value, "", problems)?;
        let region = fields.parsed("region", region);
        let values = fields.required_list("enclaves").unwrap_or_default();
        fields.end();
        if values.is_empty() || values.len() > MAX_ENCLAVES {
            problems.push(format!("enclaves: there are 1 to {MAX_ENCLAVES} of them"));
        }
        let enclaves: Vec<_> = (0..)
            .zip(values)
            .filter_map(|(index, value)| {
                EnclaveConfig::read(value, &format!("enclaves[{index}]."), problems)
            })
            .collect();
        let mut names = BTreeSet::new();
        let mut ports = BTreeSet::new();
        for enclave in &enclaves {
            if !names.insert(enclave.name.clone()) {
                problems.push(format!("enclaves: two have the name `{}`", enclave.name));
            }
            for publish in enclave.publish.iter().filter(|port| port.host_port != 0) {
                if !ports.insert(publish.host_port) {
                    problems.push(format!(
                        "enclaves: the port {} is published twice",
                        publish.host_port
                    ));
                }
            }
        }
        Some(Self { region, enclaves })
    }
}

impl EnclaveConfig {
    fn read(value: &Value, place: &str, problems: &mut Vec<String>) -> Option<Self> {
        let mut fields = Fields::of(value, place, problems)?;
        let name = fields.required("name", text_parsed::<EnclaveName>);
        let id = fields.parsed("id", identifier);
        let image = fields.required("image", |value| Ok(value.clone()));
        let cpus = fields.parsed("cpus", deserialized::<Cpus>);
        let memory_mib = fields.parsed("memory_mib", deserialized::<MemoryMib>);
        let boot_timeout = fields.parsed("boot_timeout", text_parsed::<Interval>);
        let debug = fields.parsed("debug", deserialized::<bool>);
        let runtime_configuration = fields.parsed("runtime_configuration", runtime_configuration);
        let publish = fields.parsed("publish", publish);
        let aws_services = fields.parsed("aws_services", aws_services);
        let egress = fields.parsed("egress", |value| Ok(value.clone()));
        let ingress = fields.parsed("ingress", |value| Ok(value.clone()));
        let log_group = fields.parsed("log_group", text_parsed::<LogGroup>);
        let log_retention = fields.parsed("log_retention_days", retention);
        let metrics_namespace = fields.parsed("metrics_namespace", text_parsed::<MetricsNamespace>);
        let gate = fields.parsed("gate", |value| Ok(value.clone()));
        fields.end();
        let image =
            image.and_then(|value| image::read(&value, &format!("{place}image."), problems));
        let id = match (id, &name) {
            (Some(id), _) => id,
            (None, Some(name)) => name.to_string(),
            (None, None) => String::new(),
        };
        let mut limit = |key: &str, value: Option<Value>| {
            value.map(|value| read_limit(&value, &format!("{place}{key}."), problems))
        };
        let (egress, ingress) = (limit("egress", egress), limit("ingress", ingress));
        let gate =
            gate.and_then(|value| read_gate(&value, &id, &format!("{place}gate."), problems));
        Some(Self {
            name: name?,
            id,
            image: image?,
            cpus,
            memory_mib,
            boot_timeout,
            debug: debug.unwrap_or(false),
            runtime_configuration,
            publish: publish.unwrap_or_default(),
            aws_services,
            egress: egress.unwrap_or_default(),
            ingress: ingress.unwrap_or_default(),
            log_group,
            log_retention,
            metrics_namespace,
            gate,
        })
    }
}

fn read_limit(value: &Value, place: &str, problems: &mut Vec<String>) -> Limit {
    let Some(mut fields) = Fields::of(value, place, problems) else {
        return Limit::default();
    };
    let limit = Limit {
        connections: fields.parsed("connections", |value| {
            let number = value.as_u64().ok_or("it is not a number")?;
            number.to_string().parse::<Connections>()
        }),
        rate: fields.parsed("rate", text_parsed::<Rate>),
    };
    fields.end();
    limit
}

fn read_gate(
    value: &Value,
    id: &str,
    place: &str,
    problems: &mut Vec<String>,
) -> Option<GateConfig> {
    let mut fields = Fields::of(value, place, problems)?;
    let function = fields.required("function", text_parsed::<crate::gate::FunctionName>);
    let interval = fields.parsed("interval", text_parsed::<Interval>);
    fields.end();
    Some(GateConfig {
        function: function?,
        enclave_id: id.to_owned(),
        interval: interval.map_or(crate::gate::DEFAULT_INTERVAL, Interval::as_duration),
    })
}

fn text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| "it is not text".to_owned())
}

fn text_parsed<T: FromStr<Err: ToString>>(value: &Value) -> Result<T, String> {
    text(value)?
        .parse()
        .map_err(|error: T::Err| error.to_string())
}

fn deserialized<T: serde::de::DeserializeOwned>(value: &Value) -> Result<T, String> {
    serde_json::from_value(value.clone()).map_err(|error| error.to_string())
}

fn region(value: &Value) -> Result<String, String> {
    let region = text(value)?;
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=32).contains(&region.len()) && region.bytes().all(is_allowed) {
        return Ok(region.to_owned());
    }
    Err("a region has lower-case letters, digits and hyphens, as in us-west-2".to_owned())
}

fn identifier(value: &Value) -> Result<String, String> {
    let id = text(value)?;
    if (1..=MAX_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(id.to_owned());
    }
    Err(format!(
        "an identifier has 1 to {MAX_ID} printable ASCII characters without spaces"
    ))
}

fn runtime_configuration(value: &Value) -> Result<String, String> {
    let text = text(value)?;
    let limit = link::control::MAX_RUNTIME_CONFIG;
    if text.len() <= limit {
        return Ok(text.to_owned());
    }
    Err(format!("it has more than {limit} bytes"))
}

fn publish(value: &Value) -> Result<Vec<Publish>, String> {
    let entries = value.as_array().ok_or("it is not a list")?;
    entries.iter().map(text_parsed::<Publish>).collect()
}

/// Services of AWS, as the control plane takes them.
fn aws_services(value: &Value) -> Result<Vec<String>, String> {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let name = |value: &Value| {
        let name = text(value)?;
        if (1..=MAX_SERVICE).contains(&name.len()) && name.bytes().all(is_allowed) {
            return Ok(name.to_owned());
        }
        Err(format!(
            "a service's name has 1 to {MAX_SERVICE} lower-case letters, digits and hyphens"
        ))
    };
    let names = value.as_array().ok_or("it is not a list")?;
    if names.len() > MAX_SERVICES {
        return Err(format!("it has more than {MAX_SERVICES} names"));
    }
    names.iter().map(name).collect()
}

fn retention(value: &Value) -> Result<RetentionDays, String> {
    let days = value.as_u64().ok_or("it is not a number of days")?;
    days.to_string().parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    fn json() -> String {
        format!(
            r#"{{ "region": "us-west-2",
  "enclaves": [ {{
    "name": "e-1", "id": "E_1",
    "image": {{ "source": "s3://bucket/images/a.eif", "sha256": "{SHA}", "size": 123 }},
    "cpus": 2, "memory_mib": 1024, "boot_timeout": "90s", "debug": false,
    "runtime_configuration": "{{\"enclave_id\":\"e-1\"}}",
    "publish": ["0.0.0.0:8080:8080"], "aws_services": ["kms"],
    "log_group": "/aws/ec2/enclave/e-1", "log_retention_days": 30,
    "metrics_namespace": "Enclaves",
    "gate": {{ "function": "gate", "interval": "30s" }} }} ] }}"#
        )
    }

    fn problems(text: &str) -> Vec<String> {
        Config::parse(text, "test").unwrap_err().problems
    }

    #[test]
    fn the_control_planes_document_is_understood() {
        let config = Config::parse(&json(), "test").unwrap();
        assert_eq!(config.region.as_deref(), Some("us-west-2"));
        let enclave = config.enclave(None).unwrap();
        assert_eq!(enclave.name.as_str(), "e-1");
        assert_eq!(enclave.image.size, Some(123));
        assert_eq!(enclave.boot_timeout, Interval::from_secs(90));
        assert_eq!(enclave.image.sha256.unwrap().to_string(), SHA);
        assert_eq!(
            enclave.runtime_configuration.as_deref(),
            Some(r#"{"enclave_id":"e-1"}"#)
        );
        let gate = enclave.gate.as_ref().unwrap();
        assert_eq!(
            (gate.enclave_id.as_str(), gate.interval.as_secs()),
            ("E_1", 30)
        );
        assert_eq!(enclave.publish[0].host_port, 8080);
        assert_eq!(
            enclave.aws_services.as_deref(),
            Some(&["kms".to_owned()][..])
        );
    }

    #[test]
    fn toml_says_the_same_as_json() {
        let toml = format!(
            r#"region = "us-west-2"
[[enclaves]]
name = "e-1"
id = "E_1"
image = {{ source = "s3://bucket/images/a.eif", sha256 = "{SHA}", size = 123 }}
cpus = 2
memory_mib = 1024
boot_timeout = "90s"
debug = false
runtime_configuration = '{{"enclave_id":"e-1"}}'
publish = ["0.0.0.0:8080:8080"]
aws_services = ["kms"]
log_group = "/aws/ec2/enclave/e-1"
log_retention_days = 30
metrics_namespace = "Enclaves"
gate = {{ function = "gate", interval = "30s" }}
"#
        );
        assert_eq!(
            Config::parse(&toml, "test").unwrap(),
            Config::parse(&json(), "test").unwrap()
        );
    }

    #[test]
    fn everything_that_is_wrong_is_named_at_once() {
        let found = problems(
            r#"{ "region": "US", "colour": 1, "enclaves": [
                { "name": "Bad", "image": { "source": "ftp://x" }, "cpus": 0, "gate": {},
                  "boot_timeout": 5 },
                { "name": "b", "image": { "source": "s3://bucket/k" }, "publish": "80",
                  "log_retention_days": 2, "debug": "yes", "aws_services": ["S3"] } ] }"#,
        );
        for start in [
            "region: ",
            "colour: ",
            "enclaves[0].name: ",
            "enclaves[0].image.source: ",
            "enclaves[0].cpus: ",
            "enclaves[0].boot_timeout: ",
            "enclaves[0].gate.function: ",
            "enclaves[1].image.sha256: ",
            "enclaves[1].publish: ",
            "enclaves[1].log_retention_days: ",
            "enclaves[1].debug: ",
            "enclaves[1].aws_services: ",
        ] {
            assert!(
                found.iter().any(|problem| problem.starts_with(start)),
                "{start} in {found:#?}"
            );
        }
        assert_eq!(found.len(), 12, "{found:#?}");
    }

    #[test]
    fn limits_are_of_each_direction() {
        let with = |limits: &str| {
            format!(
                r#"{{ "enclaves": [{{ "name": "a", "image": {{ "source": "file:/a.eif" }}, {limits} }}] }}"#
            )
        };
        let text =
            with(r#""egress": { "connections": 20, "rate": "5:9" }, "ingress": { "rate": "7" }"#);
        let config = Config::parse(&text, "test").unwrap();
        let enclave = config.enclave(None).unwrap();
        assert_eq!(enclave.egress.connections.unwrap().get(), 20);
        assert_eq!(enclave.egress.rate.unwrap().to_string(), "5:9");
        assert_eq!(enclave.ingress.connections, None);
        assert_eq!(enclave.ingress.rate.unwrap().to_string(), "7:7");
        let found = problems(&with(
            r#""egress": { "connections": 0, "rate": 5 }, "ingress": { "speed": 1 }"#,
        ));
        for start in [
            "enclaves[0].egress.connections: ",
            "enclaves[0].egress.rate: ",
            "enclaves[0].ingress.speed: ",
        ] {
            assert!(
                found.iter().any(|problem| problem.starts_with(start)),
                "{start} in {found:#?}"
            );
        }
    }

    #[test]
    fn enclaves_must_not_get_in_each_others_way() {
        let enclave =
            r#"{ "name": "a", "image": { "source": "file:/a.eif" }, "publish": ["80:80"] }"#;
        let found = problems(&format!(r#"{{ "enclaves": [{enclave}, {enclave}] }}"#));
        assert!(found[0].contains("two have the name `a`"), "{found:?}");
        assert!(found[1].contains("port 80 is published twice"), "{found:?}");
        let five = [enclave; 5].join(",");
        assert!(problems(&format!(r#"{{ "enclaves": [{five}] }}"#))[0].contains("1 to 4"));
        assert!(problems(r#"{ "enclaves": [] }"#)[0].contains("1 to 4"));
        assert!(problems("{}")[0].starts_with("enclaves: it is missing"));
    }

    #[test]
    fn what_is_no_document_is_refused_in_one_line() {
        for bad in [
            "{",
            "[1]",
            "a = ",
            "a = [",
            "\u{0}",
            "[]",
            r#"{ "a\n\u001b[31m": 1 }"#,
        ] {
            let error = Config::parse(bad, "test").unwrap_err().to_string();
            assert!(!error.contains(char::is_control), "{error}");
        }
        assert!(Config::parse(&" ".repeat(MAX_BYTES + 1), "test").is_err());
    }
}
