# Keys, and what demands them.

variables {
  name_prefix       = "p-e"
  partition         = "aws"
  region            = "us-west-2"
  account_id        = "123456789012"
  instance_role_arn = "arn:aws:iam::123456789012:role/p-e-instance"

  workload_keys = {
    payments = {
      pcr0 = ["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]
    }
    signed = {
      pcr0 = ["bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"]
      pcr8 = ["cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"]

      encrypters = ["arn:aws:iam::123456789012:role/release"]
    }
  }
}

run "keys" {
  module {
    source = "./modules/encryption"
  }

  assert {
    condition     = aws_kms_key.data.enable_key_rotation && alltrue([for key in values(aws_kms_key.workload) : key.enable_key_rotation])
    error_message = "Symmetric keys must be rotated."
  }
  assert {
    condition     = aws_kms_key.results.customer_master_key_spec == "ECC_NIST_P384" && aws_kms_key.results.key_usage == "SIGN_VERIFY"
    error_message = "Results must be signed with ECDSA on P-384."
  }
  assert {
    condition     = { for s in jsondecode(aws_kms_key.workload["payments"].policy).Statement : s.Sid => s }.AttestedEnclaves.Condition == { StringEqualsIgnoreCase = { "kms:RecipientAttestation:ImageSha384" = [var.workload_keys.payments.pcr0[0]] } }
    error_message = "A workload's key must demand PCR0 of its callers."
  }
  assert {
    condition     = { for s in jsondecode(aws_kms_key.workload["signed"].policy).Statement : s.Sid => s }.AttestedEnclaves.Condition.StringEqualsIgnoreCase["kms:RecipientAttestation:PCR8"] == [var.workload_keys.signed.pcr8[0]]
    error_message = "A workload's key must demand PCR8 where it is given."
  }
  assert {
    condition     = alltrue([for key in values(aws_kms_key.workload) : { for s in jsondecode(key.policy).Statement : s.Sid => s }.AttestedEnclaves.Principal.AWS == var.instance_role_arn])
    error_message = "A workload's key must be for the instances' role."
  }
  assert {
    condition     = alltrue([for key in values(aws_kms_key.workload) : length([for s in jsondecode(key.policy).Statement : s if s.Effect == "Allow" && length(setintersection(s.Action, local.reading)) > 0 && !can(s.Condition.StringEqualsIgnoreCase["kms:RecipientAttestation:ImageSha384"])]) == 0])
    error_message = "Nobody may decrypt with a workload's key without attestation, the account's administrators included."
  }
  assert {
    condition     = alltrue([for key in values(aws_kms_key.workload) : { for s in jsondecode(key.policy).Statement : s.Sid => s }.WithoutAttestation == { Sid = "WithoutAttestation", Effect = "Deny", Principal = "*", Action = local.reading, Resource = "*", Condition = { Null = { "kms:RecipientAttestation:ImageSha384" = "true" } } }])
    error_message = "Whatever IAM policies and grants allow, nobody may decrypt with a workload's key without attestation."
  }
  assert {
    condition     = { for s in jsondecode(aws_kms_key.workload["payments"].policy).Statement : s.Sid => s if s.Effect == "Deny" }.OtherImages.Condition.StringNotEqualsIgnoreCase == { "kms:RecipientAttestation:ImageSha384" = [var.workload_keys.payments.pcr0[0]] }
    error_message = "Other images must be denied to decrypt."
  }
  assert {
    condition     = { for s in jsondecode(aws_kms_key.workload["signed"].policy).Statement : s.Sid => s if s.Effect == "Deny" }.OtherSigners.Condition.StringNotEqualsIgnoreCase == { "kms:RecipientAttestation:PCR8" = [var.workload_keys.signed.pcr8[0]] }
    error_message = "Other signers must be denied to decrypt, where there is one."
  }
  assert {
    condition     = { for s in jsondecode(aws_kms_key.workload["payments"].policy).Statement : s.Sid => s }.Encryption.Principal.AWS == ["arn:aws:iam::123456789012:root"]
    error_message = "Somebody must be able to encrypt with a workload's key: whom IAM policies allow it, if nobody is named."
  }
  assert {
    condition     = { for s in jsondecode(aws_kms_key.workload["signed"].policy).Statement : s.Sid => s }.Encryption == { Sid = "Encryption", Effect = "Allow", Principal = { AWS = ["arn:aws:iam::123456789012:role/release"] }, Action = ["kms:DescribeKey", "kms:Encrypt"], Resource = "*" }
    error_message = "Who is named, and nobody else, must be able to encrypt with a workload's key."
  }
  assert {
    condition     = alltrue([for key in values(aws_kms_key.workload) : !strcontains(key.policy, "kms:CreateGrant")])
    error_message = "A grant on a workload's key would go past its condition."
  }
  assert {
    condition     = { for s in jsondecode(aws_kms_key.data.policy).Statement : s.Sid => s }.Logs.Condition.ArnLike["kms:EncryptionContext:aws:logs:arn"] == "arn:aws:logs:us-west-2:123456789012:log-group:*"
    error_message = "CloudWatch Logs must use the key for this account's groups only."
  }
  assert {
    condition     = { for s in jsondecode(aws_kms_key.data.policy).Statement : s.Sid => s }.Notifications.Condition.StringEquals["aws:SourceAccount"] == "123456789012"
    error_message = "Alarms of other accounts must not use the key."
  }
  assert {
    condition     = alltrue([for key in concat([aws_kms_key.data, aws_kms_key.results], values(aws_kms_key.workload)) : key.deletion_window_in_days == 30])
    error_message = "There must be a month to notice a key's deletion."
  }
}
