locals {
  # Rows of the dashboard: a title, and the widgets in it, two side by side.
  widgets = [
    {
      title = "Workflows: started, succeeded, failed"
      metrics = concat([
        for name, arn in var.state_machine_arns : [
          for metric in ["ExecutionsStarted", "ExecutionsSucceeded", "ExecutionsFailed", "ExecutionsTimedOut"] :
          ["AWS/States", metric, "StateMachineArn", arn, { label = "${name} ${metric}" }]
        ]
      ]...)
      stat = "Sum"
    },
    {
      title   = "Workflows: duration, p95 (ms)"
      metrics = [for name, arn in var.state_machine_arns : ["AWS/States", "ExecutionTime", "StateMachineArn", arn, { label = name }]]
      stat    = "p95"
    },
    {
      title = "Attestation and status"
      metrics = concat(
        [for name in keys(local.counted) : [local.log_namespace, "${var.name_prefix}-${name}", { label = name }]],
        [for name in ["EnclavesDeployed", "EnclavesInMotion", "EnclavesStuck", "EnclavesNotAttested"] : [local.function_namespace, name, "Environment", var.name_prefix, { stat = "Maximum" }]],
      )
      stat = "Sum"
    },
    {
      title   = "Requests: age in the stream (ms), events set aside"
      metrics = [["AWS/Lambda", "IteratorAge", "FunctionName", var.function_names["trigger"]], ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", var.unhandled_queue_name]]
      stat    = "Maximum"
    },
    {
      title   = "Functions: errors"
      metrics = [for name, function in var.function_names : ["AWS/Lambda", "Errors", "FunctionName", function, { label = name }]]
      stat    = "Sum"
    },
    {
      title   = "Functions: duration, p95 (ms)"
      metrics = [for name, function in var.function_names : ["AWS/Lambda", "Duration", "FunctionName", function, { label = name }]]
      stat    = "p95"
    },
    {
      title   = "Terraform's tasks: running, failed"
      metrics = [["ECS/ContainerInsights", "RunningTaskCount", "ClusterName", var.cluster_name], ["AWS/Events", "MatchedEvents", "RuleName", var.failed_tasks_rule_name]]
      stat    = "Maximum"
    },
    {
      title   = "Agents: oldest log line that waits (s), bytes that wait"
      metrics = [[local.log_namespace, "${var.name_prefix}-log-lag-seconds"], [local.log_namespace, "${var.name_prefix}-spool-bytes", { yAxis = "right" }]]
      stat    = "Maximum"
    },
    {
      title   = "Enclaves: crashes, processes out of memory, log lines lost"
      metrics = [for name in ["enclave-crashes", "out-of-memory", "log-records-lost"] : [local.log_namespace, "${var.name_prefix}-${name}", { label = name }]]
      stat    = "Sum"
    },
    {
      title   = "Enclaves: a clock that is not synchronised"
      metrics = [[local.log_namespace, "${var.name_prefix}-clock-unsynchronised"]]
      stat    = "Maximum"
    },
  ]

  queries = {
    "one enclave's story" = {
      groups = ["trigger", "validation", "attestation-gate", "error-handler", "status-monitor", "runner"]
      query  = "fields @timestamp, @log, level, message | filter enclave_id = 'ENCLAVE_ID' | sort @timestamp asc | limit 1000"
    }
    "failures" = {
      groups = ["error-handler"]
      query  = "fields @timestamp, enclave_id, message | filter level = 'ERROR' | sort @timestamp desc | limit 100"
    }
    "refused documents" = {
      groups = ["attestation-gate"]
      query  = "fields @timestamp, enclave_id, reason | filter message = 'a document is refused' or message = 'the enclave is not what was asked for' | sort @timestamp desc | limit 100"
    }
    "Terraform's errors" = {
      groups = ["runner"]
      query  = "fields @timestamp, enclave_id, message | filter level = 'ERROR' | sort @timestamp desc | limit 100"
    }
    "slow functions" = {
      groups = ["trigger", "validation", "attestation-gate", "error-handler", "status-monitor"]
      query  = "filter type = 'platform.report' | stats count(), pct(record.metrics.durationMs, 50), pct(record.metrics.durationMs, 99), max(record.metrics.initDurationMs) by @log"
    }
  }
}

resource "aws_cloudwatch_dashboard" "this" {
  dashboard_name = var.name_prefix

  dashboard_body = jsonencode({
    widgets = [
      for index, widget in local.widgets : {
        type   = "metric"
        x      = 12 * (index % 2)
        y      = 6 * floor(index / 2)
        width  = 12
        height = 6
        properties = {
          title   = widget.title
          region  = var.region
          stat    = widget.stat
          period  = 300
          metrics = widget.metrics
        }
      }
    ]
  })
}

resource "aws_cloudwatch_query_definition" "this" {
  for_each = local.queries

  name            = "${var.name_prefix}/${each.key}"
  query_string    = each.value.query
  log_group_names = [for name in each.value.groups : var.log_group_names[name]]
}
