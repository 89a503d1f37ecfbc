# The keys: one for the control plane's data at rest, one that attestation results are
# signed with, and, if asked for, a workload's own, which only its enclave can use.

locals {
  root = "arn:${var.partition}:iam::${var.account_id}:root"

  administration = [
    "kms:CancelKeyDeletion",
    "kms:CreateAlias",
    "kms:DeleteAlias",
    "kms:DescribeKey",
    "kms:DisableKey",
    "kms:EnableKey",
    "kms:EnableKeyRotation",
    "kms:GetKeyPolicy",
    "kms:GetKeyRotationStatus",
    "kms:GetPublicKey",
    "kms:ListGrants",
    "kms:ListResourceTags",
    "kms:PutKeyPolicy",
    "kms:RevokeGrant",
    "kms:ScheduleKeyDeletion",
    "kms:TagResource",
    "kms:UntagResource",
    "kms:UpdateAlias",
    "kms:UpdateKeyDescription",
  ]

  # What gives its caller, or whoever may decrypt with another key, what a key protects.
  reading = [
    "kms:Decrypt",
    "kms:DeriveSharedSecret",
    "kms:GenerateDataKey",
    "kms:GenerateDataKeyPair",
    "kms:ReEncryptFrom",
  ]

  # What the policy of each workload's key demands of attestation documents. ImageSha384 is
  # PCR0.
  demanded = {
    for name, key in var.workload_keys : name => merge(
      { "kms:RecipientAttestation:ImageSha384" = key.pcr0 },
      length(key.pcr8) > 0 ? { "kms:RecipientAttestation:PCR8" = key.pcr8 } : {},
    )
  }
}

resource "aws_kms_key" "data" {
  description             = "${var.name_prefix}: data at rest"
  enable_key_rotation     = true
  deletion_window_in_days = 30

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "AccountDecides"
        Effect    = "Allow"
        Principal = { AWS = local.root }
        Action = concat(local.administration, [
          "kms:CreateGrant",
          "kms:Decrypt",
          "kms:Encrypt",
          "kms:GenerateDataKey",
          "kms:ReEncryptFrom",
          "kms:ReEncryptTo",
        ])
        Resource = "*"
      },
      {
        Sid       = "Logs"
        Effect    = "Allow"
        Principal = { Service = "logs.${var.region}.amazonaws.com" }
        Action    = ["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey", "kms:GenerateDataKeyWithoutPlaintext", "kms:ReEncryptFrom", "kms:ReEncryptTo"]
        Resource  = "*"
        Condition = {
          ArnLike = {
            "kms:EncryptionContext:aws:logs:arn" = "arn:${var.partition}:logs:${var.region}:${var.account_id}:log-group:*"
          }
        }
      },
      {
        # The workflows' logs, which Step Functions has encrypted for the delivery.
        Sid       = "LogDelivery"
        Effect    = "Allow"
        Principal = { Service = "delivery.logs.amazonaws.com" }
        Action    = "kms:Decrypt"
        Resource  = "*"
        Condition = { StringEquals = { "kms:EncryptionContext:SourceArn" = "arn:${var.partition}:logs:${var.region}:${var.account_id}:*" } }
      },
      {
        Sid       = "Notifications"
        Effect    = "Allow"
        Principal = { Service = "cloudwatch.amazonaws.com" }
        Action    = ["kms:Decrypt", "kms:GenerateDataKey"]
        Resource  = "*"
        Condition = { StringEquals = { "aws:SourceAccount" = var.account_id } }
      },
    ]
  })
}

resource "aws_kms_alias" "data" {
  name          = "alias/${var.name_prefix}-data"
  target_key_id = aws_kms_key.data.key_id
}

# An asymmetric key cannot be rotated by KMS: verifiers pin its public half.
resource "aws_kms_key" "results" {
  # checkov:skip=CKV_AWS_7: KMS rotates symmetric keys only
  description              = "${var.name_prefix}: signature of attestation results"
  key_usage                = "SIGN_VERIFY"
  customer_master_key_spec = "ECC_NIST_P384"
  deletion_window_in_days  = 30

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "AccountDecides"
      Effect    = "Allow"
      Principal = { AWS = local.root }
      Action    = concat(local.administration, ["kms:Sign", "kms:Verify"])
      Resource  = "*"
    }]
  })
}

resource "aws_kms_alias" "results" {
  name          = "alias/${var.name_prefix}-attestation-results"
  target_key_id = aws_kms_key.results.key_id
}

# The policy that `image-builder kms-policy` writes. Neither IAM policies nor grants can add
# to who decrypts: what denies goes before both, and it holds for everybody.
resource "aws_kms_key" "workload" {
  for_each = var.workload_keys

  description             = "${var.name_prefix}: ${each.key}, for attested enclaves only"
  enable_key_rotation     = true
  deletion_window_in_days = 30

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat([
      {
        Sid       = "Administration"
        Effect    = "Allow"
        Principal = { AWS = local.root }
        Action    = local.administration
        Resource  = "*"
      },
      {
        Sid       = "Encryption"
        Effect    = "Allow"
        Principal = { AWS = length(each.value.encrypters) > 0 ? each.value.encrypters : [local.root] }
        Action    = ["kms:DescribeKey", "kms:Encrypt"]
        Resource  = "*"
      },
      {
        Sid       = "AttestedEnclaves"
        Effect    = "Allow"
        Principal = { AWS = var.instance_role_arn }
        # Only with an attestation document.
        Action    = [for action in local.reading : action if action != "kms:ReEncryptFrom"]
        Resource  = "*"
        Condition = { StringEqualsIgnoreCase = local.demanded[each.key] }
      },
      {
        Sid       = "WithoutAttestation"
        Effect    = "Deny"
        Principal = "*"
        Action    = local.reading
        Resource  = "*"
        Condition = { Null = { "kms:RecipientAttestation:ImageSha384" = "true" } }
      },
      ], [
      # A negated condition holds in a call without the key, too.
      for key, values in local.demanded[each.key] : {
        Sid       = endswith(key, ":PCR8") ? "OtherSigners" : "OtherImages"
        Effect    = "Deny"
        Principal = "*"
        Action    = local.reading
        Resource  = "*"
        Condition = { StringNotEqualsIgnoreCase = { (key) = values } }
      }
    ])
  })
}

resource "aws_kms_alias" "workload" {
  for_each = var.workload_keys

  name          = "alias/${var.name_prefix}-workload-${each.key}"
  target_key_id = aws_kms_key.workload[each.key].key_id
}
