# Where Terraform runs: a task of Fargate for each deployment and each destruction.

resource "aws_ecs_cluster" "this" {
  name = "${var.name_prefix}-runners"

  setting {
    name  = "containerInsights"
    value = "enabled"
  }
}

resource "aws_ecr_repository" "runner" {
  name                 = "${var.name_prefix}/terraform-runner"
  image_tag_mutability = "IMMUTABLE"

  image_scanning_configuration {
    scan_on_push = true
  }

  encryption_configuration {
    encryption_type = "KMS"
    kms_key         = var.kms_key_arn
  }
}

resource "aws_ecr_lifecycle_policy" "runner" {
  repository = aws_ecr_repository.runner.name

  policy = jsonencode({
    rules = [
      {
        rulePriority = 1
        description  = "Images without a tag, after a week"
        selection    = { tagStatus = "untagged", countType = "sinceImagePushed", countUnit = "days", countNumber = 7 }
        action       = { type = "expire" }
      },
      {
        rulePriority = 2
        description  = "All but the last 20 releases"
        selection    = { tagStatus = "any", countType = "imageCountMoreThan", countNumber = 20 }
        action       = { type = "expire" }
      },
    ]
  })
}

locals {
  separator = startswith(var.image_version, "sha256:") ? "@" : ":"
  image     = "${aws_ecr_repository.runner.repository_url}${local.separator}${var.image_version}"
}

resource "aws_ecs_task_definition" "runner" {
  family                   = "${var.name_prefix}-terraform-runner"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.cpu
  memory                   = var.memory
  execution_role_arn       = var.execution_role_arn
  task_role_arn            = var.task_role_arn

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = "X86_64"
  }

  # The only place that the container writes to; it goes with the task.
  volume {
    name = "scratch"
  }

  container_definitions = jsonencode([{
    name                   = var.container_name
    image                  = local.image
    essential              = true
    readonlyRootFilesystem = true
    # Terraform gives its lock back when it is told to stop; Fargate waits at most this long.
    stopTimeout     = 120
    linuxParameters = { initProcessEnabled = true, capabilities = { drop = ["ALL"] } }
    mountPoints     = [{ sourceVolume = "scratch", containerPath = "/tmp", readOnly = false }]
    environment     = [for name in sort(keys(var.environment_variables)) : { name = name, value = var.environment_variables[name] }]
    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-group         = var.log_group_name
        awslogs-region        = var.region
        awslogs-stream-prefix = "runner"
        mode                  = "non-blocking"
        max-buffer-size       = "4m"
      }
    }
  }])
}

# Tasks that stopped badly are written down, and counted by the alarm on this rule.
resource "aws_cloudwatch_event_rule" "failed_tasks" {
  name        = "${var.name_prefix}-failed-tasks"
  description = "Tasks that did not start, or ended with an error"

  event_pattern = jsonencode({
    source      = ["aws.ecs"]
    detail-type = ["ECS Task State Change"]
    detail = {
      clusterArn = [aws_ecs_cluster.this.arn]
      lastStatus = ["STOPPED"]
      "$or" = [
        { stopCode = ["TaskFailedToStart"] },
        { containers = { exitCode = [{ anything-but = [0] }] } },
      ]
    }
  })
}

resource "aws_cloudwatch_event_target" "failed_tasks" {
  rule = aws_cloudwatch_event_rule.failed_tasks.name
  arn  = var.failed_tasks_log_group_arn
}
