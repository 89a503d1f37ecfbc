# What the per-enclave stack needs: its state, one instance, one parameter, one log
# group. Instances are created with the project's and the environment's tag, and only
# those that carry them are changed or terminated.

locals {
  own_instances = {
    "aws:ResourceTag/Project"     = var.project_name
    "aws:ResourceTag/Environment" = var.environment
  }
  new_instances = {
    "aws:RequestTag/Project"     = var.project_name
    "aws:RequestTag/Environment" = var.environment
  }
  parameters      = "${local.arn}:ssm:${local.scope}:parameter/${var.project_name}/${var.environment}/enclaves/*"
  enclave_groups  = "${local.arn}:logs:${local.scope}:log-group:/aws/ec2/enclave/*"
  enclave_streams = "${local.arn}:logs:${local.scope}:log-group:/aws/ec2/enclave/*:log-stream:*"

  runner_policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [
        {
          Sid      = "State"
          Effect   = "Allow"
          Action   = ["s3:DeleteObject", "s3:GetObject", "s3:PutObject"]
          Resource = "${var.state_bucket_arn}/enclaves/*"
        },
        {
          Sid      = "FindState"
          Effect   = "Allow"
          Action   = "s3:ListBucket"
          Resource = var.state_bucket_arn
          # Terraform looks for workspaces at `env:/`, of which there are none; without this it
          # does not start.
          Condition = { StringLike = { "s3:prefix" = ["enclaves/*", "env:/"] } }
        },
        {
          Sid       = "StateKey"
          Effect    = "Allow"
          Action    = ["kms:Decrypt", "kms:GenerateDataKey"]
          Resource  = var.state_key_arn
          Condition = { StringEquals = { "kms:ViaService" = var.lock_table_arn == null ? [local.via.s3] : [local.via.dynamodb, local.via.s3] } }
        },
      ],
      [
        for table in var.lock_table_arn == null ? [] : [var.lock_table_arn] : {
          Sid       = "Locks"
          Effect    = "Allow"
          Action    = ["dynamodb:DeleteItem", "dynamodb:DescribeTable", "dynamodb:GetItem", "dynamodb:PutItem"]
          Resource  = table
          Condition = { "ForAllValues:StringLike" = { "dynamodb:LeadingKeys" = ["*/enclaves/*"] } }
        }
      ],
      [
        {
          # The line about progress that clients see, while `runner` says that it is this
          # execution's. No status, owner, request or result is among the attributes: a condition
          # that may read them could write them, too. `updated_at` is, of every item: a runner
          # that was taken over can make the monitor give up an item early, or overlook it.
          Sid      = "Progress"
          Effect   = "Allow"
          Action   = "dynamodb:UpdateItem"
          Resource = var.enclaves_table_arn
          Condition = {
            "ForAllValues:StringEquals" = { "dynamodb:Attributes" = ["id", "progress", "runner", "updated_at"] }
            StringEqualsIfExists        = { "dynamodb:ReturnValues" = ["NONE", "UPDATED_NEW"] }
          }
        },
        local.table_key,
        local.executions_key,
        {
          Sid      = "AnswerWorkflows"
          Effect   = "Allow"
          Action   = ["states:SendTaskFailure", "states:SendTaskHeartbeat", "states:SendTaskSuccess"]
          Resource = [var.state_machine_arns.deployment, var.state_machine_arns.cleanup]
        },
        {
          Sid    = "Describe"
          Effect = "Allow"
          Action = [
            "ec2:DescribeImages",
            "ec2:DescribeInstanceTypes",
            "ec2:DescribeInstances",
            "ec2:DescribeTags",
            "ec2:DescribeVolumes",
            "logs:DescribeLogGroups",
            "ssm:DescribeParameters",
          ]
          Resource = "*"
        },
        {
          Sid    = "LaunchTagged"
          Effect = "Allow"
          Action = "ec2:RunInstances"
          Resource = [
            "${local.arn}:ec2:${local.scope}:instance/*",
            "${local.arn}:ec2:${local.scope}:volume/*",
          ]
          Condition = { StringEquals = local.new_instances }
        },
        {
          Sid    = "LaunchInto"
          Effect = "Allow"
          Action = "ec2:RunInstances"
          Resource = concat(
            [
              "${local.arn}:ec2:${local.scope}:network-interface/*",
              "${local.arn}:ec2:${local.scope}:security-group/${var.enclaves_security_group_id}",
            ],
            [for subnet in var.subnet_ids : "${local.arn}:ec2:${local.scope}:subnet/${subnet}"],
          )
        },
        {
          Sid       = "LaunchFrom"
          Effect    = "Allow"
          Action    = "ec2:RunInstances"
          Resource  = "${local.arn}:ec2:${var.region}::image/*"
          Condition = { StringEquals = { "ec2:Owner" = var.image_owners } }
        },
        {
          Sid    = "TagNew"
          Effect = "Allow"
          Action = "ec2:CreateTags"
          Resource = [
            "${local.arn}:ec2:${local.scope}:instance/*",
            "${local.arn}:ec2:${local.scope}:volume/*",
          ]
          Condition = { StringEquals = { "ec2:CreateAction" = "RunInstances" } }
        },
        {
          Sid    = "ChangeOwn"
          Effect = "Allow"
          Action = [
            # User data is an attribute.
            "ec2:DescribeInstanceAttribute",
            "ec2:ModifyInstanceAttribute",
            "ec2:ModifyInstanceMetadataOptions",
            "ec2:StartInstances",
            "ec2:StopInstances",
            "ec2:TerminateInstances",
          ]
          Resource  = "${local.arn}:ec2:${local.scope}:instance/*"
          Condition = { StringEquals = local.own_instances }
        },
        {
          Sid    = "TagOwn"
          Effect = "Allow"
          Action = "ec2:CreateTags"
          Resource = [
            "${local.arn}:ec2:${local.scope}:instance/*",
            "${local.arn}:ec2:${local.scope}:volume/*",
          ]
          # The project's and the environment's may be written again, and stay what they are.
          Condition = {
            StringEquals         = local.own_instances
            StringEqualsIfExists = local.new_instances
          }
        },
        {
          Sid    = "UntagOwn"
          Effect = "Allow"
          Action = "ec2:DeleteTags"
          Resource = [
            "${local.arn}:ec2:${local.scope}:instance/*",
            "${local.arn}:ec2:${local.scope}:volume/*",
          ]
          # Otherwise a tag could be taken off, and what it protects be lost sight of. A call
          # that names no tag takes all of them.
          Condition = {
            StringEquals                   = local.own_instances
            Null                           = { "aws:TagKeys" = "false" }
            "ForAllValues:StringNotEquals" = { "aws:TagKeys" = ["Project", "Environment"] }
          }
        },
        {
          Sid       = "GiveInstancesTheirRole"
          Effect    = "Allow"
          Action    = "iam:PassRole"
          Resource  = aws_iam_role.this["instance"].arn
          Condition = { StringEquals = { "iam:PassedToService" = "ec2.amazonaws.com" } }
        },
        {
          Sid      = "NameOfTheMachineImage"
          Effect   = "Allow"
          Action   = "ssm:GetParameter"
          Resource = "${local.arn}:ssm:${var.region}::parameter/aws/service/ami-amazon-linux-latest/*"
        },
        {
          Sid    = "AgentsConfiguration"
          Effect = "Allow"
          Action = [
            "ssm:AddTagsToResource",
            "ssm:DeleteParameter",
            "ssm:GetParameter",
            "ssm:ListTagsForResource",
            "ssm:PutParameter",
            "ssm:RemoveTagsFromResource",
          ]
          Resource = local.parameters
        },
        {
          Sid    = "EnclavesLogGroup"
          Effect = "Allow"
          Action = [
            "logs:CreateLogGroup",
            "logs:DeleteMetricFilter",
            "logs:DescribeMetricFilters",
            "logs:ListTagsForResource",
            "logs:PutMetricFilter",
            "logs:PutRetentionPolicy",
            "logs:TagResource",
            "logs:UntagResource",
          ]
          Resource = local.enclave_groups
        },
      ],
    )
  })

  runner_start_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid      = "Registry"
        Effect   = "Allow"
        Action   = "ecr:GetAuthorizationToken"
        Resource = "*"
      },
      {
        Sid      = "PullImage"
        Effect   = "Allow"
        Action   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
        Resource = "${local.arn}:ecr:${local.scope}:repository/${var.repository_name}"
      },
      {
        Sid      = "Logs"
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = "${var.log_group_arns.runner}:*"
      },
    ]
  })

  flow_log_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid      = "WriteFlows"
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
        Resource = "${var.log_group_arns.flows}:*"
      },
      {
        Sid      = "FindGroup"
        Effect   = "Allow"
        Action   = "logs:DescribeLogGroups"
        Resource = "*"
      },
    ]
  })
}
