# The functions: what each may use, when each runs, and what becomes of events that it
# could not handle.

locals {
  functions = {
    trigger          = { memory = 256, timeout = 30, concurrency = var.reserved_concurrency.trigger }
    validation       = { memory = 256, timeout = 30, concurrency = var.reserved_concurrency.validation }
    attestation-gate = { memory = 512, timeout = 30, concurrency = var.reserved_concurrency.attestation_gate }
    error-handler    = { memory = 256, timeout = 30, concurrency = var.reserved_concurrency.error_handler }
    # Two at once would see the same items, and one of them lose each write.
    status-monitor = { memory = 256, timeout = 55, concurrency = var.reserved_concurrency.status_monitor }
  }
}

resource "aws_lambda_function" "this" {
  # checkov:skip=CKV_AWS_117: they call AWS's interfaces only; in the network they would need more rights and reach less
  # checkov:skip=CKV_AWS_116: events that the trigger or the monitor cannot handle go to the queue by their own settings; the workflows see the errors of the others
  # checkov:skip=CKV_AWS_272: releases carry checksums and provenance instead of an AWS signing profile
  for_each = local.functions

  function_name                  = "${var.name_prefix}-${each.key}"
  description                    = var.descriptions[each.key]
  role                           = var.role_arns[each.key]
  runtime                        = "provided.al2023"
  handler                        = "bootstrap"
  architectures                  = [var.architecture]
  filename                       = "${var.functions_directory}/${each.key}.zip"
  source_code_hash               = filebase64sha256("${var.functions_directory}/${each.key}.zip")
  memory_size                    = each.value.memory
  timeout                        = each.value.timeout
  reserved_concurrent_executions = each.value.concurrency
  kms_key_arn                    = var.kms_key_arn

  environment {
    variables = var.environment_variables
  }

  logging_config {
    log_format = "JSON"
    log_group  = var.log_group_names[each.key]
  }

  tracing_config {
    mode = "Active"
  }
}

# Events that a function could not handle: they wait here for somebody to look.
resource "aws_sqs_queue" "unhandled" {
  name                      = "${var.name_prefix}-unhandled-events"
  message_retention_seconds = 14 * 24 * 3600
  kms_master_key_id         = var.kms_key_arn
}

resource "aws_sqs_queue_policy" "unhandled" {
  queue_url = aws_sqs_queue.unhandled.url

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "TlsOnly"
      Effect    = "Deny"
      Principal = "*"
      Action    = "sqs:*"
      Resource  = aws_sqs_queue.unhandled.arn
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }]
  })
}

resource "aws_lambda_event_source_mapping" "requests" {
  event_source_arn  = var.stream_arn
  function_name     = aws_lambda_function.this["trigger"].arn
  starting_position = "TRIM_HORIZON"

  batch_size                         = 25
  maximum_batching_window_in_seconds = 0
  parallelization_factor             = 4

  # A record that fails again and again is set aside; it does not hold up its shard.
  # A destroy that follows at once on a deployment waits so until that execution has
  # ended.
  bisect_batch_on_function_error = true
  maximum_retry_attempts         = 120
  maximum_record_age_in_seconds  = 3600
  function_response_types        = ["ReportBatchItemFailures"]

  filter_criteria {
    filter {
      pattern = jsonencode({
        eventName = ["INSERT", "MODIFY"]
        dynamodb = {
          NewImage = { status = { S = ["PENDING_DEPLOY", "PENDING_DESTROY", "PAUSING", "RESUMING"] } }
        }
      })
    }
  }

  destination_config {
    on_failure {
      destination_arn = aws_sqs_queue.unhandled.arn
    }
  }
}

# A run that is late or failed is followed by the next: it is not tried again.
resource "aws_lambda_function_event_invoke_config" "monitor" {
  function_name                = aws_lambda_function.this["status-monitor"].function_name
  maximum_event_age_in_seconds = 60
  maximum_retry_attempts       = 0

  destination_config {
    on_failure {
      destination = aws_sqs_queue.unhandled.arn
    }
  }
}

locals {
  schedules = {
    statuses = {
      expression  = "rate(1 minute)"
      description = "Moves enclaves that pause, resume or are being destroyed on"
    }
    reattest = {
      expression  = var.reattestation_schedule
      description = "Has deployed enclaves prove themselves again"
    }
  }
}

resource "aws_cloudwatch_event_rule" "monitor" {
  for_each = local.schedules

  name                = "${var.name_prefix}-${each.key}"
  description         = each.value.description
  schedule_expression = each.value.expression
}

resource "aws_cloudwatch_event_target" "monitor" {
  for_each = local.schedules

  rule  = aws_cloudwatch_event_rule.monitor[each.key].name
  arn   = aws_lambda_function.this["status-monitor"].arn
  input = jsonencode({ task = each.key })
}

resource "aws_lambda_permission" "monitor" {
  for_each = local.schedules

  statement_id  = "schedule-${each.key}"
  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_function.this["status-monitor"].function_name
  principal     = "events.amazonaws.com"
  source_arn    = aws_cloudwatch_event_rule.monitor[each.key].arn
}
