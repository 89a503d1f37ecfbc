//! What the task is to do: its environment, as types.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Longest value of a variable, in bytes. ECS allows 8192 for all overrides.
const MAX_VALUE: usize = 64 * 1024;
/// Longest enclave id: it is part of an S3 key, a log group and a parameter.
const MAX_ID: usize = 128;

/// What Terraform is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Say what a deployment would change.
    Plan,
    /// Create the enclave's resources, or change them to what is asked.
    Deploy,
    /// Destroy the enclave's resources.
    Destroy,
}

impl Action {
    /// As in `ACTION`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::Deploy => "deploy",
            Self::Destroy => "destroy",
        }
    }
}

/// What the task is to do.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// `ENCLAVE_ID`.
    pub enclave_id: EnclaveId,
    /// `ACTION`.
    pub action: Action,
    /// What the stack gets.
    pub request: Request,
    /// Where and for whom.
    pub surroundings: Surroundings,
    /// Where the state is kept.
    pub state: State,
    /// `DYNAMODB_TABLE_NAME`: where progress is shown; nowhere without it.
    pub table: Option<String>,
    /// `EXECUTION_ARN`: progress is only written while the item's runner is this one's.
    pub execution_arn: Option<String>,
    /// No `TASK_TOKEN`: a person runs this, not the workflow.
    pub by_hand: bool,
}

/// An enclave's id: letters, digits, `-`, `_` and `.`, beginning with a letter or
/// digit, at most 128 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnclaveId(String);

impl EnclaveId {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EnclaveId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The enclave that is asked for: `CONFIGURATION`, as the validation function
/// writes it. Keys that it may add later are not this program's concern.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the stack's variables of the same names")]
pub struct Request {
    pub instance_type: String,
    pub cpu_count: u32,
    pub memory_mib: u32,
    #[serde(default)]
    pub enable_debug: bool,
    /// Else `WORKLOAD_TYPE`.
    #[serde(default)]
    pub workload_type: Option<String>,
    /// Else `HEALTH_CHECK_PATH`.
    #[serde(default)]
    pub health_check_path: Option<String>,
    /// Else `HEALTH_CHECK_INTERVAL`. Seconds, or as the manifest writes a time.
    #[serde(default)]
    pub health_check_interval: Option<serde_json::Value>,
    /// Else `AWS_SERVICES`.
    #[serde(default)]
    pub aws_services: Option<Vec<String>>,
    /// Else `EXPOSE_PORTS`.
    #[serde(default)]
    pub expose_ports: Option<Vec<u16>>,
    pub image: Image,
    pub runtime_configuration: String,
}

/// A published image.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[expect(missing_docs, reason = "the fields of the images table")]
pub struct Image {
    pub reference: String,
    pub bucket: String,
    pub key: String,
    pub sha256: String,
    pub size: u64,
}

impl Request {
    /// What a destroy gives the stack. Destroying depends on the state alone, so
    /// that a request that would no longer be accepted is no obstacle.
    fn to_destroy() -> Self {
        Self {
            instance_type: "m6i.xlarge".to_owned(),
            cpu_count: 2,
            memory_mib: 1024,
            enable_debug: false,
            workload_type: Some("service".to_owned()),
            health_check_path: None,
            health_check_interval: None,
            aws_services: Some(Vec::new()),
            expose_ports: Some(Vec::new()),
            image: Image {
                reference: "none".to_owned(),
                bucket: "none".to_owned(),
                key: "images/none.eif".to_owned(),
                sha256: "0".repeat(64),
                size: 1,
            },
            runtime_configuration: "{}".to_owned(),
        }
    }
}

/// Where and for whom the stack is applied; one field for each variable.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variables of the same names")]
pub struct Surroundings {
    pub wallet_address: String,
    pub environment: String,
    pub project_name: String,
    pub region: String,
    pub vpc_id: String,
    pub subnet_id: String,
    pub security_group_id: String,
    pub instance_profile_name: String,
    pub gate_function_name: String,
    pub log_retention_days: u32,
    pub agent: Agent,
}

/// The agent's program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "`AGENT_BUCKET`, `AGENT_KEY`, `AGENT_SHA256`")]
pub struct Agent {
    pub bucket: String,
    pub key: String,
    pub sha256: String,
}

/// Where the state is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// `TF_STATE_BUCKET`.
    pub bucket: String,
    /// `TF_STATE_DYNAMODB_TABLE`: the lock's table, for states that others lock so;
    /// without it the lock is an object beside the state.
    pub lock_table: Option<String>,
    /// Whether S3 is an emulator that knows no bucket by host name.
    pub path_style: bool,
}

/// All that is wrong with the environment.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the task's environment cannot be used: {}", .0.join("; "))]
pub struct Problems(pub Vec<String>);

impl Assignment {
    /// Reads the environment. An empty variable counts as absent.
    pub fn from_environment(variables: &BTreeMap<String, String>) -> Result<Self, Problems> {
        let mut reader = Reader {
            variables,
            problems: Vec::new(),
        };
        let enclave_id = EnclaveId(reader.checked(
            "ENCLAVE_ID",
            "letters, digits, `-`, `_` and `.`, at most 128",
            is_enclave_id,
        ));
        let action = match reader.required("ACTION").as_str() {
            // An empty one has been named as a problem already.
            "plan" | "" => Action::Plan,
            "deploy" => Action::Deploy,
            "destroy" => Action::Destroy,
            other => {
                reader.problem(
                    "ACTION",
                    format!("is `{}`: plan, deploy or destroy", other.escape_debug()),
                );
                Action::Plan
            }
        };
        let request = if action == Action::Destroy {
            Request::to_destroy()
        } else {
            reader.request()
        };
        let surroundings = Surroundings {
            wallet_address: reader.optional("WALLET_ADDRESS").unwrap_or_default(),
            environment: reader.required("ENVIRONMENT"),
            project_name: reader.required("PROJECT_NAME"),
            region: reader.required("AWS_DEFAULT_REGION"),
            vpc_id: reader.required("VPC_ID"),
            subnet_id: reader.required("SUBNET_ID"),
            security_group_id: reader.required("SHARED_SECURITY_GROUP_ID"),
            instance_profile_name: reader.required("INSTANCE_PROFILE_NAME"),
            gate_function_name: reader.required("GATE_FUNCTION_NAME"),
            log_retention_days: reader.number("LOG_RETENTION_DAYS"),
            agent: Agent {
                bucket: reader.required("AGENT_BUCKET"),
                key: reader.required("AGENT_KEY"),
                sha256: reader.checked("AGENT_SHA256", "64 hexadecimal digits", is_sha256),
            },
        };
        let state = State {
            bucket: reader.required("TF_STATE_BUCKET"),
            lock_table: reader.optional("TF_STATE_DYNAMODB_TABLE"),
            path_style: ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]
                .iter()
                .any(|name| reader.optional(name).is_some()),
        };
        let assignment = Self {
            enclave_id,
            action,
            request,
            surroundings,
            state,
            table: reader.optional("DYNAMODB_TABLE_NAME"),
            execution_arn: reader.optional("EXECUTION_ARN"),
            by_hand: reader.optional("TASK_TOKEN").is_none(),
        };
        if reader.problems.is_empty() {
            Ok(assignment)
        } else {
            Err(Problems(reader.problems))
        }
    }
}

fn is_enclave_id(id: &str) -> bool {
    id.len() <= MAX_ID
        && id.starts_with(|first: char| first.is_ascii_alphanumeric())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn is_sha256(digest: &str) -> bool {
    digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit())
}

struct Reader<'a> {
    variables: &'a BTreeMap<String, String>,
    problems: Vec<String>,
}

impl Reader<'_> {
    fn problem(&mut self, variable: &str, problem: impl fmt::Display) {
        self.problems.push(format!("{variable} {problem}"));
    }

    fn optional(&mut self, variable: &str) -> Option<String> {
        let value = self.variables.get(variable)?;
        if value.len() > MAX_VALUE {
            self.problem(variable, format!("is longer than {MAX_VALUE} bytes"));
            return None;
        }
        (!value.is_empty()).then(|| value.clone())
    }

    fn required(&mut self, variable: &str) -> String {
        if self.variables.get(variable).is_none_or(String::is_empty) {
            self.problem(variable, "is not set");
        }
        self.optional(variable).unwrap_or_default()
    }

    fn checked(&mut self, variable: &str, rule: &str, holds: impl Fn(&str) -> bool) -> String {
        let value = self.required(variable);
        if !value.is_empty() && !holds(&value) {
            self.problem(variable, format!("must be {rule}"));
        }
        value
    }

    fn number(&mut self, variable: &str) -> u32 {
        let value = self.required(variable);
        value.parse().unwrap_or_else(|_| {
            if !value.is_empty() {
                self.problem(variable, "must be a whole number");
            }
            0
        })
    }

    fn request(&mut self) -> Request {
        let json = self.required("CONFIGURATION");
        if json.is_empty() {
            return Request::to_destroy();
        }
        let mut request: Request = match serde_json::from_str(&json) {
            Ok(request) => request,
            Err(error) => {
                self.problem("CONFIGURATION", format!("is not understood: {error}"));
                return Request::to_destroy();
            }
        };
        if !is_sha256(&request.image.sha256) {
            self.problem(
                "CONFIGURATION",
                "image.sha256 must be 64 hexadecimal digits",
            );
        }
        if request.workload_type.is_none() {
            request.workload_type = self.optional("WORKLOAD_TYPE");
        }
        if request.health_check_path.is_none() {
            request.health_check_path = self.optional("HEALTH_CHECK_PATH");
        }
        if request.health_check_interval.is_none() {
            request.health_check_interval = self.optional("HEALTH_CHECK_INTERVAL").map(Into::into);
        }
        if request.aws_services.is_none() {
            let list = self.optional("AWS_SERVICES").unwrap_or_default();
            request.aws_services = Some(items(&list).map(str::to_owned).collect());
        }
        if request.expose_ports.is_none() {
            let list = self.optional("EXPOSE_PORTS").unwrap_or_default();
            let ports: Result<Vec<u16>, _> = items(&list).map(str::parse).collect();
            if ports.is_err() {
                self.problem("EXPOSE_PORTS", "must be ports between commas");
            }
            request.expose_ports = ports.ok();
        }
        request
    }
}

fn items(list: &str) -> impl Iterator<Item = &str> {
    list.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment() -> BTreeMap<String, String> {
        [
            ("ENCLAVE_ID", "payments-1"),
            ("ACTION", "deploy"),
            (
                "CONFIGURATION",
                r#"{"instance_type":"m6i.xlarge","cpu_count":2,"memory_mib":1024,"enable_debug":false,
                    "image":{"reference":"payments:1","bucket":"artifacts","key":"images/a.eif",
                    "sha256":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","size":7,"measurements":"{}"},
                    "runtime_configuration":"{\"enclave_id\":\"payments-1\"}"}"#,
            ),
            ("WALLET_ADDRESS", "0xabc"),
            ("WORKLOAD_TYPE", "service"),
            ("HEALTH_CHECK_PATH", "/health"),
            ("HEALTH_CHECK_INTERVAL", "30"),
            ("AWS_SERVICES", "kms, s3,"),
            ("EXPOSE_PORTS", "8080,8443"),
            ("ENVIRONMENT", "dev"),
            ("PROJECT_NAME", "toolkit"),
            ("AWS_DEFAULT_REGION", "us-west-2"),
            ("VPC_ID", "vpc-1"),
            ("SUBNET_ID", "subnet-1"),
            ("SHARED_SECURITY_GROUP_ID", "sg-1"),
            ("INSTANCE_PROFILE_NAME", "enclave"),
            ("GATE_FUNCTION_NAME", "gate"),
            ("LOG_RETENTION_DAYS", "30"),
            ("AGENT_BUCKET", "artifacts"),
            ("AGENT_KEY", "agent/parent-agent"),
            ("AGENT_SHA256", "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"),
            ("TF_STATE_BUCKET", "state"),
            ("TF_STATE_DYNAMODB_TABLE", ""),
            ("TASK_TOKEN", "token"),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
    }

    #[test]
    fn what_the_configuration_leaves_out_comes_from_the_single_variables() {
        let assignment = Assignment::from_environment(&environment()).unwrap();
        let request = &assignment.request;
        assert_eq!(request.workload_type.as_deref(), Some("service"));
        assert_eq!(
            request.aws_services.as_deref(),
            Some(&["kms".to_owned(), "s3".to_owned()][..])
        );
        assert_eq!(request.expose_ports.as_deref(), Some(&[8080, 8443][..]));
        assert_eq!(assignment.state.lock_table, None);
        assert!(!assignment.by_hand && !assignment.state.path_style);
    }

    #[test]
    fn the_configuration_wins_over_the_single_variables() {
        let mut variables = environment();
        let json = variables.get_mut("CONFIGURATION").unwrap();
        *json = json.replacen('{', r#"{"expose_ports":[1],"workload_type":"batch","#, 1);
        let assignment = Assignment::from_environment(&variables).unwrap();
        assert_eq!(assignment.request.expose_ports.as_deref(), Some(&[1][..]));
        assert_eq!(assignment.request.workload_type.as_deref(), Some("batch"));
    }

    #[test]
    fn every_problem_is_named_at_once() {
        let mut variables = environment();
        for (name, value) in [
            ("ENCLAVE_ID", "../other"),
            ("ACTION", "apply"),
            ("VPC_ID", ""),
            ("LOG_RETENTION_DAYS", "many"),
            ("AGENT_SHA256", "abc"),
        ] {
            variables.insert(name.to_owned(), value.to_owned());
        }
        variables.remove("TF_STATE_BUCKET");
        let problems = Assignment::from_environment(&variables).unwrap_err().0;
        for name in [
            "ENCLAVE_ID",
            "ACTION",
            "VPC_ID",
            "LOG_RETENTION_DAYS",
            "AGENT_SHA256",
            "TF_STATE_BUCKET",
        ] {
            assert_eq!(
                problems
                    .iter()
                    .filter(|problem| problem.starts_with(name))
                    .count(),
                1,
                "{name}: {problems:?}"
            );
        }
        assert_eq!(problems.len(), 6, "{problems:?}");
    }

    #[test]
    fn a_destroy_needs_no_request() {
        let mut variables = environment();
        variables.insert("ACTION".to_owned(), "destroy".to_owned());
        variables.insert("CONFIGURATION".to_owned(), "nonsense".to_owned());
        let assignment = Assignment::from_environment(&variables).unwrap();
        assert_eq!(assignment.request, Request::to_destroy());
    }

    #[test]
    fn ids_that_would_leave_their_place_are_refused() {
        for id in ["", ".", "../a", "a/b", "-a", "ä", "a b", &"a".repeat(129)] {
            assert!(!is_enclave_id(id) || id.is_empty(), "{id}");
            let mut variables = environment();
            variables.insert("ENCLAVE_ID".to_owned(), id.to_owned());
            assert!(Assignment::from_environment(&variables).is_err(), "{id}");
        }
    }
}
