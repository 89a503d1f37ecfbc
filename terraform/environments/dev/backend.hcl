# `terraform init -backend-config=environments/dev/backend.hcl \
#    -backend-config=bucket=$(terraform -chdir=bootstrap output -raw bucket_name)`
key          = "control-plane/terraform.tfstate"
region       = "us-west-2"
encrypt      = true
use_lockfile = true
