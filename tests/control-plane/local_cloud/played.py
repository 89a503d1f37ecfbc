"""What a scenario does and sees: a client's writes, tasks that end as it says, agents
that answer as it says, and the item."""

import hashlib
import json
import re
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

from .cloud import LIMIT
from .stream import Changes, plain
from .tasks import Tasks

REFERENCE = "payments:1.4.2"
MEASUREMENTS = {"Measurements": {"PCR0": "01" * 48, "PCR1": "02" * 48, "PCR2": "03" * 48}}
OTHER_MEASUREMENTS = {"Measurements": {"PCR0": "01" * 48, "PCR1": "02" * 48, "PCR2": "ff" * 48}}
OUTPUTS = {"instance_id": "i-0123456789abcdef0", "private_ip": "10.0.0.7", "log_group_name": "/aws/ec2/enclave/x"}
REQUEST = {
    "dockerImage": REFERENCE,
    "instanceType": "m6i.xlarge",
    "cpuCount": 2,
    "memoryMiB": 1024,
    "enableDebug": False,
    "workloadType": "service",
    "healthCheckPath": "/health",
    "healthCheckInterval": 30,
    "awsServices": ["kms"],
    "exposePorts": [8080],
}


class Documents:
    """Documents that a software NSM signs."""

    def __init__(self, program, folder):
        self._lock = threading.Lock()
        self._process = subprocess.Popen([program, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout.readline() == "ready\n"
        self.root_pem = (folder / "root.pem").read_text()

    def make(self, nonce, enclave_id, measurements=MEASUREMENTS, runtime_configuration=None):
        line = {
            "nonce": nonce,
            "measurements": measurements,
            "runtime_configuration": runtime_configuration or json.dumps(
                {"enclave_id": enclave_id}, separators=(",", ":")),
        }
        with self._lock:
            self._process.stdin.write(json.dumps(line) + "\n")
            self._process.stdin.flush()
            return self._process.stdout.readline().strip()

    def close(self):
        self._process.stdin.close()
        self._process.wait(20)


class World:
    """A control plane, and those around it."""

    reference = REFERENCE

    def __init__(self, plane, documents):
        self.plane = plane
        self.cloud = plane.cloud
        self.documents = documents
        self.enclaves = []
        self._agents = {}
        self._plays = {}
        self.played = []
        self.tasks = Tasks(plane, self._play, workers=64)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._answer_challenges, daemon=True)
        self._thread.start()
        self.publish()

    def close(self):
        self._stop.set()
        self._thread.join()
        self.tasks.close()

    def begin(self, name):
        """A new scenario."""
        self._name = re.sub(r"[^a-z0-9]+", "-", name.lower())[:50].strip("-")
        self.enclaves = []

    # The client.

    def publish(self, reference=REFERENCE):
        eif = hashlib.sha256(reference.encode()).hexdigest()
        self.cloud.client("dynamodb").put_item(TableName=self.plane.images, Item={
            "reference": {"S": reference},
            "bucket": {"S": self.plane.names["buckets"]["artifacts"]},
            "key": {"S": f"images/{eif}.eif"},
            "sha256": {"S": eif},
            "size": {"N": "1000000"},
            "measurements": {"S": json.dumps(MEASUREMENTS)},
            "published_at": {"S": now()},
        })

    def new(self, suffix="", agent="honest", task="done"):
        """The id of a new enclave; how its agent and its tasks behave."""
        enclave = f"{self._name}{suffix}"
        self.enclaves.append(enclave)
        self._agents[enclave] = agent
        self._plays[enclave] = task
        return enclave

    def play(self, enclave, task=None, agent=None):
        """Changes how an enclave's tasks and agent behave."""
        if task:
            self._plays[enclave] = task
        if agent:
            self._agents[enclave] = agent

    def put(self, enclave, status, **request):
        """Writes a whole item, as clients do that know no other way."""
        self.cloud.client("dynamodb").put_item(TableName=self.plane.enclaves, Item={
            "id": {"S": enclave},
            "status": {"S": status},
            "walletAddress": {"S": "0xabc"},
            "providerId": {"S": "aws-nitro"},
            "providerConfig": {"M": _attributes({**REQUEST, **request})},
            "updated_at": {"S": now()},
        })

    def write(self, enclave, status):
        """Writes a status."""
        self.cloud.client("dynamodb").update_item(
            TableName=self.plane.enclaves, Key={"id": {"S": enclave}},
            UpdateExpression="SET #status = :status, updated_at = :now",
            ExpressionAttributeNames={"#status": "status"},
            ExpressionAttributeValues={":status": {"S": status}, ":now": {"S": now()}})

    def age(self, enclave, minutes):
        """Makes an item's last write look older."""
        then = datetime.now(timezone.utc) - timedelta(minutes=minutes)
        self.cloud.client("dynamodb").update_item(
            TableName=self.plane.enclaves, Key={"id": {"S": enclave}},
            UpdateExpression="SET updated_at = :then",
            ExpressionAttributeValues={":then": {"S": _timestamp(then)}})

    def item(self, enclave):
        answer = self.cloud.client("dynamodb").get_item(
            TableName=self.plane.enclaves, Key={"id": {"S": enclave}}, ConsistentRead=True)
        return plain(answer.get("Item"))

    def wait(self, enclave, *statuses, holds=None):
        """The item, once it has one of the statuses, and what else is demanded."""
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            item = self.item(enclave)
            if item.get("status") in statuses and (holds is None or holds(item)):
                return item
            time.sleep(0.1)
        raise AssertionError(f"{enclave} never became {statuses}: {self.item(enclave)}")

    def deploy(self, enclave, **request):
        self.put(enclave, "PENDING_DEPLOY", **request)
        return self.wait(enclave, "DEPLOYED", "FAILED")

    def destroy(self, enclave):
        self.write(enclave, "PENDING_DESTROY")
        return self.wait(enclave, "DESTROYED", "FAILED")

    def path(self, enclave):
        return Changes(self.plane).path(enclave)

    # The tasks.

    def _play(self, task):
        self.played.append((task.enclave_id, task.action))
        how = self._plays.get(task.enclave_id, "done")
        if isinstance(how, dict):
            how = how[task.action]
        if callable(how):
            how(self, task)
        elif how == "done":
            self.succeed(task)
        elif how == "failing":
            self.fail(task)
        elif how != "silent":
            raise AssertionError(f"no such task: {how}")

    def succeed(self, task):
        outputs = {} if task.action == "destroy" else OUTPUTS
        changes = {"add": 5, "change": 0, "remove": 0}
        self.cloud.client("stepfunctions").send_task_success(taskToken=task.token, output=json.dumps(
            {"action": task.action, "outputs": outputs, "changes": changes}))

    def fail(self, task, error="TerraformFailed", message="`terraform apply` failed (exit code 1): no capacity"):
        self.cloud.client("stepfunctions").send_task_failure(taskToken=task.token, error=error, cause=json.dumps(
            {"errorType": error, "errorMessage": message, "exit_code": 1}))

    def heartbeat(self, task):
        self.cloud.client("stepfunctions").send_task_heartbeat(taskToken=task.token)

    # The agents.

    def challenge(self, enclave):
        return self.plane.invoke("attestation-gate", {"action": "challenge", "enclave_id": enclave})["challenge"]

    def submit(self, enclave, document):
        return self.plane.invoke("attestation-gate", {
            "action": "document", "enclave_id": enclave, "document": document})

    def wait_for_challenge(self, enclave):
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            if challenge := self.challenge(enclave):
                return challenge
            time.sleep(0.1)
        raise AssertionError(f"{enclave} was never challenged: {self.item(enclave)}")

    def _answer_challenges(self):
        """Honest agents, and those that are not."""
        with ThreadPoolExecutor(8) as pool:
            while not self._stop.is_set():
                try:
                    waiting = self._waiting()
                except Exception as error:
                    self.tasks.errors.append(error)
                    return
                list(pool.map(self._answer_challenge, waiting))
                self._stop.wait(0.1)

    def _waiting(self):
        """Whose document is waited for, of those whose agent says something."""
        pages = self.cloud.client("dynamodb").get_paginator("scan").paginate(
            TableName=self.plane.enclaves, ProjectionExpression="id",
            FilterExpression="attestation.#state = :waiting", ExpressionAttributeNames={"#state": "state"},
            ExpressionAttributeValues={":waiting": {"S": "waiting"}})
        ids = [item["id"]["S"] for page in pages for item in page["Items"]]
        return [enclave for enclave in ids if self._agents.get(enclave, "silent") != "silent"]

    def _answer_challenge(self, enclave):
        try:
            # A function that fails is called again, as agents do.
            challenge = self.plane.invoke("attestation-gate", {"action": "challenge", "enclave_id": enclave})
            if challenge.get("challenge"):
                agent = self._agents[enclave]
                measurements = OTHER_MEASUREMENTS if agent == "other image" else MEASUREMENTS
                name = "another" if agent == "other enclave" else enclave
                self.submit(enclave, self.documents.make(challenge["challenge"]["nonce"], name, measurements))
        except Exception as error:
            self.tasks.errors.append(error)

    # The schedule, and Step Functions.

    def monitor(self, task="statuses"):
        return self.plane.invoke("status-monitor", {"task": task})

    def executions(self, enclave, machine="deployment"):
        """An enclave's executions, oldest first."""
        states = self.cloud.client("stepfunctions")
        found = []
        arn = self.plane.names["state_machines"][machine]
        for page in states.get_paginator("list_executions").paginate(stateMachineArn=arn):
            for execution in page["executions"]:
                described = states.describe_execution(executionArn=execution["executionArn"])
                if json.loads(described["input"])["enclave_id"] == enclave:
                    found.append(described)
        return sorted(found, key=lambda execution: execution["startDate"])

    def settled(self, enclave, machine="deployment", count=1):
        """Its executions, once there are so many and none runs."""
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            executions = self.executions(enclave, machine)
            if len(executions) >= count and all(e["status"] != "RUNNING" for e in executions):
                return executions
            time.sleep(0.2)
        raise AssertionError(f"{enclave}: {executions}")

    def records(self, enclave):
        """The stream's records of an enclave, as the trigger gets them."""
        streams = self.cloud.client("dynamodbstreams")
        records = []
        stream = streams.describe_stream(StreamArn=self.plane.stream_arn)["StreamDescription"]
        for shard in stream["Shards"]:
            iterator = streams.get_shard_iterator(
                StreamArn=self.plane.stream_arn, ShardId=shard["ShardId"],
                ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
            while iterator:
                page = streams.get_records(ShardIterator=iterator, Limit=1000)
                records += [r for r in page["Records"] if r["dynamodb"]["Keys"]["id"]["S"] == enclave]
                iterator = page.get("NextShardIterator") if page["Records"] else None
        for record in records:
            created = record["dynamodb"]["ApproximateCreationDateTime"]
            record["dynamodb"]["ApproximateCreationDateTime"] = created.timestamp()
        return records


def now():
    return _timestamp(datetime.now(timezone.utc))


def _timestamp(instant):
    return instant.isoformat(timespec="seconds").replace("+00:00", "Z")


def _attributes(values):
    kinds = {bool: "BOOL", str: "S"}
    attributes = {}
    for name, value in values.items():
        if value is None:
            continue
        if isinstance(value, list):
            attributes[name] = {"L": [{"N": str(v)} if isinstance(v, int) else {"S": v} for v in value]}
        elif isinstance(value, bool) or isinstance(value, str):
            attributes[name] = {kinds[type(value)]: value}
        else:
            attributes[name] = {"N": str(value)}
    return attributes
