"""A mock of the AWS provider: the real schema, and an AWS that is imagined.

It plans what the configuration says, marks what the service would compute as
unknown, and makes it up when the plan is applied. Nothing is called, so whatever
the service or the real provider would refuse is accepted, but for `rules.py`.

Variables of the environment are for tests of what runs Terraform:

- `MOCK_AWS_JOURNAL`: a file that gets a line of JSON for each resource that is
  created, updated or deleted: `{"action", "type", "id", "state"}`.
- `MOCK_AWS_FAULTS`: JSON, from resource type to action (`create`, `update`,
  `delete`) to `{"error": "message", "delay_seconds": 5}`, both optional.
- `MOCK_AWS_DATA`: JSON, from data source to attributes that it finds.
"""

import json
import os
import sqlite3
import threading
from concurrent import futures

import grpc
import msgpack

import rules
import values
from protocol import ERROR, MESSAGES, PROCEDURES

_NULL = msgpack.packb(None)
_UNKNOWN = msgpack.ExtType(0, b"\0")


def _is_unknown(value):
    return isinstance(value, msgpack.ExtType)


def _decode(dynamic):
    if dynamic.json:
        return json.loads(dynamic.json)
    return msgpack.unpackb(dynamic.msgpack or _NULL, strict_map_key=False)


def _encode(value):
    return MESSAGES["DynamicValue"](msgpack=msgpack.packb(value))


class Provider:
    """One provider: what it was configured with, and its schema."""

    def __init__(self, schema):
        self._schema = sqlite3.connect(f"file:{schema}?mode=ro", uri=True, check_same_thread=False)
        self._lock = threading.Lock()
        self._blocks = {}
        self._region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        self._default_tags = {}
        self._stopped = threading.Event()
        self._journal = os.environ.get("MOCK_AWS_JOURNAL")
        self._data = json.loads(os.environ.get("MOCK_AWS_DATA") or "{}")
        self._faults = json.loads(os.environ.get("MOCK_AWS_FAULTS") or "{}")

    def schema(self):
        """The encoded answer to GetSchema."""
        with self._lock:
            return self._schema.execute("select bytes from message").fetchone()[0]

    def _block(self, kind, name):
        with self._lock:
            if (kind, name) not in self._blocks:
                query = "select block from schema where kind = ? and name = ?"
                (text,) = self._schema.execute(query, (kind, name)).fetchone()
                self._blocks[kind, name] = json.loads(text)
            return self._blocks[kind, name]

    def PrepareProviderConfig(self, request, response):
        response.prepared_config.CopyFrom(request.config)

    def Configure(self, request, response):
        config = _decode(request.config) or {}
        if isinstance(config.get("region"), str):
            self._region = config["region"]
        self._default_tags = {}
        for block in config.get("default_tags") or []:
            if isinstance(block.get("tags"), dict):
                self._default_tags.update(block["tags"])

    def ValidateResourceTypeConfig(self, request, response):
        for name, message in rules.broken(request.type_name, _decode(request.config)):
            diagnostic = response.diagnostics.add(
                severity=ERROR, summary=f"{request.type_name}: {name} is not valid", detail=message
            )
            diagnostic.attribute.steps.add(attribute_name=name)

    def ValidateDataSourceConfig(self, request, response):
        pass

    def UpgradeResourceState(self, request, response):
        block = self._block("resource", request.type_name)
        stored = json.loads(request.raw_state.json)
        state = values.null(block)
        state.update((name, value) for name, value in stored.items() if name in state)
        response.upgraded_state.CopyFrom(_encode(state))

    def ReadResource(self, request, response):
        response.new_state.CopyFrom(request.current_state)

    def PlanResourceChange(self, request, response):
        response.legacy_type_system = True
        block = self._block("resource", request.type_name)
        planned = _decode(request.proposed_new_state)
        prior = _decode(request.prior_state)
        if planned is not None:
            if prior is None:
                planned = _mark(block, planned)
            if "tags_all" in block["attributes"]:
                planned["tags_all"] = self._tags(planned.get("tags"))
        response.planned_state.CopyFrom(_encode(planned))

    def _tags(self, tags):
        return tags if _is_unknown(tags) else {**self._default_tags, **(tags or {})}

    def ApplyResourceChange(self, request, response):
        response.legacy_type_system = True
        type_name = request.type_name
        prior, planned = _decode(request.prior_state), _decode(request.planned_state)
        action = "create" if prior is None else "delete" if planned is None else "update"
        error = self._fault(type_name, action)
        if error:
            response.new_state.CopyFrom(request.prior_state)
            response.diagnostics.add(severity=ERROR, summary=error, detail=f"{action} of {type_name}")
            return
        state = None
        if planned is not None:
            known = {name: value for name, value in planned.items() if not _is_unknown(value)}
            computed = values.resource(type_name, known, self._region) if prior is None else prior
            if _is_unknown(planned.get("tags_all")):
                computed["tags_all"] = self._tags(known.get("tags"))
            state = values.fill(self._block("resource", type_name), planned, computed, _is_unknown)
        self._record(action, type_name, state or prior)
        response.new_state.CopyFrom(_encode(state))

    def _fault(self, type_name, action):
        fault = self._faults.get(type_name, {}).get(action, {})
        if self._stopped.wait(fault.get("delay_seconds", 0)):
            return "the operation was interrupted"
        return fault.get("error")

    def _record(self, action, type_name, state):
        if not self._journal:
            return
        line = {"action": action, "type": type_name, "id": state.get("id"), "state": state}
        with self._lock, open(self._journal, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def ImportResourceState(self, request, response):
        block = self._block("resource", request.type_name)
        known = values.resource(request.type_name, {"name": request.id}, self._region)
        known["id"] = request.id
        state = values.fill(block, values.null(block), known, _is_unknown, everything=True)
        response.imported_resources.add(type_name=request.type_name, state=_encode(state))

    def ReadDataSource(self, request, response):
        config = _decode(request.config)
        found = values.data(request.type_name, config, self._region)
        block = self._block("data", request.type_name)
        for name, value in self._data.get(request.type_name, {}).items():
            found[name] = values.complete(block["attributes"][name]["type"], value)
        state = values.fill(block, config, found, _is_unknown, everything=True)
        response.state.CopyFrom(_encode(state))

    def Stop(self, request, response):
        self._stopped.set()


def _mark(block, value):
    """Marks what the service will compute, in a new resource, as unknown."""
    marked = dict(value)
    for name, attribute in block["attributes"].items():
        if "c" in attribute["flags"] and marked.get(name) is None:
            marked[name] = _UNKNOWN
    for name, nested in block["blocks"].items():
        given = marked.get(name)
        if isinstance(given, list):
            marked[name] = [item if _is_unknown(item) else _mark(nested["block"], item) for item in given]
        elif isinstance(given, dict) and nested["nesting"] == "single":
            marked[name] = _mark(nested["block"], given)
    return marked


def serve(schema, address):
    """Serves the provider at a gRPC address; the server stops with the process."""
    provider = Provider(schema)

    def handler(name):
        request_type, response_type = PROCEDURES[name]
        if response_type is None:
            return grpc.unary_unary_rpc_method_handler(lambda request, context: provider.schema())
        procedure = getattr(provider, name)

        def call(request, context):
            response = MESSAGES[response_type]()
            procedure(request, response)
            return response

        return grpc.unary_unary_rpc_method_handler(
            call,
            request_deserializer=MESSAGES[request_type].FromString,
            response_serializer=MESSAGES[response_type].SerializeToString,
        )

    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
    handlers = {name: handler(name) for name in PROCEDURES}
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("tfplugin5.Provider", handlers)]
    )
    server.add_insecure_port(address)
    server.start()
    return server
