//! A client's request: the item's `providerConfig`, read once.

mod reader;

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::instance_types::{self, PARENT_MEMORY_MIB};
use crate::item::PublishedImage;

use reader::{Reader, whole_number};

/// CPUs that an enclave may have.
pub const CPUS: std::ops::RangeInclusive<u64> = 2..=16;
/// Memory that an enclave may have, in MiB.
pub const MEMORY_MIB: std::ops::RangeInclusive<u64> = 512..=32768;
/// Memory for each CPU, in MiB, at least.
pub const MEMORY_MIB_PER_CPU: u64 = 512;
/// Seconds between checks of health.
pub const HEALTH_CHECK_SECONDS: std::ops::RangeInclusive<u64> = 5..=3600;
/// Ports that may be exposed.
pub const MAX_PORTS: usize = 16;
/// Services that may be named.
pub const MAX_SERVICES: usize = 32;
/// Characters of an enclave's id.
pub const MAX_ID: usize = 64;
const MAX_REFERENCE: usize = 512;
const MAX_PATH: usize = 256;
const MAX_SERVICE_NAME: usize = 32;

const DEFAULT_INSTANCE_TYPE: &str = "m6i.xlarge";
const DEFAULT_CPUS: u64 = 2;
const DEFAULT_MEMORY_MIB: u64 = 1024;
const DEFAULT_HEALTH_CHECK_PATH: &str = "/health";
const DEFAULT_HEALTH_CHECK_SECONDS: u64 = 30;

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The field, as clients write it.
    pub field: &'static str,
    /// What it holds.
    pub value: String,
    /// The rule that it breaks.
    pub rule: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, value, rule } = self;
        if value.is_empty() {
            write!(f, "{field}: {rule}")
        } else {
            write!(f, "{field} is {value}: {rule}")
        }
    }
}

/// How a workload ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkloadType {
    /// When its work is done.
    Batch,
    /// Never, and it answers requests.
    Service,
    /// Never.
    Daemon,
}

impl WorkloadType {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::Service => "service",
            Self::Daemon => "daemon",
        }
    }
}

/// A request, with defaults where it says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The name of the image.
    pub docker_image: String,
    /// The parent's instance type.
    pub instance_type: String,
    /// The enclave's CPUs.
    pub cpu_count: u64,
    /// The enclave's memory.
    pub memory_mib: u64,
    /// Whether the enclave runs in debug mode.
    pub enable_debug: bool,
    /// How the workload ends.
    pub workload_type: WorkloadType,
    /// Where the workload says how it is.
    pub health_check_path: String,
    /// Seconds between such questions.
    pub health_check_interval: u64,
    /// AWS services that the workload calls.
    pub aws_services: Vec<String>,
    /// Ports that the instance opens for the enclave.
    pub expose_ports: Vec<u16>,
}

impl Request {
    /// Reads `providerConfig`. Where a field is wrong its default stands in, so
    /// that everything wrong is found at once, and an enclave can be destroyed
    /// whose request would not be taken any more.
    pub fn read(config: &Value) -> (Self, Vec<Problem>) {
        let mut reader = Reader {
            fields: config.as_object(),
            problems: Vec::new(),
        };
        if !config.is_object() {
            reader.problem("providerConfig", config, "it must be a map: the request");
        }
        let docker_image = reader.text(&["dockerImage", "docker_image"], MAX_REFERENCE);
        if docker_image.is_none() && reader.problems.is_empty() {
            reader.problem(
                "dockerImage",
                &Value::Null,
                "it is missing: name an image that was published",
            );
        }
        let docker_image = docker_image.unwrap_or_default().to_owned();
        let instance_type = reader
            .text(&["instanceType", "instance_type"], MAX_SERVICE_NAME)
            .unwrap_or(DEFAULT_INSTANCE_TYPE)
            .to_owned();
        let cpu_count = reader
            .number(&["cpuCount", "cpu_count"], CPUS, "")
            .unwrap_or(DEFAULT_CPUS);
        let memory_mib = reader
            .number(
                &["memoryMiB", "memory_mib", "memoryMib", "memory_mi_b"],
                MEMORY_MIB,
                " (MiB)",
            )
            .unwrap_or(DEFAULT_MEMORY_MIB);
        let enable_debug = reader
            .flag(&["enableDebug", "enable_debug"])
            .unwrap_or_default();
        let workload_type = reader.workload_type();
        let health_check_path = reader.health_check_path();
        let health_check_interval = reader
            .number(
                &["healthCheckInterval", "health_check_interval"],
                HEALTH_CHECK_SECONDS,
                " (seconds)",
            )
            .unwrap_or(DEFAULT_HEALTH_CHECK_SECONDS);
        let aws_services = reader.list(
            &["awsServices", "aws_services"],
            MAX_SERVICES,
            "it must be a service's name, such as \"kms\"",
            |value| service(value.as_str()?),
        );
        let expose_ports = reader.list(
            &["exposePorts", "expose_ports"],
            MAX_PORTS,
            "it must be a port from 1 to 65535",
            |value| {
                u16::try_from(whole_number(value)?)
                    .ok()
                    .filter(|port| *port > 0)
            },
        );
        let request = Self {
            docker_image,
            instance_type,
            cpu_count,
            memory_mib,
            enable_debug,
            workload_type,
            health_check_path,
            health_check_interval,
            aws_services,
            expose_ports,
        };
        request.check_resources(&mut reader);
        (request, reader.problems)
    }

    /// What the enclave and its parent need together.
    fn check_resources(&self, reader: &mut Reader<'_>) {
        let least = self.cpu_count * MEMORY_MIB_PER_CPU;
        if self.memory_mib < least {
            let rule = format!(
                "{} CPUs need at least {least} MiB, {MEMORY_MIB_PER_CPU} for each",
                self.cpu_count
            );
            reader.problem("memoryMiB", &self.memory_mib.into(), rule);
        }
        let parent = match instance_types::find(&self.instance_type) {
            Ok(parent) => parent,
            Err(why) => {
                let name = Value::from(self.instance_type.as_str());
                reader.problem("instanceType", &name, why.to_string());
                return;
            }
        };
        let threads = parent.architecture.threads_per_core();
        if !self.cpu_count.is_multiple_of(threads) {
            let rule = format!(
                "it must be even on {}, where two CPUs are one core",
                self.instance_type
            );
            reader.problem("cpuCount", &self.cpu_count.into(), rule);
        }
        let most = parent.vcpus.saturating_sub(threads);
        if self.cpu_count > most {
            let rule = format!(
                "{} has {} vCPUs and keeps {threads} of them: at most {most}, or a larger instanceType",
                self.instance_type, parent.vcpus
            );
            reader.problem("cpuCount", &self.cpu_count.into(), rule);
        }
        let most = parent.memory_mib.saturating_sub(PARENT_MEMORY_MIB);
        if self.memory_mib > most {
            let rule = format!(
                "{} has {} MiB and keeps {PARENT_MEMORY_MIB} of them: at most {most}, or a larger instanceType",
                self.instance_type, parent.memory_mib
            );
            reader.problem("memoryMiB", &self.memory_mib.into(), rule);
        }
    }

    /// What an image and the instance type have to do with each other.
    pub fn check_image(&self, image: &PublishedImage) -> Option<Problem> {
        let parent = instance_types::find(&self.instance_type).ok()?;
        (image.architecture != parent.architecture.name()).then(|| Problem {
            field: "instanceType",
            value: format!("{:?}", self.instance_type),
            rule: format!(
                "it runs {}, and {} was built for {}",
                parent.architecture, image.reference, image.architecture
            ),
        })
    }
}

impl Reader<'_> {
    fn workload_type(&mut self) -> WorkloadType {
        let Some((name, value)) = self.get(&["workloadType", "workload_type"]) else {
            return WorkloadType::Service;
        };
        match value.as_str() {
            Some("batch") => WorkloadType::Batch,
            Some("service") => WorkloadType::Service,
            Some("daemon") => WorkloadType::Daemon,
            _ => {
                self.problem(
                    name,
                    value,
                    "it must be \"batch\", \"service\" or \"daemon\"",
                );
                WorkloadType::Service
            }
        }
    }

    fn health_check_path(&mut self) -> String {
        let names = ["healthCheckPath", "health_check_path"];
        match self.text(&names, MAX_PATH) {
            Some(path) if path.starts_with('/') => path.to_owned(),
            Some(path) => {
                self.problem(
                    "healthCheckPath",
                    &path.into(),
                    "it must begin with a slash",
                );
                DEFAULT_HEALTH_CHECK_PATH.to_owned()
            }
            None => DEFAULT_HEALTH_CHECK_PATH.to_owned(),
        }
    }
}

fn service(name: &str) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let fits = !name.is_empty() && name.len() <= MAX_SERVICE_NAME && name.bytes().all(plain);
    fits.then(|| name.to_owned())
}

/// What is wrong with an enclave's id: it becomes part of names of resources.
pub fn check_id(id: &str) -> Option<Problem> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let fits = (1..=MAX_ID).contains(&id.len())
        && id.bytes().all(plain)
        && id.starts_with(|first: char| first.is_ascii_alphanumeric());
    (!fits).then(|| Problem {
        field: "id",
        value: crate::update::cut(&format!("{id:?}"), 80),
        rule: format!(
            "it must be 1 to {MAX_ID} letters, digits, dots, hyphens or underscores, the first a letter or digit"
        ),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn problems(config: &Value) -> Vec<String> {
        Request::read(config)
            .1
            .iter()
            .map(Problem::to_string)
            .collect()
    }

    #[test]
    fn an_image_is_all_that_a_request_must_name() {
        let (request, problems) = Request::read(&json!({"dockerImage": "app:1"}));
        assert_eq!(problems, []);
        assert_eq!(request.instance_type, "m6i.xlarge");
        assert_eq!((request.cpu_count, request.memory_mib), (2, 1024));
        assert_eq!(request.workload_type, WorkloadType::Service);
    }

    #[test]
    fn both_spellings_and_numbers_as_texts_are_read() {
        let camel = json!({"dockerImage": "app:1", "instanceType": "m6i.2xlarge", "cpuCount": "4",
            "memoryMiB": "4096", "enableDebug": "true", "workloadType": "batch",
            "healthCheckPath": "/up", "healthCheckInterval": "10", "awsServices": ["kms"],
            "exposePorts": ["8080", 8081]});
        let snake = json!({"docker_image": "app:1", "instance_type": "m6i.2xlarge", "cpu_count": 4,
            "memory_mib": 4096, "enable_debug": true, "workload_type": "batch",
            "health_check_path": "/up", "health_check_interval": 10, "aws_services": ["kms"],
            "expose_ports": [8080, "8081"]});
        assert_eq!(problems(&camel), Vec::<String>::new());
        assert_eq!(Request::read(&camel), Request::read(&snake));
    }

    #[test]
    fn everything_wrong_is_named_at_once() {
        let found = problems(
            &json!({"instanceType": "t3.micro", "cpuCount": 3, "memoryMiB": 100,
            "enableDebug": "yes", "workloadType": "cron", "healthCheckPath": "up",
            "healthCheckInterval": 0, "awsServices": "kms", "exposePorts": [0, 80, 80, "x"]}),
        );
        for part in [
            "dockerImage: it is missing",
            "memoryMiB is 100: it must be a whole number from 512 to 32768 (MiB)",
            "enableDebug is \"yes\"",
            "workloadType is \"cron\"",
            "healthCheckPath is \"up\": it must begin with a slash",
            "healthCheckInterval is 0",
            "awsServices is \"kms\": it must be a list",
            "exposePorts is 0",
            "exposePorts is 80: it is listed twice",
            "exposePorts is \"x\"",
            "instanceType is \"t3.micro\": it is not among",
            "memoryMiB is 1024: 3 CPUs need at least 1536 MiB",
        ] {
            assert!(
                found.iter().any(|problem| problem.starts_with(part)),
                "{part}\n{found:#?}"
            );
        }
    }

    #[test]
    fn the_parent_keeps_a_core_and_memory() {
        let found = problems(&json!({"dockerImage": "a", "cpuCount": 4, "memoryMiB": 16000}));
        assert_eq!(
            found,
            [
                "cpuCount is 4: m6i.xlarge has 4 vCPUs and keeps 2 of them: at most 2, or a larger instanceType",
                "memoryMiB is 16000: m6i.xlarge has 16384 MiB and keeps 1024 of them: at most 15360, or a larger instanceType",
            ]
        );
        let odd = json!({"dockerImage": "a", "instanceType": "m6i.4xlarge", "cpuCount": 3, "memoryMiB": 2048});
        assert_eq!(problems(&odd).len(), 1);
        let graviton = json!({"dockerImage": "a", "instanceType": "m6g.xlarge", "cpuCount": 3, "memoryMiB": 2048});
        assert_eq!(problems(&graviton), Vec::<String>::new());
    }

    #[test]
    fn two_spellings_that_differ_are_a_mistake() {
        let found = problems(&json!({"dockerImage": "a", "cpuCount": 2, "cpu_count": 4}));
        assert_eq!(
            found,
            ["cpuCount is 2: it is written twice, and once as 4: write it once"]
        );
    }

    #[test]
    fn ids_that_cannot_name_resources_are_refused() {
        for id in [
            "a",
            "enclave-1",
            "0b4cf3ae-7d7b-4b6e-b6ec-3f5c3c7f9c55",
            "a.b_c",
        ] {
            assert_eq!(check_id(id), None, "{id}");
        }
        for id in ["", "-a", "a/b", "a b", "ä", &"a".repeat(65)] {
            assert!(check_id(id).is_some(), "{id}");
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_fits_its_parent(
            instance in prop::sample::select(vec!["m6i.xlarge", "c5.2xlarge", "m6g.large", "r6a.4xlarge"]),
            cpus in 0u64..40,
            memory in 0u64..70000,
        ) {
            let config = json!({"dockerImage": "a", "instanceType": instance, "cpuCount": cpus, "memoryMiB": memory});
            let (request, problems) = Request::read(&config);
            if problems.is_empty() {
                let parent = instance_types::find(instance).unwrap();
                prop_assert_eq!((request.cpu_count, request.memory_mib), (cpus, memory));
                prop_assert!(cpus < parent.vcpus && memory < parent.memory_mib);
                prop_assert!(memory >= cpus * 512);
            }
        }
    }
}
