"""What the table's stream says: every change of status, and whether it was legal.

The rules are the contract's, written here a second time on purpose: the functions'
own table must not be what judges them.
"""

import boto3.dynamodb.types

# Who may move an item, by the contract: from, to.
WORKFLOWS = {
    ("PENDING_DEPLOY", "DEPLOYING"),
    ("DEPLOYING", "DEPLOYED"),
    ("PENDING_DESTROY", "DESTROYING"),
    ("DESTROYING", "DESTROYED"),
    ("PAUSING", "PAUSED"),
    ("RESUMING", "DEPLOYED"),
}
FAILURES = {(status, "FAILED") for status in (
    "PENDING_DEPLOY", "DEPLOYING", "PENDING_DESTROY", "DESTROYING", "PAUSING", "RESUMING", "DEPLOYED")}
CLIENTS = {
    (None, "PENDING_DEPLOY"),
    ("DESTROYED", "PENDING_DEPLOY"),
    ("FAILED", "PENDING_DEPLOY"),
    ("PAUSED", "PENDING_DEPLOY"),
    ("DEPLOYED", "PENDING_DESTROY"),
    ("FAILED", "PENDING_DESTROY"),
    ("PAUSED", "PENDING_DESTROY"),
    ("DEPLOYED", "PAUSING"),
    ("PAUSED", "RESUMING"),
    # A request that nobody has taken yet may be withdrawn.
    ("PENDING_DEPLOY", "PENDING_DESTROY"),
}
# What only a client writes: where the write is illegal, it must be put back.
CLIENT_WRITES = {"PENDING_DEPLOY", "PENDING_DESTROY", "PAUSING", "RESUMING"}

# Requests that no execution has taken.
UNCLAIMED = {"PENDING_DEPLOY": "DEPLOYING", "PENDING_DESTROY": "DESTROYING"}

AT_REST = {"DEPLOYED", "FAILED", "DESTROYED", "PAUSED"}

_deserialize = boto3.dynamodb.types.TypeDeserializer().deserialize


def plain(attributes):
    """An item as plain values."""
    return {name: _deserialize(value) for name, value in (attributes or {}).items()}


class Changes:
    """The changes of status so far, by enclave."""

    def __init__(self, control_plane):
        streams = control_plane.cloud.client("dynamodbstreams")
        self.of = {}
        shards = streams.describe_stream(StreamArn=control_plane.stream_arn)["StreamDescription"]["Shards"]
        for shard in shards:
            iterator = streams.get_shard_iterator(
                StreamArn=control_plane.stream_arn, ShardId=shard["ShardId"],
                ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
            while iterator:
                page = streams.get_records(ShardIterator=iterator, Limit=1000)
                for record in page["Records"]:
                    self._take(record["dynamodb"])
                iterator = page.get("NextShardIterator") if page["Records"] else None

    def _take(self, change):
        old, new = plain(change.get("OldImage")), plain(change.get("NewImage"))
        if old.get("status") != new.get("status") and new:
            self.of.setdefault(new["id"], []).append((old, new))

    def path(self, enclave_id):
        """The statuses that an enclave has had, in order."""
        return [new["status"] for _, new in self.of.get(enclave_id, [])]

    def illegal(self, enclave_id):
        """The changes that no rule permits."""
        return list(illegal(self.of.get(enclave_id, [])))


def illegal(changes):
    """Those of an item's changes that no rule permits.

    A client can write anything at any time. An illegal request stays until it is put
    back to the status before it; nothing else may happen in between. One exception:
    where it took the place of a request that nobody has taken, an execution for an
    earlier request of the same kind may still claim it: nothing exists yet.
    """
    refused_from = None
    for old, new in changes:
        step = (old.get("status"), new.get("status"))
        if refused_from is not None:
            if refused_from in UNCLAIMED and UNCLAIMED.get(step[0]) == step[1]:
                refused_from = None
                continue
            if step[1] != refused_from and step[1] not in CLIENT_WRITES:
                yield step
            if step[1] == refused_from:
                refused_from = None
            continue
        if step in WORKFLOWS or step in FAILURES or step in CLIENTS:
            continue
        if step[1] in CLIENT_WRITES and step[0] is not None:
            refused_from = step[0]
        else:
            yield step
