# Where Terraform keeps its state: the control plane's at `control-plane/`, and each
# enclave's at `enclaves/<id>/`. Locks are S3's own; the table is for users whose
# tools still lock there.

resource "aws_kms_key" "state" {
  description             = "${var.name_prefix}: Terraform's state"
  enable_key_rotation     = true
  deletion_window_in_days = 30

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "AccountDecides"
      Effect    = "Allow"
      Principal = { AWS = "arn:${var.partition}:iam::${var.account_id}:root" }
      Action    = local.key_actions
      Resource  = "*"
    }]
  })
}

resource "aws_kms_alias" "state" {
  name          = "alias/${var.name_prefix}-state"
  target_key_id = aws_kms_key.state.key_id
}

module "bucket" {
  source = "../private-bucket"

  name                     = var.bucket_name
  kms_key_arn              = aws_kms_key.state.arn
  noncurrent_version_days  = 90
  kept_noncurrent_versions = 20
}

resource "aws_dynamodb_table" "locks" {
  count = var.create_lock_table ? 1 : 0

  name                        = "${var.name_prefix}-state-locks"
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = "LockID"
  deletion_protection_enabled = true

  attribute {
    name = "LockID"
    type = "S"
  }

  point_in_time_recovery {
    enabled = true
  }

  server_side_encryption {
    enabled     = true
    kms_key_arn = aws_kms_key.state.arn
  }
}

locals {
  # What administrators of a key need; roles get what they use by their own policies.
  key_actions = [
    "kms:CancelKeyDeletion",
    "kms:CreateAlias",
    "kms:CreateGrant",
    "kms:Decrypt",
    "kms:DeleteAlias",
    "kms:DescribeKey",
    "kms:DisableKey",
    "kms:EnableKey",
    "kms:EnableKeyRotation",
    "kms:Encrypt",
    "kms:GenerateDataKey",
    "kms:GetKeyPolicy",
    "kms:GetKeyRotationStatus",
    "kms:ListGrants",
    "kms:ListResourceTags",
    "kms:PutKeyPolicy",
    "kms:ReEncryptFrom",
    "kms:ReEncryptTo",
    "kms:RetireGrant",
    "kms:RevokeGrant",
    "kms:ScheduleKeyDeletion",
    "kms:TagResource",
    "kms:UntagResource",
    "kms:UpdateAlias",
    "kms:UpdateKeyDescription",
  ]
}
