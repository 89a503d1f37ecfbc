# Tables, buckets and log groups.

run "tables" {
  module {
    source = "./modules/dynamodb"
  }
  variables {
    name_prefix       = "p-e"
    status_index_name = "status-index"
    kms_key_arn       = "arn:aws:kms:us-west-2:123456789012:key/data"
  }

  assert {
    condition     = aws_dynamodb_table.enclaves[0].hash_key == "id" && aws_dynamodb_table.images.hash_key == "reference"
    error_message = "The tables' keys must be those that clients use."
  }
  assert {
    condition     = aws_dynamodb_table.enclaves[0].stream_enabled && aws_dynamodb_table.enclaves[0].stream_view_type == "NEW_AND_OLD_IMAGES"
    error_message = "The stream must have new and old images."
  }
  assert {
    condition     = alltrue([for table in [aws_dynamodb_table.enclaves[0], aws_dynamodb_table.images] : table.deletion_protection_enabled && table.point_in_time_recovery[0].enabled])
    error_message = "Tables must be protected from deletion, and restorable."
  }
  assert {
    condition     = alltrue([for table in [aws_dynamodb_table.enclaves[0], aws_dynamodb_table.images] : table.server_side_encryption[0].kms_key_arn == var.kms_key_arn])
    error_message = "Tables must be encrypted with the platform's key."
  }
  assert {
    condition     = [for index in aws_dynamodb_table.enclaves[0].global_secondary_index : "${index.name} ${index.hash_key} ${index.range_key} ${index.projection_type}"] == ["status-index status updated_at ALL"]
    error_message = "The monitor's index must be there."
  }
}

run "state" {
  module {
    source = "./modules/state-backend"
  }
  variables {
    name_prefix       = "p-e"
    bucket_name       = "p-e-state-123456789012"
    partition         = "aws"
    account_id        = "123456789012"
    create_lock_table = true
  }

  assert {
    condition     = aws_dynamodb_table.locks[0].hash_key == "LockID" && aws_dynamodb_table.locks[0].server_side_encryption[0].enabled
    error_message = "The table of locks must be as Terraform wants it, and encrypted."
  }
  assert {
    condition     = aws_kms_key.state.enable_key_rotation
    error_message = "The state's key must be rotated."
  }
}

run "bucket" {
  module {
    source = "./modules/private-bucket"
  }
  variables {
    name                     = "p-e-state-123456789012"
    kms_key_arn              = "arn:aws:kms:us-west-2:123456789012:key/state"
    noncurrent_version_days  = 90
    kept_noncurrent_versions = 20
  }

  assert {
    condition     = aws_s3_bucket_versioning.this.versioning_configuration[0].status == "Enabled"
    error_message = "Buckets must keep versions."
  }
  assert {
    condition     = aws_s3_bucket_public_access_block.this.block_public_acls && aws_s3_bucket_public_access_block.this.block_public_policy && aws_s3_bucket_public_access_block.this.ignore_public_acls && aws_s3_bucket_public_access_block.this.restrict_public_buckets
    error_message = "Buckets must not become public."
  }
  assert {
    condition     = one(one(aws_s3_bucket_server_side_encryption_configuration.this.rule).apply_server_side_encryption_by_default).kms_master_key_id == var.kms_key_arn
    error_message = "Buckets must be encrypted with the given key."
  }
  assert {
    condition     = { for s in jsondecode(aws_s3_bucket_policy.this.policy).Statement : s.Sid => s }.TlsOnly.Effect == "Deny" && { for s in jsondecode(aws_s3_bucket_policy.this.policy).Statement : s.Sid => s }.TlsOnly.Condition.Bool["aws:SecureTransport"] == "false"
    error_message = "Buckets must be reached over TLS only."
  }
  assert {
    condition     = alltrue([for s in jsondecode(aws_s3_bucket_policy.this.policy).Statement : s.Effect == "Deny"])
    error_message = "A bucket's policy must grant nothing."
  }
  assert {
    condition     = aws_s3_bucket_ownership_controls.this.rule[0].object_ownership == "BucketOwnerEnforced"
    error_message = "Objects must belong to the bucket's owner."
  }
}

run "logs" {
  module {
    source = "./modules/application-logging"
  }
  variables {
    names          = { runner = "/aws/ecs/runner" }
    retention_days = 14
    kms_key_arn    = "arn:aws:kms:us-west-2:123456789012:key/data"
  }

  assert {
    condition     = aws_cloudwatch_log_group.this["runner"].retention_in_days == 14 && aws_cloudwatch_log_group.this["runner"].kms_key_id == var.kms_key_arn
    error_message = "Log groups must forget after the given time, and be encrypted."
  }
}
