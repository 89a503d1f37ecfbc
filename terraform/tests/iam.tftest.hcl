# What each role may do. That no policy names a whole service, nor another's resources,
# is checked over a plan of everything: tests/terraform/checks.

variables {
  name_prefix  = "p-e"
  project_name = "p"
  environment  = "e"
  partition    = "aws"
  region       = "us-west-2"
  account_id   = "123456789012"

  descriptions = {
    for name in ["trigger", "validation", "attestation-gate", "error-handler", "status-monitor", "workflow-deployment", "workflow-cleanup", "workflow-attestation", "runner", "runner-start", "instance", "flow-logs"] : name => name
  }
  function_arns = {
    for name in ["trigger", "validation", "attestation-gate", "error-handler", "status-monitor"] : name => "arn:aws:lambda:us-west-2:123456789012:function:p-e-${name}"
  }
  state_machine_arns = {
    for name in ["deployment", "cleanup", "attestation"] : name => "arn:aws:states:us-west-2:123456789012:stateMachine:p-e-${name}"
  }
  log_group_arns = {
    for name in ["trigger", "validation", "attestation-gate", "error-handler", "status-monitor", "runner", "flows"] : name => "arn:aws:logs:us-west-2:123456789012:log-group:${name}"
  }
  enclaves_table_arn         = "arn:aws:dynamodb:us-west-2:123456789012:table/enclaves"
  images_table_arn           = "arn:aws:dynamodb:us-west-2:123456789012:table/images"
  stream_arn                 = "arn:aws:dynamodb:us-west-2:123456789012:table/enclaves/stream/1"
  status_index_name          = "status-index"
  unhandled_queue_arn        = "arn:aws:sqs:us-west-2:123456789012:unhandled"
  topic_arn                  = "arn:aws:sns:us-west-2:123456789012:alarms"
  data_key_arn               = "arn:aws:kms:us-west-2:123456789012:key/data"
  results_key_arn            = "arn:aws:kms:us-west-2:123456789012:key/results"
  state_key_arn              = "arn:aws:kms:us-west-2:123456789012:key/state"
  state_bucket_arn           = "arn:aws:s3:::state"
  artifacts_bucket_arn       = "arn:aws:s3:::artifacts"
  cluster_arn                = "arn:aws:ecs:us-west-2:123456789012:cluster/runners"
  cluster_name               = "runners"
  task_family                = "p-e-terraform-runner"
  repository_name            = "p-e/terraform-runner"
  subnet_ids                 = ["subnet-1", "subnet-2"]
  enclaves_security_group_id = "sg-1"
  image_owners               = ["amazon"]
}

run "roles" {
  module {
    source = "./modules/iam"
  }

  assert {
    condition     = toset(keys(aws_iam_role.this)) == toset(keys(aws_iam_role_policy.this))
    error_message = "Each role must have a policy, and each policy a role."
  }
  assert {
    condition     = alltrue([for name, role in aws_iam_role.this : length(jsondecode(role.assume_role_policy).Statement) == 1 && endswith(jsondecode(role.assume_role_policy).Statement[0].Principal.Service, ".amazonaws.com")])
    error_message = "Roles must be assumed by one service each."
  }
  assert {
    condition     = alltrue([for name in ["flow-logs", "runner", "workflow-attestation", "workflow-cleanup", "workflow-deployment"] : jsondecode(aws_iam_role.this[name].assume_role_policy).Statement[0].Condition.StringEquals["aws:SourceAccount"] == "123456789012"])
    error_message = "Services that say for whom they assume a role must do it for this account only."
  }
  assert {
    condition     = { for s in jsondecode(aws_iam_role_policy.this["trigger"].policy).Statement : s.Sid => s }.StartWorkflows.Resource == [var.state_machine_arns.deployment, var.state_machine_arns.cleanup]
    error_message = "The trigger must start the two workflows, and no others."
  }
  assert {
    condition     = { for s in jsondecode(aws_iam_role_policy.this["trigger"].policy).Statement : s.Sid => s }.UnhandledEvents.Resource == var.unhandled_queue_arn
    error_message = "The event source mapping sends to the queue with the trigger's role."
  }
  assert {
    condition     = length([for s in jsondecode(aws_iam_role_policy.this["validation"].policy).Statement : s if can(regex("dynamodb:(Put|Update|Delete)", jsonencode(s.Action)))]) == 0
    error_message = "The validation function must not write."
  }
  assert {
    condition     = { for s in jsondecode(aws_iam_role_policy.this["attestation-gate"].policy).Statement : s.Sid => s }.SignResults.Resource == var.results_key_arn
    error_message = "The gate must sign with the key of results, and with no other."
  }
  assert {
    condition     = length([for name, p in aws_iam_role_policy.this : name if strcontains(p.policy, "kms:Sign")]) == 1
    error_message = "Only the gate may sign results."
  }
  assert {
    condition     = !contains({ for s in jsondecode(aws_iam_role_policy.this["attestation-gate"].policy).Statement : s.Sid => s }.AnswerWorkflows.Resource, var.state_machine_arns.cleanup)
    error_message = "The gate has nothing to do with cleanups."
  }
  assert {
    condition     = { for s in jsondecode(aws_iam_role_policy.this["status-monitor"].policy).Statement : s.Sid => s }.FindByStatus.Resource == "${var.enclaves_table_arn}/index/status-index" && !strcontains(aws_iam_role_policy.this["status-monitor"].policy, "dynamodb:Scan")
    error_message = "The monitor must query its index, and never scan."
  }
  assert {
    condition     = { for s in jsondecode(aws_iam_role_policy.this["status-monitor"].policy).Statement : s.Sid => s }.PauseAndResume.Condition.StringEquals == { "aws:ResourceTag/Project" = "p", "aws:ResourceTag/Environment" = "e" }
    error_message = "The monitor must stop and start instances of this project and environment only."
  }
  assert {
    condition     = contains({ for s in jsondecode(aws_iam_role_policy.this["status-monitor"].policy).Statement : s.Sid => s }.SeeWhetherAnExecutionEnded.Resource, "arn:aws:states:us-west-2:123456789012:execution:p-e-deployment:*")
    error_message = "The monitor must see whether an execution still works on an enclave."
  }
  assert {
    condition     = !strcontains(aws_iam_role_policy.this["workflow-attestation"].policy, "ecs:") && !strcontains(aws_iam_role_policy.this["workflow-attestation"].policy, "iam:PassRole")
    error_message = "The attestation workflow must not run tasks."
  }
  assert {
    condition     = !contains({ for s in jsondecode(aws_iam_role_policy.this["workflow-cleanup"].policy).Statement : s.Sid => s }.CallFunctions.Resource, var.function_arns.attestation-gate)
    error_message = "The cleanup must not attest."
  }
  assert {
    condition     = { for s in jsondecode(aws_iam_role_policy.this["workflow-deployment"].policy).Statement : s.Sid => s }.GiveTasksTheirRoles.Condition.StringEquals["iam:PassedToService"] == "ecs-tasks.amazonaws.com"
    error_message = "Workflows must pass roles to tasks only."
  }
  assert {
    condition     = { for s in jsondecode(aws_iam_role_policy.this["workflow-deployment"].policy).Statement : s.Sid => s }.RunTerraform.Condition.ArnEquals["ecs:cluster"] == var.cluster_arn
    error_message = "Workflows must run tasks in their own cluster."
  }
}

run "runner" {
  module {
    source = "./modules/iam"
  }

  assert {
    condition     = { for s in jsondecode(aws_iam_role_policy.this["runner"].policy).Statement : s.Sid => s }.State.Resource == "arn:aws:s3:::state/enclaves/*"
    error_message = "The runner must not touch the control plane's own state."
  }
  assert {
    condition     = { for s in jsondecode(aws_iam_role_policy.this["runner"].policy).Statement : s.Sid => s }.FindState.Condition.StringLike["s3:prefix"] == ["enclaves/*", "env:/"]
    error_message = "The runner must list enclaves' states only."
  }
  assert {
    condition     = { for s in jsondecode(aws_iam_role_policy.this["runner"].policy).Statement : s.Sid => s }.LaunchTagged.Condition.StringEquals == { "aws:RequestTag/Project" = "p", "aws:RequestTag/Environment" = "e" }
    error_message = "The runner must launch tagged instances only."
  }
  assert {
    condition     = contains({ for s in jsondecode(aws_iam_role_policy.this["runner"].policy).Statement : s.Sid => s }.LaunchInto.Resource, "arn:aws:ec2:us-west-2:123456789012:security-group/sg-1") && !contains({ for s in jsondecode(aws_iam_role_policy.this["runner"].policy).Statement : s.Sid => s }.LaunchInto.Resource, "arn:aws:ec2:us-west-2:123456789012:subnet/*")
    error_message = "The runner must launch into the platform's own subnets and group."
  }
  assert {
    condition     = { for s in jsondecode(aws_iam_role_policy.this["runner"].policy).Statement : s.Sid => s }.LaunchFrom.Condition.StringEquals["ec2:Owner"] == ["amazon"]
    error_message = "The runner must launch from known owners' machine images."
  }
  assert {
    condition     = contains({ for s in jsondecode(aws_iam_role_policy.this["runner"].policy).Statement : s.Sid => s }.ChangeOwn.Action, "ec2:TerminateInstances") && { for s in jsondecode(aws_iam_role_policy.this["runner"].policy).Statement : s.Sid => s }.ChangeOwn.Condition.StringEquals["aws:ResourceTag/Project"] == "p"
    error_message = "The runner must terminate instances of this project only."
  }
  assert {
    condition     = length([for s in jsondecode(aws_iam_role_policy.this["runner"].policy).Statement : s if strcontains(jsonencode(s.Resource), "key-pair")]) == 0
    error_message = "The runner must not launch with SSH keys."
  }
  assert {
    condition     = { for s in jsondecode(aws_iam_role_policy.this["runner"].policy).Statement : s.Sid => s }.GiveInstancesTheirRole == { Sid = "GiveInstancesTheirRole", Effect = "Allow", Action = "iam:PassRole", Resource = aws_iam_role.this["instance"].arn, Condition = { StringEquals = { "iam:PassedToService" = "ec2.amazonaws.com" } } }
    error_message = "The runner must pass the instances' role, to EC2."
  }
  assert {
    condition     = { for s in jsondecode(aws_iam_role_policy.this["runner"].policy).Statement : s.Sid => s }.AgentsConfiguration.Resource == "arn:aws:ssm:us-west-2:123456789012:parameter/p/e/enclaves/*"
    error_message = "The runner must write enclaves' parameters only."
  }
  assert {
    condition     = strcontains({ for s in jsondecode(aws_iam_role_policy.this["runner"].policy).Statement : s.Sid => s }.EnclavesLogGroup.Resource, ":log-group:/aws/ec2/enclave/*")
    error_message = "The runner must make enclaves' log groups only."
  }
  assert {
    condition     = !contains({ for s in jsondecode(aws_iam_role_policy.this["runner"].policy).Statement : s.Sid => s }.Progress.Condition["ForAllValues:StringEquals"]["dynamodb:Attributes"], "attestation")
    error_message = "The runner must not write results of attestation."
  }
  assert {
    condition     = length([for s in jsondecode(aws_iam_role_policy.this["runner"].policy).Statement : s if s.Sid == "Locks"]) == 0
    error_message = "Without a table of locks there is nothing to allow."
  }
}

run "instance" {
  module {
    source = "./modules/iam"
  }

  assert {
    condition     = { for s in jsondecode(aws_iam_role_policy.this["instance"].policy).Statement : s.Sid => s }.AttestationGate.Resource == var.function_arns.attestation-gate
    error_message = "Instances must call the gate, and no other function."
  }
  assert {
    condition     = { for s in jsondecode(aws_iam_role_policy.this["instance"].policy).Statement : s.Sid => s }.ImagesAndAgents.Resource == ["arn:aws:s3:::artifacts/agents/*", "arn:aws:s3:::artifacts/images/*"] && { for s in jsondecode(aws_iam_role_policy.this["instance"].policy).Statement : s.Sid => s }.ImagesAndAgents.Action == "s3:GetObject"
    error_message = "Instances must read images and agents, and write nothing to the bucket."
  }
  assert {
    condition     = [for s in jsondecode(aws_iam_role_policy.this["instance"].policy).Statement : s.Condition.StringEquals["kms:ViaService"] if strcontains(jsonencode(s.Action), "kms:")] == ["s3.us-west-2.amazonaws.com"]
    error_message = "Instances must decrypt by way of S3 only: workloads' keys demand the enclave's attestation."
  }
  assert {
    condition     = endswith({ for s in jsondecode(aws_iam_role_policy.this["instance"].policy).Statement : s.Sid => s }.EnclavesLogs.Resource, ":log-group:/aws/ec2/enclave/*:log-stream:*")
    error_message = "Instances must write enclaves' logs only."
  }
  assert {
    condition     = { for s in jsondecode(aws_iam_role_policy.this["instance"].policy).Statement : s.Sid => s }.AgentsConfiguration == { Sid = "AgentsConfiguration", Effect = "Allow", Action = "ssm:GetParameter", Resource = "arn:aws:ssm:us-west-2:123456789012:parameter/p/e/enclaves/*" }
    error_message = "Instances must read enclaves' parameters only."
  }
  assert {
    condition     = !strcontains(aws_iam_role_policy.this["instance"].policy, "dynamodb:") && !strcontains(aws_iam_role_policy.this["instance"].policy, "ec2:") && !strcontains(aws_iam_role_policy.this["instance"].policy, "states:")
    error_message = "Instances must not reach the table, other instances or the workflows."
  }
}

run "locks_in_a_table" {
  module {
    source = "./modules/iam"
  }
  variables {
    lock_table_arn         = "arn:aws:dynamodb:us-west-2:123456789012:table/locks"
    existing_table_key_arn = "arn:aws:kms:us-west-2:123456789012:key/theirs"
  }

  assert {
    condition     = { for s in jsondecode(aws_iam_role_policy.this["runner"].policy).Statement : s.Sid => s }.Locks.Condition["ForAllValues:StringLike"]["dynamodb:LeadingKeys"] == ["*/enclaves/*"]
    error_message = "The runner must lock enclaves' states only."
  }
  assert {
    condition     = contains({ for s in jsondecode(aws_iam_role_policy.this["trigger"].policy).Statement : s.Sid => s }.TableKey.Resource, "arn:aws:kms:us-west-2:123456789012:key/theirs")
    error_message = "The key of an existing table must be usable."
  }
}
