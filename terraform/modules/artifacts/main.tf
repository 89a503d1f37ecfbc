# What enclaves are started from: images at `images/<sha256>.eif`, agents at
# `agents/<sha256>`. Both are fetched by digest, so what is written once is not changed.

module "bucket" {
  source = "../private-bucket"

  name                     = var.bucket_name
  kms_key_arn              = var.kms_key_arn
  noncurrent_version_days  = 30
  kept_noncurrent_versions = 1
}
