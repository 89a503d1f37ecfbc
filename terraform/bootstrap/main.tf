# What has to be there before Terraform can keep state: the bucket, and its key. Its own
# state is a file; keep it, or import both again (docs/terraform.md).

provider "aws" {
  region = var.aws_region

  default_tags {
    tags = {
      Project     = var.project_name
      Environment = var.environment
      ManagedBy   = "terraform"
    }
  }
}

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

module "state_backend" {
  source = "../modules/state-backend"

  name_prefix       = "${var.project_name}-${var.environment}"
  bucket_name       = "${var.project_name}-${var.environment}-state-${data.aws_caller_identity.current.account_id}"
  partition         = data.aws_partition.current.partition
  account_id        = data.aws_caller_identity.current.account_id
  create_lock_table = var.create_lock_table
}
