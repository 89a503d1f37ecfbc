"""The policies that Terraform renders, evaluated: `tests/iam`."""

import copy
import json

import pytest
from iam import calls, table
from iam.render import ROOT, render
from iam.rendering import Rendering


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """The control plane with all its optional parts, by region: each is made once."""
    made = {}

    def of(region):
        if region not in made:
            made[region] = Rendering(*render(tmp_path_factory.mktemp("iam"), region))
        return made[region]

    return of


@pytest.fixture
def rendering(rendered):
    return rendered("us-west-2")


@pytest.mark.parametrize("region", ["us-west-2", "us-gov-west-1"])
def test_iam_allows_what_is_needed_and_nothing_else(rendered, region):
    rendering = rendered(region)
    found = table.evaluate(rendering)
    assert not found.problems(), "\n".join(found.problems())
    assert len(found.needed) > 250 and len(found.attacks) > 700


def test_iam_denials_are_found(rendering):
    # A right less, for each statement of each role: something that is needed is refused.
    needed = calls.needed(rendering)
    for role, arn in rendering.roles.items():
        own = [one for one in needed if one.who == role]
        policies = copy.deepcopy(rendering.policies)
        (document,) = rendering.policies.identities[arn]
        for statement in document["Statement"]:
            less = [other for other in document["Statement"] if other is not statement]
            policies.identities[arn] = [{**document, "Statement": less}]
            assert table.denied(policies, own), f"{role}: {statement['Sid']} is not needed"


@pytest.mark.parametrize("action", ["kms:Decrypt", "dynamodb:DeleteItem", "iam:PassRole", "lambda:InvokeFunction"])
def test_iam_excess_and_attacks_are_found(rendering, action):
    arn = rendering.roles["instance"]
    (document,) = rendering.policies.identities[arn]
    more = copy.deepcopy(document)
    more["Statement"].append({"Sid": "More", "Effect": "Allow", "Action": action, "Resource": "*"})
    found = _with(rendering, arn, more)
    assert any(": instance: " in line for line in found.reached), action
    assert action in ("kms:Decrypt", "lambda:InvokeFunction") or any(line.endswith(f"More: {action}") for line in found.excess)


def _with(rendering, arn, document):
    kept = rendering.policies.identities[arn]
    rendering.policies.identities[arn] = [document]
    try:
        return table.evaluate(rendering)
    finally:
        rendering.policies.identities[arn] = kept


def test_iam_exceptions_that_nothing_needs_are_errors(rendering):
    document = {"attack": [{"who": "instance", "what": "fly", "reason": "x"}]}
    found = table.evaluate(rendering, document)
    assert found.stale == ["an exception that nothing needs any more: attack: instance: fly"]
    assert found.reached
    with pytest.raises(ValueError, match="reason"):
        table.evaluate(rendering, {"attack": [{"who": "instance", "what": "fly", "reason": ""}]})


def test_iam_calls_of_the_stack_are_those_of_its_resources():
    # The provider's calls are listed by hand: a new kind of resource needs its own.
    text = (ROOT / "terraform" / "stacks" / "enclave" / "main.tf").read_text()
    kinds = {word.split('"')[1] for word in text.split("\n") if word.startswith(("resource ", "data "))}
    assert kinds == {
        "aws_cloudwatch_log_group", "aws_cloudwatch_log_groups", "aws_cloudwatch_log_metric_filter",
        "aws_instance", "aws_ssm_parameter",
    }, f"add the calls of the provider for a new resource to {calls.__file__}"  # fmt: skip


def test_iam_policies_are_all_read(control_plane):
    # Whatever else of the plan holds a policy would not be evaluated.
    read = {"aws_iam_role", "aws_iam_role_policy", "aws_kms_key", "aws_s3_bucket_policy", "aws_sns_topic_policy",
            "aws_sqs_queue_policy", "aws_cloudwatch_log_resource_policy", "aws_vpc_endpoint"}  # fmt: skip
    for address, values in control_plane.resources():
        holding = [name for name, value in values.items() if isinstance(value, str) and '"Statement"' in value]
        kind = address.split("[")[0].split(".")[-2]
        assert not holding or kind in read, f"{address}: {holding}: {json.dumps(values[holding[0]])[:100]}"
