# The whole, and what it refuses.

variables {
  aws_region                     = "us-west-2"
  environment                    = "dev"
  availability_zones             = ["us-west-2a", "us-west-2b"]
  terraform_runner_image_version = "v1.2.3"
  agent_sha256                   = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
  additional_tags                = { Team = "payments" }
}

run "whole" {
  assert {
    condition     = jsondecode(aws_ssm_parameter.control_plane.value).tables == { enclaves = "enclaves-dev-enclaves", images = "enclaves-dev-images" } && aws_ssm_parameter.control_plane.name == "/enclaves/dev/control-plane"
    error_message = "Tools must find the tables."
  }
  assert {
    condition     = toset(keys(jsondecode(aws_ssm_parameter.control_plane.value).functions)) == toset(["trigger", "validation", "attestation-gate", "error-handler", "status-monitor"])
    error_message = "Tools must find the functions."
  }
  assert {
    condition     = toset(keys(jsondecode(aws_ssm_parameter.control_plane.value))) == toset(["region", "tables", "state_machines", "functions", "buckets", "log_group_prefix", "status_index"])
    error_message = "The parameter must have what tools read, and nothing else."
  }
  assert {
    condition     = aws_ssm_parameter.control_plane.tags_all == tomap({ Project = "enclaves", Environment = "dev", ManagedBy = "terraform", Team = "payments" })
    error_message = "Everything must carry the project's tags and the additional ones."
  }
  assert {
    condition     = output.state_machine_arns == local.state_machine_arns
    error_message = "Roles name the workflows before they exist: the names must be the same."
  }
  assert {
    condition     = { for name in local.functions : name => "arn:aws:lambda:us-west-2:123456789012:function:${output.function_names[name]}" } == local.function_arns
    error_message = "Roles name the functions before they exist: the names must be the same."
  }
  assert {
    condition     = output.runner_task_definition_arn == "arn:aws:ecs:us-west-2:123456789012:task-definition/${local.runner_task_family}:1" && endswith(output.runner_repository_url, "/${local.runner_repository}")
    error_message = "Roles name the task and its image before they exist: the names must be the same."
  }
  assert {
    condition     = { for s in jsondecode(aws_cloudwatch_log_resource_policy.events.policy_document).Statement : s.Sid => s }.FailedTasks.Condition.ArnEquals["aws:SourceArn"] == "arn:aws:events:us-west-2:123456789012:rule/enclaves-dev-failed-tasks"
    error_message = "Only this rule's events may be written down."
  }
}

run "refuses_ssh" {
  command = plan
  variables {
    enclave_ingress = [{ description = "ssh", cidr = "10.0.0.0/8", from_port = 20, to_port = 30 }]
  }
  expect_failures = [var.enclave_ingress]
}

run "refuses_all_ports_to_the_internet" {
  command = plan
  variables {
    enclave_egress = [{ description = "all", cidr = "0.0.0.0/0", from_port = 1, to_port = 65535 }]
  }
  expect_failures = [var.enclave_egress]
}

run "refuses_an_image_that_changes" {
  command = plan
  variables {
    terraform_runner_image_version = "latest"
  }
  expect_failures = [var.terraform_runner_image_version]
}

run "refuses_registers_of_debug_mode" {
  command = plan
  variables {
    workload_keys = { any = { pcr0 = ["000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"] } }
  }
  expect_failures = [var.workload_keys]
}

run "refuses_everybody_as_encrypter" {
  command = plan
  variables {
    workload_keys = { any = { pcr0 = ["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"], encrypters = ["*"] } }
  }
  expect_failures = [var.workload_keys]
}

run "refuses_actions_with_wildcards" {
  command = plan
  variables {
    endpoint_extra_actions = { kms = ["kms:*"] }
  }
  expect_failures = [var.endpoint_extra_actions]
}

run "refuses_zones_elsewhere" {
  command = plan
  variables {
    availability_zones = ["us-west-2a", "eu-west-1a"]
  }
  expect_failures = [var.availability_zones]
}

run "refuses_tags_that_policies_rely_on" {
  command = plan
  variables {
    additional_tags = { Project = "other" }
  }
  expect_failures = [var.additional_tags]
}

run "refuses_names_that_are_too_long" {
  command = plan
  variables {
    project_name = "a-project-with-a-long-name"
    environment  = "preproduction-eu"
  }
  expect_failures = [var.project_name, var.environment]
}

run "refuses_memory_that_fargate_does_not_have" {
  command = plan
  variables {
    terraform_runner_memory = 1024
  }
  expect_failures = [var.terraform_runner_memory]
}

run "refuses_a_retention_that_cloudwatch_does_not_have" {
  command = plan
  variables {
    log_retention_days = 10
  }
  expect_failures = [var.log_retention_days]
}

run "refuses_functions_that_are_not_built" {
  command = plan
  variables {
    functions_directory = "/nonexistent"
  }
  expect_failures = [var.functions_directory]
}
