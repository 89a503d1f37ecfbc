"""What every principal has to be allowed: what the control plane's own programs call, what
Terraform's provider calls for the runner, and what AWS's services do by themselves in the
name of a role, or in their own.

`scenarios` marks what the scenarios of `tests/control-plane` show: their requests are
compared with this list, in both directions.
"""

from dataclasses import dataclass

from .evaluator import ABSENT, Call, Unsure
from .render import AGENT, ENCLAVE, IMAGE, LOCKS, PCR0, PCR8

# Where a call is known from.
SCENARIOS = "scenarios"
# Our own programs, where no scenario comes to it.
CODE = "code"
PROVIDER = "provider"
SERVICE = "service"
INSTANCE = "instance"

# What workloads call in an enclave, past its endpoints, with rights that they bring.
WORKLOADS = {
    "kms": ["Decrypt", "DeriveSharedSecret", "DescribeKey", "Encrypt", "GenerateDataKey", "GenerateDataKeyPair",
            "GenerateRandom", "GetPublicKey", "Sign", "Verify"],
    "secretsmanager": ["DescribeSecret", "GetSecretValue"],
    "sts": ["AssumeRole"],
    "dynamodb": ["DeleteItem", "DescribeTable", "GetItem", "PutItem", "Query", "UpdateItem"],
}


@dataclass(frozen=True)
class Needed:
    """A call that has to be allowed: who makes it, and where that is known from."""

    who: str
    call: Call
    source: str
    # Of AWS's own doing, beside another call: `key of dynamodb:GetItem`.
    note: str = ""


class Names:
    """The ARNs of what the control plane consists of."""

    def __init__(self, rendering):
        self.rendering = rendering
        account, partition = rendering.account, rendering.partition
        data_key = rendering.one("aws_kms_key", "data")["arn"]
        self.region = data_key.split(":")[3]
        self.account = account
        scope = f"{self.region}:{account}"
        self.arn = lambda service, rest: f"arn:{partition}:{service}:{scope}:{rest}"
        self.partition = partition
        self.data_key = data_key
        self.state_key = rendering.one("aws_kms_key", "state")["arn"]
        self.results_key = rendering.one("aws_kms_key", "results")["arn"]
        self.workload_key = rendering.one("aws_kms_key", "workload", "payments")["arn"]
        self.enclaves = rendering.one("aws_dynamodb_table", "enclaves", 0)["arn"]
        self.index = f"{self.enclaves}/index/status-index"
        self.stream = rendering.one("aws_dynamodb_table", "enclaves", 0)["stream_arn"]
        self.images = rendering.one("aws_dynamodb_table", "images")["arn"]
        self.locks = self.arn("dynamodb", f"table/{LOCKS}")
        self.queue = rendering.one("aws_sqs_queue", "unhandled")["arn"]
        self.topic = rendering.one("aws_sns_topic", "alarms")["arn"]
        self.function = {index: values["arn"] for _, _, index, values in rendering.of("aws_lambda_function")}
        self.machine = {index: values["arn"] for _, _, index, values in rendering.of("aws_sfn_state_machine")}
        self.group = {index: values["arn"] for _, _, index, values in rendering.of("aws_cloudwatch_log_group")}
        buckets = {values["bucket"] for _, _, _, values in rendering.of("aws_s3_bucket")}
        self.artifacts, self.state = ([f"arn:{partition}:s3:::{name}" for name in buckets if part in name][0]
                                      for part in ("-artifacts-", "-state-"))
        self.task_definition = rendering.one("aws_ecs_task_definition", "runner")["arn"]
        self.cluster = rendering.one("aws_ecs_cluster", "this")["arn"]
        self.repository = rendering.one("aws_ecr_repository", "runner")["arn"]
        self.subnet = rendering.one("aws_subnet", "private", f"{self.region}a")["id"]
        self.security_group = rendering.one("aws_security_group", "enclaves")["id"]
        self.project, self.environment = "enclaves", "dev"
        self.tags = {"Project": "enclaves", "Environment": "dev"}

    def execution(self, machine, name="1-1"):
        return self.machine[machine].replace(":stateMachine:", ":execution:") + f":{name}"

    def enclave_group(self, enclave=ENCLAVE):
        return self.arn("logs", f"log-group:/aws/ec2/enclave/{enclave}")

    def parameter(self, enclave=ENCLAVE):
        return self.arn("ssm", f"parameter/{self.project}/{self.environment}/enclaves/{enclave}")

    def via(self, service):
        return f"{service}.{self.region}.amazonaws.com"

    def request_tags(self, tags):
        return {**{f"aws:RequestTag/{key}": value for key, value in tags.items()}, "aws:TagKeys": list(tags)}

    def resource_tags(self, tags):
        return {f"aws:ResourceTag/{key}": value for key, value in tags.items()}

    def untagged(self):
        return {"aws:ResourceTag/Project": ABSENT}


def needed(rendering):
    """Every call that has to be allowed."""
    names = Names(rendering)
    found = [*_functions(names), *_workflows(names), *_runner(names), *_provider(names), *_runner_start(names),
             *_instance(names), *_flow_logs(names), *_services(names), *_trust(names)]
    for one in list(found):
        found += _implied(names, one)
    # Several calls have the same use of a key.
    return list({(one.who, repr(one.call)): one for one in found}.values())


def owned(rendering, resource, context):
    """A call's context, with whose bucket it is: its name does not say so."""
    names = {values["bucket"] for _, _, _, values in rendering.of("aws_s3_bucket")}
    if resource.startswith(f"arn:{rendering.partition}:s3:::") and resource.split(":")[5].split("/")[0] in names:
        return {**context, "aws:ResourceAccount": rendering.account}
    return context


def _as(names, role, source, action, resource="*", endpoint=None, note="", context=None):
    context = owned(names.rendering, resource, context or {})
    return Needed(role, Call(names.rendering.role(role), action, resource, context, endpoint), source, note)


def _by(names, service, action, resource, context, note=""):
    return Needed(service, Call(names.rendering.service(service), action, resource, context), SERVICE, note)


def _functions(n):
    def code(role, action, *resources):
        return [_as(n, role, SCENARIOS, action, resource) for resource in resources]

    yield from code("trigger", "dynamodb:GetItem", n.enclaves)
    yield from code("trigger", "dynamodb:UpdateItem", n.enclaves)
    yield from code("trigger", "states:StartExecution", n.machine["deployment"], n.machine["cleanup"])
    executions = [n.execution(machine) for machine in ("deployment", "cleanup", "attestation")]
    yield from code("trigger", "states:DescribeExecution", *executions[:2])
    # The owner of an item that was resumed.
    yield _as(n, "trigger", CODE, "states:DescribeExecution", executions[2])
    yield from code("validation", "dynamodb:GetItem", n.enclaves, n.images)
    yield from code("attestation-gate", "dynamodb:GetItem", n.enclaves)
    yield from code("attestation-gate", "dynamodb:UpdateItem", n.enclaves)
    for action in ("SendTaskSuccess", "SendTaskFailure"):
        yield from code("attestation-gate", f"states:{action}", n.machine["deployment"], n.machine["attestation"])
    yield from code("attestation-gate", "kms:Sign", n.results_key)
    yield from code("attestation-gate", "kms:GetPublicKey", n.results_key)
    yield from code("error-handler", "dynamodb:GetItem", n.enclaves)
    yield from code("error-handler", "dynamodb:UpdateItem", n.enclaves)
    yield from code("error-handler", "sns:Publish", n.topic)
    yield from code("status-monitor", "dynamodb:Query", n.index)
    yield from code("status-monitor", "dynamodb:UpdateItem", n.enclaves)
    yield from code("status-monitor", "states:DescribeExecution", executions[0], executions[2])
    # The owner of an item that is being destroyed for too long.
    yield _as(n, "status-monitor", CODE, "states:DescribeExecution", executions[1])
    yield from code("status-monitor", "states:StartExecution", n.machine["attestation"])
    yield from code("status-monitor", "ec2:DescribeInstances", "*")
    for action in ("StartInstances", "StopInstances"):
        yield _as(n, "status-monitor", SCENARIOS, f"ec2:{action}", n.arn("ec2", "instance/i-1"), context=n.resource_tags(n.tags))

    # What Lambda does with a function's role.
    for name in n.function:
        stream = f"{n.group[name]}:log-stream:2026/12/01/[$LATEST]0"
        yield _as(n, name, SERVICE, "logs:CreateLogStream", stream)
        yield _as(n, name, SERVICE, "logs:PutLogEvents", stream)
        yield _as(n, name, SERVICE, "xray:PutTraceSegments")
        yield _as(n, name, SERVICE, "xray:PutTelemetryRecords")
    for action in ("DescribeStream", "GetRecords", "GetShardIterator"):
        yield _as(n, "trigger", SERVICE, f"dynamodb:{action}", n.stream)
    yield _as(n, "trigger", SERVICE, "dynamodb:ListStreams")
    yield _as(n, "trigger", SERVICE, "sqs:SendMessage", n.queue)
    yield _as(n, "status-monitor", SERVICE, "sqs:SendMessage", n.queue)


_CALLED = {
    "deployment": ["validation", "attestation-gate", "error-handler"],
    "cleanup": ["validation", "error-handler"],
    "attestation": ["attestation-gate", "error-handler"],
}


def _workflows(n):
    for machine, functions in _CALLED.items():
        role = f"workflow-{machine}"
        for function in functions:
            yield _as(n, role, SCENARIOS, "lambda:InvokeFunction", n.function[function])
        yield _as(n, role, SCENARIOS, "dynamodb:UpdateItem", n.enclaves)
        own = {"kms:EncryptionContext:aws:states:stateMachineArn": n.machine[machine]}
        for action in ("Decrypt", "GenerateDataKey"):
            yield _as(n, role, SERVICE, f"kms:{action}", n.data_key, context={**own, "kms:ViaService": ABSENT}, note="data of executions")
        # Step Functions encrypts what it hands to the delivery of logs:
        # https://docs.aws.amazon.com/step-functions/latest/dg/encryption-at-rest.html
        yield _as(n, role, SERVICE, "kms:GenerateDataKey", n.data_key, note="delivery of logs",
                  context={"kms:EncryptionContext:SourceArn": n.arn("logs", "*"), "kms:ViaService": ABSENT})
        for action in ("CreateLogDelivery", "DeleteLogDelivery", "DescribeLogGroups", "DescribeResourcePolicies",
                       "GetLogDelivery", "ListLogDeliveries", "PutResourcePolicy", "UpdateLogDelivery"):
            yield _as(n, role, SERVICE, f"logs:{action}")
        for action in ("GetSamplingRules", "GetSamplingTargets", "PutTelemetryRecords", "PutTraceSegments"):
            yield _as(n, role, SERVICE, f"xray:{action}")
        if machine != "attestation":
            yield _as(n, role, SCENARIOS, "ecs:RunTask", n.task_definition, context={"ecs:cluster": n.cluster})
            yield _as(n, role, SERVICE, "ecs:TagResource", n.arn("ecs", "task/enclaves-dev-runners/0123"),
                      context={"ecs:CreateAction": "RunTask"}, note="tags of a task")
            for passed in ("runner", "runner-start"):
                yield _as(n, role, SERVICE, "iam:PassRole", n.rendering.roles[passed], note="ecs:RunTask",
                          context={"iam:PassedToService": "ecs-tasks.amazonaws.com"})


# What the runner writes to an item while Terraform works.
PROGRESS = ["id", "progress", "runner", "updated_at"]


def _runner(n):
    def code(action, resource, endpoint, **context):
        return _as(n, "runner", SCENARIOS, action, resource, endpoint, context=context)

    yield code("dynamodb:UpdateItem", n.enclaves, "dynamodb", **{"dynamodb:Attributes": PROGRESS, "dynamodb:ReturnValues": Unsure("NONE")})
    for machine in ("deployment", "cleanup"):
        for action in ("SendTaskFailure", "SendTaskHeartbeat", "SendTaskSuccess"):
            # No scenario has the real runner's destruction fail.
            source = CODE if (machine, action) == ("cleanup", "SendTaskFailure") else SCENARIOS
            yield _as(n, "runner", source, f"states:{action}", n.machine[machine], "states")
    for action in ("DeleteObject", "GetObject", "PutObject"):
        for name in ("terraform.tfstate", "terraform.tfstate.tflock"):
            if (action, name) != ("DeleteObject", "terraform.tfstate"):
                yield code(f"s3:{action}", f"{n.state}/enclaves/{ENCLAVE}/{name}", "s3", **_no_key(action))
    # Terraform looks for workspaces.
    yield code("s3:ListBucket", n.state, "s3", **{"s3:prefix": "env:/"})
    # Who may not list gets 403 instead of 404 for a state that does not exist yet.
    yield _as(n, "runner", SERVICE, "s3:ListBucket", n.state, "s3", context={"s3:prefix": f"enclaves/{ENCLAVE}/terraform.tfstate"})
    key = f"{n.state.rpartition(':')[2]}/enclaves/{ENCLAVE}/terraform.tfstate"
    for action in ("DeleteItem", "GetItem", "PutItem"):
        for item in (key, f"{key}-md5"):
            yield _as(n, "runner", PROVIDER, f"dynamodb:{action}", n.locks, "dynamodb", context={"dynamodb:LeadingKeys": [item]})
    yield _as(n, "runner", PROVIDER, "dynamodb:DescribeTable", n.locks, "dynamodb", context={"dynamodb:LeadingKeys": ABSENT})


def _no_key(action):
    """A writer that names no key: the bucket's own is taken."""
    return {"s3:x-amz-server-side-encryption-aws-kms-key-id": ABSENT} if action == "PutObject" else {}


def _provider(n):
    """The AWS provider's calls for the stack of one enclave: create, read, change, delete."""

    def call(action, resource="*", endpoint=None, **context):
        endpoint = endpoint or action.split(":")[0]
        return _as(n, "runner", PROVIDER, action, resource, endpoint, context=context)

    yield call("sts:GetCallerIdentity")
    for action in ("DescribeImages", "DescribeInstanceTypes", "DescribeInstances", "DescribeTags", "DescribeVolumes"):
        yield call(f"ec2:{action}")
    tags = {**n.tags, "EnclaveId": ENCLAVE, "ManagedBy": "terraform", "Name": "x"}
    new = n.request_tags(tags)
    instance, volume = n.arn("ec2", "instance/*"), n.arn("ec2", "volume/*")
    yield call("ec2:RunInstances", instance, **new)
    yield call("ec2:RunInstances", volume, **new)
    yield call("ec2:RunInstances", n.arn("ec2", "network-interface/*"))
    yield call("ec2:RunInstances", n.arn("ec2", f"subnet/{n.subnet}"))
    yield call("ec2:RunInstances", n.arn("ec2", f"security-group/{n.security_group}"))
    image = f"arn:{n.partition}:ec2:{n.region}::image/ami-0123456789abcdef0"
    yield call("ec2:RunInstances", image, **{"ec2:Owner": "amazon"})
    for resource in (instance, volume):
        yield call("ec2:CreateTags", resource, **{"ec2:CreateAction": "RunInstances"}, **new, **n.untagged())
    yield _as(n, "runner", SERVICE, "iam:PassRole", n.rendering.roles["instance"], note="ec2:RunInstances",
              context={"iam:PassedToService": "ec2.amazonaws.com"})
    own = n.resource_tags({**n.tags, "EnclaveId": ENCLAVE})
    made = n.arn("ec2", "instance/i-1")
    for action in ("DescribeInstanceAttribute", "ModifyInstanceAttribute", "ModifyInstanceMetadataOptions", "StartInstances",
                   "StopInstances", "TerminateInstances"):
        yield call(f"ec2:{action}", made, **own)
    for resource in (made, n.arn("ec2", "volume/vol-1")):
        # A change of the user's tags; a second apply writes all of them.
        for changed in ({"Team": "payments"}, tags):
            yield call("ec2:CreateTags", resource, **own, **n.request_tags(changed), **{"ec2:CreateAction": ABSENT})
        yield call("ec2:DeleteTags", resource, **own, **{"aws:TagKeys": ["Team"]})
    machine_image = f"arn:{n.partition}:ssm:{n.region}::parameter/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
    yield call("ssm:GetParameter", machine_image)
    yield call("ssm:DescribeParameters")
    for action in ("AddTagsToResource", "DeleteParameter", "GetParameter", "ListTagsForResource", "PutParameter", "RemoveTagsFromResource"):
        yield call(f"ssm:{action}", n.parameter())
    yield call("logs:DescribeLogGroups")
    group = f"{n.enclave_group()}:log-stream:"
    for action in ("CreateLogGroup", "DeleteMetricFilter", "DescribeMetricFilters", "PutMetricFilter", "PutRetentionPolicy"):
        yield call(f"logs:{action}", group)
    for action in ("ListTagsForResource", "TagResource", "UntagResource"):
        yield call(f"logs:{action}", n.enclave_group())


def _runner_start(n):
    """Fargate's, before the container runs: in the task's network."""
    for endpoint in ("ecr.api", "ecr.dkr"):
        yield _as(n, "runner-start", SERVICE, "ecr:GetAuthorizationToken", "*", endpoint)
        for action in ("BatchCheckLayerAvailability", "BatchGetImage", "GetDownloadUrlForLayer"):
            yield _as(n, "runner-start", SERVICE, f"ecr:{action}", n.repository, endpoint)
    # ECR signs the addresses of layers itself, as a principal of its own.
    layers = f"arn:{n.partition}:s3:::prod-{n.region}-starport-layer-bucket/x"
    layers_of = {"aws:ResourceAccount": n.rendering.ecr().account}
    yield Needed("ecr", Call(n.rendering.ecr(), "s3:GetObject", layers, layers_of, "s3"), SERVICE, "layers of the runner's image")
    stream = f"{n.group['runner']}:log-stream:runner/terraform-runner/0"
    for action in ("CreateLogStream", "PutLogEvents"):
        yield _as(n, "runner-start", SERVICE, f"logs:{action}", stream, "logs")


def _instance(n):
    yield _as(n, "instance", INSTANCE, "s3:GetObject", f"{n.artifacts}/agents/{AGENT}", "s3")
    yield _as(n, "instance", SCENARIOS, "s3:GetObject", f"{n.artifacts}/images/{IMAGE}.eif", "s3")
    yield _as(n, "instance", SCENARIOS, "ssm:GetParameter", n.parameter(), "ssm")
    yield _as(n, "instance", SCENARIOS, "lambda:InvokeFunction", n.function["attestation-gate"], "lambda")
    stream = f"{n.enclave_group()}:log-stream:application"
    yield _as(n, "instance", SCENARIOS, "logs:CreateLogStream", stream, "logs")
    yield _as(n, "instance", SCENARIOS, "logs:PutLogEvents", stream, "logs")
    # https://docs.aws.amazon.com/systems-manager/latest/userguide/getting-started-create-iam-instance-profile.html
    yield _as(n, "instance", INSTANCE, "ssm:UpdateInstanceInformation", n.arn("ec2", "instance/i-1"), "ssm")
    for action in ("CreateControlChannel", "CreateDataChannel", "OpenControlChannel", "OpenDataChannel"):
        yield _as(n, "instance", INSTANCE, f"ssmmessages:{action}", "*", "ssmmessages")
    # An enclave with the published image, under the key of a workload.
    attested = {"kms:RecipientAttestation:ImageSha384": PCR0, "kms:RecipientAttestation:PCR8": PCR8, "kms:ViaService": ABSENT, "kms:EncryptionContext:": ABSENT}
    for action in ("Decrypt", "DeriveSharedSecret", "GenerateDataKey", "GenerateDataKeyPair"):
        yield _as(n, "instance", INSTANCE, f"kms:{action}", n.workload_key, "kms", context=attested, note="an attested enclave")


def _flow_logs(n):
    stream = f"{n.group['flows']}:log-stream:eni-1"
    yield _as(n, "flow-logs", SERVICE, "logs:CreateLogStream", stream)
    yield _as(n, "flow-logs", SERVICE, "logs:PutLogEvents", stream)
    yield _as(n, "flow-logs", SERVICE, "logs:DescribeLogStreams", f"{n.group['flows']}:log-stream:")
    yield _as(n, "flow-logs", SERVICE, "logs:DescribeLogGroups")


def _services(n):
    """What services do in their own name."""
    account = n.account
    group = {"kms:EncryptionContext:aws:logs:arn": n.group["trigger"]}
    for action in ("Decrypt", "DescribeKey", "Encrypt", "GenerateDataKey", "GenerateDataKeyWithoutPlaintext", "ReEncryptFrom", "ReEncryptTo"):
        context = {} if action == "DescribeKey" else group
        # Keys are described without a context: the statement's condition then has nothing to match.
        if action != "DescribeKey":
            yield _by(n, f"logs.{n.region}", f"kms:{action}", n.data_key, context, "log groups")
    yield _by(n, "delivery.logs", "kms:Decrypt", n.data_key, {
        "kms:EncryptionContext:SourceArn": n.arn("logs", "*"), "aws:SourceAccount": Unsure(account), "aws:SourceArn": Unsure(n.arn("logs", "*"))},
        "delivery of the workflows' logs")
    alarm = n.arn("cloudwatch", "alarm:enclaves-dev-trigger-errors")
    yield _by(n, "cloudwatch", "sns:Publish", n.topic, {"aws:SourceAccount": account, "aws:SourceArn": alarm})
    for action in ("Decrypt", "GenerateDataKey"):
        yield _by(n, "cloudwatch", f"kms:{action}", n.data_key, {"aws:SourceAccount": account}, "alarms to the topic")
    for service in ("events", "delivery.logs"):
        stream = f"{n.group['failed-tasks']}:log-stream:0"
        # https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-use-resource-based.html: the
        # rule is stated for events, and nothing for streams.
        yield _by(n, service, "logs:CreateLogStream", stream, {"aws:SourceAccount": Unsure(account), "aws:SourceArn": ABSENT})
        rule = n.rendering.one("aws_cloudwatch_event_rule", "failed_tasks")["arn"]
        yield _by(n, service, "logs:PutLogEvents", stream, {"aws:SourceAccount": Unsure(account), "aws:SourceArn": rule})
    for schedule in ("statuses", "reattest"):
        rule = n.rendering.one("aws_cloudwatch_event_rule", "monitor", schedule)["arn"]
        yield _by(n, "events", "lambda:InvokeFunction", n.function["status-monitor"], {"aws:SourceArn": rule, "aws:SourceAccount": Unsure(account)})


# Of these AWS documents that a role may demand the account for which the service acts.
_STATES_ACCOUNT = {"states", "vpc-flow-logs"}


def _trust(n):
    services = {"runner": "ecs-tasks", "runner-start": "ecs-tasks", "instance": "ec2", "flow-logs": "vpc-flow-logs"}
    for role, arn in n.rendering.roles.items():
        service = services.get(role, "states" if role.startswith("workflow-") else "lambda")
        account = n.account if service in _STATES_ACCOUNT or role == "runner" else Unsure(n.account)
        yield _by(n, service, "sts:AssumeRole", arn, {"aws:SourceAccount": account if service != "ec2" else ABSENT}, f"as {role}")


def _implied(n, one):
    """The uses of a key that another call has."""
    call = one.call
    service, action = call.action.split(":")

    def key(action, arn, context, via):
        kms = Call(call.principal, f"kms:{action}", arn, {**context, "kms:ViaService": via})
        return Needed(one.who, kms, SERVICE, f"key of {call.action}")

    if service == "dynamodb" and call.resource != "*":
        arn = n.state_key if call.resource == n.locks else n.data_key
        table = call.resource.split("/")[1]
        context = {"kms:EncryptionContext:aws:dynamodb:tableName": table, "kms:EncryptionContext:aws:dynamodb:subscriberId": n.account}
        if action != "DescribeTable":
            yield key("Decrypt", arn, context, n.via("dynamodb"))
    elif service == "s3" and action in ("GetObject", "PutObject"):
        bucket = call.resource.partition("/")[0]
        if bucket not in (n.state, n.artifacts):
            return
        arn = n.state_key if bucket == n.state else n.data_key
        context = {"kms:EncryptionContext:aws:s3:arn": bucket}
        yield key("Decrypt", arn, context, n.via("s3"))
        if action == "PutObject":
            yield key("GenerateDataKey", arn, context, n.via("s3"))
    elif call.action in ("sqs:SendMessage", "sns:Publish") and not call.principal.is_service:
        context = {f"kms:EncryptionContext:aws:{service}:{'arn' if service == 'sqs' else 'topicArn'}": call.resource}
        for use in ("Decrypt", "GenerateDataKey"):
            yield key(use, n.data_key, context, n.via(service))
    elif service == "states":
        machine = call.resource.replace(":execution:", ":stateMachine:")
        machine = ":".join(machine.split(":")[:7])
        context = {"kms:EncryptionContext:aws:states:stateMachineArn": machine}
        uses = ["Decrypt", "GenerateDataKey"] if action == "StartExecution" or action.startswith("SendTask") else ["Decrypt"]
        for use in uses:
            yield key(use, n.data_key, context, n.via("states"))
