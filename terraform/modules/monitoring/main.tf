# Who is told, and where they look. Alarms are on metrics that AWS's services write,
# on counts of the functions' log lines, and on what the agents report.

resource "aws_sns_topic" "alarms" {
  name              = "${var.name_prefix}-alarms"
  kms_master_key_id = var.kms_key_arn
}

resource "aws_sns_topic_policy" "alarms" {
  arn = aws_sns_topic.alarms.arn

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "AlarmsOfThisAccount"
        Effect    = "Allow"
        Principal = { Service = "cloudwatch.amazonaws.com" }
        Action    = "sns:Publish"
        Resource  = aws_sns_topic.alarms.arn
        Condition = {
          StringEquals = { "aws:SourceAccount" = var.account_id }
          ArnLike      = { "aws:SourceArn" = "arn:${var.partition}:cloudwatch:${var.region}:${var.account_id}:alarm:${var.name_prefix}-*" }
        }
      },
      {
        Sid       = "FunctionsOfThisAccount"
        Effect    = "Allow"
        Principal = { AWS = "arn:${var.partition}:iam::${var.account_id}:root" }
        Action    = "sns:Publish"
        Resource  = aws_sns_topic.alarms.arn
      },
      {
        Sid       = "TlsOnly"
        Effect    = "Deny"
        Principal = "*"
        Action    = "sns:Publish"
        Resource  = aws_sns_topic.alarms.arn
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      },
    ]
  })
}

resource "aws_sns_topic_subscription" "email" {
  for_each = toset(var.alarm_emails)

  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = each.value
}

locals {
  # Counts of log lines: whose they are, and what they say. A test holds the words
  # against the functions' source.
  counted = {
    enclaves-failed   = { function = "error-handler", message = "an execution failed" }
    documents-refused = { function = "attestation-gate", message = "a document is refused" }
    enclaves-unlike   = { function = "attestation-gate", message = "the enclave is not what was asked for" }
    records-dropped   = { function = "trigger", message = "a record is dropped" }
  }
  log_namespace = "Enclaves/Logs"

  # What the functions write as metrics themselves, in CloudWatch's embedded format.
  function_namespace  = "Enclaves"
  function_dimensions = { Environment = var.name_prefix }
}

resource "aws_cloudwatch_log_metric_filter" "counted" {
  for_each = local.counted

  name           = "${var.name_prefix}-${each.key}"
  log_group_name = var.log_group_names[each.value.function]
  pattern        = "{ $.message = \"${each.value.message}\" }"

  metric_transformation {
    namespace = local.log_namespace
    name      = "${var.name_prefix}-${each.key}"
    value     = "1"
    unit      = "Count"
    # Without it the metric has no data while nothing happens, which is no alarm either.
    default_value = "0"
  }
}
