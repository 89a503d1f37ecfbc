"""The calls that the local cloud's emulator has written down: evaluated, and compared with
the list."""

import re

from . import calls, reference
from .evaluator import ABSENT, Call, Principal, decide

# Whose calls pass the endpoints of the network that they are in.
_INSIDE = ("runner", "instance")


def refused(rendering, recorded):
    """A line for each recorded call that the policies refuse. Those of principals that the
    rendering does not have are not looked at."""
    roles = {arn.rpartition("/")[2]: (name, arn) for name, arn in rendering.roles.items()}
    results_key = rendering.one("aws_kms_key", "results")["arn"]
    for one in recorded:
        if one["principal"] not in roles:
            continue
        name, arn = roles[one["principal"]]
        action, resource = one["action"], one["resource"]
        if action.startswith("kms:"):
            # The emulator gives keys identifiers of its own.
            resource = results_key
        context = {**_unstated(action), **one["context"]}
        if action.startswith("dynamodb:") and "dynamodb:LeadingKeys" not in context:
            context["dynamodb:LeadingKeys"] = ABSENT
        if action.startswith("s3:"):
            # The emulator has one account, and buckets that are not in every rendering.
            context["aws:ResourceAccount"] = rendering.account
        endpoint = action.split(":")[0] if name in _INSIDE else None
        call = Call(Principal(rendering.account, arn), action, resource, _known(context), endpoint)
        for decision in decide(rendering.policies, call):
            if not decision.allowed:
                yield f"{name}: {action} on {resource} with {one['context']}: {decision.reason}"


def _unstated(action):
    """What the emulator does not write down."""
    if action == "s3:PutObject":
        return {"s3:x-amz-server-side-encryption-aws-kms-key-id": ABSENT}
    if action == "kms:Sign":
        return {"kms:ViaService": ABSENT}
    return {}


def _known(context):
    """Without the keys that no policy here tests."""
    return {key: value for key, value in context.items() if reference.family(key) in reference.TYPES}


def differences(rendering, recorded):
    """Lines: what was recorded and is not in the list, and what is in the list as shown by
    scenarios and was not recorded."""
    roles = {arn.rpartition("/")[2]: name for name, arn in rendering.roles.items()}
    seen = set()
    for one in recorded:
        # The second control plane of the scenarios is the first under another name.
        name = re.sub(r"^[a-z]+-dev-", "enclaves-dev-", one["principal"])
        if name in roles:
            seen.add((roles[name], one["action"], shape(one["resource"])))
    listed = [one for one in calls.needed(rendering) if one.source == calls.SCENARIOS]
    listed = {(one.who, one.call.action, shape(one.call.resource)) for one in listed}
    others = {(one.who, one.call.action, shape(one.call.resource)) for one in calls.needed(rendering)} - listed
    for who, action, resource in sorted(seen - listed - others):
        yield f"called, and not in the list of tests/iam/calls.py: {who}: {action} on {resource}"
    for who, action, resource in sorted(listed - seen):
        yield f"in the list of tests/iam/calls.py, and never called: {who}: {action} on {resource}"


# What differs between two runs, or two renderings.
_VARYING = [
    (r"(:|/)[a-z]+-dev-", r"\1enclaves-dev-"),
    (r"^(.*:execution:[^:]+):.*", r"\1:*"),
    (r":instance/.*", ":instance/*"),
    (r":key/.*", ":key/*"),
    (r":task-definition/([^:]+):\d+", r":task-definition/\1:*"),
    (r"/aws/ec2/enclave/[^:]+:log-stream:.*", "/aws/ec2/enclave/*:log-stream:*"),
    (r":parameter/[a-z]+/dev/enclaves/.*", ":parameter/enclaves/dev/enclaves/*"),
    (r"/images/[0-9a-f]+\.eif", "/images/*.eif"),
    (r"/enclaves/[^/]+/terraform\.tfstate", "/enclaves/*/terraform.tfstate"),
]


def shape(resource):
    """A resource without what differs between two runs."""
    for pattern, replacement in _VARYING:
        resource = re.sub(pattern, replacement, resource)
    return resource
