"""Many enclaves at once: deployed and destroyed, each change of a status checked.

The Terraform tasks and the agents are simulated, since Terraform itself would take the
machine; the functions, the workflows and the stream are the real ones.
"""

import time
from concurrent.futures import ThreadPoolExecutor

from .screen import seconds
from .story import put, write
from .stream import AT_REST, Changes, plain

# How long nothing at all may happen.
STALL = 120


def run(world, count, screen):
    """Deploys and destroys `count` enclaves; `world` plays tasks and agents."""
    names = [f"scale-{number:05}" for number in range(count)]
    for name in names:
        world.play(name, task="done", agent="honest")
    screen.title(f"{count} enclaves at once", "real functions and workflows on the emulator; tasks and agents are simulated")
    from_start = {}
    for short, what, status, end in (
        ("deploy", "Deploy them all", "PENDING_DEPLOY", "DEPLOYED"),
        ("destroy", "Destroy them all", "PENDING_DESTROY", "DESTROYED"),
    ):
        screen.phase(short, what)
        begin = time.monotonic()
        with ThreadPoolExecutor(16) as pool:
            if status == "PENDING_DEPLOY":
                list(pool.map(lambda name: put(world.plane, name, world.reference), names))
            else:
                list(pool.map(lambda name: write(world.plane, name, status), names))
        screen.fact("written within", seconds(time.monotonic() - begin))
        statuses = _settle(world, set(names), end, begin)
        from_start[short] = time.monotonic() - begin
        for status, number in sorted(statuses.items()):
            screen.fact(status, str(number))
        screen.fact("all of them after", seconds(from_start[short]))
        screen.fact("a second", f"{count / from_start[short]:.1f}")
        if statuses != {end: count}:
            for line in _stuck(world, set(names), end):
                screen.note(line)
            raise RuntimeError(f"not all became {end}: {statuses}")
    screen.phase("check", "Check every change of a status")
    changes = Changes(world.plane)
    lost = [name for name in names if changes.path(name) != [
        "PENDING_DEPLOY", "DEPLOYING", "DEPLOYED", "PENDING_DESTROY", "DESTROYING", "DESTROYED"]]
    illegal = [name for name in names if changes.illegal(name)]
    total = sum(len(changes.path(name)) for name in names)
    screen.fact("changes in the stream", str(total))
    screen.fact("illegal", str(len(illegal)))
    screen.fact("stuck or lost", str(len(lost)))
    if lost or illegal:
        raise RuntimeError(f"{lost[:3]} {illegal[:3]}: {changes.path((lost + illegal)[0])}")
    screen.proven(f"{count} enclaves deployed and destroyed: none stuck, none lost, all {total} changes legal")
    screen.summary(["the time that Terraform and instances take: both are played"])


def _settle(world, names, end, begin):
    """Counts by status, once all are at rest in the end, or nothing happens any more."""
    statuses, since = {}, begin
    while time.monotonic() - since < STALL:
        before, statuses = statuses, _statuses(world, names)
        if statuses != before:
            since = time.monotonic()
        resting = sum(number for status, number in statuses.items() if status in AT_REST)
        if statuses.get(end, 0) + statuses.get("FAILED", 0) == resting == len(names):
            break
        time.sleep(1)
    return statuses


def _stuck(world, names, end):
    """What is known of those that did not arrive, and of what failed around them."""
    states = world.cloud.client("stepfunctions")
    lines = [f"{type(error).__name__}: {error}" for error in world.tasks.errors[:5]]
    for name in sorted(names):
        item = world.item(name)
        if item.get("status") == end:
            continue
        lines.append(f"{name}: {item.get('status')} {item.get('error_message', '')}")
        lines.append(f"  tasks played: {[action for enclave, action in world.played if enclave == name]}")
        arn = item.get("execution_arn")
        if arn:
            execution = states.describe_execution(executionArn=arn)
            lines.append(f"  execution {execution['status']} {execution.get('error', '')} {execution.get('cause', '')}")
            history = states.get_execution_history(executionArn=arn, reverseOrder=True, maxResults=6)
            lines += [f"  {event['timestamp']} {event['type']}" for event in history["events"]]
        if len(lines) > 60:
            break
    return lines


def _statuses(world, names):
    statuses = {}
    pages = world.cloud.client("dynamodb").get_paginator("scan").paginate(
        TableName=world.plane.enclaves, ProjectionExpression="id, #status",
        ExpressionAttributeNames={"#status": "status"})
    for page in pages:
        for item in map(plain, page["Items"]):
            if item["id"] in names:
                statuses[item["status"]] = statuses.get(item["status"], 0) + 1
    return statuses
