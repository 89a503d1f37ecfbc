locals {
  function_common = {
    for name in ["trigger", "validation", "attestation-gate", "error-handler", "status-monitor"] : name => [
      {
        Sid      = "Logs"
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = "${var.log_group_arns[name]}:*"
      },
      local.tracing,
    ]
  }

  table_key = {
    Sid       = "TableKey"
    Effect    = "Allow"
    Action    = "kms:Decrypt"
    Resource  = local.data_keys
    Condition = { StringEquals = { "kms:ViaService" = local.via.dynamodb } }
  }

  # Step Functions encrypts executions' data; those who start, answer or look at them
  # need the key for that.
  executions_key = {
    Sid       = "ExecutionsKey"
    Effect    = "Allow"
    Action    = ["kms:Decrypt", "kms:GenerateDataKey"]
    Resource  = var.data_key_arn
    Condition = { StringEquals = { "kms:EncryptionContext:aws:states:stateMachineArn" = values(var.state_machine_arns) } }
  }

  queue_statements = [
    {
      Sid      = "UnhandledEvents"
      Effect   = "Allow"
      Action   = "sqs:SendMessage"
      Resource = var.unhandled_queue_arn
    },
    {
      Sid       = "QueueKey"
      Effect    = "Allow"
      Action    = ["kms:Decrypt", "kms:GenerateDataKey"]
      Resource  = var.data_key_arn
      Condition = { StringEquals = { "kms:ViaService" = local.via.sqs } }
    },
  ]

  function_policies = {
    trigger = jsonencode({
      Version = "2012-10-17"
      Statement = concat(local.function_common.trigger, [local.table_key, local.executions_key], local.queue_statements, [
        {
          Sid      = "Stream"
          Effect   = "Allow"
          Action   = ["dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator"]
          Resource = var.stream_arn
        },
        {
          Sid      = "Streams"
          Effect   = "Allow"
          Action   = "dynamodb:ListStreams"
          Resource = "*"
        },
        {
          Sid      = "PutBackRefusedWrites"
          Effect   = "Allow"
          Action   = ["dynamodb:GetItem", "dynamodb:UpdateItem"]
          Resource = var.enclaves_table_arn
        },
        {
          Sid      = "StartWorkflows"
          Effect   = "Allow"
          Action   = "states:StartExecution"
          Resource = [var.state_machine_arns.deployment, var.state_machine_arns.cleanup]
        },
        {
          Sid      = "SeeWhetherAnExecutionEnded"
          Effect   = "Allow"
          Action   = "states:DescribeExecution"
          Resource = [for name in keys(var.state_machine_arns) : "${local.arn}:states:${local.scope}:execution:${var.name_prefix}-${name}:*"]
        },
      ])
    })

    validation = jsonencode({
      Version = "2012-10-17"
      Statement = concat(local.function_common.validation, [
        local.table_key,
        {
          Sid      = "ReadRequestAndImage"
          Effect   = "Allow"
          Action   = "dynamodb:GetItem"
          Resource = [var.enclaves_table_arn, var.images_table_arn]
        },
      ])
    })

    attestation-gate = jsonencode({
      Version = "2012-10-17"
      Statement = concat(local.function_common.attestation-gate, [
        local.table_key,
        local.executions_key,
        {
          Sid      = "ChallengeAndResult"
          Effect   = "Allow"
          Action   = ["dynamodb:GetItem", "dynamodb:UpdateItem"]
          Resource = var.enclaves_table_arn
        },
        {
          Sid      = "AnswerWorkflows"
          Effect   = "Allow"
          Action   = ["states:SendTaskFailure", "states:SendTaskSuccess"]
          Resource = [var.state_machine_arns.deployment, var.state_machine_arns.attestation]
        },
        {
          Sid      = "SignResults"
          Effect   = "Allow"
          Action   = ["kms:GetPublicKey", "kms:Sign"]
          Resource = var.results_key_arn
        },
      ])
    })

    error-handler = jsonencode({
      Version = "2012-10-17"
      Statement = concat(local.function_common.error-handler, [
        local.table_key,
        {
          Sid      = "MarkFailed"
          Effect   = "Allow"
          Action   = ["dynamodb:GetItem", "dynamodb:UpdateItem"]
          Resource = var.enclaves_table_arn
        },
        {
          Sid      = "Notify"
          Effect   = "Allow"
          Action   = "sns:Publish"
          Resource = var.topic_arn
        },
        {
          Sid       = "TopicKey"
          Effect    = "Allow"
          Action    = ["kms:Decrypt", "kms:GenerateDataKey"]
          Resource  = var.data_key_arn
          Condition = { StringEquals = { "kms:ViaService" = local.via.sns } }
        },
      ])
    })

    status-monitor = jsonencode({
      Version = "2012-10-17"
      Statement = concat(local.function_common.status-monitor, [local.table_key, local.executions_key], local.queue_statements, [
        {
          Sid      = "FindByStatus"
          Effect   = "Allow"
          Action   = "dynamodb:Query"
          Resource = "${var.enclaves_table_arn}/index/${var.status_index_name}"
        },
        {
          Sid      = "MoveOn"
          Effect   = "Allow"
          Action   = "dynamodb:UpdateItem"
          Resource = var.enclaves_table_arn
        },
        {
          Sid      = "SeeInstances"
          Effect   = "Allow"
          Action   = "ec2:DescribeInstances"
          Resource = "*"
        },
        {
          Sid       = "PauseAndResume"
          Effect    = "Allow"
          Action    = ["ec2:StartInstances", "ec2:StopInstances"]
          Resource  = "${local.arn}:ec2:${local.scope}:instance/*"
          Condition = { StringEquals = local.own_instances }
        },
        {
          Sid      = "SeeWhetherAnExecutionEnded"
          Effect   = "Allow"
          Action   = "states:DescribeExecution"
          Resource = [for name in keys(var.state_machine_arns) : "${local.arn}:states:${local.scope}:execution:${var.name_prefix}-${name}:*"]
        },
        {
          Sid      = "AttestAgain"
          Effect   = "Allow"
          Action   = "states:StartExecution"
          Resource = var.state_machine_arns.attestation
        },
      ])
    })
  }
}
