# The control plane: from the table that clients write to, to the tasks that run
# Terraform for each enclave. docs/terraform.md explains it.

provider "aws" {
  region = var.aws_region

  default_tags {
    tags = local.tags
  }
}

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

locals {
  name_prefix = "${var.project_name}-${var.environment}"
  partition   = data.aws_partition.current.partition
  account_id  = data.aws_caller_identity.current.account_id
  arn         = "arn:${local.partition}"
  scope       = "${var.aws_region}:${local.account_id}"

  tags = merge(var.additional_tags, {
    Project     = var.project_name
    Environment = var.environment
    ManagedBy   = "terraform"
  })

  # Names that several modules need before what they name exists.
  functions          = toset(["trigger", "validation", "attestation-gate", "error-handler", "status-monitor"])
  state_machines     = toset(["deployment", "cleanup", "attestation"])
  function_arns      = { for name in local.functions : name => "${local.arn}:lambda:${local.scope}:function:${local.name_prefix}-${name}" }
  state_machine_arns = { for name in local.state_machines : name => "${local.arn}:states:${local.scope}:stateMachine:${local.name_prefix}-${name}" }
  state_bucket       = coalesce(var.state_bucket_name, "${local.name_prefix}-state-${local.account_id}")
  artifacts_bucket   = "${local.name_prefix}-artifacts-${local.account_id}"
  runner_container   = "terraform-runner"
  runner_task_family = "${local.name_prefix}-terraform-runner"
  runner_repository  = "${local.name_prefix}/terraform-runner"
  # A task has to be placed and its image pulled before the first one.
  heartbeat_seconds   = 300
  control_plane_param = "/${var.project_name}/${var.environment}/control-plane"

  descriptions = {
    trigger              = "Starts a workflow for each request in the table's stream"
    validation           = "Checks a request and finds the image it names"
    attestation-gate     = "Issues challenges, and verifies the documents that answer them"
    error-handler        = "Marks enclaves as failed and says why"
    status-monitor       = "Moves enclaves on that pause, resume or are being destroyed"
    workflow-deployment  = "Deploys enclaves"
    workflow-cleanup     = "Destroys enclaves"
    workflow-attestation = "Has deployed enclaves prove themselves again"
    runner               = "Runs Terraform for one enclave at a time"
    runner-start         = "Fetches the runner's image and writes its log"
    instance             = "What an instance does for its enclave"
    flow-logs            = "Writes the flows of the network"
  }
}

# The state's key: its bucket is made before, by `bootstrap`.
data "aws_kms_alias" "state" {
  name = "alias/${local.name_prefix}-state"
}

module "encryption" {
  source = "./modules/encryption"

  name_prefix       = local.name_prefix
  partition         = local.partition
  region            = var.aws_region
  account_id        = local.account_id
  instance_role_arn = module.iam.instance_role_arn
  workload_keys     = var.workload_keys
}

module "application_logging" {
  source = "./modules/application-logging"

  names = merge(
    { for name in local.functions : name => "/aws/lambda/${local.name_prefix}-${name}" },
    # Step Functions writes into groups of this prefix without a policy of their own.
    { for name in local.state_machines : "workflow-${name}" => "/aws/vendedlogs/states/${local.name_prefix}-${name}" },
    {
      runner       = "/aws/ecs/${local.name_prefix}-terraform-runner"
      failed-tasks = "/aws/events/${local.name_prefix}-failed-tasks"
      flows        = "/aws/vpc/${local.name_prefix}-flows"
    },
  )
  retention_days = var.log_retention_days
  kms_key_arn    = module.encryption.data_key_arn
}

# EventBridge writes down tasks that failed.
resource "aws_cloudwatch_log_resource_policy" "events" {
  policy_name = "${local.name_prefix}-failed-tasks"

  policy_document = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        # EventBridge does not say for which rule it makes a stream:
        # https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-use-resource-based.html
        Sid       = "Streams"
        Effect    = "Allow"
        Principal = { Service = ["delivery.logs.amazonaws.com", "events.amazonaws.com"] }
        Action    = "logs:CreateLogStream"
        Resource  = "${module.application_logging.arns["failed-tasks"]}:*"
      },
      {
        Sid       = "FailedTasks"
        Effect    = "Allow"
        Principal = { Service = ["delivery.logs.amazonaws.com", "events.amazonaws.com"] }
        Action    = "logs:PutLogEvents"
        Resource  = "${module.application_logging.arns["failed-tasks"]}:*"
        Condition = { ArnEquals = { "aws:SourceArn" = module.ecs.failed_tasks_rule_arn } }
      },
    ]
  })
}

module "artifacts" {
  source = "./modules/artifacts"

  bucket_name = local.artifacts_bucket
  kms_key_arn = module.encryption.data_key_arn
}

module "dynamodb" {
  source = "./modules/dynamodb"

  name_prefix         = local.name_prefix
  existing_table_name = var.existing_dynamodb_table_name
  status_index_name   = var.status_index_name
  kms_key_arn         = module.encryption.data_key_arn
}

module "iam" {
  source = "./modules/iam"

  name_prefix                = local.name_prefix
  project_name               = var.project_name
  environment                = var.environment
  partition                  = local.partition
  region                     = var.aws_region
  account_id                 = local.account_id
  descriptions               = local.descriptions
  function_arns              = local.function_arns
  state_machine_arns         = local.state_machine_arns
  log_group_arns             = module.application_logging.arns
  enclaves_table_arn         = module.dynamodb.enclaves_table_arn
  existing_table_key_arn     = var.existing_dynamodb_kms_key_arn
  status_index_name          = var.status_index_name
  stream_arn                 = module.dynamodb.enclaves_stream_arn
  images_table_arn           = module.dynamodb.images_table_arn
  unhandled_queue_arn        = module.lambda.unhandled_queue_arn
  topic_arn                  = module.monitoring.topic_arn
  data_key_arn               = module.encryption.data_key_arn
  results_key_arn            = module.encryption.results_key_arn
  state_bucket_arn           = "${local.arn}:s3:::${local.state_bucket}"
  state_key_arn              = data.aws_kms_alias.state.target_key_arn
  lock_table_arn             = var.state_lock_table_name == null ? null : "${local.arn}:dynamodb:${local.scope}:table/${var.state_lock_table_name}"
  artifacts_bucket_arn       = module.artifacts.bucket_arn
  cluster_arn                = module.ecs.cluster_arn
  cluster_name               = module.ecs.cluster_name
  task_family                = local.runner_task_family
  repository_name            = local.runner_repository
  subnet_ids                 = [module.networking.private_subnet_ids[0]]
  enclaves_security_group_id = module.networking.enclaves_security_group_id
  image_owners               = var.machine_image_owners
}

module "networking" {
  source = "./modules/networking"

  name_prefix            = local.name_prefix
  partition              = local.partition
  region                 = var.aws_region
  account_id             = local.account_id
  vpc_cidr               = var.vpc_cidr
  availability_zones     = var.availability_zones
  enable_nat_gateways    = var.enable_nat_gateways
  enclave_egress         = var.enclave_egress
  enclave_ingress        = var.enclave_ingress
  endpoint_extra_actions = var.endpoint_extra_actions
  artifacts_bucket_arn   = module.artifacts.bucket_arn
  state_bucket_arn       = "${local.arn}:s3:::${local.state_bucket}"
  workload_bucket_arns   = var.workload_bucket_arns
  flow_log_group_arn     = module.application_logging.arns["flows"]
  flow_log_role_arn      = module.iam.flow_log_role_arn
}

module "lambda" {
  source = "./modules/lambda"

  name_prefix            = local.name_prefix
  functions_directory    = var.functions_directory
  architecture           = var.functions_architecture
  descriptions           = local.descriptions
  role_arns              = module.iam.role_arns
  log_group_names        = module.application_logging.names
  stream_arn             = module.dynamodb.enclaves_stream_arn
  kms_key_arn            = module.encryption.data_key_arn
  reattestation_schedule = var.reattestation_schedule
  reserved_concurrency   = var.reserved_concurrency

  environment_variables = {
    DEPLOYMENT_STEP_FUNCTION_ARN  = local.state_machine_arns.deployment
    CLEANUP_STEP_FUNCTION_ARN     = local.state_machine_arns.cleanup
    ATTESTATION_STEP_FUNCTION_ARN = local.state_machine_arns.attestation
    DYNAMODB_TABLE_NAME           = module.dynamodb.enclaves_table_name
    IMAGES_TABLE_NAME             = module.dynamodb.images_table_name
    STATUS_INDEX_NAME             = var.status_index_name
    SNS_TOPIC_ARN                 = module.monitoring.topic_arn
    EAR_KEY_ID                    = module.encryption.results_key_arn
    LOG_LEVEL                     = var.log_level
    # The dimension of the functions' metrics.
    ENVIRONMENT = local.name_prefix
  }
}

module "ecs" {
  source = "./modules/ecs"

  name_prefix                = local.name_prefix
  region                     = var.aws_region
  image_version              = var.terraform_runner_image_version
  container_name             = local.runner_container
  cpu                        = var.terraform_runner_cpu
  memory                     = var.terraform_runner_memory
  execution_role_arn         = module.iam.role_arns["runner-start"]
  task_role_arn              = module.iam.role_arns["runner"]
  log_group_name             = module.application_logging.names["runner"]
  failed_tasks_log_group_arn = module.application_logging.arns["failed-tasks"]
  kms_key_arn                = module.encryption.data_key_arn

  environment_variables = merge(
    {
      VPC_ID                   = module.networking.vpc_id
      SUBNET_ID                = module.networking.private_subnet_ids[0]
      SHARED_SECURITY_GROUP_ID = module.networking.enclaves_security_group_id
      ENVIRONMENT              = var.environment
      PROJECT_NAME             = var.project_name
      AWS_DEFAULT_REGION       = var.aws_region
      TF_STATE_BUCKET          = local.state_bucket
      DYNAMODB_TABLE_NAME      = module.dynamodb.enclaves_table_name
      AGENT_BUCKET             = module.artifacts.bucket_name
      AGENT_KEY                = "agents/${var.agent_sha256}"
      AGENT_SHA256             = var.agent_sha256
      INSTANCE_PROFILE_NAME    = module.iam.instance_profile_name
      GATE_FUNCTION_NAME       = "${local.name_prefix}-attestation-gate"
      LOG_RETENTION_DAYS       = tostring(var.log_retention_days)
    },
    var.state_lock_table_name == null ? {} : { TF_STATE_DYNAMODB_TABLE = var.state_lock_table_name },
  )
}

module "step_functions" {
  source = "./modules/step-functions"

  name_prefix    = local.name_prefix
  role_arns      = { for name in local.state_machines : name => module.iam.role_arns["workflow-${name}"] }
  log_group_arns = { for name in local.state_machines : name => module.application_logging.arns["workflow-${name}"] }
  kms_key_arn    = module.encryption.data_key_arn

  definition_variables = {
    partition                   = local.partition
    cluster_arn                 = module.ecs.cluster_arn
    task_definition_arn         = module.ecs.task_definition_arn
    container_name              = local.runner_container
    subnet_ids                  = module.networking.private_subnet_ids
    runner_security_group_id    = module.networking.runners_security_group_id
    validation_function_arn     = module.lambda.function_arns["validation"]
    gate_function_arn           = module.lambda.function_arns["attestation-gate"]
    error_handler_function_arn  = module.lambda.function_arns["error-handler"]
    table_name                  = module.dynamodb.enclaves_table_name
    deployment_timeout_seconds  = var.deployment_timeout_seconds
    destroy_timeout_seconds     = var.destroy_timeout_seconds
    attestation_timeout_seconds = var.attestation_timeout_seconds
    heartbeat_seconds           = local.heartbeat_seconds
    retry_max_attempts          = 3
    retry_interval_seconds      = 5
  }
}

module "monitoring" {
  source = "./modules/monitoring"

  name_prefix            = local.name_prefix
  partition              = local.partition
  region                 = var.aws_region
  account_id             = local.account_id
  kms_key_arn            = module.encryption.data_key_arn
  alarm_emails           = var.alarm_emails
  function_names         = module.lambda.function_names
  state_machine_arns     = module.step_functions.arns
  table_names            = { enclaves = module.dynamodb.enclaves_table_name, images = module.dynamodb.images_table_name }
  log_group_names        = module.application_logging.names
  unhandled_queue_name   = module.lambda.unhandled_queue_name
  cluster_name           = module.ecs.cluster_name
  failed_tasks_rule_name = module.ecs.failed_tasks_rule_name
  spool_alarm_bytes      = var.spool_alarm_bytes
}

# Where tools find the rest: `enclavectl --project … --environment …` reads it.
resource "aws_ssm_parameter" "control_plane" {
  # checkov:skip=CKV2_AWS_34: names of resources are no secrets
  # checkov:skip=CKV_AWS_337: likewise
  name        = local.control_plane_param
  description = "The names of the control plane's parts"
  type        = "String"

  value = jsonencode({
    region           = var.aws_region
    tables           = { enclaves = module.dynamodb.enclaves_table_name, images = module.dynamodb.images_table_name }
    state_machines   = module.step_functions.arns
    functions        = module.lambda.function_names
    buckets          = { artifacts = module.artifacts.bucket_name, state = local.state_bucket }
    log_group_prefix = "/aws/ec2/enclave/"
    status_index     = var.status_index_name
  })
}
