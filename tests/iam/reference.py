"""What IAM knows of actions: their resources and condition keys, from AWS's Service
Authorization Reference (`actions.json`; `extract-actions` writes it)."""

import json
import re
from pathlib import Path

_FILE = Path(__file__).resolve().parent / "actions.json"
# What the reference lacks. Step Functions authorises answers to tasks on the state machine
# that waits for them: AWS's own CDK (`grantTaskResponse`) writes policies so.
_STATE_MACHINE = "arn:${Partition}:states:${Region}:${Account}:stateMachine:${StateMachineName}"
_ADDED_RESOURCES = {
    "states:SendTaskFailure": _STATE_MACHINE,
    "states:SendTaskHeartbeat": _STATE_MACHINE,
    "states:SendTaskSuccess": _STATE_MACHINE,
    # Authorised on the group's stream of no name, as CloudWatch Logs's refusals say.
    "logs:CreateLogGroup": "arn:${Partition}:logs:${Region}:${Account}:log-group:${LogGroupName}:log-stream:",
    "logs:DescribeLogStreams": "arn:${Partition}:logs:${Region}:${Account}:log-group:${LogGroupName}:log-stream:",
    "logs:DescribeMetricFilters": "arn:${Partition}:logs:${Region}:${Account}:log-group:${LogGroupName}:log-stream:",
    "logs:DeleteLogGroup": "arn:${Partition}:logs:${Region}:${Account}:log-group:${LogGroupName}:log-stream:",
    "logs:DeleteMetricFilter": "arn:${Partition}:logs:${Region}:${Account}:log-group:${LogGroupName}:log-stream:",
    "logs:PutMetricFilter": "arn:${Partition}:logs:${Region}:${Account}:log-group:${LogGroupName}:log-stream:",
    "logs:PutRetentionPolicy": "arn:${Partition}:logs:${Region}:${Account}:log-group:${LogGroupName}:log-stream:",
}

# Condition keys that any action may have.
GLOBAL = {
    "aws:principalaccount": "string",
    "aws:principalarn": "arn",
    "aws:principalisawsservice": "bool",
    "aws:principalservicename": "string",
    "aws:principaltag/": "string",
    "aws:principaltype": "string",
    "aws:requesttag/": "string",
    "aws:resourceaccount": "string",
    "aws:resourcetag/": "string",
    "aws:securetransport": "bool",
    "aws:sourceaccount": "string",
    "aws:sourcearn": "arn",
    "aws:sourceip": "ip",
    "aws:sourcevpc": "string",
    "aws:sourcevpce": "string",
    "aws:tagkeys": "strings",
    "aws:userid": "string",
    "aws:username": "string",
}
# Those of single services that policies here test. Another one is an error until its type
# is looked up.
TYPES = {
    **GLOBAL,
    "dynamodb:attributes": "strings",
    "dynamodb:leadingkeys": "strings",
    "dynamodb:returnvalues": "string",
    "dynamodb:select": "string",
    "ec2:createaction": "string",
    "ec2:owner": "string",
    "ec2:sourceinstancearn": "arn",
    "ecs:cluster": "arn",
    "ecs:createaction": "string",
    "iam:passedtoservice": "string",
    "kms:encryptioncontext:": "string",
    "kms:recipientattestation:": "string",
    "kms:viaservice": "string",
    "kms:grantisforawsresource": "bool",
    "kms:grantoperations": "strings",
    "s3:prefix": "string",
    "s3:tlsversion": "number",
    "s3:x-amz-server-side-encryption-aws-kms-key-id": "arn",
}


class Unknown(Exception):
    """Something that this evaluator does not know: what AWS would do is not clear."""


def _load():
    return json.loads(_FILE.read_text())["actions"]


_ACTIONS = {name.lower(): (name, entry) for name, entry in _load().items()}


def actions():
    """The names of all actions that are known."""
    return [name for name, _ in _ACTIONS.values()]


def action(name):
    """An action's entry; unknown ones are errors."""
    try:
        return _ACTIONS[name.lower()][1]
    except KeyError:
        raise Unknown(f"{name} is no known action: `tests/iam/extract-actions {name}` looks it up") from None


def family(key):
    """A condition key without the part that users choose: `aws:ResourceTag/`."""
    key = key.lower()
    for prefix in TYPES:
        if prefix[-1] in "/:" and key.startswith(prefix):
            return prefix
    return key


def type_of(key):
    """The type of a condition key; `strings` has several values."""
    try:
        return TYPES[family(key)]
    except KeyError:
        raise Unknown(f"{key} is no condition key whose type is known") from None


def check_resource(name, resource):
    """Raises unless an action may have this resource."""
    entry = action(name)
    templates = [template for template, _ in entry["resources"].values()]
    if name in _ADDED_RESOURCES:
        templates = [_ADDED_RESOURCES[name]]
    if not templates:
        if resource != "*":
            raise Unknown(f"{name} has no resources, so that only `*` allows it; the call has {resource}")
        return
    if not any(_pattern(template).fullmatch(resource) for template in templates):
        raise Unknown(f"{name} has no resource of the form {resource}: {', '.join(templates)}")


def supports(name, resource, key):
    """Whether calls of an action can have a condition key."""
    key = family(key)
    if key in ("aws:requesttag/", "aws:tagkeys", "aws:resourcetag/"):
        return key in _keys(name, resource)
    return key in GLOBAL or key in _keys(name, resource)


def _keys(name, resource):
    entry = action(name)
    keys = list(entry["keys"])
    for template, own in entry["resources"].values():
        if _pattern(template).fullmatch(resource):
            keys += own
    return {family(re.sub(r"\$\{.*", "", key)) for key in keys}


def _pattern(template):
    parts = re.split(r"(\$\{\w+\})", template)
    # The last part of an ARN may hold anything; those before it no colons.
    pattern, last = "", len(parts) - 1
    for index, part in enumerate(parts):
        if not part.startswith("${"):
            pattern += re.escape(part).replace(r"\*", ".*")
        elif index >= last - 1:
            pattern += ".+"
        else:
            pattern += "[^:]*" if part in ("${Partition}", "${Region}", "${Account}") else ".+?"
    return re.compile(pattern)
