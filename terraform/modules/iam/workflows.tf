locals {
  workflow_functions = {
    deployment  = ["validation", "attestation-gate", "error-handler"]
    cleanup     = ["validation", "error-handler"]
    attestation = ["attestation-gate", "error-handler"]
  }

  workflow_common = {
    for name, functions in local.workflow_functions : name => [
      {
        Sid      = "CallFunctions"
        Effect   = "Allow"
        Action   = "lambda:InvokeFunction"
        Resource = [for function in functions : var.function_arns[function]]
      },
      {
        Sid      = "WriteStatus"
        Effect   = "Allow"
        Action   = "dynamodb:UpdateItem"
        Resource = var.enclaves_table_arn
      },
      local.table_key,
      {
        Sid       = "ExecutionsKey"
        Effect    = "Allow"
        Action    = ["kms:Decrypt", "kms:GenerateDataKey"]
        Resource  = var.data_key_arn
        Condition = { StringEquals = { "kms:EncryptionContext:aws:states:stateMachineArn" = var.state_machine_arns[name] } }
      },
      {
        # Step Functions encrypts what it hands to the delivery of logs:
        # https://docs.aws.amazon.com/step-functions/latest/dg/encryption-at-rest.html
        Sid       = "LogDeliveryKey"
        Effect    = "Allow"
        Action    = "kms:GenerateDataKey"
        Resource  = var.data_key_arn
        Condition = { StringEquals = { "kms:EncryptionContext:SourceArn" = "${local.arn}:logs:${local.scope}:*" } }
      },
      {
        # Delivery of logs is set up for the account, not for a group.
        Sid    = "LogDelivery"
        Effect = "Allow"
        Action = [
          "logs:CreateLogDelivery",
          "logs:DeleteLogDelivery",
          "logs:DescribeLogGroups",
          "logs:DescribeResourcePolicies",
          "logs:GetLogDelivery",
          "logs:ListLogDeliveries",
          "logs:PutResourcePolicy",
          "logs:UpdateLogDelivery",
        ]
        Resource = "*"
      },
      local.tracing,
      {
        # Step Functions asks X-Ray which executions to trace.
        Sid      = "Sampling"
        Effect   = "Allow"
        Action   = ["xray:GetSamplingRules", "xray:GetSamplingTargets"]
        Resource = "*"
      },
    ]
  }

  run_terraform = [
    {
      Sid       = "RunTerraform"
      Effect    = "Allow"
      Action    = "ecs:RunTask"
      Resource  = "${local.arn}:ecs:${local.scope}:task-definition/${var.task_family}:*"
      Condition = { ArnEquals = { "ecs:cluster" = var.cluster_arn } }
    },
    {
      Sid       = "TagTasks"
      Effect    = "Allow"
      Action    = "ecs:TagResource"
      Resource  = "${local.arn}:ecs:${local.scope}:task/${var.cluster_name}/*"
      Condition = { StringEquals = { "ecs:CreateAction" = "RunTask" } }
    },
    {
      Sid       = "GiveTasksTheirRoles"
      Effect    = "Allow"
      Action    = "iam:PassRole"
      Resource  = [aws_iam_role.this["runner"].arn, aws_iam_role.this["runner-start"].arn]
      Condition = { StringEquals = { "iam:PassedToService" = "ecs-tasks.amazonaws.com" } }
    },
  ]

  workflow_policies = {
    deployment = jsonencode({
      Version   = "2012-10-17"
      Statement = concat(local.workflow_common.deployment, local.run_terraform)
    })
    cleanup = jsonencode({
      Version   = "2012-10-17"
      Statement = concat(local.workflow_common.cleanup, local.run_terraform)
    })
    attestation = jsonencode({
      Version   = "2012-10-17"
      Statement = local.workflow_common.attestation
    })
  }
}
