locals {
  # Sum over five minutes, above zero unless said otherwise.
  event_alarms = merge(
    {
      for name, arn in var.state_machine_arns : "${name}-failed" => {
        description = "Executions of ${name} failed."
        namespace   = "AWS/States"
        metric      = "ExecutionsFailed"
        dimensions  = { StateMachineArn = arn }
      }
    },
    {
      for name, arn in var.state_machine_arns : "${name}-timed-out" => {
        description = "Executions of ${name} took too long."
        namespace   = "AWS/States"
        metric      = "ExecutionsTimedOut"
        dimensions  = { StateMachineArn = arn }
      }
    },
    {
      for name, arn in var.state_machine_arns : "${name}-throttled" => {
        description = "Step Functions throttles executions of ${name}."
        namespace   = "AWS/States"
        metric      = "ExecutionThrottled"
        dimensions  = { StateMachineArn = arn }
      }
    },
    {
      for name, function in var.function_names : "${name}-errors" => {
        description = "The function ${name} fails."
        namespace   = "AWS/Lambda"
        metric      = "Errors"
        dimensions  = { FunctionName = function }
        # Requests that do not validate are errors of this function by design.
        threshold = name == "validation" ? 25 : 0
      }
    },
    {
      for name, function in var.function_names : "${name}-throttles" => {
        description = "The function ${name} is called more often than its concurrency allows."
        namespace   = "AWS/Lambda"
        metric      = "Throttles"
        dimensions  = { FunctionName = function }
      }
    },
    {
      for name, table in var.table_names : "${name}-read-throttles" => {
        description = "Reads of the table ${table} are throttled."
        namespace   = "AWS/DynamoDB"
        metric      = "ReadThrottleEvents"
        dimensions  = { TableName = table }
      }
    },
    {
      for name, table in var.table_names : "${name}-write-throttles" => {
        description = "Writes to the table ${table} are throttled."
        namespace   = "AWS/DynamoDB"
        metric      = "WriteThrottleEvents"
        dimensions  = { TableName = table }
      }
    },
    {
      enclaves-unlike = {
        description = "An enclave attested with other measurements than those of the requested image."
        namespace   = local.log_namespace
        metric      = "${var.name_prefix}-enclaves-unlike"
        dimensions  = {}
      }
      documents-refused = {
        description = "Attestation documents were refused repeatedly."
        namespace   = local.log_namespace
        metric      = "${var.name_prefix}-documents-refused"
        dimensions  = {}
        # One may be late, after its nonce.
        threshold = 5
      }
      records-dropped = {
        description = "Items that clients wrote are unreadable."
        namespace   = local.log_namespace
        metric      = "${var.name_prefix}-records-dropped"
        dimensions  = {}
      }
      monitor-trouble = {
        description = "The status monitor could not advance some enclaves."
        namespace   = local.function_namespace
        metric      = "MonitorErrors"
        dimensions  = local.function_dimensions
        threshold   = 5
      }
    },
    {
      # Counted by the agents, in whatever enclave it happened.
      log-records-lost = {
        description = "Log lines of an enclave were lost."
        namespace   = local.log_namespace
        metric      = "${var.name_prefix}-log-records-lost"
        dimensions  = {}
      }
      out-of-memory = {
        description = "A workload's processes were killed because its memory was used up."
        namespace   = local.log_namespace
        metric      = "${var.name_prefix}-out-of-memory"
        dimensions  = {}
      }
      enclave-crashes = {
        description = "An enclave ended without being told to."
        namespace   = local.log_namespace
        metric      = "${var.name_prefix}-enclave-crashes"
        dimensions  = {}
      }
    },
    {
      failed-tasks = {
        description = "Terraform tasks did not start, or ended with an error."
        namespace   = "AWS/Events"
        metric      = "MatchedEvents"
        dimensions  = { RuleName = var.failed_tasks_rule_name }
      }
    },
  )

  # The greatest value over five minutes.
  level_alarms = {
    enclaves-stuck = {
      description = "Enclaves have been in motion for too long."
      namespace   = local.function_namespace
      metric      = "EnclavesStuck"
      dimensions  = local.function_dimensions
      threshold   = 0
      periods     = 1
    }
    enclaves-not-attested = {
      description = "Deployed enclaves failed their scheduled attestation."
      namespace   = local.function_namespace
      metric      = "EnclavesNotAttested"
      dimensions  = local.function_dimensions
      threshold   = 0
      periods     = 1
      # Counted once in each round of attestations: in between the alarm stays as it is.
      missing = "ignore"
    }
    unhandled-events = {
      description = "Events that no function could handle wait in the queue."
      namespace   = "AWS/SQS"
      metric      = "ApproximateNumberOfMessagesVisible"
      dimensions  = { QueueName = var.unhandled_queue_name }
      threshold   = 0
      periods     = 1
    }
    stream-lag = {
      description = "Requests have been waiting in the table's stream for more than a minute."
      namespace   = "AWS/Lambda"
      metric      = "IteratorAge"
      dimensions  = { FunctionName = var.function_names["trigger"] }
      threshold   = 60000
      periods     = 2
    }
    log-lag = {
      description = "Log lines of an enclave have been waiting on its instance for more than five minutes."
      namespace   = local.log_namespace
      metric      = "${var.name_prefix}-log-lag-seconds"
      dimensions  = {}
      threshold   = 300
      periods     = 2
    }
    spool-growth = {
      description = "Log lines of an enclave that CloudWatch has not accepted fill its instance's spool."
      namespace   = local.log_namespace
      metric      = "${var.name_prefix}-spool-bytes"
      dimensions  = {}
      threshold   = var.spool_alarm_bytes
      periods     = 3
    }
    clock-unsynchronised = {
      description = "The clock of an enclave does not follow its sources, or they contradict each other."
      namespace   = local.log_namespace
      metric      = "${var.name_prefix}-clock-unsynchronised"
      dimensions  = {}
      threshold   = 0
      periods     = 2
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "event" {
  for_each = local.event_alarms

  alarm_name          = "${var.name_prefix}-${each.key}"
  alarm_description   = "${each.value.description} ${local.runbook}#${each.key}"
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = try(each.value.threshold, 0)
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}

resource "aws_cloudwatch_metric_alarm" "level" {
  for_each = local.level_alarms

  alarm_name          = "${var.name_prefix}-${each.key}"
  alarm_description   = "${each.value.description} ${local.runbook}#${each.key}"
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = "Maximum"
  period              = 300
  evaluation_periods  = each.value.periods
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.threshold
  treat_missing_data  = try(each.value.missing, "notBreaching")
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}

# The monitor runs every minute; when it does not run at all, nothing else would say so.
resource "aws_cloudwatch_metric_alarm" "monitor_silent" {
  alarm_name          = "${var.name_prefix}-monitor-silent"
  alarm_description   = "The status monitor has not run for 15 minutes. ${local.runbook}#monitor-silent"
  namespace           = "AWS/Lambda"
  metric_name         = "Invocations"
  dimensions          = { FunctionName = var.function_names["status-monitor"] }
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 3
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  treat_missing_data  = "breaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}

locals {
  runbook = "docs/runbook.md"
}
