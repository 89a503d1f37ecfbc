"""Limits of the services that a plan can be held against before it is applied.

The real provider checks many more values; these are the ones that names built of
project, environment and enclave id can run into, and those that would only fail in
the middle of an apply.
"""

import json
import re

_NAME_LIMITS = {
    ("aws_cloudwatch_event_rule", "name"): 64,
    ("aws_cloudwatch_log_group", "name"): 512,
    ("aws_cloudwatch_metric_alarm", "alarm_name"): 255,
    ("aws_dynamodb_table", "name"): 255,
    ("aws_ecr_repository", "name"): 256,
    ("aws_ecs_cluster", "name"): 255,
    ("aws_ecs_task_definition", "family"): 255,
    ("aws_iam_instance_profile", "name"): 128,
    ("aws_iam_policy", "name"): 128,
    ("aws_iam_role", "name"): 64,
    ("aws_iam_role_policy", "name"): 128,
    ("aws_kms_alias", "name"): 256,
    ("aws_lambda_function", "function_name"): 64,
    ("aws_security_group", "name"): 255,
    ("aws_sfn_state_machine", "name"): 80,
    ("aws_sns_topic", "name"): 256,
    ("aws_sqs_queue", "name"): 80,
    ("aws_ssm_parameter", "name"): 1011,
}
# Characters, without white space, of a policy document.
_POLICY_LIMITS = {
    ("aws_iam_policy", "policy"): 6144,
    ("aws_iam_role_policy", "policy"): 10240,
    ("aws_iam_role", "assume_role_policy"): 2048,
}
_JSON = {
    "assume_role_policy",
    "container_definitions",
    "dashboard_body",
    "definition",
    "event_pattern",
    "policy",
    "redrive_policy",
}
_BUCKET = re.compile(r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
_RETENTION = {
    0, 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653,
}  # fmt: skip
_USER_DATA_BYTES = 16 * 1024
_PARAMETER_BYTES = 4 * 1024


def broken(type_name, config):
    """Yields (attribute, message) for every rule that a configuration breaks."""
    for name, value in config.items():
        if isinstance(value, str):
            yield from ((name, message) for message in _text(type_name, name, value))
    retention = config.get("retention_in_days")
    if type_name == "aws_cloudwatch_log_group" and isinstance(retention, int):
        if retention not in _RETENTION:
            yield "retention_in_days", f"{retention} is not one of {sorted(_RETENTION)}"


def _text(type_name, name, value):
    limit = _NAME_LIMITS.get((type_name, name))
    if limit and len(value) > limit:
        yield f"{value!r} has {len(value)} characters; {limit} are allowed"
    if type_name == "aws_s3_bucket" and name == "bucket" and not _BUCKET.match(value):
        yield f"{value!r} is no bucket name: 3 to 63 of a-z, 0-9, `.` and `-`"
    if name in _JSON:
        try:
            compact = json.dumps(json.loads(value), separators=(",", ":"))
        except ValueError as error:
            yield f"not JSON: {error}"
            return
        limit = _POLICY_LIMITS.get((type_name, name))
        if limit and len(compact) > limit:
            yield f"the document has {len(compact)} characters; {limit} are allowed"
    if type_name == "aws_instance" and name == "user_data" and len(value.encode()) > _USER_DATA_BYTES:
        yield f"{len(value.encode())} bytes; {_USER_DATA_BYTES} are allowed"
    if type_name == "aws_ssm_parameter" and name in ("value", "insecure_value"):
        if len(value.encode()) > _PARAMETER_BYTES:
            yield f"{len(value.encode())} bytes; a standard parameter holds {_PARAMETER_BYTES}"
