"""A walk over every policy that is made."""

import json
import re

import pytest

_DOCUMENTS = ["policy", "assume_role_policy", "policy_document"]
# What services offer no narrower resource for.
_RESOURCE_IS_ALL = re.compile(
    r"^(dynamodb:ListStreams|ec2:Describe\w+|ecr:GetAuthorizationToken|logs:\w*(LogDelivery|LogDeliveries|ResourcePolicy"
    r"|ResourcePolicies|LogGroups)|ssm:DescribeParameters|ssm:UpdateInstanceInformation|ssmmessages:\w+|xray:(Get|Put)\w+)$"
)


@pytest.fixture
def statements(control_plane, bootstrap):
    """(address, statement) of everything that was applied."""
    found = []
    for address, values in control_plane.resources() + bootstrap.resources():
        for name in _DOCUMENTS:
            text = values.get(name)
            if isinstance(text, str) and text.lstrip().startswith("{"):
                found += [(address, statement) for statement in json.loads(text).get("Statement", [])]
    assert len(found) > 100
    return found


def _listed(value):
    return value if isinstance(value, list) else [value]


def test_no_statement_allows_actions_by_a_wildcard(statements):
    for address, statement in statements:
        assert "NotAction" not in statement, address
        if statement["Effect"] == "Allow":
            for action in _listed(statement["Action"]):
                assert "*" not in action and "?" not in action, f"{address}: {action}"


def test_a_role_is_allowed_everything_of_a_kind_only_where_there_is_nothing_narrower(statements):
    for address, statement in statements:
        if "aws_iam_role_policy" not in address or statement["Effect"] != "Allow":
            continue
        if "*" in _listed(statement["Resource"]):
            for action in _listed(statement["Action"]):
                assert _RESOURCE_IS_ALL.match(action), f"{address}: {action}"


def test_anybody_is_allowed_nothing_without_a_condition(statements):
    for address, statement in statements:
        principal = statement.get("Principal")
        anybody = principal == "*" or (isinstance(principal, dict) and "*" in _listed(principal.get("AWS", [])))
        if statement["Effect"] == "Allow" and anybody and statement["Sid"] != "ImageLayers":
            assert statement.get("Condition"), f"{address}: {statement}"


def test_services_act_for_this_account_only(statements):
    for address, statement in statements:
        principal = statement.get("Principal")
        if not isinstance(principal, dict) or "Service" not in principal:
            continue
        # A role is assumed for whom may pass it; and of these services AWS does not document
        # that they say for whom (tests/iam evaluates both).
        if "sts:AssumeRole" in statement["Action"] and (
            principal["Service"] in ("ec2.amazonaws.com", "lambda.amazonaws.com") or 'this["runner-start"]' in address
        ):
            continue
        if statement.get("Sid") == "Streams":
            assert "123456789012" in statement["Resource"]
            continue
        assert "123456789012" in json.dumps(statement.get("Condition", {})), f"{address}: {statement}"


def test_roles_are_passed_by_name_and_to_one_service(statements):
    for address, statement in statements:
        if "iam:PassRole" in _listed(statement["Action"]):
            assert all(":role/" in arn and "*" not in arn for arn in _listed(statement["Resource"])), address
            assert "iam:PassedToService" in statement["Condition"]["StringEquals"], address


def test_each_statement_has_a_name_of_its_own(statements):
    names = [(address, statement["Sid"]) for address, statement in statements if "Sid" in statement]
    assert len(names) == len(set(names))
