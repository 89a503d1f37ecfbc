# One enclave's instance, its agent's configuration, and its logs.

variables {
  enclave_id            = "payments-1"
  wallet_address        = "0xabc"
  environment           = "dev"
  project_name          = "enclaves"
  aws_region            = "us-west-2"
  vpc_id                = "vpc-1"
  subnet_id             = "subnet-1"
  security_group_id     = "sg-1"
  instance_profile_name = "enclaves-dev-instance"
  instance_type         = "m6i.xlarge"
  cpu_count             = 2
  memory_mib            = 1024
  expose_ports          = [8080, 9000]
  aws_services          = ["kms", "s3"]
  gate_function_name    = "enclaves-dev-attestation-gate"
  runtime_configuration = "{\"enclave_id\":\"payments-1\"}"
  log_retention_days    = 30

  image = {
    reference = "payments:v1"
    bucket    = "artifacts"
    key       = "images/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.eif"
    sha256    = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
    size      = 12345678
  }
  agent = {
    bucket = "artifacts"
    key    = "agents/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
    sha256 = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
  }
}

run "instance" {
  assert {
    condition     = aws_instance.this.enclave_options[0].enabled
    error_message = "The instance must be able to hold enclaves."
  }
  assert {
    condition     = aws_instance.this.metadata_options[0].http_tokens == "required" && aws_instance.this.metadata_options[0].http_put_response_hop_limit == 1
    error_message = "The instance's metadata must need a token, and not leave the instance."
  }
  assert {
    condition     = aws_instance.this.root_block_device[0].encrypted && aws_instance.this.root_block_device[0].delete_on_termination
    error_message = "The volume must be encrypted, and go with the instance."
  }
  assert {
    condition     = aws_instance.this.key_name == null && aws_instance.this.associate_public_ip_address == false
    error_message = "The instance must have neither an SSH key nor a public address."
  }
  assert {
    condition     = aws_instance.this.vpc_security_group_ids == toset(["sg-1"]) && aws_instance.this.subnet_id == "subnet-1" && aws_instance.this.iam_instance_profile == "enclaves-dev-instance"
    error_message = "The instance must be in the shared group, and have the shared role."
  }
  assert {
    condition     = aws_instance.this.tags_all["EnclaveId"] == "payments-1" && aws_instance.this.tags_all["Project"] == "enclaves" && aws_instance.this.tags_all["Environment"] == "dev"
    error_message = "The monitor finds the instance, and policies admit to it, by its tags."
  }
  assert {
    condition     = aws_instance.this.volume_tags["Project"] == "enclaves" && aws_instance.this.volume_tags["Environment"] == "dev"
    error_message = "The runner may make tagged volumes only."
  }
  assert {
    condition     = length(aws_instance.this.user_data) <= 1024
    error_message = "User data must not be longer than 1 KiB."
  }
  assert {
    condition     = strcontains(aws_instance.this.user_data, var.agent.sha256) && strcontains(aws_instance.this.user_data, "ssm:/enclaves/dev/enclaves/payments-1")
    error_message = "User data must check the agent's digest, and tell it where its configuration is."
  }
}

run "agent" {
  assert {
    condition     = length(jsondecode(aws_ssm_parameter.agent.value).enclaves) == 1 && aws_ssm_parameter.agent.name == "/enclaves/dev/enclaves/payments-1"
    error_message = "The agent's configuration must be where user data says."
  }
  assert {
    condition = jsondecode(aws_ssm_parameter.agent.value).enclaves[0] == {
      name                  = "payments-1"
      id                    = "payments-1"
      image                 = { source = "s3://artifacts/${var.image.key}", sha256 = var.image.sha256, size = 12345678 }
      cpus                  = 2
      memory_mib            = 1024
      debug                 = false
      runtime_configuration = "{\"enclave_id\":\"payments-1\"}"
      publish               = ["0.0.0.0:8080:8080", "0.0.0.0:9000:9000"]
      aws_services          = ["kms", "s3"]
      log_group             = "/aws/ec2/enclave/payments-1"
      log_retention_days    = 30
      gate                  = { function = "enclaves-dev-attestation-gate", interval = "30s" }
    }
    error_message = "The agent refuses keys that it does not know, so that these must be exactly those of docs/agent-configuration.md."
  }
  assert {
    condition     = aws_cloudwatch_log_group.this.name == "/aws/ec2/enclave/payments-1" && aws_cloudwatch_log_group.this.retention_in_days == 30 && aws_cloudwatch_log_group.this.skip_destroy
    error_message = "The log group must have the name that its readers know, and outlive the enclave."
  }
  assert {
    condition     = { for key, filter in aws_cloudwatch_log_metric_filter.agent : key => "${filter.metric_transformation[0].namespace} ${filter.metric_transformation[0].name} ${filter.metric_transformation[0].value}" if contains(["clock-unsynchronised", "log-lag-3", "spool-bytes"], key) } == { clock-unsynchronised = "Enclaves/Logs enclaves-dev-clock-unsynchronised $.clock_unsynchronised", log-lag-3 = "Enclaves/Logs enclaves-dev-log-lag-seconds $.log_pipeline.sinks[3].lag_seconds", spool-bytes = "Enclaves/Logs enclaves-dev-spool-bytes $.log_pipeline.spool.bytes" }
    error_message = "What the agent says of its logs and of the clock must become the metrics that alarms watch."
  }
  assert {
    condition     = output.instance_id == aws_instance.this.id && output.private_ip == aws_instance.this.private_ip && output.log_group_name == "/aws/ec2/enclave/payments-1"
    error_message = "The runner reports these outputs."
  }
}

run "without_aws_services_the_image_decides" {
  command = plan
  variables {
    aws_services = []
  }
  assert {
    condition     = jsondecode(aws_ssm_parameter.agent.value).enclaves[0].aws_services == null
    error_message = "An empty list would close the services that the image's manifest has."
  }
}

run "debug_mode_only_when_asked_for" {
  variables {
    enable_debug = true
  }
  assert {
    condition     = jsondecode(aws_ssm_parameter.agent.value).enclaves[0].debug
    error_message = "Debug mode must be on when it is asked for."
  }
}

run "refuses_ids_that_are_no_names" {
  command = plan
  variables {
    enclave_id            = "../payments"
    runtime_configuration = "{\"enclave_id\":\"../payments\"}"
  }
  expect_failures = [var.enclave_id]
}

run "refuses_the_configuration_of_another_enclave" {
  command = plan
  variables {
    runtime_configuration = "{\"enclave_id\":\"payments-2\"}"
  }
  expect_failures = [aws_instance.this]
}

run "a_name_that_the_agent_takes" {
  command = plan
  variables {
    enclave_id            = "Payments.EU_1-"
    runtime_configuration = "{\"enclave_id\":\"Payments.EU_1-\"}"
  }
  assert {
    condition     = local.agent_name == "payments-eu-1" && local.agent_configuration.enclaves[0].id == "Payments.EU_1-"
    error_message = "The name must have lower-case letters, digits and hyphens only; the id stays what it is."
  }
}

run "tells_graviton_from_others" {
  command = plan
  variables {
    instance_type = "g4dn.xlarge"
  }
  assert {
    condition     = !local.is_graviton
    error_message = "g4dn has an Intel processor."
  }
}

run "refuses_graviton" {
  command = plan
  variables {
    instance_type = "c7gn.xlarge"
  }
  expect_failures = [aws_instance.this]
}
