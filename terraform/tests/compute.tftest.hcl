# Functions, tasks and workflows.

run "functions" {
  module {
    source = "./modules/lambda"
  }
  variables {
    name_prefix            = "p-e"
    architecture           = "x86_64"
    descriptions           = { for name in ["trigger", "validation", "attestation-gate", "error-handler", "status-monitor"] : name => name }
    role_arns              = { for name in ["trigger", "validation", "attestation-gate", "error-handler", "status-monitor"] : name => "arn:aws:iam::123456789012:role/${name}" }
    log_group_names        = { for name in ["trigger", "validation", "attestation-gate", "error-handler", "status-monitor"] : name => "/aws/lambda/p-e-${name}" }
    environment_variables  = { DYNAMODB_TABLE_NAME = "enclaves" }
    stream_arn             = "arn:aws:dynamodb:us-west-2:123456789012:table/enclaves/stream/1"
    kms_key_arn            = "arn:aws:kms:us-west-2:123456789012:key/data"
    reattestation_schedule = "rate(1 hour)"
    reserved_concurrency   = { trigger = 20, validation = 50, attestation_gate = 50, error_handler = 20, status_monitor = 1 }
  }

  assert {
    condition     = alltrue([for name, function in aws_lambda_function.this : function.role == var.role_arns[name]])
    error_message = "Each function must have its own role."
  }
  assert {
    condition     = alltrue([for function in values(aws_lambda_function.this) : function.runtime == "provided.al2023" && function.kms_key_arn == var.kms_key_arn && function.tracing_config[0].mode == "Active"])
    error_message = "Functions must be traced, and their environment encrypted."
  }
  assert {
    condition     = alltrue([for name, function in aws_lambda_function.this : function.logging_config[0].log_group == var.log_group_names[name]])
    error_message = "Each function must write to its own log group."
  }
  assert {
    condition     = aws_lambda_function.this["status-monitor"].reserved_concurrent_executions == 1 && aws_lambda_function.this["status-monitor"].timeout < 60
    error_message = "The monitor must not run twice at once, and be done before the next minute."
  }
  assert {
    condition     = jsondecode(one(one(aws_lambda_event_source_mapping.requests.filter_criteria).filter).pattern) == { eventName = ["INSERT", "MODIFY"], dynamodb = { NewImage = { status = { S = ["PENDING_DEPLOY", "PENDING_DESTROY", "PAUSING", "RESUMING"] } } } }
    error_message = "The trigger must see requests, and nothing else of the stream."
  }
  assert {
    condition     = aws_lambda_event_source_mapping.requests.bisect_batch_on_function_error && aws_lambda_event_source_mapping.requests.maximum_retry_attempts == 120 && aws_lambda_event_source_mapping.requests.function_response_types == toset(["ReportBatchItemFailures"])
    error_message = "A poisoned record must not hold up its shard."
  }
  assert {
    condition     = aws_lambda_event_source_mapping.requests.destination_config[0].on_failure[0].destination_arn == aws_sqs_queue.unhandled.arn
    error_message = "What still fails must be kept."
  }
  assert {
    condition     = aws_sqs_queue.unhandled.kms_master_key_id == var.kms_key_arn && aws_sqs_queue.unhandled.message_retention_seconds == 1209600
    error_message = "What failed must be kept for two weeks, encrypted."
  }
  assert {
    condition     = aws_cloudwatch_event_rule.monitor["statuses"].schedule_expression == "rate(1 minute)" && aws_cloudwatch_event_rule.monitor["reattest"].schedule_expression == "rate(1 hour)"
    error_message = "The monitor must run every minute, and attestations by their schedule."
  }
  assert {
    condition     = { for name, target in aws_cloudwatch_event_target.monitor : name => jsondecode(target.input) } == { statuses = { task = "statuses" }, reattest = { task = "reattest" } }
    error_message = "The monitor must be told what to do."
  }
  assert {
    condition     = alltrue([for name, permission in aws_lambda_permission.monitor : permission.source_arn == aws_cloudwatch_event_rule.monitor[name].arn && permission.principal == "events.amazonaws.com"])
    error_message = "Only the platform's own schedules may call the monitor."
  }
  assert {
    condition     = aws_lambda_function_event_invoke_config.monitor.maximum_retry_attempts == 0
    error_message = "A run of the monitor must not be repeated beside the next."
  }
}

run "tasks" {
  module {
    source = "./modules/ecs"
  }
  variables {
    name_prefix                = "p-e"
    region                     = "us-west-2"
    image_version              = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
    container_name             = "terraform-runner"
    cpu                        = 1024
    memory                     = 2048
    execution_role_arn         = "arn:aws:iam::123456789012:role/start"
    task_role_arn              = "arn:aws:iam::123456789012:role/runner"
    environment_variables      = { VPC_ID = "vpc-1", ENVIRONMENT = "e" }
    log_group_name             = "/aws/ecs/runner"
    failed_tasks_log_group_arn = "arn:aws:logs:us-west-2:123456789012:log-group:failed"
    kms_key_arn                = "arn:aws:kms:us-west-2:123456789012:key/data"
  }

  assert {
    condition     = aws_ecs_task_definition.runner.requires_compatibilities == toset(["FARGATE"]) && aws_ecs_task_definition.runner.runtime_platform[0].cpu_architecture == "X86_64" && aws_ecs_task_definition.runner.runtime_platform[0].operating_system_family == "LINUX"
    error_message = "The runner is made for linux/amd64."
  }
  assert {
    condition     = jsondecode(aws_ecs_task_definition.runner.container_definitions)[0].readonlyRootFilesystem && jsondecode(aws_ecs_task_definition.runner.container_definitions)[0].linuxParameters.capabilities.drop == ["ALL"]
    error_message = "The runner must not write to its image, nor have capabilities."
  }
  assert {
    condition     = jsondecode(aws_ecs_task_definition.runner.container_definitions)[0].stopTimeout == 120
    error_message = "Terraform must have time to give its lock back."
  }
  assert {
    condition     = jsondecode(aws_ecs_task_definition.runner.container_definitions)[0].image == "${aws_ecr_repository.runner.repository_url}@${var.image_version}"
    error_message = "A digest must be joined with @."
  }
  assert {
    condition     = jsondecode(aws_ecs_task_definition.runner.container_definitions)[0].environment == [{ name = "ENVIRONMENT", value = "e" }, { name = "VPC_ID", value = "vpc-1" }]
    error_message = "The environment must be in order, or each plan would show a change."
  }
  assert {
    condition     = jsondecode(aws_ecs_task_definition.runner.container_definitions)[0].logConfiguration.options.awslogs-group == "/aws/ecs/runner"
    error_message = "The runner must log to its group."
  }
  assert {
    condition     = aws_ecr_repository.runner.image_tag_mutability == "IMMUTABLE" && aws_ecr_repository.runner.image_scanning_configuration[0].scan_on_push && aws_ecr_repository.runner.encryption_configuration[0].encryption_type == "KMS"
    error_message = "Images must be scanned, encrypted, and not change under a tag."
  }
  assert {
    condition     = length(jsondecode(aws_ecr_lifecycle_policy.runner.policy).rules) == 2
    error_message = "Old images must go."
  }
  assert {
    condition     = jsondecode(aws_cloudwatch_event_rule.failed_tasks.event_pattern).detail.clusterArn == [aws_ecs_cluster.this.arn]
    error_message = "Failed tasks must be those of this cluster."
  }
}

run "tasks_by_tag" {
  module {
    source = "./modules/ecs"
  }
  variables {
    name_prefix                = "p-e"
    region                     = "us-west-2"
    image_version              = "v1.2.3"
    container_name             = "terraform-runner"
    cpu                        = 1024
    memory                     = 2048
    execution_role_arn         = "arn:aws:iam::123456789012:role/start"
    task_role_arn              = "arn:aws:iam::123456789012:role/runner"
    environment_variables      = {}
    log_group_name             = "/aws/ecs/runner"
    failed_tasks_log_group_arn = "arn:aws:logs:us-west-2:123456789012:log-group:failed"
    kms_key_arn                = "arn:aws:kms:us-west-2:123456789012:key/data"
  }

  assert {
    condition     = jsondecode(aws_ecs_task_definition.runner.container_definitions)[0].image == "${aws_ecr_repository.runner.repository_url}:v1.2.3"
    error_message = "A tag must be joined with a colon."
  }
}

run "workflows" {
  module {
    source = "./modules/step-functions"
  }
  variables {
    name_prefix    = "p-e"
    role_arns      = { for name in ["deployment", "cleanup", "attestation"] : name => "arn:aws:iam::123456789012:role/${name}" }
    log_group_arns = { for name in ["deployment", "cleanup", "attestation"] : name => "arn:aws:logs:us-west-2:123456789012:log-group:/aws/vendedlogs/states/${name}" }
    kms_key_arn    = "arn:aws:kms:us-west-2:123456789012:key/data"
    definition_variables = {
      partition                   = "aws"
      cluster_arn                 = "arn:aws:ecs:us-west-2:123456789012:cluster/runners"
      task_definition_arn         = "arn:aws:ecs:us-west-2:123456789012:task-definition/runner:1"
      container_name              = "terraform-runner"
      subnet_ids                  = ["subnet-1", "subnet-2"]
      runner_security_group_id    = "sg-1"
      validation_function_arn     = "arn:aws:lambda:us-west-2:123456789012:function:validation"
      gate_function_arn           = "arn:aws:lambda:us-west-2:123456789012:function:gate"
      error_handler_function_arn  = "arn:aws:lambda:us-west-2:123456789012:function:error-handler"
      table_name                  = "enclaves"
      deployment_timeout_seconds  = 1800
      destroy_timeout_seconds     = 1200
      attestation_timeout_seconds = 600
      heartbeat_seconds           = 120
      retry_max_attempts          = 3
      retry_interval_seconds      = 5
    }
  }

  assert {
    condition     = toset(keys(aws_sfn_state_machine.this)) == toset(["deployment", "cleanup", "attestation"])
    error_message = "Deployment and cleanup must be apart."
  }
  assert {
    condition     = alltrue([for machine in values(aws_sfn_state_machine.this) : machine.encryption_configuration[0].kms_key_id == var.kms_key_arn && machine.tracing_configuration[0].enabled])
    error_message = "Workflows must be traced, and encrypted."
  }
  assert {
    condition     = alltrue([for machine in values(aws_sfn_state_machine.this) : machine.logging_configuration[0].level == "ALL" && machine.logging_configuration[0].include_execution_data == false])
    error_message = "Executions must be logged, without the requests that they carry."
  }
  assert {
    condition     = jsondecode(aws_sfn_state_machine.this["deployment"].definition).States.RunTerraform.TimeoutSeconds == 1800 && jsondecode(aws_sfn_state_machine.this["cleanup"].definition).States.RunTerraform.TimeoutSeconds == 1200
    error_message = "Terraform's time must be that of the variables."
  }
  assert {
    condition     = alltrue([for name in ["deployment", "cleanup"] : jsondecode(aws_sfn_state_machine.this[name].definition).States.RunTerraform.Arguments.NetworkConfiguration.AwsvpcConfiguration == { Subnets = ["subnet-1", "subnet-2"], SecurityGroups = ["sg-1"], AssignPublicIp = "DISABLED" }])
    error_message = "Tasks must run in private subnets, without public addresses."
  }
  assert {
    condition     = alltrue([for name in ["deployment", "cleanup"] : jsondecode(aws_sfn_state_machine.this[name].definition).States.RunTerraform.Resource == "arn:aws:states:::ecs:runTask.waitForTaskToken"])
    error_message = "The runner must answer with the task's token: its exit code alone says too little."
  }
  assert {
    condition     = !strcontains(aws_sfn_state_machine.this["deployment"].definition, "PENDING_DESTROY")
    error_message = "The deployment must not claim requests to destroy."
  }
  assert {
    condition     = alltrue(flatten([for machine in values(aws_sfn_state_machine.this) : [for state in values(jsondecode(machine.definition).States) : can(state.TimeoutSeconds) || strcontains(state.Resource, "dynamodb") if state.Type == "Task"]]))
    error_message = "Each task of a workflow must have a timeout."
  }
}
