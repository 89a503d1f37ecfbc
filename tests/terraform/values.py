"""What the service would answer: identifiers, ARNs and other computed values."""

import secrets

ACCOUNT = "123456789012"
# Where a resource's name may be, for ARNs that have no form of their own.
_NAMES = ("name", "bucket", "function_name", "family", "id")

# Identifiers that EC2 and others give out: their prefix.
_ID_PREFIXES = {
    "aws_eip": "eipalloc",
    "aws_flow_log": "fl",
    "aws_instance": "i",
    "aws_internet_gateway": "igw",
    "aws_nat_gateway": "nat",
    "aws_route_table": "rtb",
    "aws_route_table_association": "rtbassoc",
    "aws_security_group": "sg",
    "aws_subnet": "subnet",
    "aws_vpc": "vpc",
    "aws_vpc_endpoint": "vpce",
    "aws_vpc_security_group_egress_rule": "sgr",
    "aws_vpc_security_group_ingress_rule": "sgr",
}

# ARNs by resource type; `{…}` are attributes, or account, region and partition.
_ARNS = {
    "aws_cloudwatch_event_rule": "arn:{partition}:events:{region}:{account}:rule/{name}",
    "aws_cloudwatch_log_group": "arn:{partition}:logs:{region}:{account}:log-group:{name}",
    "aws_cloudwatch_metric_alarm": "arn:{partition}:cloudwatch:{region}:{account}:alarm:{alarm_name}",
    "aws_dynamodb_table": "arn:{partition}:dynamodb:{region}:{account}:table/{name}",
    "aws_ecr_repository": "arn:{partition}:ecr:{region}:{account}:repository/{name}",
    "aws_ecs_cluster": "arn:{partition}:ecs:{region}:{account}:cluster/{name}",
    "aws_ecs_task_definition": "arn:{partition}:ecs:{region}:{account}:task-definition/{family}:1",
    "aws_iam_instance_profile": "arn:{partition}:iam::{account}:instance-profile/{name}",
    "aws_iam_policy": "arn:{partition}:iam::{account}:policy/{name}",
    "aws_iam_role": "arn:{partition}:iam::{account}:role/{name}",
    "aws_kms_key": "arn:{partition}:kms:{region}:{account}:key/{id}",
    "aws_lambda_function": "arn:{partition}:lambda:{region}:{account}:function:{function_name}",
    "aws_s3_bucket": "arn:{partition}:s3:::{bucket}",
    "aws_sfn_state_machine": "arn:{partition}:states:{region}:{account}:stateMachine:{name}",
    "aws_sns_topic": "arn:{partition}:sns:{region}:{account}:{name}",
    "aws_sqs_queue": "arn:{partition}:sqs:{region}:{account}:{name}",
    "aws_ssm_parameter": "arn:{partition}:ssm:{region}:{account}:parameter{name}",
}

# Resource types whose identifier is one of their attributes.
_ID_ATTRIBUTES = {
    "aws_cloudwatch_log_group": "name",
    "aws_dynamodb_table": "name",
    "aws_ecr_repository": "name",
    "aws_iam_instance_profile": "name",
    "aws_iam_role": "name",
    "aws_lambda_function": "function_name",
    "aws_s3_bucket": "bucket",
    "aws_sfn_state_machine": "arn",
    "aws_sns_topic": "arn",
    "aws_ssm_parameter": "name",
}


def partition(region):
    """The partition that a region is in."""
    if region.startswith("cn-"):
        return "aws-cn"
    return "aws-us-gov" if region.startswith("us-gov-") else "aws"


def null(block):
    """An object of a block's type without values."""
    value = dict.fromkeys(block["attributes"])
    for name, nested in block["blocks"].items():
        value[name] = {"single": None, "map": {}}.get(nested["nesting"], [])
    return value


def _placeholder(kind, name):
    if kind == "string":
        return f"mock-{name}"
    if kind == "number":
        return 0
    if kind == "bool":
        return False
    if kind[0] == "object":
        return {key: _placeholder(inner, key) for key, inner in kind[1].items()}
    return {} if kind[0] == "map" else []


def complete(kind, value):
    """A value of a type, where objects may lack members: those become null."""
    if value is None or isinstance(kind, str):
        return value
    if kind[0] == "object":
        return {name: complete(inner, value.get(name)) for name, inner in kind[1].items()}
    if kind[0] == "map":
        return {key: complete(kind[1], item) for key, item in value.items()}
    return [complete(kind[1], item) for item in value]


def _name_of(attributes, identifier):
    for key in _NAMES:
        if isinstance(attributes.get(key), str):
            return attributes[key]
    return identifier


def resource(type_name, attributes, region):
    """Values that the service gives a new resource, by attribute."""
    identifier = secrets.token_hex(9)[:17]
    if type_name in _ID_PREFIXES:
        identifier = f"{_ID_PREFIXES[type_name]}-{identifier}"
    elif type_name == "aws_kms_key":
        identifier = "-".join(secrets.token_hex(length) for length in (4, 2, 2, 2, 6))
    context = {key: value for key, value in attributes.items() if isinstance(value, str)}
    context.update(partition=partition(region), region=region, account=ACCOUNT, id=identifier)
    service = type_name.split("_")[1]
    template = _ARNS.get(type_name, "arn:{partition}:%s:{region}:{account}:{kind}/{label}" % service)
    context.update(kind=type_name.removeprefix(f"aws_{service}_"), label=_name_of(attributes, identifier))
    try:
        arn = template.format(**context)
    except KeyError:
        arn = f"arn:{partition(region)}:{service}:{region}:{ACCOUNT}:{identifier}"
    given = _ID_ATTRIBUTES.get(type_name)
    if given:
        identifier = arn if given == "arn" else context.get(given, identifier)
    values = {"id": identifier, "arn": arn, "region": region, "owner_id": ACCOUNT}
    values.update(_special(type_name, identifier, arn, context, region))
    return values


def _special(type_name, identifier, arn, context, region):
    if type_name == "aws_instance":
        return {
            "private_ip": "10.0.{}.{}".format(secrets.randbelow(256), 4 + secrets.randbelow(250)),
            "availability_zone": f"{region}a",
            "instance_state": "running",
        }
    if type_name == "aws_kms_key":
        return {"key_id": identifier}
    if type_name == "aws_dynamodb_table":
        return {"stream_arn": f"{arn}/stream/2026-01-01T00:00:00.000"}
    if type_name == "aws_ecr_repository":
        host = f"{ACCOUNT}.dkr.ecr.{region}.amazonaws.com"
        return {"repository_url": f"{host}/{context.get('name', identifier)}"}
    if type_name == "aws_lambda_function":
        return {"version": "1", "qualified_arn": f"{arn}:1"}
    if type_name == "aws_ecs_task_definition":
        return {"revision": 1, "arn_without_revision": arn.rpartition(":")[0]}
    if type_name == "aws_sqs_queue":
        return {"url": f"https://sqs.{region}.amazonaws.com/{ACCOUNT}/{context.get('name', identifier)}"}
    if type_name == "aws_vpc_endpoint":
        return {"prefix_list_id": "pl-" + secrets.token_hex(4)}
    return {}


def data(type_name, attributes, region):
    """Values that a data source finds, by attribute."""
    if type_name == "aws_caller_identity":
        arn = f"arn:{partition(region)}:sts::{ACCOUNT}:assumed-role/test/test"
        return {"account_id": ACCOUNT, "arn": arn, "id": ACCOUNT, "user_id": "AROATEST:test"}
    if type_name == "aws_region":
        return {"name": region, "region": region, "id": region}
    if type_name == "aws_partition":
        return {"partition": partition(region), "id": partition(region), "dns_suffix": "amazonaws.com"}
    if type_name == "aws_availability_zones":
        return {"id": region, "names": [f"{region}{letter}" for letter in "abc"]}
    if type_name == "aws_ssm_parameter":
        name = attributes.get("name") or ""
        arn = f"arn:{partition(region)}:ssm:{region}:{ACCOUNT}:parameter{name}"
        value = "ami-0123456789abcdef0"
        return {"id": name, "arn": arn, "value": value, "insecure_value": value, "region": region}
    if type_name in ("aws_prefix_list", "aws_ec2_managed_prefix_list"):
        return {"id": "pl-0123abcd", "prefix_list_id": "pl-0123abcd"}
    found = resource(type_name, attributes, region)
    if type_name == "aws_ami":
        found.update(id="ami-0123456789abcdef0", architecture="x86_64", root_device_name="/dev/xvda")
    return found


def fill(block, value, known, is_unknown, everything=False):
    """Replaces what is unknown in an object, or with `everything` what is null as
    well, by known values; what is known of nothing becomes a placeholder.

    An optional value that nobody gave stays null, as most do with the service.
    """
    filled = {}
    for name, attribute in block["attributes"].items():
        given = value.get(name)
        computed = "c" in attribute["flags"]
        if not (is_unknown(given) or (everything and computed and given is None)):
            filled[name] = given
        elif name in known:
            filled[name] = known[name]
        elif "o" in attribute["flags"]:
            filled[name] = None
        else:
            filled[name] = _placeholder(attribute["type"], name)
    for name, nested in block["blocks"].items():
        given = value.get(name)
        inner = lambda item: fill(nested["block"], item, {}, is_unknown, everything)  # noqa: E731
        if isinstance(given, list):
            filled[name] = [inner(item) for item in given]
        elif nested["nesting"] == "map" and isinstance(given, dict):
            filled[name] = {key: inner(item) for key, item in given.items()}
        elif isinstance(given, dict):
            filled[name] = inner(given)
        else:
            filled[name] = given
    return filled
