"""The evaluator of IAM policies, against the rules that AWS documents.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html,
…/reference_policies_elements_condition_operators.html,
…/reference_policies_condition-single-vs-multi-valued-context-keys.html and
…/reference_policies_variables.html say what is expected here.
"""

import pytest
from iam import reference
from iam.evaluator import ABSENT, Call, Policies, Principal, Unknown, Unsure, decide, match_arn

ACCOUNT, OTHER = "123456789012", "210987654321"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/a"
ROOT = f"arn:aws:iam::{ACCOUNT}:root"
TABLE = f"arn:aws:dynamodb:us-west-2:{ACCOUNT}:table/t"
KEY = f"arn:aws:kms:us-west-2:{ACCOUNT}:key/k"
QUEUE = f"arn:aws:sqs:us-west-2:{ACCOUNT}:q"
INSTANCE = f"arn:aws:ec2:us-west-2:{ACCOUNT}:instance/i-1"
ME = Principal(ACCOUNT, ROLE)
OBJECT = "arn:aws:s3:::b/k"
OWN_BUCKET = {"aws:ResourceAccount": ACCOUNT}
STRANGER = Principal(OTHER, f"arn:aws:iam::{OTHER}:role/a")
LAMBDA = Principal(ACCOUNT, "lambda.amazonaws.com", is_service=True)
ALONE = {"kms:ViaService": ABSENT, "kms:EncryptionContext:": ABSENT}


def document(*statements):
    return {"Version": "2012-10-17", "Statement": list(statements)}


def allow(action, resource="*", effect="Allow", **more):
    return {"Effect": effect, "Action": action, "Resource": resource, **more}


def decided(call, *identity, resources=None, **more):
    """What is decided for each possibility."""
    policies = Policies({ROLE: [document(*identity)]}, resources or {}, **more)
    return [decision.allowed for decision in decide(policies, call)]


def allowed(call, *identity, **more):
    (decision,) = decided(call, *identity, **more)
    return decision


GET = Call(ME, "dynamodb:GetItem", TABLE)


def test_nothing_is_allowed_by_default():
    assert not allowed(GET)
    assert not allowed(GET, allow("dynamodb:PutItem"))
    assert not allowed(GET, allow("dynamodb:GetItem", f"{TABLE}2"))
    assert allowed(GET, allow("dynamodb:GetItem", TABLE))


def test_an_explicit_deny_overrides_every_allow():
    assert not allowed(GET, allow("dynamodb:*"), allow("dynamodb:GetItem", effect="Deny"))
    denying = {QUEUE: document(allow("sqs:*", QUEUE, "Deny", Principal="*"))}
    assert not allowed(Call(ME, "sqs:SendMessage", QUEUE), allow("sqs:SendMessage"), resources=denying)


@pytest.mark.parametrize("pattern", ["dynamodb:getitem", "DynamoDB:Get*", "dynamodb:???Item", "*"])
def test_actions_match_in_any_case_and_by_wildcards(pattern):
    assert allowed(GET, allow(pattern))


def test_not_action_and_not_resource_match_everything_else():
    assert allowed(GET, {"Effect": "Allow", "NotAction": "dynamodb:PutItem", "Resource": "*"})
    assert not allowed(GET, {"Effect": "Allow", "NotAction": "dynamodb:Get*", "Resource": "*"})
    assert allowed(GET, {"Effect": "Allow", "Action": "dynamodb:GetItem", "NotResource": f"{TABLE}2"})
    assert not allowed(GET, {"Effect": "Allow", "Action": "dynamodb:GetItem", "NotResource": TABLE})


def test_wildcards_of_an_arn_stay_in_their_part():
    assert match_arn("arn:aws:dynamodb:*:*:table/t", TABLE)
    assert not match_arn("arn:aws:*:table/t:::", TABLE)
    assert match_arn("arn:aws:logs:us-west-2:1:log-group:/a/*", "arn:aws:logs:us-west-2:1:log-group:/a/b:log-stream:c")
    assert match_arn("arn:aws:s3:::b/?/*", "arn:aws:s3:::b/1/x/y")
    with pytest.raises(Unknown):
        match_arn("table/t", TABLE)


def test_an_action_without_resources_needs_all_of_them():
    describe = Call(ME, "ec2:DescribeInstances", "*")
    assert allowed(describe, allow("ec2:DescribeInstances"))
    assert not allowed(describe, allow("ec2:DescribeInstances", INSTANCE))
    with pytest.raises(Unknown, match="has no resources"):
        allowed(Call(ME, "ec2:DescribeInstances", INSTANCE), allow("ec2:*"))


def test_a_resource_of_another_form_is_an_error():
    with pytest.raises(Unknown, match="no resource of the form"):
        allowed(Call(ME, "dynamodb:GetItem", QUEUE))


# Conditions.


def tagged(**context):
    return Call(ME, "ec2:StopInstances", INSTANCE, context)


def conditioned(operator, key, values, context):
    call = Call(ME, "ec2:CreateTags", INSTANCE, context)
    return allowed(call, allow("ec2:CreateTags", Condition={operator: {key: values}}))


TAG = "aws:ResourceTag/Team"


def test_several_values_are_alternatives_and_several_keys_all_demanded():
    both = {TAG: "a", "aws:ResourceTag/Stage": "b"}
    assert conditioned("StringEquals", TAG, ["x", "a"], both)
    call = Call(ME, "ec2:CreateTags", INSTANCE, both)
    demand = {"StringEquals": {TAG: "a", "aws:ResourceTag/Stage": "x"}}
    assert not allowed(call, allow("ec2:CreateTags", Condition=demand))
    demand = {"StringEquals": {TAG: "a"}, "StringLike": {"aws:ResourceTag/Stage": "?"}}
    assert allowed(call, allow("ec2:CreateTags", Condition=demand))


def test_a_negated_operator_excludes_each_of_its_values():
    assert not conditioned("StringNotEquals", TAG, ["a", "b"], {TAG: "a"})
    assert conditioned("StringNotEquals", TAG, ["a", "b"], {TAG: "c"})


def test_a_key_that_is_absent_fails_an_operator_and_satisfies_a_negated_one():
    assert not conditioned("StringEquals", TAG, "a", {TAG: ABSENT})
    assert not conditioned("StringLike", TAG, "*", {TAG: ABSENT})
    assert conditioned("StringNotEquals", TAG, "a", {TAG: ABSENT})


def test_if_exists_holds_without_the_key():
    assert conditioned("StringEqualsIfExists", TAG, "a", {TAG: ABSENT})
    assert not conditioned("StringEqualsIfExists", TAG, "a", {TAG: "b"})
    assert conditioned("StringNotEqualsIfExists", TAG, "a", {TAG: ABSENT})


def test_null_asks_whether_there_is_a_key():
    assert conditioned("Null", TAG, "true", {TAG: ABSENT})
    assert not conditioned("Null", TAG, "true", {TAG: "a"})
    assert conditioned("Null", TAG, False, {TAG: "a"})
    assert conditioned("Null", "aws:TagKeys", "true", {"aws:TagKeys": []})


KEYS = "aws:TagKeys"


def test_for_all_values_holds_of_nothing():
    assert conditioned("ForAllValues:StringEquals", KEYS, ["a", "b"], {KEYS: ["a"]})
    assert not conditioned("ForAllValues:StringEquals", KEYS, ["a", "b"], {KEYS: ["a", "c"]})
    assert conditioned("ForAllValues:StringEquals", KEYS, ["a"], {KEYS: ABSENT})
    assert conditioned("ForAllValues:StringNotEquals", KEYS, ["a"], {KEYS: ABSENT})
    assert not conditioned("ForAllValues:StringNotEquals", KEYS, ["a"], {KEYS: ["b", "a"]})


def test_for_any_value_does_not_hold_of_nothing():
    assert conditioned("ForAnyValue:StringEquals", KEYS, ["a"], {KEYS: ["b", "a"]})
    assert not conditioned("ForAnyValue:StringEquals", KEYS, ["a"], {KEYS: ["b"]})
    assert not conditioned("ForAnyValue:StringEquals", KEYS, ["a"], {KEYS: ABSENT})
    assert conditioned("ForAnyValue:StringNotEquals", KEYS, ["a"], {KEYS: ["a", "b"]})
    assert not conditioned("ForAnyValue:StringNotEquals", KEYS, ["a"], {KEYS: ABSENT})


def test_strings_are_compared_with_case_unless_it_is_ignored():
    assert not conditioned("StringEquals", TAG, "A", {TAG: "a"})
    assert conditioned("StringEqualsIgnoreCase", TAG, "A", {TAG: "a"})
    assert not conditioned("StringNotEqualsIgnoreCase", TAG, "A", {TAG: "a"})
    # A wildcard is one for StringLike alone.
    assert not conditioned("StringEquals", TAG, "*", {TAG: "a"})


def test_names_of_keys_are_compared_without_case():
    assert conditioned("StringEquals", "AWS:resourcetag/TEAM", "a", {TAG: "a"})


def test_arns_numbers_booleans_and_addresses_are_compared_as_such():
    service = Call(LAMBDA, "sqs:SendMessage", QUEUE, {
        "aws:SourceArn": f"arn:aws:lambda:us-west-2:{ACCOUNT}:function:f", "aws:SourceIp": "10.1.2.3"})

    def holds(operator, key, value, call=service):
        statement = allow("sqs:SendMessage", QUEUE, Principal={"Service": "lambda.amazonaws.com"}, Condition={operator: {key: value}})
        return allowed(call, resources={QUEUE: document(statement)})

    assert holds("ArnLike", "aws:SourceArn", f"arn:aws:lambda:*:{ACCOUNT}:function:*")
    assert not holds("ArnEquals", "aws:SourceArn", f"arn:aws:lambda:*:{OTHER}:function:*")
    assert holds("Bool", "aws:SecureTransport", True)
    assert holds("Bool", "aws:PrincipalIsAWSService", "true")
    assert holds("IpAddress", "aws:SourceIp", "10.0.0.0/8") and not holds("NotIpAddress", "aws:SourceIp", "10.0.0.0/8")
    old = Call(ME, "s3:GetObject", OBJECT, {"s3:TlsVersion": "1.1", **OWN_BUCKET})
    statement = allow("s3:GetObject", Condition={"NumericLessThan": {"s3:TlsVersion": "1.2"}})
    assert allowed(old, statement) and not allowed(Call(ME, "s3:GetObject", OBJECT, OWN_BUCKET), statement)


# Variables.


def test_a_variable_is_the_value_of_a_key():
    statement = allow("ec2:StopInstances", Condition={"StringEquals": {TAG: "${aws:PrincipalTag/Team}"}})
    mine = Principal(ACCOUNT, ROLE, tags={"Team": "a"})
    assert allowed(Call(mine, "ec2:StopInstances", INSTANCE, {TAG: "a"}), statement)
    assert not allowed(Call(mine, "ec2:StopInstances", INSTANCE, {TAG: "b"}), statement)


def test_a_variable_without_a_value_matches_nothing_unless_it_has_a_default():
    assert not allowed(GET, allow("dynamodb:GetItem", f"arn:aws:dynamodb:us-west-2:{ACCOUNT}:table/${{aws:PrincipalTag/Table}}"))
    assert allowed(GET, allow("dynamodb:GetItem", f"arn:aws:dynamodb:us-west-2:{ACCOUNT}:table/${{aws:PrincipalTag/Table, 't'}}"))
    deny = allow("dynamodb:GetItem", f"arn:aws:dynamodb:us-west-2:{ACCOUNT}:table/${{aws:PrincipalTag/Table}}", "Deny")
    assert allowed(GET, allow("dynamodb:GetItem"), deny)


# Policies of resources.


def test_a_resource_s_policy_alone_allows_within_an_account():
    named = {QUEUE: document(allow("sqs:SendMessage", QUEUE, Principal={"AWS": ROLE}))}
    assert allowed(Call(ME, "sqs:SendMessage", QUEUE), resources=named)


def test_a_resource_s_policy_for_the_account_leaves_it_to_the_identity_s():
    account = {QUEUE: document(allow("sqs:SendMessage", QUEUE, Principal={"AWS": ROOT}))}
    call = Call(ME, "sqs:SendMessage", QUEUE)
    assert not allowed(call, resources=account)
    assert allowed(call, allow("sqs:SendMessage"), resources=account)


def test_another_account_needs_both_policies():
    stranger = STRANGER
    call = Call(stranger, "sqs:SendMessage", QUEUE)
    named = {QUEUE: document(allow("sqs:SendMessage", QUEUE, Principal={"AWS": ROOT}))}
    policies = Policies({stranger.name: [document(allow("sqs:*"))]}, named)
    assert not decide(policies, call)[0].allowed
    policies = Policies({stranger.name: [document(allow("sqs:*"))]}, {})
    assert not decide(policies, call)[0].allowed
    theirs = {QUEUE: document(allow("sqs:SendMessage", QUEUE, Principal={"AWS": f"arn:aws:iam::{OTHER}:root"}))}
    assert decide(Policies({stranger.name: [document(allow("sqs:*"))]}, theirs), call)[0].allowed
    assert not decide(Policies({stranger.name: []}, theirs), call)[0].allowed


@pytest.mark.parametrize("principal", [{"AWS": STRANGER.name}, {"AWS": "*"}, "*"])
def test_another_account_s_role_needs_its_own_policy_even_where_it_is_named(principal):
    call = Call(STRANGER, "sqs:SendMessage", QUEUE)
    named = {QUEUE: document(allow("sqs:SendMessage", QUEUE, Principal=principal))}
    assert not decide(Policies({}, named), call)[0].allowed
    assert decide(Policies({STRANGER.name: [document(allow("sqs:*"))]}, named), call)[0].allowed


def test_a_bucket_s_account_is_not_in_its_name():
    call = Call(ME, "s3:GetObject", OBJECT)
    # One policy is enough in one account, and not in two.
    with pytest.raises(Unknown, match="aws:ResourceAccount"):
        allowed(call, allow("s3:GetObject"))
    own, theirs = (Call(ME, "s3:GetObject", OBJECT, {"aws:ResourceAccount": account}) for account in (ACCOUNT, OTHER))
    assert allowed(own, allow("s3:GetObject")) and not allowed(theirs, allow("s3:GetObject"))
    named = {"arn:aws:s3:::b": document(allow("s3:GetObject", OBJECT, Principal={"AWS": ROLE}))}
    assert allowed(own, resources=named) and not allowed(theirs, resources=named)
    assert allowed(theirs, allow("s3:GetObject"), resources=named)
    # Nor is it assumed in a condition.
    conditioned = allow("s3:GetObject", Condition={"StringEquals": {"aws:ResourceAccount": ACCOUNT}})
    with pytest.raises(Unknown, match="aws:ResourceAccount"):
        allowed(call, conditioned)
    assert allowed(own, conditioned) and not allowed(theirs, conditioned)


def test_a_grant_allows_what_a_key_s_policy_does_not_deny():
    call = Call(ME, "kms:Decrypt", KEY, ALONE, granted=True)
    assert allowed(call, resources={KEY: document(allow("kms:Encrypt", Principal={"AWS": ROOT}))})
    assert not allowed(call, resources={KEY: document(allow("kms:Decrypt", KEY, "Deny", Principal="*"))})


def test_nothing_uses_a_key_past_its_policy():
    call = Call(ME, "kms:Decrypt", KEY, ALONE)
    assert not allowed(call, allow("kms:Decrypt"))
    assert not allowed(call, allow("kms:Decrypt"), resources={KEY: document(allow("kms:Encrypt", Principal={"AWS": ROOT}))})
    delegated = {KEY: document(allow("kms:Decrypt", Principal={"AWS": ROOT}))}
    assert allowed(call, allow("kms:Decrypt"), resources=delegated)
    assert not allowed(call, resources=delegated)
    assert allowed(call, resources={KEY: document(allow("kms:Decrypt", Principal={"AWS": ROLE}))})


def test_a_deny_for_the_account_is_for_all_of_it():
    denying = {KEY: document(allow("kms:Decrypt", Principal={"AWS": ROLE}), allow("kms:Decrypt", "*", "Deny", Principal={"AWS": ROOT}))}
    assert not allowed(Call(ME, "kms:Decrypt", KEY, ALONE), resources=denying)


def test_a_key_s_condition_on_its_caller_s_service():
    statement = allow("kms:Decrypt", KEY, Condition={"StringEquals": {"kms:ViaService": "s3.us-west-2.amazonaws.com"}})
    delegated = {KEY: document(allow("kms:Decrypt", Principal={"AWS": ROOT}))}
    by_s3 = Call(ME, "kms:Decrypt", KEY, {"kms:ViaService": "s3.us-west-2.amazonaws.com"})
    assert allowed(by_s3, statement, resources=delegated)
    assert not allowed(Call(ME, "kms:Decrypt", KEY, ALONE), statement, resources=delegated)


def test_a_role_is_assumed_by_whom_its_trust_names():
    trust = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    call = Call(LAMBDA, "sts:AssumeRole", ROLE, {"aws:SourceAccount": ABSENT})
    assert allowed(call, resources={ROLE: document(trust)})
    ecs = Principal(ACCOUNT, "ecs-tasks.amazonaws.com", is_service=True)
    assert not allowed(Call(ecs, "sts:AssumeRole", ROLE), resources={ROLE: document(trust)})
    # The rights of a caller do not replace it, and are needed where it names an account.
    assert not allowed(Call(ME, "sts:AssumeRole", ROLE), allow("sts:AssumeRole"), resources={ROLE: document(trust)})


@pytest.mark.parametrize("caller", [ME, STRANGER])
def test_a_trust_in_an_account_leaves_it_to_the_identity_s_policy(caller):
    def decision(trusted, *identity):
        trust = {"Effect": "Allow", "Principal": {"AWS": trusted}, "Action": "sts:AssumeRole"}
        policies = Policies({caller.name: [document(*identity)]}, {f"{ROLE}2": document(trust)})
        return decide(policies, Call(caller, "sts:AssumeRole", f"{ROLE}2"))[0].allowed

    root = f"arn:aws:iam::{caller.account}:root"
    assert decision(root, allow("sts:AssumeRole"))
    assert not decision(root)
    assert not decision("arn:aws:iam::000000000000:root", allow("sts:AssumeRole"))
    # Named itself, a role of the same account needs no more.
    assert decision(caller.name) == (caller is ME)
    assert decision(caller.name, allow("sts:AssumeRole"))


def test_a_service_has_no_rights_but_those_that_resources_give_it():
    everybody = {QUEUE: document(allow("sqs:SendMessage", QUEUE, Principal={"AWS": "*"}))}
    call = Call(LAMBDA, "sqs:SendMessage", QUEUE, {"aws:SourceAccount": ABSENT})
    assert not allowed(call, resources=everybody)
    # `*` by itself is everybody, services too.
    assert allowed(call, resources={QUEUE: document(allow("sqs:SendMessage", QUEUE, Principal="*"))})


@pytest.mark.parametrize("effect", ["Allow", "Deny"])
def test_not_principal_is_an_error(effect):
    others = {"Effect": effect, "NotPrincipal": {"AWS": ROLE}, "Action": "sqs:*", "Resource": QUEUE}
    with pytest.raises(Unknown, match="NotPrincipal"):
        allowed(Call(ME, "sqs:SendMessage", QUEUE), allow("sqs:*"), resources={QUEUE: document(others)})


# What narrows.


def test_an_endpoint_has_to_let_a_call_through():
    call = Call(ME, "dynamodb:GetItem", TABLE, endpoint="dynamodb")
    open_ = {"dynamodb": document(allow("dynamodb:GetItem", Principal={"AWS": "*"}, Condition={
        "StringEquals": {"aws:PrincipalAccount": ACCOUNT}}))}
    shut = {"dynamodb": document(allow("dynamodb:PutItem", Principal={"AWS": "*"}))}
    assert allowed(call, allow("dynamodb:GetItem"), endpoints=open_)
    assert not allowed(call, endpoints=open_)
    assert not allowed(call, allow("dynamodb:GetItem"), endpoints=shut)
    assert not allowed(call, allow("dynamodb:GetItem"), endpoints={})


def test_a_permissions_boundary_narrows_and_gives_nothing():
    boundary = {ROLE: document(allow("dynamodb:*"))}
    assert allowed(GET, allow("dynamodb:GetItem"), boundaries=boundary)
    assert not allowed(GET, boundaries=boundary)
    send = Call(ME, "sqs:SendMessage", QUEUE)
    assert not allowed(send, allow("sqs:*"), boundaries=boundary)


def test_who_one_is_may_always_be_asked():
    call = Call(ME, "sts:GetCallerIdentity", "*", endpoint="sts")
    assert allowed(call, endpoints={"sts": document(allow("sts:GetCallerIdentity", Principal="*"))})
    assert not allowed(call, endpoints={"sts": document(allow("sts:AssumeRole", Principal="*"))})


# What is not known.


def test_a_key_that_aws_may_or_may_not_send_is_decided_both_ways():
    trust = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole",
             "Condition": {"StringEquals": {"aws:SourceAccount": ACCOUNT}}}
    call = Call(LAMBDA, "sts:AssumeRole", ROLE, {"aws:SourceAccount": Unsure(ACCOUNT)})
    assert decided(call, resources={ROLE: document(trust)}) == [True, False]


@pytest.mark.parametrize("statement", [
    allow("dynamodb:GetItem", Condition={"StringResembles": {"aws:PrincipalArn": "a"}}),
    allow("dynamodb:GetItem", Condition={"StringEquals": {"aws:Unheard": "a"}}),
    allow("dynamodb:GetItem", Condition={"ForSomeValues:StringEquals": {"aws:TagKeys": "a"}}),
    allow("dynamodb:GetItem", Condition={"ForAllValues:StringEquals": {"aws:PrincipalArn": "a"}}),
    allow("dynamodb:GetItem", Condition={"StringEquals": {"dynamodb:LeadingKeys": "a"}}),
    allow("dynamodb:GetItem", Condition={"NumericEquals": {"aws:PrincipalArn": "1"}}),
    allow("dynamodb:GetItem", Condition={"NullIfExists": {"aws:PrincipalArn": "true"}}),
    allow("dynamodb:GetItem", Condition={"StringEquals": {"aws:PrincipalArn": "${aws:Unheard}"}}),
    allow("dynamodb:GetItem", Condition={"StringEquals": {"aws:PrincipalArn": None}}),
    allow("dynamodb:FetchItem"),
    allow("dynamodb:GetItem", "table/t"),
    {"Effect": "Permit", "Action": "*", "Resource": "*"},
    {"Effect": "Allow", "Action": "*", "Resource": "*", "Unless": {}},
    {"Effect": "Allow", "Action": "*"},
    {"Effect": "Allow", "Resource": "*"},
    allow("*", Principal="*"),
])  # fmt: skip
def test_what_the_evaluator_does_not_know_is_an_error(statement):
    call = Call(ME, "dynamodb:GetItem", TABLE, {"dynamodb:LeadingKeys": ["a"]})
    with pytest.raises(Unknown):
        allowed(call, statement)


def test_an_older_version_of_a_policy_is_an_error():
    with pytest.raises(Unknown, match="version"):
        decide(Policies({ROLE: [{"Version": "2008-10-17", "Statement": allow("*")}]}, {}), GET)


def test_a_call_has_to_say_whether_it_has_a_key_that_is_asked_for():
    statement = allow("dynamodb:GetItem", Condition={"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": ["a"]}})
    with pytest.raises(Unknown, match="does not say whether it has dynamodb:LeadingKeys"):
        allowed(GET, statement)
    # What its service never sends is absent.
    assert not allowed(GET, allow("dynamodb:GetItem", Condition={"StringEquals": {"kms:ViaService": "x"}}))


def test_a_call_cannot_have_a_key_that_its_action_never_has():
    with pytest.raises(Unknown, match="never has"):
        allowed(Call(ME, "dynamodb:GetItem", TABLE, {"kms:ViaService": "x"}), allow("dynamodb:GetItem"))


def test_every_action_of_the_reference_is_read():
    assert len(reference.actions()) > 100
    for name in reference.actions():
        assert reference.action(name.upper())["resources"] is not None
