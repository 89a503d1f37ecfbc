# Alarms and who hears of them.

variables {
  name_prefix            = "p-e"
  partition              = "aws"
  region                 = "us-west-2"
  account_id             = "123456789012"
  kms_key_arn            = "arn:aws:kms:us-west-2:123456789012:key/data"
  alarm_emails           = ["on-call@example.com"]
  function_names         = { for name in ["trigger", "validation", "attestation-gate", "error-handler", "status-monitor"] : name => "p-e-${name}" }
  state_machine_arns     = { for name in ["deployment", "cleanup", "attestation"] : name => "arn:aws:states:us-west-2:123456789012:stateMachine:p-e-${name}" }
  table_names            = { enclaves = "p-e-enclaves", images = "p-e-images" }
  log_group_names        = { for name in ["trigger", "validation", "attestation-gate", "error-handler", "status-monitor", "runner"] : name => "/logs/${name}" }
  unhandled_queue_name   = "p-e-unhandled-events"
  cluster_name           = "p-e-runners"
  failed_tasks_rule_name = "p-e-failed-tasks"
  spool_alarm_bytes      = 1000
}

run "alarms" {
  module {
    source = "./modules/monitoring"
  }

  assert {
    condition     = aws_sns_topic.alarms.kms_master_key_id == var.kms_key_arn
    error_message = "Notifications must be encrypted."
  }
  assert {
    condition     = [for s in values(aws_sns_topic_subscription.email) : "${s.protocol}:${s.endpoint}"] == ["email:on-call@example.com"]
    error_message = "Those who are to be told must be subscribed."
  }
  assert {
    condition     = { for s in jsondecode(aws_sns_topic_policy.alarms.policy).Statement : s.Sid => s }.AlarmsOfThisAccount.Condition.StringEquals["aws:SourceAccount"] == "123456789012"
    error_message = "Other accounts' alarms must not publish."
  }
  assert {
    condition     = alltrue([for alarm in concat(values(aws_cloudwatch_metric_alarm.event), values(aws_cloudwatch_metric_alarm.level), [aws_cloudwatch_metric_alarm.monitor_silent]) : alarm.alarm_actions == toset([aws_sns_topic.alarms.arn])])
    error_message = "Each alarm must tell somebody."
  }
  assert {
    condition     = alltrue([for alarm in concat(values(aws_cloudwatch_metric_alarm.event), values(aws_cloudwatch_metric_alarm.level)) : strcontains(alarm.alarm_description, "docs/runbook.md#")])
    error_message = "Each alarm must say where to read on."
  }
  assert {
    condition     = alltrue([for name in ["deployment", "cleanup", "attestation"] : contains(keys(aws_cloudwatch_metric_alarm.event), "${name}-failed") && contains(keys(aws_cloudwatch_metric_alarm.event), "${name}-timed-out")])
    error_message = "Each workflow's failures must be an alarm."
  }
  assert {
    condition     = length(setsubtract(["enclaves-stuck", "enclaves-not-attested", "unhandled-events", "stream-lag", "log-lag", "spool-growth", "clock-unsynchronised"], keys(aws_cloudwatch_metric_alarm.level))) == 0
    error_message = "An alarm on a level is missing."
  }
  assert {
    condition     = length(setsubtract(["failed-tasks", "enclaves-unlike", "documents-refused", "records-dropped", "trigger-throttles", "enclaves-write-throttles"], keys(aws_cloudwatch_metric_alarm.event))) == 0
    error_message = "An alarm on events is missing."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.monitor_silent.treat_missing_data == "breaching"
    error_message = "Silence of the monitor must be an alarm."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.level["enclaves-not-attested"].treat_missing_data == "ignore"
    error_message = "A failed attestation must stay an alarm until the next round."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.level["log-lag"].metric_name == "p-e-log-lag-seconds" && aws_cloudwatch_metric_alarm.level["spool-growth"].threshold == 1000
    error_message = "The agents' metrics must be watched."
  }
  assert {
    condition     = alltrue([for widget in jsondecode(aws_cloudwatch_dashboard.this.dashboard_body).widgets : length(widget.properties.metrics) > 0 && widget.x + widget.width <= 24])
    error_message = "Each widget of the dashboard must show something, within the page."
  }
  assert {
    condition     = alltrue([for query in values(aws_cloudwatch_query_definition.this) : length(query.log_group_names) > 0])
    error_message = "Each saved query must have log groups."
  }
}
