"""The calls that reach the emulator, and those that workflows make in it: who asks for what.

The emulator writes each different one to the file that LOCAL_CLOUD_CALLS names. Whose they
are is told by the access key: functions and runners have the names of their roles.
"""

import contextvars
import json
import os
import re
import threading

# The role whose workflow runs in this context, and the workflow.
WORKFLOW = contextvars.ContextVar("workflow", default=None)
_KEYWORDS = {"SET", "REMOVE", "ADD", "DELETE", "AND", "OR", "NOT", "IN", "BETWEEN"}
_EXPRESSIONS = ("UpdateExpression", "ConditionExpression", "ProjectionExpression", "FilterExpression", "KeyConditionExpression")


class Record:
    """A file of calls, each once."""

    def __init__(self, path):
        self._path = path
        self._lock = threading.Lock()
        self._seen = set()

    @staticmethod
    def of_environment():
        return Record(os.environ.get("LOCAL_CLOUD_CALLS"))

    def add(self, principal, action, resource, context):
        line = json.dumps({"principal": principal, "action": action, "resource": resource, "context": context}, sort_keys=True)
        if self._path is None:
            return
        with self._lock:
            if line not in self._seen:
                self._seen.add(line)
                with open(self._path, "a", encoding="utf-8") as file:
                    file.write(line + "\n")


def read(path):
    """The calls in a file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def dynamodb_context(action, data):
    """The condition keys of a call of DynamoDB: the attributes that it names at the top."""
    names = data.get("ExpressionAttributeNames") or {}
    attributes = set(data.get("Key") or {}) | set(data.get("Item") or {})
    for expression in _EXPRESSIONS:
        text = data.get(expression) or ""
        for name, call in re.findall(r"(?<![\w.:#\]])([#\w][\w.#\[\]-]*)\s*(\(?)", text):
            head = re.split(r"[.\[]", name)[0]
            if not call and head.upper() not in _KEYWORDS and not head.isdigit():
                attributes.add(names.get(head, head))
    context = {"dynamodb:Attributes": sorted(attributes)}
    if action == "dynamodb:UpdateItem":
        context["dynamodb:ReturnValues"] = data.get("ReturnValues")
    return context
