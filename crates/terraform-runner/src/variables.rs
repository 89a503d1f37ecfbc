//! The stack's variables and backend, as the files that Terraform reads.

use serde::Serialize;

use crate::assignment::{Agent, Assignment, Image};

/// `terraform.tfvars.json`.
#[derive(Debug, Serialize)]
pub(super) struct Variables<'a> {
    enclave_id: &'a str,
    wallet_address: &'a str,
    environment: &'a str,
    project_name: &'a str,
    aws_region: &'a str,
    vpc_id: &'a str,
    subnet_id: &'a str,
    security_group_id: &'a str,
    instance_profile_name: &'a str,
    instance_type: &'a str,
    cpu_count: u32,
    memory_mib: u32,
    enable_debug: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    workload_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    health_check_path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    health_check_interval: Option<&'a serde_json::Value>,
    aws_services: &'a [String],
    expose_ports: &'a [u16],
    image: &'a Image,
    agent: &'a Agent,
    gate_function_name: &'a str,
    runtime_configuration: &'a str,
    log_retention_days: u32,
}

impl<'a> Variables<'a> {
    pub(super) fn new(assignment: &'a Assignment) -> Self {
        let (request, surroundings) = (&assignment.request, &assignment.surroundings);
        Self {
            enclave_id: assignment.enclave_id.as_str(),
            wallet_address: &surroundings.wallet_address,
            environment: &surroundings.environment,
            project_name: &surroundings.project_name,
            aws_region: &surroundings.region,
            vpc_id: &surroundings.vpc_id,
            subnet_id: &surroundings.subnet_id,
            security_group_id: &surroundings.security_group_id,
            instance_profile_name: &surroundings.instance_profile_name,
            instance_type: &request.instance_type,
            cpu_count: request.cpu_count,
            memory_mib: request.memory_mib,
            enable_debug: request.enable_debug,
            workload_type: request.workload_type.as_deref(),
            health_check_path: request.health_check_path.as_deref(),
            health_check_interval: request.health_check_interval.as_ref(),
            aws_services: request.aws_services.as_deref().unwrap_or_default(),
            expose_ports: request.expose_ports.as_deref().unwrap_or_default(),
            image: &request.image,
            agent: &surroundings.agent,
            gate_function_name: &surroundings.gate_function_name,
            runtime_configuration: &request.runtime_configuration,
            log_retention_days: surroundings.log_retention_days,
        }
    }
}

/// `backend.tfbackend.json`: the settings of Terraform's `s3` backend.
#[derive(Debug, Serialize)]
pub(super) struct Backend<'a> {
    bucket: &'a str,
    key: String,
    region: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    use_lockfile: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dynamodb_table: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    use_path_style: Option<bool>,
}

impl<'a> Backend<'a> {
    pub(super) fn new(assignment: &'a Assignment) -> Self {
        let state = &assignment.state;
        Self {
            bucket: &state.bucket,
            key: format!("enclaves/{}/terraform.tfstate", assignment.enclave_id),
            region: &assignment.surroundings.region,
            use_lockfile: state.lock_table.is_none().then_some(true),
            dynamodb_table: state.lock_table.as_deref(),
            use_path_style: state.path_style.then_some(true),
        }
    }
}
