"""What must be refused, whoever has been taken over: an instance, a function, a workflow,
a runner; and what others must not do with the control plane's keys and roles."""

from dataclasses import dataclass, replace

from .calls import PROGRESS, Names, owned
from .evaluator import ABSENT, Call
from .render import ENCLAVE, PCR0, PCR8
from .rendering import OTHER_ACCOUNT

OTHER = "victim-2"
# A call of KMS by itself: through no service, and without an encryption context.
ALONE = {"kms:ViaService": ABSENT, "kms:EncryptionContext:": ABSENT}


@dataclass(frozen=True)
class Attack:
    """A call that must be refused; `name` is what exceptions call it."""

    who: str
    name: str
    call: Call
    # What it is called where it passes an endpoint: this is the same with credentials that
    # are used outside the network.
    inside: str = None


def attacks(rendering):
    """All of them."""
    n = Names(rendering)
    inside = [*_instance(n), *_runner(n)]
    found = [*inside, *_outside(inside), *_everybody(n), *_functions(n), *_strangers(n)]
    names = [(one.who, one.name) for one in found]
    assert len(names) == len(set(names)), [name for name in names if names.count(name) > 1]
    return found


def _by(n, role, name, action, resource="*", endpoint=None, **context):
    return Attack(role, name, Call(n.rendering.role(role), action, resource, owned(n.rendering, resource, context), endpoint))


def _outside(attacks):
    """The same with stolen credentials: no endpoint's policy is asked."""
    for one in attacks:
        if one.call.endpoint:
            yield Attack(one.who, f"{one.name}, from outside", replace(one.call, endpoint=None), one.name)


def _instance(n):
    """An instance of one enclave, against another's, and against the control plane."""

    def attack(name, action, resource="*", endpoint=None, **context):
        return _by(n, "instance", name, action, resource, endpoint or action.split(":")[0], **context)

    gate = n.function["attestation-gate"]
    yield attack("issue a challenge in a workflow's place", "lambda:InvokeFunction", gate)
    for name in ("trigger", "validation", "error-handler", "status-monitor"):
        yield attack(f"call the function {name}", "lambda:InvokeFunction", n.function[name])
    yield attack("read another enclave's parameter", "ssm:GetParameter", n.parameter(OTHER))
    yield attack("read the control plane's parameter", "ssm:GetParameter", n.arn("ssm", "parameter/enclaves/dev/control-plane"))
    yield attack("read another environment's parameter", "ssm:GetParameter", n.arn("ssm", f"parameter/enclaves/prod/enclaves/{OTHER}"))
    yield attack("write another enclave's parameter", "ssm:PutParameter", n.parameter(OTHER))
    yield attack("delete another enclave's parameter", "ssm:DeleteParameter", n.parameter(OTHER))
    yield attack("run a command on another instance", "ssm:SendCommand", n.arn("ec2", "instance/i-2"), **n.resource_tags(n.tags))
    yield attack("log in to another instance", "ssm:StartSession", n.arn("ec2", "instance/i-2"), **n.resource_tags(n.tags))
    yield attack("read another enclave's image", "s3:GetObject", f"{n.artifacts}/images/{'d' * 64}.eif")
    yield attack("replace an image", "s3:PutObject", f"{n.artifacts}/images/{'d' * 64}.eif", **{"s3:x-amz-server-side-encryption-aws-kms-key-id": ABSENT})
    yield attack("replace the agent", "s3:PutObject", f"{n.artifacts}/agents/{'d' * 64}", **{"s3:x-amz-server-side-encryption-aws-kms-key-id": ABSENT})
    yield attack("delete an image", "s3:DeleteObject", f"{n.artifacts}/images/{'d' * 64}.eif")
    yield attack("list images", "s3:ListBucket", n.artifacts, **{"s3:prefix": "images/"})
    yield attack("read an enclave's state", "s3:GetObject", f"{n.state}/enclaves/{OTHER}/terraform.tfstate")
    yield attack("write an enclave's state", "s3:PutObject", f"{n.state}/enclaves/{OTHER}/terraform.tfstate", **{"s3:x-amz-server-side-encryption-aws-kms-key-id": ABSENT})
    other, foreign = n.enclave_group(OTHER), n.arn("logs", "log-group:/aws/ec2/enclave/of-another-environment")
    yield attack("forge lines of another enclave", "logs:PutLogEvents", f"{other}:log-stream:application")
    yield attack("open a stream in another enclave's log", "logs:CreateLogStream", f"{other}:log-stream:forged")
    yield attack("forge lines of another environment's enclave", "logs:PutLogEvents", f"{foreign}:log-stream:application")
    yield attack("open a stream in another environment's log", "logs:CreateLogStream", f"{foreign}:log-stream:forged")
    yield attack("shorten the retention of another's log", "logs:PutRetentionPolicy", f"{other}:log-stream:")
    yield attack("make a log group", "logs:CreateLogGroup", f"{other}:log-stream:")
    yield attack("look through another's log", "logs:DescribeLogStreams", f"{other}:log-stream:")
    yield attack("delete another's log", "logs:DeleteLogGroup", f"{other}:log-stream:")
    yield attack("delete another's stream", "logs:DeleteLogStream", f"{other}:log-stream:application")
    yield attack("read another's log", "logs:GetLogEvents", f"{other}:log-stream:application")
    yield attack("forge lines of a function", "logs:PutLogEvents", f"{n.group['trigger']}:log-stream:forged")
    for action in ("GetItem", "PutItem", "UpdateItem", "DeleteItem", "Query", "Scan"):
        keys = {"dynamodb:Attributes": ["id", "status"], "dynamodb:LeadingKeys": [OTHER], "dynamodb:ReturnValues": ABSENT}
        if action in ("Query", "Scan", "GetItem"):
            del keys["dynamodb:ReturnValues"]
        if action == "Scan":
            del keys["dynamodb:LeadingKeys"]
        yield attack(f"{action} on the table of enclaves", f"dynamodb:{action}", n.enclaves, **keys)
    for action in ("StartInstances", "StopInstances", "TerminateInstances", "ModifyInstanceMetadataOptions"):
        yield attack(f"{action} of another", f"ec2:{action}", n.arn("ec2", "instance/i-2"), **n.resource_tags(n.tags))
    yield attack("see all instances", "ec2:DescribeInstances")
    without = {"kms:RecipientAttestation:ImageSha384": ABSENT, **ALONE}
    others = {"kms:RecipientAttestation:ImageSha384": "d" * 96, "kms:RecipientAttestation:PCR8": PCR8, **ALONE}
    signer = {"kms:RecipientAttestation:ImageSha384": PCR0, "kms:RecipientAttestation:PCR8": "d" * 96, **ALONE}
    for name, context in (("without attestation", without), ("as another image", others), ("with another signer", signer)):
        for action in ("Decrypt", "GenerateDataKey", "GenerateDataKeyPair", "DeriveSharedSecret"):
            yield attack(f"{action} with a workload's key {name}", f"kms:{action}", n.workload_key, **context)
    yield attack("grant a workload's key", "kms:CreateGrant", n.workload_key, **ALONE)
    yield attack("decrypt what the table holds", "kms:Decrypt", n.data_key, **{
        "kms:ViaService": n.via("dynamodb"), "kms:EncryptionContext:aws:dynamodb:tableName": "enclaves-dev-enclaves"})
    yield attack("decrypt with the data key by itself", "kms:Decrypt", n.data_key, **ALONE)
    yield attack("decrypt executions", "kms:Decrypt", n.data_key, **{
        "kms:ViaService": n.via("states"), "kms:EncryptionContext:aws:states:stateMachineArn": n.machine["deployment"]})


def _runner(n):
    """A runner, whose Terraform or whose provider is somebody else's."""

    def attack(name, action, resource="*", endpoint=None, **context):
        # IAM's own endpoint is in no VPC, and `iam:PassRole` is no call: the service that gets
        # the role asks for it.
        endpoint = None if action.startswith("iam:") else endpoint or action.split(":")[0]
        return _by(n, "runner", name, action, resource, endpoint, **context)

    def update(*attributes, returned=ABSENT):
        return {"dynamodb:Attributes": list(attributes), "dynamodb:ReturnValues": returned, "dynamodb:LeadingKeys": [OTHER]}

    yield attack("write a status", "dynamodb:UpdateItem", n.enclaves, **update("id", "status"))
    yield attack("write an owner", "dynamodb:UpdateItem", n.enclaves, **update("id", "execution_arn"))
    yield attack("write a result of attestation", "dynamodb:UpdateItem", n.enclaves, **update("id", "attestation"))
    # What it writes of its own enclave's item, it writes of every one: no condition of IAM
    # reads another attribute.
    yield attack("write the time of another item's last write", "dynamodb:UpdateItem", n.enclaves, **update("id", "updated_at"))
    yield attack("write the runner of another item", "dynamodb:UpdateItem", n.enclaves, **update("id", "runner"))
    yield attack("write the progress of another item", "dynamodb:UpdateItem", n.enclaves, **update(*PROGRESS))
    yield attack("write an image", "dynamodb:UpdateItem", n.enclaves, **update("id", "image"))
    for returned in ("ALL_NEW", "ALL_OLD", "UPDATED_OLD"):
        yield attack(f"read an item by its update ({returned})", "dynamodb:UpdateItem", n.enclaves, **update(*PROGRESS, returned=returned))
    yield attack("put an item", "dynamodb:PutItem", n.enclaves, **update("id", "progress"))
    yield attack("delete an item", "dynamodb:DeleteItem", n.enclaves, **update("id"))
    foreign = {"aws:ResourceTag/Project": "theirs", "aws:ResourceTag/Environment": "dev"}
    untagged = {"aws:ResourceTag/Project": ABSENT, "aws:ResourceTag/Environment": ABSENT}
    theirs, own = n.arn("ec2", "instance/i-9"), n.arn("ec2", "instance/i-1")
    for name, tags in (("another project's instance", foreign), ("an instance without tags", untagged)):
        for action in ("TerminateInstances", "StopInstances", "StartInstances", "ModifyInstanceAttribute",
                       "ModifyInstanceMetadataOptions", "DescribeInstanceAttribute"):
            yield attack(f"{action} of {name}", f"ec2:{action}", theirs, **tags)
        yield attack(f"tag {name}", "ec2:CreateTags", theirs, **tags, **n.request_tags(n.tags), **{"ec2:CreateAction": ABSENT})
        yield attack(f"take tags off {name}", "ec2:DeleteTags", theirs, **tags, **{"aws:TagKeys": ["Team"]})
    mine = n.resource_tags(n.tags)
    yield attack("take off all tags without naming them", "ec2:DeleteTags", own, **mine, **{"aws:TagKeys": ABSENT})
    yield attack("take off the project's tag", "ec2:DeleteTags", own, **mine, **{"aws:TagKeys": ["Team", "Project"]})
    yield attack("take off the environment's tag", "ec2:DeleteTags", own, **mine, **{"aws:TagKeys": ["Environment"]})
    for key in ("Project", "Environment"):
        yield attack(f"move an instance to another {key}", "ec2:CreateTags", own, **mine, **n.request_tags({key: "theirs"}), **{"ec2:CreateAction": ABSENT})
    new = n.request_tags({**n.tags, "EnclaveId": ENCLAVE})
    yield attack("launch without tags", "ec2:RunInstances", n.arn("ec2", "instance/*"), **{"aws:RequestTag/Project": ABSENT})
    yield attack("launch into another subnet", "ec2:RunInstances", n.arn("ec2", "subnet/subnet-9"))
    yield attack("launch with another security group", "ec2:RunInstances", n.arn("ec2", "security-group/sg-9"))
    yield attack("launch with an SSH key", "ec2:RunInstances", n.arn("ec2", "key-pair/theirs"))
    yield attack("launch a stranger's machine image", "ec2:RunInstances", f"arn:{n.partition}:ec2:{n.region}::image/ami-9", **{"ec2:Owner": OTHER_ACCOUNT})
    yield attack("launch from a launch template", "ec2:RunInstances", n.arn("ec2", "launch-template/lt-9"))
    yield attack("tag something else", "ec2:CreateTags", n.arn("ec2", "subnet/subnet-9"), **new, **{"ec2:CreateAction": ABSENT, "aws:ResourceTag/Project": ABSENT})
    for role, arn in n.rendering.roles.items():
        service = "ec2.amazonaws.com"
        if role != "instance":
            yield attack(f"give an instance the role {role}", "iam:PassRole", arn, **{"iam:PassedToService": service})
    yield attack("give a function the instances' role", "iam:PassRole", n.rendering.roles["instance"], **{"iam:PassedToService": "lambda.amazonaws.com"})
    no_key = {"s3:x-amz-server-side-encryption-aws-kms-key-id": ABSENT}
    yield attack("write the control plane's state", "s3:PutObject", f"{n.state}/control-plane/terraform.tfstate", **no_key)
    yield attack("read the control plane's state", "s3:GetObject", f"{n.state}/control-plane/terraform.tfstate")
    yield attack("list the control plane's state", "s3:ListBucket", n.state, **{"s3:prefix": "control-plane/"})
    yield attack("replace the agent", "s3:PutObject", f"{n.artifacts}/agents/{'d' * 64}", **no_key)
    yield attack("read images", "s3:GetObject", f"{n.artifacts}/images/{'d' * 64}.eif")
    yield attack("take the control plane's lock", "dynamodb:PutItem", n.locks, **{
        "dynamodb:LeadingKeys": [f"{n.state.rpartition(':')[2]}/control-plane/terraform.tfstate"]})
    yield attack("see all locks", "dynamodb:Scan", n.locks)
    yield attack("read the control plane's parameter", "ssm:GetParameter", n.arn("ssm", "parameter/enclaves/dev/control-plane"))
    yield attack("write the control plane's parameter", "ssm:PutParameter", n.arn("ssm", "parameter/enclaves/dev/control-plane"))
    yield attack("read another environment's parameters", "ssm:GetParameter", n.arn("ssm", f"parameter/enclaves/prod/enclaves/{OTHER}"))
    yield attack("start a workflow", "states:StartExecution", n.machine["deployment"])
    yield attack("answer an attestation", "states:SendTaskSuccess", n.machine["attestation"])
    yield attack("call the gate", "lambda:InvokeFunction", n.function["attestation-gate"])
    yield attack("read an enclave's log", "logs:GetLogEvents", f"{n.enclave_group(OTHER)}:log-stream:application")
    yield attack("delete an enclave's log", "logs:DeleteLogGroup", f"{n.enclave_group(OTHER)}:log-stream:")
    foreign = n.arn("logs", "log-group:/aws/ec2/enclave/of-another-environment")
    for action in ("PutRetentionPolicy", "PutMetricFilter", "DeleteMetricFilter"):
        yield attack(f"{action} of another environment's enclave", f"logs:{action}", f"{foreign}:log-stream:")
    yield attack("shorten the retention of the control plane's log", "logs:PutRetentionPolicy", f"{n.group['trigger']}:log-stream:")
    yield attack("decrypt with the state's key by itself", "kms:Decrypt", n.state_key, **ALONE)
    yield attack("decrypt with the data key by itself", "kms:Decrypt", n.data_key, **ALONE)
    without = {"kms:RecipientAttestation:ImageSha384": ABSENT, **ALONE}
    yield attack("decrypt with a workload's key", "kms:Decrypt", n.workload_key, **without)
    attested = {"kms:RecipientAttestation:ImageSha384": PCR0, "kms:RecipientAttestation:PCR8": PCR8, **ALONE}
    yield attack("decrypt with a workload's key and an enclave's document", "kms:Decrypt", n.workload_key, **attested)
    yield attack("pull what it does not run", "ecr:BatchGetImage", n.arn("ecr", "repository/theirs"), "ecr.api")
    yield attack("replace its own image", "ecr:PutImage", n.repository, "ecr.api")


def _everybody(n):
    """What no role of the control plane may do."""
    kms = ALONE
    calls = [
        ("become an administrator", "iam:AttachRolePolicy", n.rendering.roles["runner"], {}),
        ("change a role's policy", "iam:PutRolePolicy", n.rendering.roles["runner"], {}),
        ("change who becomes a role", "iam:UpdateAssumeRolePolicy", n.rendering.roles["runner"], {}),
        ("make a user's key", "iam:CreateAccessKey", f"arn:{n.partition}:iam::{n.account}:user/admin", {}),
        ("change the data key's policy", "kms:PutKeyPolicy", n.data_key, kms),
        ("change a workload key's policy", "kms:PutKeyPolicy", n.workload_key, kms),
        ("delete the data key", "kms:ScheduleKeyDeletion", n.data_key, kms),
        ("delete a workload's key", "kms:ScheduleKeyDeletion", n.workload_key, kms),
        ("grant the data key", "kms:CreateGrant", n.data_key, {**kms, "kms:GrantIsForAWSResource": "false"}),
        ("delete the table", "dynamodb:DeleteTable", n.enclaves, {}),
        ("delete items", "dynamodb:DeleteItem", n.enclaves, {"dynamodb:LeadingKeys": [OTHER]}),
        ("replace items", "dynamodb:PutItem", n.enclaves, {"dynamodb:LeadingKeys": [OTHER]}),
        ("publish an image", "dynamodb:PutItem", n.images, {"dynamodb:LeadingKeys": ["payments:1"]}),
        ("change a published image", "dynamodb:UpdateItem", n.images, {"dynamodb:LeadingKeys": ["payments:1"]}),
        ("change a function's code", "lambda:UpdateFunctionCode", n.function["trigger"], {}),
        ("change a workflow", "states:UpdateStateMachine", n.machine["deployment"], {}),
        ("stop an execution", "states:StopExecution", n.execution("deployment"), {}),
        ("delete the state bucket's policy", "s3:DeleteBucketPolicy", n.state, {}),
        ("change the artifacts bucket's policy", "s3:PutBucketPolicy", n.artifacts, {}),
        ("take events from the queue", "sqs:ReceiveMessage", n.queue, {}),
        ("empty the queue", "sqs:PurgeQueue", n.queue, {}),
        ("subscribe to notifications", "sns:Subscribe", n.topic, {}),
    ]
    for role in n.rendering.roles:
        for name, action, resource, context in calls:
            yield _by(n, role, name, action, resource, **context)
        for victim, arn in n.rendering.roles.items():
            yield _by(n, role, f"become the role {victim}", "sts:AssumeRole", arn, **{"aws:SourceAccount": ABSENT})
        if role != "attestation-gate":
            yield _by(n, role, "sign a result", "kms:Sign", n.results_key, **kms)
        if not role.startswith("workflow-"):
            yield _by(n, role, "give a task the runner's role", "iam:PassRole", n.rendering.roles["runner"], **{"iam:PassedToService": "ecs-tasks.amazonaws.com"})
            yield _by(n, role, "run a task", "ecs:RunTask", n.task_definition, **{"ecs:cluster": n.cluster})
        if role not in ("runner", "instance"):
            yield _by(n, role, "decrypt with the data key by itself", "kms:Decrypt", n.data_key, **kms)
            yield _by(n, role, "decrypt with a workload's key and an enclave's document", "kms:Decrypt", n.workload_key, **{
                "kms:RecipientAttestation:ImageSha384": PCR0, "kms:RecipientAttestation:PCR8": PCR8, **kms})
            yield _by(n, role, "replace an image", "s3:PutObject", f"{n.artifacts}/images/{'d' * 64}.eif", **{"s3:x-amz-server-side-encryption-aws-kms-key-id": ABSENT})
            yield _by(n, role, "write a state", "s3:PutObject", f"{n.state}/enclaves/{OTHER}/terraform.tfstate", **{"s3:x-amz-server-side-encryption-aws-kms-key-id": ABSENT})
            yield _by(n, role, "terminate an instance", "ec2:TerminateInstances", n.arn("ec2", "instance/i-2"), **n.resource_tags(n.tags))


def _functions(n):
    """One function, against the work of another."""
    writers = {"trigger", "attestation-gate", "error-handler", "status-monitor"}
    for role in n.function:
        if role not in writers:
            yield _by(n, role, "write an item", "dynamodb:UpdateItem", n.enclaves, **{"dynamodb:Attributes": ["id", "status"], "dynamodb:ReturnValues": ABSENT})
        if role not in ("trigger", "status-monitor"):
            for machine, arn in n.machine.items():
                yield _by(n, role, f"start {machine}", "states:StartExecution", arn)
        if role != "attestation-gate":
            for machine, arn in n.machine.items():
                yield _by(n, role, f"answer a task of {machine}", "states:SendTaskSuccess", arn)
        for function, arn in n.function.items():
            yield _by(n, role, f"call the function {function}", "lambda:InvokeFunction", arn)
            if function != role:
                yield _by(n, role, f"forge lines of {function}", "logs:PutLogEvents", f"{n.group[function]}:log-stream:forged")
    yield _by(n, "trigger", "start an attestation", "states:StartExecution", n.machine["attestation"])
    yield _by(n, "status-monitor", "start a deployment", "states:StartExecution", n.machine["deployment"])
    yield _by(n, "attestation-gate", "answer a cleanup", "states:SendTaskSuccess", n.machine["cleanup"])
    for name, tags in (("another project's instance", {"Project": "theirs", "Environment": "dev"}),
                       ("another environment's instance", {"Project": "enclaves", "Environment": "prod"})):
        for action in ("StartInstances", "StopInstances"):
            yield _by(n, "status-monitor", f"{action} of {name}", f"ec2:{action}", n.arn("ec2", "instance/i-9"), **n.resource_tags(tags))
    for machine, functions in {"cleanup": ["attestation-gate"], "attestation": ["validation"]}.items():
        for function in functions:
            yield _by(n, f"workflow-{machine}", f"call {function}", "lambda:InvokeFunction", n.function[function])
    for machine in n.machine:
        role = f"workflow-{machine}"
        for function in ("trigger", "status-monitor"):
            yield _by(n, role, f"call {function}", "lambda:InvokeFunction", n.function[function])
        yield _by(n, role, "run another task", "ecs:RunTask", n.arn("ecs", "task-definition/theirs:1"), **{"ecs:cluster": n.cluster})
        yield _by(n, role, "run a task elsewhere", "ecs:RunTask", n.task_definition, **{"ecs:cluster": n.arn("ecs", "cluster/theirs")})
        yield _by(n, role, "give a function the runner's role", "iam:PassRole", n.rendering.roles["runner"], **{"iam:PassedToService": "lambda.amazonaws.com"})
        yield _by(n, role, "give a task the instances' role", "iam:PassRole", n.rendering.roles["instance"], **{"iam:PassedToService": "ecs-tasks.amazonaws.com"})
        for other, arn in n.machine.items():
            if other != machine:
                yield _by(n, role, f"decrypt executions of {other}", "kms:Decrypt", n.data_key, **{
                    "kms:ViaService": ABSENT, "kms:EncryptionContext:aws:states:stateMachineArn": arn})


def _strangers(n):
    """Other accounts, and services that act for other accounts."""
    stranger, admin = n.rendering.stranger(), n.rendering.administrator()

    def by(who, name, principal, action, resource, **context):
        return Attack(who, name, Call(principal, action, resource, owned(n.rendering, resource, context)))

    for role, arn in n.rendering.roles.items():
        yield by("another account", f"become the role {role}", stranger, "sts:AssumeRole", arn, **{"aws:SourceAccount": ABSENT})
    for name, key in (("the data key", n.data_key), ("the state's key", n.state_key), ("a workload's key", n.workload_key)):
        context = dict(ALONE)
        if key == n.workload_key:
            context |= {"kms:RecipientAttestation:ImageSha384": PCR0, "kms:RecipientAttestation:PCR8": PCR8}
        yield by("another account", f"decrypt with {name}", stranger, "kms:Decrypt", key, **context)
    yield by("another account", "sign a result", stranger, "kms:Sign", n.results_key, **ALONE)
    for name in ("artifacts", "state"):
        yield by("another account", f"read {name}", stranger, "s3:GetObject", f"{getattr(n, name)}/x")
        yield by("another account", f"list {name}", stranger, "s3:ListBucket", getattr(n, name), **{"s3:prefix": ABSENT})
    yield by("another account", "send to the queue", stranger, "sqs:SendMessage", n.queue)
    yield by("another account", "publish", stranger, "sns:Publish", n.topic)
    yield by("another account", "forge lines of failed tasks", stranger, "logs:PutLogEvents", f"{n.group['failed-tasks']}:log-stream:0")
    for name, function in n.function.items():
        yield by("another account", f"call the function {name}", stranger, "lambda:InvokeFunction", function)
    # Credentials that somebody has brought into the VPC, to take data out past an endpoint.
    abroad = lambda service, rest: f"arn:{n.partition}:{service}:{n.region}:{OTHER_ACCOUNT}:{rest}"  # noqa: E731
    brought = {
        "dynamodb": ("dynamodb:PutItem", abroad("dynamodb", "table/theirs"), {}),
        "ec2": ("ec2:DescribeInstances", "*", {}),
        "ecr.api": ("ecr:GetAuthorizationToken", "*", {}),
        "ecr.dkr": ("ecr:GetAuthorizationToken", "*", {}),
        "kms": ("kms:GenerateRandom", "*", {}),
        "lambda": ("lambda:InvokeFunction", abroad("lambda", "function:theirs"), {}),
        "logs": ("logs:PutLogEvents", abroad("logs", "log-group:theirs:log-stream:x"), {}),
        "s3": ("s3:PutObject", f"arn:{n.partition}:s3:::theirs/x", {"aws:ResourceAccount": OTHER_ACCOUNT}),
        "secretsmanager": ("secretsmanager:GetSecretValue", abroad("secretsmanager", "secret:theirs-AbCdEf"), {}),
        "ssm": ("ssm:PutParameter", abroad("ssm", "parameter/theirs"), {}),
        "ssmmessages": ("ssmmessages:OpenDataChannel", "*", {}),
        "states": ("states:SendTaskSuccess", abroad("states", "stateMachine:theirs"), {}),
        "sts": ("sts:GetCallerIdentity", "*", {}),
    }
    assert set(brought) == set(n.rendering.policies.endpoints), "an endpoint without an attack"
    for endpoint, (action, resource, context) in brought.items():
        call = Call(stranger, action, resource, context, endpoint)
        yield Attack("another account", f"call past the endpoint {endpoint}", call)
    # Its administrators may do what IAM allows: all of it, but for this.
    without = {"kms:RecipientAttestation:ImageSha384": ABSENT, **ALONE}
    for action in ("Decrypt", "GenerateDataKey", "GenerateDataKeyPair", "DeriveSharedSecret", "ReEncryptFrom"):
        yield by("administrator", f"{action} with a workload's key", admin, f"kms:{action}", n.workload_key, **without)
    yield by("administrator", "decrypt with a workload's key and an enclave's document", admin, "kms:Decrypt", n.workload_key, **{
        "kms:RecipientAttestation:ImageSha384": PCR0, "kms:RecipientAttestation:PCR8": PCR8, **ALONE})
    # With a grant no policy has to allow it: the key's denies are all there is.
    grants = (("without attestation", without),
              ("as another image", {**without, "kms:RecipientAttestation:ImageSha384": "d" * 96, "kms:RecipientAttestation:PCR8": PCR8}),
              ("with another signer", {**without, "kms:RecipientAttestation:ImageSha384": PCR0, "kms:RecipientAttestation:PCR8": "d" * 96}))
    for name, context in grants:
        # `ReEncryptFrom` never has a document.
        for action in ("Decrypt", "GenerateDataKey", "GenerateDataKeyPair", "DeriveSharedSecret", *(["ReEncryptFrom"] if context == without else [])):
            call = Call(admin, f"kms:{action}", n.workload_key, context, granted=True)
            yield Attack("administrator", f"{action} with a workload's key and a grant, {name}", call)
    yield by("administrator", "grant a workload's key", admin, "kms:CreateGrant", n.workload_key, **ALONE)
    for name in ("artifacts", "state"):
        bucket = getattr(n, name)
        for kind, action, resource in (("read", "GetObject", f"{bucket}/x"), ("write", "PutObject", f"{bucket}/x"), ("list", "ListBucket", bucket)):
            context = {"s3:x-amz-server-side-encryption-aws-kms-key-id": ABSENT} if kind == "write" else {}
            yield by("administrator", f"{kind} {name} without TLS", admin, f"s3:{action}", resource, **context, **{"aws:SecureTransport": "false"})
            yield by("administrator", f"{kind} {name} over TLS 1.1", admin, f"s3:{action}", resource, **context, **{"s3:TlsVersion": "1.1"})
        key = {"s3:x-amz-server-side-encryption-aws-kms-key-id": n.arn("kms", "key/theirs"), "s3:TlsVersion": "1.3"}
        yield by("administrator", f"write {name} under another key", admin, "s3:PutObject", f"{bucket}/x", **key)
    yield Attack("administrator", "send to the queue without TLS", Call(admin, "sqs:SendMessage", n.queue, {"aws:SecureTransport": "false"}))
    yield Attack("administrator", "publish without TLS", Call(admin, "sns:Publish", n.topic, {"aws:SecureTransport": "false"}))
    # The confused deputy: a service for another account.
    theirs = {"aws:SourceAccount": OTHER_ACCOUNT}
    for role, service in (("workflow-deployment", "states"), ("runner", "ecs-tasks"), ("flow-logs", "vpc-flow-logs")):
        yield by(f"{service} for another account", f"become the role {role}", n.rendering.service(service), "sts:AssumeRole", n.rendering.roles[role], **theirs)
    alarm = f"arn:{n.partition}:cloudwatch:{n.region}:{OTHER_ACCOUNT}:alarm:theirs"
    yield by("cloudwatch for another account", "publish", n.rendering.service("cloudwatch"), "sns:Publish", n.topic, **theirs, **{"aws:SourceArn": alarm})
    yield by("cloudwatch for another account", "use the data key", n.rendering.service("cloudwatch"), "kms:Decrypt", n.data_key, **theirs)
    rule = f"arn:{n.partition}:events:{n.region}:{OTHER_ACCOUNT}:rule/theirs"
    yield by("events for another account", "call the monitor", n.rendering.service("events"), "lambda:InvokeFunction", n.function["status-monitor"], **theirs, **{"aws:SourceArn": rule})
    yield by("events for another account", "write lines of failed tasks", n.rendering.service("events"), "logs:PutLogEvents", f"{n.group['failed-tasks']}:log-stream:0", **theirs, **{"aws:SourceArn": rule})
    yield by("events for this account", "use the data key", n.rendering.service("events"), "kms:Decrypt", n.data_key, **{"aws:SourceAccount": n.account})
    foreign = f"arn:{n.partition}:logs:{n.region}:{OTHER_ACCOUNT}:log-group:theirs"
    yield by("logs for another account", "use the data key", n.rendering.service(f"logs.{n.region}"), "kms:Decrypt", n.data_key, **{"kms:EncryptionContext:aws:logs:arn": foreign})
    delivered = f"arn:{n.partition}:logs:{n.region}:{OTHER_ACCOUNT}:*"
    yield by("delivery.logs for another account", "use the data key", n.rendering.service("delivery.logs"), "kms:Decrypt", n.data_key, **{
        "kms:EncryptionContext:SourceArn": delivered, "aws:SourceAccount": OTHER_ACCOUNT, "aws:SourceArn": delivered})
    yield by("lambda", "become the runner", n.rendering.service("lambda"), "sts:AssumeRole", n.rendering.roles["runner"], **{"aws:SourceAccount": n.account})
    yield by("ec2", "become the runner", n.rendering.service("ec2"), "sts:AssumeRole", n.rendering.roles["runner"], **{"aws:SourceAccount": ABSENT})
