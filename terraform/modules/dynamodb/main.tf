# The table that clients write to, unless another application has made it, and the
# table of published images.

resource "aws_dynamodb_table" "enclaves" {
  count = var.existing_table_name == null ? 1 : 0

  name                        = "${var.name_prefix}-enclaves"
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = "id"
  stream_enabled              = true
  stream_view_type            = "NEW_AND_OLD_IMAGES"
  deletion_protection_enabled = true

  attribute {
    name = "id"
    type = "S"
  }

  attribute {
    name = "status"
    type = "S"
  }

  attribute {
    name = "updated_at"
    type = "S"
  }

  # The monitor asks for the items in a status; it does not scan the table.
  global_secondary_index {
    name            = var.status_index_name
    hash_key        = "status"
    range_key       = "updated_at"
    projection_type = "ALL"
  }

  point_in_time_recovery {
    enabled = true
  }

  server_side_encryption {
    enabled     = true
    kms_key_arn = var.kms_key_arn
  }
}

data "aws_dynamodb_table" "enclaves" {
  count = var.existing_table_name == null ? 0 : 1

  name = var.existing_table_name

  lifecycle {
    postcondition {
      condition     = self.stream_enabled && self.stream_view_type == "NEW_AND_OLD_IMAGES"
      error_message = "The table ${self.name} has no stream of new and old images: enable it (stream view type NEW_AND_OLD_IMAGES), then apply again."
    }

    postcondition {
      condition     = self.hash_key == "id"
      error_message = "The partition key of the table ${self.name} is not `id`: this is not the table of enclaves."
    }

    postcondition {
      condition     = contains([for index in self.global_secondary_index : index.name], var.status_index_name)
      error_message = "The table ${self.name} has no index ${var.status_index_name}: add it (hash key `status`, range key `updated_at`, projection ALL), or name the one it has in status_index_name."
    }
  }
}

resource "aws_dynamodb_table" "images" {
  name                        = "${var.name_prefix}-images"
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = "reference"
  deletion_protection_enabled = true

  attribute {
    name = "reference"
    type = "S"
  }

  point_in_time_recovery {
    enabled = true
  }

  server_side_encryption {
    enabled     = true
    kms_key_arn = var.kms_key_arn
  }
}
