# What an instance does for its enclave. It decrypts nothing of the workload's: keys of
# workloads demand the enclave's own attestation.

locals {
  instance_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid      = "ImagesAndAgents"
        Effect   = "Allow"
        Action   = "s3:GetObject"
        Resource = ["${var.artifacts_bucket_arn}/agents/*", "${var.artifacts_bucket_arn}/images/*"]
      },
      {
        Sid       = "ArtifactsKey"
        Effect    = "Allow"
        Action    = "kms:Decrypt"
        Resource  = var.data_key_arn
        Condition = { StringEquals = { "kms:ViaService" = local.via.s3 } }
      },
      {
        Sid      = "AgentsConfiguration"
        Effect   = "Allow"
        Action   = "ssm:GetParameter"
        Resource = local.parameters
      },
      {
        # The group is there before the instance, with its retention: the stack makes it.
        Sid      = "EnclavesLogs"
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = local.enclave_streams
      },
      {
        Sid      = "AttestationGate"
        Effect   = "Allow"
        Action   = "lambda:InvokeFunction"
        Resource = var.function_arns.attestation-gate
      },
      {
        # Session Manager, in place of SSH. AWS's ready-made policy would let instances
        # read every parameter of the account.
        Sid    = "SessionManager"
        Effect = "Allow"
        Action = [
          "ssm:UpdateInstanceInformation",
          "ssmmessages:CreateControlChannel",
          "ssmmessages:CreateDataChannel",
          "ssmmessages:OpenControlChannel",
          "ssmmessages:OpenDataChannel",
        ]
        Resource = "*"
      },
    ]
  })
}
