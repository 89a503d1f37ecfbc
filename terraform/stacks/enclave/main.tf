# One enclave: the instance that holds it, what its agent is told, and its logs. The
# runner applies this with a state of its own for each enclave.

provider "aws" {
  region = var.aws_region

  default_tags {
    tags = local.tags
  }
}

locals {
  log_group_name = "/aws/ec2/enclave/${var.enclave_id}"
  parameter_name = "/${var.project_name}/${var.environment}/enclaves/${var.enclave_id}"

  tags = merge(var.additional_tags, {
    Project     = var.project_name
    Environment = var.environment
    EnclaveId   = var.enclave_id
    ManagedBy   = "terraform"
  })

  # On its instance an enclave's name is narrower than an id.
  agent_name = trim(substr(lower(replace(var.enclave_id, "/[^A-Za-z0-9-]/", "-")), 0, 63), "-")

  # Graviton is told by the `g` after the generation, as in c7gn.large.
  is_graviton = can(regex("^[a-z]+[0-9]+[a-z]*g", var.instance_type))

  # docs/agent-configuration.md: the agent refuses keys that it does not know.
  agent_configuration = {
    region = var.aws_region
    enclaves = [{
      name = local.agent_name
      id   = var.enclave_id
      image = {
        source = "s3://${var.image.bucket}/${var.image.key}"
        sha256 = var.image.sha256
        size   = var.image.size
      }
      cpus                  = var.cpu_count
      memory_mib            = var.memory_mib
      debug                 = var.enable_debug
      runtime_configuration = var.runtime_configuration
      publish               = [for port in var.expose_ports : "0.0.0.0:${port}:${port}"]
      # Without any the image's manifest decides alone.
      aws_services       = length(var.aws_services) > 0 ? var.aws_services : null
      log_group          = local.log_group_name
      log_retention_days = var.log_retention_days
      gate = {
        function = var.gate_function_name
        interval = "30s"
      }
    }]
  }
}

data "aws_ssm_parameter" "machine_image" {
  name = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
}

# The log outlives the enclave: what a deployment that failed has written is what its
# operators need. An enclave that is deployed again goes on in the same group. Streams
# are the agent's.
data "aws_cloudwatch_log_groups" "kept" {
  log_group_name_prefix = local.log_group_name
}

import {
  for_each = toset([for name in data.aws_cloudwatch_log_groups.kept.log_group_names : name if name == local.log_group_name])
  to       = aws_cloudwatch_log_group.this
  id       = each.key
}

resource "aws_cloudwatch_log_group" "this" {
  # checkov:skip=CKV_AWS_158: encrypted by CloudWatch with its own key; a key of the account's would have to outlive every enclave that it logged for
  # checkov:skip=CKV_AWS_338: how long logs are kept is the user's decision
  name              = local.log_group_name
  retention_in_days = var.log_retention_days
  skip_destroy      = true
}

# The agent writes down each minute how far behind its logs are, what went wrong
# (docs/logs.md), and that the enclave's clock is not synchronised if so (docs/time.md); the
# control plane's alarms watch these metrics, which all enclaves of an environment share.
locals {
  log_metrics = merge(
    { spool-bytes = { name = "spool-bytes", value = "$.log_pipeline.spool.bytes", unit = "Bytes" } },
    { clock-unsynchronised = { name = "clock-unsynchronised", value = "$.clock_unsynchronised", unit = "Count" } },
    # One entry for each stream that is sent on its own.
    { for index in range(4) : "log-lag-${index}" => { name = "log-lag-seconds", value = "$.log_pipeline.sinks[${index}].lag_seconds", unit = "Seconds" } },
    {
      log-records-lost = { name = "log-records-lost", value = "$.incidents.log_records_lost", unit = "Count" }
      out-of-memory    = { name = "out-of-memory", value = "$.incidents.oom_kills", unit = "Count" }
      enclave-crashes  = { name = "enclave-crashes", value = "$.incidents.crashes", unit = "Count" }
    },
  )
}

resource "aws_cloudwatch_log_metric_filter" "agent" {
  for_each = local.log_metrics

  name           = each.key
  log_group_name = aws_cloudwatch_log_group.this.name
  pattern        = "{ ${each.value.value} >= 0 }"

  metric_transformation {
    namespace = "Enclaves/Logs"
    name      = "${var.project_name}-${var.environment}-${each.value.name}"
    value     = each.value.value
    unit      = each.value.unit
  }
}

resource "aws_ssm_parameter" "agent" {
  # checkov:skip=CKV2_AWS_34: it holds no secret: where the image is, and how much of the instance it gets
  # checkov:skip=CKV_AWS_337: likewise
  name        = local.parameter_name
  description = "What the agent of enclave ${var.enclave_id} is told"
  type        = "String"
  value       = jsonencode(local.agent_configuration)
}

resource "aws_instance" "this" {
  # checkov:skip=CKV_AWS_126: the agent reports what matters; metrics of the instance each minute cost more than they tell
  ami                                  = data.aws_ssm_parameter.machine_image.insecure_value
  instance_type                        = var.instance_type
  subnet_id                            = var.subnet_id
  vpc_security_group_ids               = [var.security_group_id]
  iam_instance_profile                 = var.instance_profile_name
  associate_public_ip_address          = false
  ebs_optimized                        = true
  instance_initiated_shutdown_behavior = "stop"
  user_data_replace_on_change          = true

  user_data = templatefile("${path.module}/user-data.sh.tftpl", {
    region    = var.aws_region
    bucket    = var.agent.bucket
    key       = var.agent.key
    sha256    = var.agent.sha256
    parameter = aws_ssm_parameter.agent.name
  })

  enclave_options {
    enabled = true
  }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
    instance_metadata_tags      = "enabled"
  }

  root_block_device {
    encrypted             = true
    volume_type           = "gp3"
    volume_size           = var.root_volume_gib
    delete_on_termination = true
  }

  tags = { Name = "${var.project_name}-${var.environment}-${var.enclave_id}" }

  # Default tags do not reach volumes, and the runner may only make tagged ones.
  volume_tags = local.tags

  lifecycle {
    # A new machine image is for new enclaves: it must not replace those that run. The
    # provider reads the volume's tags without those that it adds everywhere, and would
    # write these again with each change.
    ignore_changes = [ami, volume_tags]

    precondition {
      condition     = try(jsondecode(var.runtime_configuration).enclave_id, "") == var.enclave_id
      error_message = "The runtime configuration does not name the enclave ${var.enclave_id}: its attestation would prove another one."
    }

    precondition {
      condition     = !local.is_graviton
      error_message = "${var.instance_type} has a Graviton processor, and the control plane's agent is for x86-64: choose an instance type of Intel or AMD."
    }

    precondition {
      condition     = can(regex("^[0-9a-f]{64}$", var.agent.sha256)) && can(regex("^[0-9a-f]{64}$", var.image.sha256))
      error_message = "The agent and the image must be given with their SHA-256, 64 hexadecimal digits each."
    }
  }

  # The agent writes there as soon as it runs.
  depends_on = [aws_cloudwatch_log_group.this]
}
