"""The emulator, nearer to AWS where the workflows rely on it, and able to fail.

`ministack` runs Step Functions without heartbeats, goes on when the function that a
callback task calls has failed, and takes a stream's batch for handled as a whole.
This program is `ministack` with those three as AWS documents them, and with tables
that many threads may use. It also throttles calls at the rates that the file named
by LOCAL_CLOUD_FAULTS says, and writes down who calls what (`calls.py`).
"""

import contextlib
import json
import os
import random
import threading
import time

from ministack.core import responses

from . import calls


class Snapshots(dict):
    """A dictionary that others may change while one goes through it.

    The emulator goes through `list(dictionary.items())`, where garbage may be
    collected and so another thread get its turn; a copy is made in one piece.
    """

    def __iter__(self):
        return iter(self.copy())

    def items(self):
        return self.copy().items()


def _empty(scoped):
    scoped._data = Snapshots()


# Before the services, which make their tables as they are loaded.
responses.AccountRegionScopedDict.__init__ = _empty

from ministack import app as gateway  # noqa: E402
from ministack.core import iam_actions, lambda_runtime, router  # noqa: E402
from ministack.services import dynamodb, ec2, lambda_svc, stepfunctions  # noqa: E402

# Whose calls are never throttled: the tests' own.
OPERATOR = "operator"
# How often a waiting task is looked at.
TICK = 0.05


class Faults:
    """Rates of failure by service, from a file that may change at any time."""

    def __init__(self):
        self._path = os.environ.get("LOCAL_CLOUD_FAULTS")
        self._lock = threading.Lock()
        self._read = 0
        self._rates = {}

    def strikes(self, service):
        if self._path is None:
            return False
        with self._lock:
            if time.monotonic() - self._read > 0.1:
                self._read = time.monotonic()
                with contextlib.suppress(OSError, ValueError), open(self._path) as file:
                    self._rates = json.load(file)
            return random.random() < self._rates.get(service, 0)


FAULTS = Faults()
RECORD = calls.Record.of_environment()
# Which workflow waits for the answer to a task.
_waiting = {}


def record(service, method, path, headers, body, query, _request_id, region):
    """Writes down a request; ministack calls this once it is answered."""
    parameters = gateway._routing_params(method, path, headers, body, query)
    action = iam_actions.extract_iam_action(service, method, path, headers, body, parameters)
    principal = router.extract_access_key_id(headers, query)
    if action is None or principal == OPERATOR:
        return
    resource = iam_actions.extract_resource_arn(
        service, method, path, headers, body, parameters, region, responses.get_account_id())
    context = {}
    if service == "dynamodb":
        context = calls.dynamodb_context(action, json.loads(body))
    elif service == "s3":
        context = iam_actions.s3_service_context(action, query, path, headers)
    elif service == "ec2" and ":instance/" in resource:
        tags = ec2._tags.get(resource.rpartition("/")[2], [])
        context = {f"aws:ResourceTag/{tag['Key']}": tag["Value"] for tag in tags}
    elif service == "logs" and (stream := json.loads(body).get("logStreamName")):
        resource = f"{resource}:log-stream:{stream}"
    elif action.startswith("states:SendTask"):
        resource = _waiting.get(json.loads(body)["taskToken"], resource)
    RECORD.add(principal, action, resource, context)


def record_task(resource, data):
    """Writes down a workflow's own call."""
    workflow = calls.WORKFLOW.get()
    if resource == "dynamodb:updateItem":
        table = f"arn:aws:dynamodb:{responses.get_region()}:{responses.get_account_id()}:table/{data['TableName']}"
        RECORD.add(workflow[0], "dynamodb:UpdateItem", table, calls.dynamodb_context("dynamodb:UpdateItem", data))
    elif resource == "ecs:runTask":
        RECORD.add(workflow[0], "ecs:RunTask", data["TaskDefinition"], {"ecs:cluster": data["Cluster"]})
    else:
        raise stepfunctions._ExecutionError("States.Runtime", f"nothing writes down who calls {resource}")


_execute_task = stepfunctions._execute_task


def execute_task(state, given, execution, context):
    """A task, in whose context its calls are those of its workflow's role."""
    machine = stepfunctions._state_machines[execution["stateMachineArn"]]
    token = calls.WORKFLOW.set((machine["roleArn"].rpartition("/")[2], machine["stateMachineArn"]))
    try:
        return _execute_task(state, given, execution, context)
    finally:
        calls.WORKFLOW.reset(token)


_execution_credentials = lambda_runtime.execution_credentials


def execution_credentials(configuration):
    """A function's credentials, which name its role."""
    return {**_execution_credentials(configuration), "AWS_ACCESS_KEY_ID": configuration["Role"].rpartition("/")[2]}


def throttled(inner):
    """The gateway, before which calls of clients are throttled."""

    async def gate(scope, receive, send):
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            # AWS4-HMAC-SHA256 Credential=KEY/DATE/REGION/SERVICE/aws4_request, …
            scope_of = headers.get(b"authorization", b"").decode().partition("Credential=")[2]
            parts = scope_of.split(",")[0].split("/")
            if len(parts) == 5 and parts[0] != OPERATOR and FAULTS.strikes(parts[3]):
                body = json.dumps({"__type": "ThrottlingException", "message": "Rate exceeded"}).encode()
                kind = b"application/x-amz-json-1.0"
                await send({"type": "http.response.start", "status": 400, "headers": [(b"content-type", kind)]})
                await send({"type": "http.response.body", "body": body})
                return
        await inner(scope, receive, send)

    return gate


def dispatch(prefix, handler):
    """A workflow's own call of a service."""
    service = prefix.split(":::")[1].split(":")[0]
    error = {"dynamodb": "DynamoDB.ThrottlingException", "ecs": "ECS.ThrottlingException"}.get(service)

    def call(resource, data):
        record_task(prefix.split(":::")[1], data)
        if error and FAULTS.strikes(service):
            raise stepfunctions._ExecutionError(error, "Rate exceeded")
        try:
            return handler(resource, data)
        except stepfunctions._ExecutionError as failure:
            # AWS's name of it.
            failure.error = failure.error.replace("ECS.RunTaskFailed", "ECS.AmazonECSException")
            raise

    return call


_call_lambda = stepfunctions._call_lambda


def call_lambda(function, event):
    if workflow := calls.WORKFLOW.get():
        RECORD.add(workflow[0], "lambda:InvokeFunction", lambda_svc._get_func_record_for_ref(function)[1]["FunctionArn"], {})
    if FAULTS.strikes("lambda"):
        raise stepfunctions._ExecutionError("Lambda.TooManyRequestsException", "Rate exceeded")
    return _call_lambda(function, event)


def invoke_with_callback(resource, data, token, state):
    """A task that waits for its token, with heartbeats."""
    event = threading.Event()
    entry = {"event": event, "result": None, "error": None, "heartbeat": None}
    stepfunctions._task_tokens[token] = entry
    _waiting[token] = calls.WORKFLOW.get()[1]
    try:
        plain = resource.replace(".waitForTaskToken", "")
        start = time.monotonic()
        if "states:::lambda:invoke" in plain:
            name = stepfunctions._resolve_lambda_function_ref(data.get("FunctionName", ""), optimized=True)
            stepfunctions._call_lambda(name, data.get("Payload", data))
        else:
            stepfunctions._SERVICE_DISPATCH[plain](plain, data)
        heard, last = time.monotonic(), None
        while not event.wait(TICK):
            now = time.monotonic()
            if entry["heartbeat"] is not None:
                entry["heartbeat"], heard = None, now
            if now - start > state.get("TimeoutSeconds", 99999999):
                raise stepfunctions._ExecutionError("States.Timeout", "")
            if now - heard > state.get("HeartbeatSeconds", 99999999):
                raise stepfunctions._ExecutionError("States.HeartbeatTimeout", "")
    finally:
        stepfunctions._task_tokens.pop(token, None)
    if entry["error"]:
        raise stepfunctions._ExecutionError(entry["error"].get("Error", "TaskFailed"), entry["error"].get("Cause", ""))
    return json.loads(entry["result"])


class Streams:
    """The table's stream to its functions, one shard at a time.

    Failed records are delivered again from the first of them on, as
    ReportBatchItemFailures has it, and after the mapping's retries they go to its
    destination.
    """

    def __init__(self):
        self._positions = {}
        self._attempts = {}

    def poll(self):
        progress = False
        for account, region, mapping in lambda_svc._iter_all_esms():
            tokens = (lambda_svc._request_account_id.set(account), lambda_svc._request_region.set(region))
            try:
                progress = self._deliver(mapping) or progress
            finally:
                lambda_svc._request_account_id.reset(tokens[0])
                lambda_svc._request_region.reset(tokens[1])
        return progress

    def _deliver(self, mapping):
        source, key = mapping.get("EventSourceArn", ""), mapping["UUID"]
        if ":table/" not in source or not mapping.get("Enabled", True):
            return False
        table = source.split(":table/")[1].split("/")[0]
        if table not in dynamodb._tables:
            return False
        position = self._positions.setdefault(key, dynamodb.stream_start_position(table))
        batch = dynamodb.stream_records_since(table, position, mapping.get("BatchSize", 100))
        if not batch:
            return False
        matching = lambda_svc._apply_filter_criteria(batch, mapping)
        done, failed = position + len(batch), None
        if matching:
            function, _ = lambda_svc._get_func_record_for_qualifier(mapping["FunctionName"], mapping.get("Qualifier"))
            result = lambda_svc._execute_function(function, {"Records": matching})
            failed = self._first_failure(result, matching)
        if failed is not None:
            number = failed["dynamodb"]["SequenceNumber"]
            index = next(i for i, record in enumerate(batch) if record["dynamodb"]["SequenceNumber"] == number)
            attempts = self._attempts.get((key, number), 0) + 1
            self._attempts[key, number] = attempts
            if attempts <= mapping.get("MaximumRetryAttempts", 5):
                done = position + index
                time.sleep(TICK)
            else:
                lambda_svc._send_ddb_stream_failure_record(
                    mapping, function, [failed], source, result, "RetryAttemptsExhausted")
                done = position + index + 1
        self._positions[key] = done
        return True

    @staticmethod
    def _first_failure(result, records):
        if result.get("error"):
            return records[0]
        body = result.get("body")
        body = json.loads(body) if isinstance(body, (str, bytes)) else body or {}
        failures = {failure["itemIdentifier"] for failure in body.get("batchItemFailures", [])}
        for record in records:
            if record["dynamodb"]["SequenceNumber"] in failures or record.get("eventID") in failures:
                return record
        return None


_new_instance_id = ec2._new_instance_id
_run_instances = ec2._run_instances
_wanted = threading.local()


def run_instances(parameters):
    """An instance with the id that Terraform's mock gave it: the client's token."""
    token = ec2._p(parameters, "ClientToken") or ""
    _wanted.id = token if token.startswith("i-") else None
    try:
        return _run_instances(parameters)
    finally:
        _wanted.id = None


def new_instance_id():
    return getattr(_wanted, "id", None) or _new_instance_id()


def main():
    for prefix, handler in list(stepfunctions._SERVICE_DISPATCH.items()):
        stepfunctions._SERVICE_DISPATCH[prefix] = dispatch(prefix, handler)
    stepfunctions._call_lambda = call_lambda
    stepfunctions._invoke_with_callback = invoke_with_callback
    stepfunctions._execute_task = execute_task
    lambda_svc._poll_dynamodb_streams = Streams().poll
    for module in (lambda_svc, lambda_runtime):
        module.execution_credentials = execution_credentials
    gateway._maybe_record_cloudtrail = record
    ec2._new_instance_id = new_instance_id
    ec2._ACTION_MAP["RunInstances"] = run_instances
    gateway.app = throttled(gateway.app)
    gateway.main()


if __name__ == "__main__":
    main()
