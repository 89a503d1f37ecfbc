"""The table of principals and calls: what is needed and refused, what is allowed and not
needed, and which attacks succeed."""

import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from . import attacks, calls
from .evaluator import Unknown, _listed, _Request, actions_of, decide, match_arn, statements, variants

EXCEPTIONS = Path(__file__).resolve().parent / "exceptions.toml"
# What the account's administrators get by a key's policy, to the account's root alone: IAM
# decides who they are, and no needed call shows it.
_KEEPING = frozenset(f"kms:{name}" for name in (
    "CancelKeyDeletion", "CreateAlias", "DeleteAlias", "DescribeKey", "DisableKey", "EnableKey", "EnableKeyRotation", "GetKeyPolicy",
    "GetKeyRotationStatus", "GetPublicKey", "ListGrants", "ListResourceTags", "PutKeyPolicy", "RevokeGrant", "ScheduleKeyDeletion",
    "TagResource", "UntagResource", "UpdateAlias", "UpdateKeyDescription"))
_SYMMETRIC = frozenset(f"kms:{name}" for name in ("CreateGrant", "Decrypt", "Encrypt", "GenerateDataKey", "ReEncryptFrom", "ReEncryptTo"))
# By the key's name and the statement's.
_ADMINISTRATION = {
    ("data", "AccountDecides"): _KEEPING | _SYMMETRIC,
    ("state", "AccountDecides"): _KEEPING | _SYMMETRIC | {"kms:RetireGrant"},
    ("results", "AccountDecides"): _KEEPING | {"kms:Sign", "kms:Verify"},
    ("workload", "Administration"): _KEEPING,
    ("workload", "Encryption"): {"kms:DescribeKey", "kms:Encrypt"},
}


@dataclass
class Findings:
    """What is wrong, each in a line, and how much was looked at."""

    denied: list = field(default_factory=list)
    excess: list = field(default_factory=list)
    reached: list = field(default_factory=list)
    # Of exceptions that nothing needs any more.
    stale: list = field(default_factory=list)
    excepted: list = field(default_factory=list)
    needed: list = field(default_factory=list)
    attacks: list = field(default_factory=list)

    def problems(self):
        return [*self.denied, *self.excess, *self.reached, *self.stale]


def evaluate(rendering, exceptions=None):
    """Evaluates everything against the policies of one rendering."""
    found = Findings()
    policies = rendering.policies
    allowed = Exceptions(tomllib.loads(EXCEPTIONS.read_text()) if exceptions is None else exceptions)
    found.needed = calls.needed(rendering)
    found.denied = denied(policies, found.needed)
    found.attacks = attacks.attacks(rendering)
    successful = set()
    for attack in found.attacks:
        if any(decision.allowed for decision in _decisions(policies, attack.call, attack.name)):
            successful.add((attack.who, attack.name))
            # What succeeds past the endpoint does so without it, too: that is told once.
            if (attack.who, attack.inside) in successful:
                continue
            if not allowed.covers("attack", attack.who, attack.name, found):
                found.reached.append(f"reachable: {attack.who}: {attack.name}: {attack.call.action} on {attack.call.resource}")
    for who, what in _excess(rendering, found.needed):
        if not allowed.covers("excess", who, what, found):
            found.excess.append(f"allowed, and never used: {who}: {what}")
    found.stale = [f"an exception that nothing needs any more: {line}" for line in allowed.unused()]
    return found


def denied(policies, needed):
    """A line for each needed call that is refused."""
    found = []
    for one in needed:
        refused = [decision for decision in _decisions(policies, one.call, _label(one)) if not decision.allowed]
        if refused:
            found.append(f"refused, and needed ({one.source}): {_label(one)}: {refused[0].reason}")
    return found


class Exceptions:
    """What is known and accepted, each with its reason."""

    def __init__(self, document):
        self._entries = []
        for kind, entries in document.items():
            for entry in entries:
                if kind not in ("attack", "excess") or set(entry) != {"who", "what", "reason"} or not entry["reason"]:
                    raise ValueError(f"an exception has who, what and a reason: {kind} {entry}")
                self._entries.append((kind, entry, []))

    def covers(self, kind, who, what, found):
        for known, entry, uses in self._entries:
            if known == kind and who in _listed(entry["who"]) and what in _listed(entry["what"]):
                uses.append((who, what))
                found.excepted.append((kind, who, what, entry["reason"]))
                return True
        return False

    def unused(self):
        for kind, entry, uses in self._entries:
            for who in _listed(entry["who"]):
                for what in _listed(entry["what"]):
                    if (who, what) not in uses:
                        yield f"{kind}: {who}: {what}"


def _label(one):
    note = f" ({one.note})" if one.note else ""
    endpoint = f" past {one.call.endpoint}" if one.call.endpoint else ""
    return f"{one.who}: {one.call.action} on {one.call.resource}{endpoint}{note}"


def _decisions(policies, call, label):
    try:
        return decide(policies, call)
    except Unknown as error:
        raise Unknown(f"{label}: {error}") from error


def _excess(rendering, needed):
    """(who, what) of allowed actions and resources that no needed call makes use of."""
    policies = rendering.policies
    requests = [(one, _requests(one.call)) for one in needed]
    for role, arn in rendering.roles.items():
        own = [(one, request) for one, request in requests if one.call.principal.name == arn]
        for document in policies.identities[arn]:
            yield from ((role, what) for what in _unused(document, False, own))
    for arn, document in policies.resources.items():
        own = [(one, request) for one, request in requests if match_arn(arn, one.call.resource) or one.call.resource.startswith(arn)]
        key = next((name for name, known in _keys(rendering) if known == arn), None)
        name = f"key {key}" if key else arn
        administration, rest = _administration(rendering, key, document)
        yield from ((f"policy of {name}", what) for what in [*administration, *_unused(rest, True, own)])
    for endpoint, document in policies.endpoints.items():
        own = [(one, request) for one, request in requests if one.call.endpoint == endpoint]
        workloads = {f"{endpoint}:{action}" for action in calls.WORKLOADS.get(endpoint, [])}
        for what in _unused(document, True, own):
            if what.rpartition(" ")[2] not in workloads:
                yield f"endpoint {endpoint}", what


def _keys(rendering):
    return [(name, values["arn"]) for _, name, _, values in rendering.of("aws_kms_key")]


def _administration(rendering, key, document):
    """What a key's policy gives the account's administrators beyond what is theirs, and the
    policy without these statements. One for somebody else is like every other."""
    root = f"arn:{rendering.partition}:iam::{rendering.account}:root"
    more, kept = [], []
    for statement in statements(document, True):
        expected = _ADMINISTRATION.get((key, statement.get("Sid")))
        principal = statement["Principal"]
        if expected and "Action" in statement and isinstance(principal, dict) and set(principal) == {"AWS"} and _listed(principal["AWS"]) == [root]:
            more += [f"{statement['Sid']}: {action}" for action in actions_of(statement) if action not in expected]
        else:
            kept.append(statement)
    return more, {**document, "Statement": kept}


def _requests(call):
    """A call as statements see it: once for each possibility of what is unsure."""
    return [_Request(one) for one in variants(call)]


def _unused(document, has_principal, own):
    for statement in statements(document, has_principal):
        if statement["Effect"] != "Allow":
            continue
        sid = statement.get("Sid", "without a name")
        matching = [one for one, variants in own if any(_matches(request, statement) for request in variants)]
        for action in actions_of(statement):
            if not any(one.call.action == action for one in matching):
                yield f"{sid}: {action}"
        resources = _listed(statement.get("Resource", []))
        if len(resources) > 1:
            for resource in resources:
                if matching and not any(match_arn(resource, one.call.resource) for one in matching):
                    yield f"{sid}: {resource}"
        principal = statement.get("Principal")
        if isinstance(principal, dict):
            for name in [*_listed(principal.get("Service", [])), *_listed(principal.get("AWS", []))]:
                if matching and not any(_is_named(one.call.principal, name) for one in matching):
                    yield f"{sid}: {name}"


def _matches(request, statement):
    return request.matches(statement)


def _is_named(principal, name):
    """Whether a policy's name is that of a principal, or of its account."""
    if principal.is_service:
        return name == principal.name
    return name in ("*", principal.name, principal.account) or name.endswith(f":iam::{principal.account}:root")


def lines(rendering, found):
    """The table: a line for each principal, and the sums."""
    order = list(rendering.roles) + sorted({one.who for one in found.needed} - set(rendering.roles))
    order += sorted({attack.who for attack in found.attacks} - set(order))
    yield f"{'principal':<34} {'needed':>7} {'refused':>8} {'attacks':>8} {'reachable':>10} {'excepted':>9} {'excess':>7}"
    for who in order:
        mine = lambda texts: sum(f": {who}: " in text for text in texts)  # noqa: E731
        needed = sum(one.who == who for one in found.needed)
        tried = sum(attack.who == who for attack in found.attacks)
        excepted = sum(entry[:2] == ("attack", who) for entry in found.excepted)
        yield f"{who:<34} {needed:>7} {mine(found.denied):>8} {tried:>8} {mine(found.reached):>10} {excepted:>9} {mine(found.excess):>7}"
    others = sum(not any(f": {who}: " in text for who in order) for text in found.excess)
    yield (f"{'all':<34} {len(found.needed):>7} {len(found.denied):>8} {len(found.attacks):>8} {len(found.reached):>10} "
           f"{sum(entry[0] == 'attack' for entry in found.excepted):>9} {len(found.excess):>7}   ({others} of them of endpoints and of resources)")


def details(found):
    """A line for each call that is needed, and for each attack."""
    for one in found.needed:
        yield f"needed   {one.source:<9} {_label(one)}"
    for attack in found.attacks:
        yield f"attack   {attack.who}: {attack.name}: {attack.call.action} on {attack.call.resource}"
