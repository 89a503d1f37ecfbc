"""Prints what a log stream holds: one JSON line an event, in the service's order.

Arguments: group, stream. The endpoint and the rest come from the environment.
"""

import json
import sys

import boto3


def main() -> None:
    group, stream = sys.argv[1:]
    client = boto3.client("logs")
    token = {}
    while True:
        page = client.get_log_events(
            logGroupName=group, logStreamName=stream, startFromHead=True, **token
        )
        for event in page["events"]:
            print(json.dumps([event["timestamp"], event["message"]]))
        following = {"nextToken": page["nextForwardToken"]}
        if not page["events"] or following == token:
            return
        token = following


main()
