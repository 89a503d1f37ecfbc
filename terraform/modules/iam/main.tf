# One role for each thing that acts, and in it what that thing does. A statement names
# actions one by one; where its resource is `*`, the service knows no narrower one.

locals {
  arn   = "arn:${var.partition}"
  scope = "${var.region}:${var.account_id}"

  # Whom a service assumes a role for is demanded where AWS documents that the service says
  # so. The others assume a role for those alone who may pass it (iam:PassRole), which are
  # of this account.
  says_for_whom = ["flow-logs", "runner", "workflow-attestation", "workflow-cleanup", "workflow-deployment"]

  assume = {
    for role, service in local.roles : role => jsonencode({
      Version = "2012-10-17"
      Statement = [merge(
        {
          Effect    = "Allow"
          Principal = { Service = "${service}.amazonaws.com" }
          Action    = "sts:AssumeRole"
        },
        contains(local.says_for_whom, role) ? { Condition = { StringEquals = { "aws:SourceAccount" = var.account_id } } } : {},
      )]
    })
  }

  # What assumes each role.
  roles = {
    trigger              = "lambda"
    validation           = "lambda"
    attestation-gate     = "lambda"
    error-handler        = "lambda"
    status-monitor       = "lambda"
    workflow-deployment  = "states"
    workflow-cleanup     = "states"
    workflow-attestation = "states"
    runner               = "ecs-tasks"
    runner-start         = "ecs-tasks"
    instance             = "ec2"
    flow-logs            = "vpc-flow-logs"
  }

  policies = merge(
    local.function_policies,
    { for name, policy in local.workflow_policies : "workflow-${name}" => policy },
    {
      runner       = local.runner_policy
      runner-start = local.runner_start_policy
      instance     = local.instance_policy
      flow-logs    = local.flow_log_policy
    },
  )

  # What the tables, queues, topics and buckets that a role uses are encrypted with,
  # and only by way of them.
  data_keys = concat([var.data_key_arn], var.existing_table_key_arn == null ? [] : [var.existing_table_key_arn])
  via = {
    for service in ["dynamodb", "s3", "sns", "sqs"] :
    service => "${service}.${var.region}.amazonaws.com"
  }

  tracing = {
    Sid      = "Tracing"
    Effect   = "Allow"
    Action   = ["xray:PutTelemetryRecords", "xray:PutTraceSegments"]
    Resource = "*"
  }
}

resource "aws_iam_role" "this" {
  for_each = local.roles

  name                 = "${var.name_prefix}-${each.key}"
  description          = var.descriptions[each.key]
  assume_role_policy   = local.assume[each.key]
  max_session_duration = 3600
}

resource "aws_iam_role_policy" "this" {
  for_each = local.policies

  name   = "${var.name_prefix}-${each.key}"
  role   = aws_iam_role.this[each.key].id
  policy = each.value
}

resource "aws_iam_instance_profile" "this" {
  name = "${var.name_prefix}-instance"
  role = aws_iam_role.this["instance"].name
}
