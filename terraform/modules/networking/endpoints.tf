# How runners, agents and enclaves reach AWS without the internet. Each endpoint lets
# through the calls that they make and the account's own principals, no others.

locals {
  interface_actions = {
    ec2 = [
      "ec2:CreateTags",
      "ec2:DeleteTags",
      "ec2:DescribeImages",
      "ec2:DescribeInstanceAttribute",
      "ec2:DescribeInstanceTypes",
      "ec2:DescribeInstances",
      "ec2:DescribeTags",
      "ec2:DescribeVolumes",
      "ec2:ModifyInstanceAttribute",
      "ec2:ModifyInstanceMetadataOptions",
      "ec2:RunInstances",
      "ec2:StartInstances",
      "ec2:StopInstances",
      "ec2:TerminateInstances",
    ]
    "ecr.api" = [
      "ecr:BatchCheckLayerAvailability",
      "ecr:BatchGetImage",
      "ecr:GetAuthorizationToken",
      "ecr:GetDownloadUrlForLayer",
    ]
    "ecr.dkr" = [
      "ecr:BatchCheckLayerAvailability",
      "ecr:BatchGetImage",
      "ecr:GetAuthorizationToken",
      "ecr:GetDownloadUrlForLayer",
    ]
    kms = [
      "kms:Decrypt",
      "kms:DeriveSharedSecret",
      "kms:DescribeKey",
      "kms:Encrypt",
      "kms:GenerateDataKey",
      "kms:GenerateDataKeyPair",
      "kms:GenerateRandom",
      "kms:GetPublicKey",
      "kms:Sign",
      "kms:Verify",
    ]
    lambda = ["lambda:InvokeFunction"]
    logs = [
      "logs:CreateLogGroup",
      "logs:CreateLogStream",
      "logs:DeleteMetricFilter",
      "logs:DescribeLogGroups",
      "logs:DescribeMetricFilters",
      "logs:ListTagsForResource",
      "logs:PutLogEvents",
      "logs:PutMetricFilter",
      "logs:PutRetentionPolicy",
      "logs:TagResource",
      "logs:UntagResource",
    ]
    secretsmanager = ["secretsmanager:DescribeSecret", "secretsmanager:GetSecretValue"]
    ssm = [
      "ssm:AddTagsToResource",
      "ssm:DeleteParameter",
      "ssm:DescribeParameters",
      "ssm:GetParameter",
      "ssm:ListTagsForResource",
      "ssm:PutParameter",
      "ssm:RemoveTagsFromResource",
      "ssm:UpdateInstanceInformation",
    ]
    ssmmessages = [
      "ssmmessages:CreateControlChannel",
      "ssmmessages:CreateDataChannel",
      "ssmmessages:OpenControlChannel",
      "ssmmessages:OpenDataChannel",
    ]
    states = ["states:SendTaskFailure", "states:SendTaskHeartbeat", "states:SendTaskSuccess"]
    sts    = ["sts:AssumeRole", "sts:GetCallerIdentity"]
  }
  own_account = { StringEquals = { "aws:PrincipalAccount" = var.account_id } }
  routes      = [for table in aws_route_table.private : table.id]
}

resource "aws_vpc_endpoint" "interface" {
  for_each = local.interface_actions

  vpc_id              = aws_vpc.this.id
  vpc_endpoint_type   = "Interface"
  service_name        = "com.amazonaws.${var.region}.${each.key}"
  subnet_ids          = [for subnet in aws_subnet.private : subnet.id]
  security_group_ids  = [aws_security_group.endpoints.id]
  private_dns_enabled = true

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "OwnAccount"
      Effect    = "Allow"
      Principal = { AWS = "*" }
      Action    = concat(each.value, lookup(var.endpoint_extra_actions, each.key, []))
      Resource  = "*"
      Condition = local.own_account
    }]
  })

  tags = { Name = "${var.name_prefix}-${each.key}" }
}

resource "aws_vpc_endpoint" "s3" {
  vpc_id            = aws_vpc.this.id
  vpc_endpoint_type = "Gateway"
  service_name      = "com.amazonaws.${var.region}.s3"
  route_table_ids   = local.routes

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [
        {
          Sid       = "ImagesAndAgents"
          Effect    = "Allow"
          Principal = { AWS = "*" }
          Action    = "s3:GetObject"
          Resource  = "${var.artifacts_bucket_arn}/*"
          Condition = local.own_account
        },
        {
          Sid       = "States"
          Effect    = "Allow"
          Principal = { AWS = "*" }
          Action    = ["s3:DeleteObject", "s3:GetObject", "s3:PutObject"]
          Resource  = "${var.state_bucket_arn}/*"
          Condition = local.own_account
        },
        {
          Sid       = "FindStates"
          Effect    = "Allow"
          Principal = { AWS = "*" }
          Action    = "s3:ListBucket"
          Resource  = var.state_bucket_arn
          Condition = local.own_account
        },
        {
          # ECR keeps layers in a bucket of its own, and signs the addresses itself.
          Sid       = "ImageLayers"
          Effect    = "Allow"
          Principal = "*"
          Action    = ["s3:GetObject"]
          Resource  = ["arn:${var.partition}:s3:::prod-${var.region}-starport-layer-bucket/*"]
        },
      ],
      length(var.workload_bucket_arns) == 0 ? [] : [
        {
          Sid       = "Workloads"
          Effect    = "Allow"
          Principal = { AWS = "*" }
          Action    = ["s3:DeleteObject", "s3:GetObject", "s3:ListBucket", "s3:PutObject"]
          Resource  = flatten([for arn in var.workload_bucket_arns : [arn, "${arn}/*"]])
          Condition = local.own_account
        },
      ],
    )
  })

  tags = { Name = "${var.name_prefix}-s3" }
}

resource "aws_vpc_endpoint" "dynamodb" {
  vpc_id            = aws_vpc.this.id
  vpc_endpoint_type = "Gateway"
  service_name      = "com.amazonaws.${var.region}.dynamodb"
  route_table_ids   = local.routes

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "OwnAccount"
      Effect    = "Allow"
      Principal = { AWS = "*" }
      Action = concat(
        ["dynamodb:DeleteItem", "dynamodb:DescribeTable", "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:Query", "dynamodb:UpdateItem"],
        lookup(var.endpoint_extra_actions, "dynamodb", []),
      )
      Resource  = "*"
      Condition = local.own_account
    }]
  })

  tags = { Name = "${var.name_prefix}-dynamodb" }
}
