# The workflows. Deployment and cleanup are apart: neither can do the other's work.

locals {
  machines = toset(["deployment", "cleanup", "attestation"])
}

resource "aws_sfn_state_machine" "this" {
  # checkov:skip=CKV_AWS_285: executions are logged, but for their data, which holds requests
  for_each = local.machines

  name       = "${var.name_prefix}-${each.key}"
  role_arn   = var.role_arns[each.key]
  type       = "STANDARD"
  definition = templatefile("${path.module}/${each.key}.asl.json.tftpl", var.definition_variables)

  logging_configuration {
    level                  = "ALL"
    include_execution_data = false
    log_destination        = "${var.log_group_arns[each.key]}:*"
  }

  tracing_configuration {
    enabled = true
  }

  encryption_configuration {
    type                              = "CUSTOMER_MANAGED_KMS_KEY"
    kms_key_id                        = var.kms_key_arn
    kms_data_key_reuse_period_seconds = 300
  }
}
