"""An emulator with the control plane on it."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import boto3
from botocore.config import Config

from . import calls
from .rendering import REPOSITORY, render

ACCOUNT = "123456789012"
REGION = "us-west-2"
# How long anything that will happen may take.
LIMIT = 180
# The clients that the emulator never throttles.
OPERATOR = "operator"
STATE_VARIABLE = "TF_STATE_BUCKET"


class Cloud:
    """An emulator, and what is on it. Everything ends with `close`."""

    def __init__(self, folder, root_pem=None, port=None, workers=64):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.root_pem = root_pem
        self.port = port or _free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._faults = self.folder / "faults.json"
        self._calls = self.folder / "calls.jsonl"
        self.throttle({})
        self._log = open(self.folder / "emulator.log", "wb")
        self._process = subprocess.Popen(
            [sys.executable, "-B", "-m", "local_cloud.emulator"],
            cwd=Path(__file__).resolve().parents[1],
            env={
                **_clean(os.environ),
                "BIND_HOST": "127.0.0.1",
                "GATEWAY_PORT": str(self.port),
                "MINISTACK_ACCOUNT_ID": ACCOUNT,
                "MINISTACK_REGION": REGION,
                "MINISTACK_WORKER_THREADS": str(workers),
                "LOCAL_CLOUD_FAULTS": str(self._faults),
                "LOCAL_CLOUD_CALLS": str(self._calls),
                # Pauses before retries, shorter than on AWS.
                "SFN_WAIT_SCALE": "0.05",
                "LOG_LEVEL": "WARNING",
                "TMPDIR": str(self._scratch()),
            },
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        self._clients = {}
        self._wait_for_port()

    def _scratch(self):
        scratch = self.folder / "tmp"
        scratch.mkdir(exist_ok=True)
        return scratch

    def _wait_for_port(self):
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise RuntimeError(f"the emulator does not listen; its log is {self._log.name}")

    def client(self, service):
        """A client that is never throttled."""
        if service not in self._clients:
            self._clients[service] = boto3.client(
                service,
                endpoint_url=self.endpoint,
                region_name=REGION,
                aws_access_key_id=OPERATOR,
                aws_secret_access_key="local",
                config=Config(retries={"max_attempts": 3}, max_pool_connections=64, read_timeout=LIMIT),
            )
        return self._clients[service]

    def environment(self):
        """What programs need to reach the emulator."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def throttle(self, rates):
        """Has calls fail, as a share of all, by service."""
        new = self._faults.with_suffix(".new")
        new.write_text(json.dumps(rates))
        new.rename(self._faults)
        time.sleep(0.15)

    def calls(self):
        """Who has called what so far, but for the operator."""
        return calls.read(self._calls)

    def is_running(self):
        return self._process.poll() is None

    def close(self):
        if self.is_running():
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._log.close()


class ControlPlane:
    """The control plane on a cloud: Terraform's rendering of it, made real."""

    def __init__(self, cloud, functions, agent_sha256="a" * 64, project="enclaves", adapt=None):
        self.cloud = cloud
        self.rendering = render(cloud.folder / project, {
            "project_name": project,
            "agent_sha256": agent_sha256,
            "terraform_runner_image_version": "local",
            "functions_directory": str(functions),
        })
        # Changes a rendered workflow, for tests that cannot wait.
        self._adapt = adapt or (lambda definition: definition)
        self._create()

    def _create(self):
        for table in self.rendering.all("aws_dynamodb_table"):
            self._table(table)
        self.enclaves = next(t["name"] for t in self.rendering.all("aws_dynamodb_table") if t.name == "enclaves")
        self.images = next(t["name"] for t in self.rendering.all("aws_dynamodb_table") if t.name == "images")
        for queue in self.rendering.all("aws_sqs_queue"):
            self.cloud.client("sqs").create_queue(QueueName=queue["name"])
        for topic in self.rendering.all("aws_sns_topic"):
            self.cloud.client("sns").create_topic(Name=topic["name"])
        for group in self.rendering.all("aws_cloudwatch_log_group"):
            self.cloud.client("logs").create_log_group(logGroupName=group["name"])
        for parameter in self.rendering.all("aws_ssm_parameter"):
            self.cloud.client("ssm").put_parameter(
                Name=parameter["name"], Value=parameter["value"], Type=parameter["type"], Overwrite=True)
        self.names = json.loads(self.rendering.one("aws_ssm_parameter", "control_plane")["value"])
        self._ecs()
        for bucket in (self.names["buckets"]["artifacts"], self.task_environment[STATE_VARIABLE]):
            self.cloud.client("s3").create_bucket(
                Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
        self._functions()
        for machine in self.rendering.all("aws_sfn_state_machine"):
            definition = self._adapt(json.loads(machine["definition"]))
            created = self.cloud.client("stepfunctions").create_state_machine(
                name=machine["name"], definition=json.dumps(definition), roleArn=machine["role_arn"])
            assert created["stateMachineArn"] == machine["arn"]
        self._mapping()

    def _table(self, table):
        options = {}
        if table["stream_enabled"]:
            options["StreamSpecification"] = {"StreamEnabled": True, "StreamViewType": table["stream_view_type"]}
        indexes = [{
            "IndexName": index["name"],
            "KeySchema": _keys(index["hash_key"], index["range_key"]),
            "Projection": {"ProjectionType": index["projection_type"]},
        } for index in table["global_secondary_index"] or []]
        if indexes:
            options["GlobalSecondaryIndexes"] = indexes
        self.cloud.client("dynamodb").create_table(
            TableName=table["name"],
            BillingMode=table["billing_mode"],
            KeySchema=_keys(table["hash_key"], table["range_key"]),
            AttributeDefinitions=[
                {"AttributeName": item["name"], "AttributeType": item["type"]} for item in table["attribute"]],
            **options,
        )

    def _ecs(self):
        self.cluster = self.rendering.one("aws_ecs_cluster")["name"]
        self.cloud.client("ecs").create_cluster(clusterName=self.cluster)
        task = self.rendering.one("aws_ecs_task_definition")
        containers = json.loads(task["container_definitions"])
        registered = self.cloud.client("ecs").register_task_definition(
            family=task["family"], networkMode=task["network_mode"], cpu=task["cpu"], memory=task["memory"],
            requiresCompatibilities=task["requires_compatibilities"], containerDefinitions=containers)
        assert registered["taskDefinition"]["taskDefinitionArn"] == task["arn"]
        self.task_environment = {entry["name"]: entry["value"] for entry in containers[0]["environment"]}

    def _functions(self):
        key = self.cloud.client("kms").create_key(KeySpec="ECC_NIST_P384", KeyUsage="SIGN_VERIFY")
        self.functions = {}
        for function in self.rendering.all("aws_lambda_function"):
            variables = dict(function["environment"][0]["variables"])
            variables["AWS_ENDPOINT_URL"] = self.cloud.endpoint
            variables["EAR_KEY_ID"] = key["KeyMetadata"]["Arn"]
            if self.cloud.root_pem:
                variables["ATTESTATION_ROOT_PEM"] = self.cloud.root_pem
            created = self.cloud.client("lambda").create_function(
                FunctionName=function["function_name"],
                Runtime=function["runtime"],
                Handler=function["handler"],
                Role=function["role"],
                Timeout=function["timeout"],
                MemorySize=function["memory_size"],
                Environment={"Variables": variables},
                Code={"ZipFile": Path(function["filename"]).read_bytes()},
            )
            assert created["FunctionArn"] == function["arn"]
            self.functions[function.index] = function["function_name"]

    def _mapping(self):
        mapping = self.rendering.one("aws_lambda_event_source_mapping")
        stream = self.cloud.client("dynamodb").describe_table(TableName=self.enclaves)["Table"]["LatestStreamArn"]
        self.stream_arn = stream
        self.cloud.client("lambda").create_event_source_mapping(
            EventSourceArn=stream,
            FunctionName=mapping["function_name"],
            StartingPosition=mapping["starting_position"],
            BatchSize=mapping["batch_size"],
            MaximumRetryAttempts=mapping["maximum_retry_attempts"],
            BisectBatchOnFunctionError=mapping["bisect_batch_on_function_error"],
            FunctionResponseTypes=mapping["function_response_types"],
            FilterCriteria={"Filters": [
                {"Pattern": entry["pattern"]} for entry in mapping["filter_criteria"][0]["filter"]]},
            DestinationConfig={"OnFailure": {
                "Destination": mapping["destination_config"][0]["on_failure"][0]["destination_arn"]}},
        )

    def policies(self):
        """The policies as Terraform renders them, for `iam.recorded`."""
        from iam.rendering import Rendering

        return Rendering(self.rendering.state)

    def role(self, name):
        """The name of a role."""
        (role,) = [role for role in self.rendering.all("aws_iam_role") if role.index == name]
        return role["name"]

    def invoke(self, function, event):
        """A function's answer, or what it failed with under `errorType`."""
        answer = self.cloud.client("lambda").invoke(
            FunctionName=self.functions[function], Payload=json.dumps(event).encode())
        return json.loads(answer["Payload"].read())

    def state(self, enclave_id):
        """Terraform's state of an enclave, if there is one."""
        key = f"enclaves/{enclave_id}/terraform.tfstate"
        s3 = self.cloud.client("s3")
        try:
            return json.loads(s3.get_object(Bucket=self.task_environment[STATE_VARIABLE], Key=key)["Body"].read())
        except s3.exceptions.NoSuchKey:
            return {}


def _keys(partition, sort=None):
    keys = [{"AttributeName": partition, "KeyType": "HASH"}]
    if sort:
        keys.append({"AttributeName": sort, "KeyType": "RANGE"})
    return keys


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _clean(environment):
    return {name: value for name, value in environment.items() if not name.startswith(("AWS_", "MINISTACK_"))}


__all__ = ["ACCOUNT", "LIMIT", "REGION", "REPOSITORY", "Cloud", "ControlPlane"]
