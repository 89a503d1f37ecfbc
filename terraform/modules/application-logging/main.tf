# The control plane's log groups. An enclave's own group is its stack's.

resource "aws_cloudwatch_log_group" "this" {
  # checkov:skip=CKV_AWS_338: how long logs are kept is the user's decision; each environment states it
  for_each = var.names

  name              = each.value
  retention_in_days = var.retention_days
  kms_key_id        = var.kms_key_arn
}
