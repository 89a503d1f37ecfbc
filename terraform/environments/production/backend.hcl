# `terraform init -backend-config=environments/production/backend.hcl \
#    -backend-config=bucket=$(terraform -chdir=bootstrap output -raw bucket_name)`
key          = "control-plane/terraform.tfstate"
region       = "us-west-2"
use_lockfile = true

# Not `encrypt`: it would ask S3 for a key of its own in place of the bucket's.
