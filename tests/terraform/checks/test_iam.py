"""The policies that Terraform renders, evaluated: `tests/iam`."""

import contextlib
import copy
import json

import pytest
from iam import calls, recorded, table
from iam.render import ROOT, render
from iam.rendering import OTHER_ACCOUNT, Rendering


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


@contextlib.contextmanager
def _changed(rendering):
    """Policies that a test may change."""
    kept, rendering.policies = rendering.policies, copy.deepcopy(rendering.policies)
    try:
        yield rendering.policies
    finally:
        rendering.policies = kept


def _statement(document, sid):
    (found,) = (statement for statement in document["Statement"] if statement.get("Sid") == sid)
    return found


def test_iam_administrators_are_refused_by_denials_alone(rendering):
    # The administrator's own policy allows everything, so that each denial of a resource's
    # policy shows.
    tried = 0
    for arn, document in rendering.policies.resources.items():
        for denial in [statement for statement in document["Statement"] if statement["Effect"] == "Deny"]:
            with _changed(rendering) as policies:
                # Another signer or another image is one without a document, too.
                less = {denial["Sid"]} | ({"OtherImages", "OtherSigners"} if denial["Sid"] == "WithoutAttestation" else set())
                policies.resources[arn]["Statement"] = [one for one in document["Statement"] if one.get("Sid") not in less]
                reached = table.evaluate(rendering).reached
            assert any(": administrator: " in line for line in reached), f"{arn}: {denial['Sid']}"
            tried += 1
    assert tried == 11


@pytest.mark.parametrize("sid", ["AccountDecides", "Administration", "Encryption", "More"])
def test_iam_keys_open_to_another_account_are_found(rendering, sid):
    foreign = f"arn:{rendering.partition}:iam::{OTHER_ACCOUNT}:root"
    keys = {key: values["arn"] for _, key, _, values in rendering.of("aws_kms_key")}
    assert set(keys) == {"data", "state", "workload", "results"}
    with _changed(rendering) as policies:
        for arn in keys.values():
            policies.resources[arn]["Statement"].append(
                {"Sid": sid, "Effect": "Allow", "Principal": {"AWS": foreign}, "Action": "kms:*", "Resource": "*"})
        found = table.evaluate(rendering)
    for key in keys:
        assert any(line.endswith(f"policy of key {key}: {sid}: kms:*") for line in found.excess), found.excess
    for attack in ("decrypt with the data key", "decrypt with the state's key", "decrypt with a workload's key", "sign a result"):
        assert any(f": another account: {attack}:" in line for line in found.reached), found.reached


@pytest.mark.parametrize("more", ["kms:*", "kms:Decrypt", "foreign"])
def test_iam_administration_of_keys_is_no_more_than_that(rendering, more):
    arn = rendering.one("aws_kms_key", "workload", "payments")["arn"]
    foreign = f"arn:{rendering.partition}:iam::{OTHER_ACCOUNT}:root"
    with _changed(rendering) as policies:
        statement = _statement(policies.resources[arn], "Administration")
        if more == "foreign":
            statement["Principal"] = {"AWS": [statement["Principal"]["AWS"], foreign]}
        else:
            statement["Action"] = [*statement["Action"], more]
        excess = table.evaluate(rendering).excess
    assert any("policy of key workload: Administration: " in line for line in excess), excess


def test_iam_principals_of_a_statement_are_all_needed(rendering):
    arn = rendering.one("aws_sns_topic", "alarms")["arn"]
    foreign = f"arn:{rendering.partition}:iam::{OTHER_ACCOUNT}:root"
    with _changed(rendering) as policies:
        principal = _statement(policies.resources[arn], "FunctionsOfThisAccount")["Principal"]
        principal["AWS"] = [principal["AWS"], foreign]
        found = table.evaluate(rendering)
    assert any(line.endswith(f"FunctionsOfThisAccount: {foreign}") for line in found.excess), found.excess
    assert any("another account: publish" in line for line in found.reached), found.reached


@pytest.mark.parametrize("name", ["root", "role/theirs"])
def test_iam_trust_in_another_account_is_found(rendering, name):
    principal = {"AWS": f"arn:{rendering.partition}:iam::{OTHER_ACCOUNT}:{name}"}
    with _changed(rendering) as policies:
        for arn in rendering.roles.values():
            policies.resources[arn]["Statement"].append(
                {"Sid": "More", "Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"})
        reached = table.evaluate(rendering).reached
    for role in rendering.roles:
        assert any(f": another account: become the role {role}:" in line for line in reached), reached


@pytest.mark.parametrize("bucket", ["artifacts", "state"])
def test_iam_buckets_open_to_everybody_are_found(rendering, bucket):
    (arn,) = (arn for arn in rendering.policies.resources if f":::enclaves-dev-{bucket}-" in arn)
    with _changed(rendering) as policies:
        policies.resources[arn]["Statement"].append(
            {"Sid": "More", "Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"{arn}/*"})
        reached = table.evaluate(rendering).reached
    assert any(f": another account: read {bucket}:" in line for line in reached), reached


def test_iam_endpoints_open_to_other_accounts_are_found(rendering):
    with _changed(rendering) as policies:
        for document in policies.endpoints.values():
            for statement in document["Statement"]:
                statement.pop("Condition", None)
        # This one names its buckets, too.
        _statement(policies.endpoints["s3"], "States")["Resource"] = "*"
        reached = table.evaluate(rendering).reached
    for endpoint in rendering.policies.endpoints:
        assert any(f": another account: call past the endpoint {endpoint}:" in line for line in reached), f"{endpoint}: {reached}"


@pytest.mark.parametrize(("change", "attack"), [
    ("all roles", "give an instance the role attestation-gate"),
    ("everything", "give an instance the role runner"),
    ("any service", "give a function the instances' role"),
])  # fmt: skip
def test_iam_roles_that_the_runner_may_pass_are_found(rendering, change, attack):
    with _changed(rendering) as policies:
        (document,) = policies.identities[rendering.roles["runner"]]
        statement = _statement(document, "GiveInstancesTheirRole")
        if change == "any service":
            del statement["Condition"]
        else:
            statement["Resource"] = "*" if change == "everything" else f"arn:{rendering.partition}:iam::{rendering.account}:role/*"
        reached = table.evaluate(rendering).reached
    assert any(f": runner: {attack}:" in line for line in reached), reached


@pytest.mark.parametrize("machine", ["deployment", "cleanup"])
def test_iam_roles_that_workflows_may_pass_to_any_service_are_found(rendering, machine):
    with _changed(rendering) as policies:
        (document,) = policies.identities[rendering.roles[f"workflow-{machine}"]]
        del _statement(document, "GiveTasksTheirRoles")["Condition"]
        reached = table.evaluate(rendering).reached
    assert any(f": workflow-{machine}: give a function the runner's role:" in line for line in reached), reached


@pytest.mark.parametrize(("role", "action", "attack"), [
    ("instance", "ec2:TerminateInstances", "TerminateInstances of another"),
    ("runner", "logs:GetLogEvents", "read an enclave's log, from outside"),
    ("runner", "s3:GetObject", "read images"),
    ("runner", "ssm:GetParameter", "read the control plane's parameter"),
    ("instance", "s3:DeleteObject", "delete an image, from outside"),
])  # fmt: skip
def test_iam_attacks_with_stolen_credentials_pass_no_endpoint(rendering, role, action, attack):
    # An endpoint refuses some of these: outside the network nothing does but the role.
    with _changed(rendering) as policies:
        policies.identities[rendering.roles[role]][0]["Statement"].append(
            {"Sid": "More", "Effect": "Allow", "Action": action, "Resource": "*"})
        found = table.evaluate(rendering)
    assert any(f": {role}: {attack}:" in line for line in found.reached), found.reached
    # What succeeds past an endpoint is told once.
    assert not any(f": {role}: {attack}, from outside:" in line for line in found.reached)


def test_iam_attacks_past_an_endpoint_are_tried_without_it(rendering):
    found = table.evaluate(rendering).attacks
    inside = {(one.who, one.name) for one in found if one.call.endpoint and one.who in ("instance", "runner")}
    assert len(inside) > 100
    assert inside == {(one.who, one.inside) for one in found if one.inside}
    assert all(one.call.endpoint is None for one in found if one.inside)


def test_iam_attributes_of_items_that_the_runner_may_write_are_found(rendering):
    with _changed(rendering) as policies:
        (document,) = policies.identities[rendering.roles["runner"]]
        attributes = _statement(document, "Progress")["Condition"]["ForAllValues:StringEquals"]["dynamodb:Attributes"]
        assert attributes == ["id", "progress", "runner", "updated_at"]
        attributes.append("status")
        reached = table.evaluate(rendering).reached
        assert any(": runner: write a status:" in line for line in reached)
        # The other way round: once it may write less, its exceptions are too many.
        attributes[:] = ["id", "progress", "runner"]
        assert any("write the time of another item" in line for line in table.evaluate(rendering).stale)


def test_iam_recorded_calls_may_name_buckets_of_another_state(rendering):
    # The scenarios render the control plane alone: the bucket of states is another state's.
    names, role = calls.Names(rendering), rendering.roles["runner"].rpartition("/")[2]
    alone = copy.copy(rendering)
    alone._resources = [resource for resource in rendering._resources if resource[0] != "aws_s3_bucket"]

    def refused(action, key):
        return list(recorded.refused(alone, [{"principal": role, "action": action, "resource": f"{names.state}/{key}", "context": {}}]))

    assert not refused("s3:GetObject", "enclaves/payments-1/terraform.tfstate")
    assert not refused("s3:PutObject", "enclaves/payments-1/terraform.tfstate")
    assert refused("s3:GetObject", "control-plane/terraform.tfstate")


def test_iam_uses_of_the_data_key_past_its_services_are_found(rendering):
    changed = set()
    with _changed(rendering) as policies:
        for role, arn in rendering.roles.items():
            for statement in policies.identities[arn][0]["Statement"]:
                if statement["Sid"] in ("TableKey", "QueueKey", "TopicKey"):
                    del statement["Condition"]
                    changed.add(role)
        reached = table.evaluate(rendering).reached
    assert len(changed) > 5
    for role in changed:
        assert any(f": {role}: decrypt with the data key by itself:" in line for line in reached), f"{role}: {reached}"


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
