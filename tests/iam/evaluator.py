"""IAM's evaluation of policies, for calls within an account, of other accounts and by AWS's
services.

It is strict: an element, operator, condition key, policy variable or action that it does
not know is an error (`Unknown`), and so is a condition on a key of which the call does not
say whether it has it. So nothing passes because it was overlooked.

After https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
"""

import ipaddress
import re
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone

from . import reference
from .reference import Unknown

# A condition key that a call does not have.
ABSENT = None


class Unsure:
    """A condition key of which AWS does not document whether a call has it: what is needed
    has to be allowed with it and without, what is an attack refused with it and without."""

    def __init__(self, value):
        self.value = value


@dataclass(frozen=True)
class Principal:
    """A role's session, or a service of AWS."""

    account: str
    # The role's ARN, or the name of the service (`lambda.amazonaws.com`).
    name: str
    is_service: bool = False
    tags: dict = field(default_factory=dict, hash=False, compare=False)


@dataclass(frozen=True)
class Call:
    """What is asked: an action on one resource, and its condition keys."""

    principal: Principal
    action: str
    resource: str
    context: dict = field(default_factory=dict, hash=False)
    # The VPC endpoint that it passes, by the name of its policy.
    endpoint: str = None
    # Whether a grant of KMS allows it: then only what denies refuses it.
    granted: bool = False


@dataclass
class Policies:
    """All documents: of identities by role ARN, of resources and roles (trust) by ARN, of
    endpoints by name, permissions boundaries by role ARN."""

    identities: dict
    resources: dict
    endpoints: dict = field(default_factory=dict)
    boundaries: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    allowed: bool
    # The statement that decided, or what was missing.
    reason: str


# Policies whose document alone says who may: no identity policy adds to them.
_KEY = re.compile(r"arn:[\w-]+:kms:[\w-]+:\d+:key/")
# https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html: no policy
# of an identity is asked; an endpoint's is.
_FREE = {"sts:GetCallerIdentity"}
_ROLE = re.compile(r"arn:[\w-]+:iam::\d+:role/")


def decide(policies, call):
    """What AWS decides. With an unsure key: a decision for each possibility, as a list."""
    return [_decide(policies, one) for one in variants(call)]


def variants(call):
    """A call with each possibility of what is unsure."""
    contexts = [call.context]
    for key, value in call.context.items():
        if isinstance(value, Unsure):
            contexts = [{**context, key: one} for context in contexts for one in (value.value, ABSENT)]
    return [replace(call, context=context) for context in contexts]


def _decide(policies, call):
    reference.check_resource(call.action, call.resource)
    request = _Request(call)
    identity = [] if call.principal.is_service else policies.identities.get(call.principal.name, [])
    resource = [document for pattern, document in policies.resources.items() if _covers(pattern, call.resource)]
    endpoint = []
    if call.endpoint is not None:
        if call.endpoint not in policies.endpoints:
            return Decision(False, f"there is no endpoint {call.endpoint}")
        endpoint = [policies.endpoints[call.endpoint]]
    boundary = [policies.boundaries[call.principal.name]] if call.principal.name in policies.boundaries else []

    allows = {}
    for kind, documents in (("identity", identity), ("boundary", boundary), ("resource", resource), ("endpoint", endpoint)):
        allows[kind] = None
        for document in documents:
            for statement in statements(document, kind in ("resource", "endpoint")):
                how = request.matches(statement)
                if not how:
                    continue
                label = f"{kind} {statement.get('Sid', statement['Effect'])}"
                if statement["Effect"] == "Deny":
                    return Decision(False, f"denied: {label}")
                # A statement for the account is less than one for the principal itself.
                if allows[kind] is None or how == "direct":
                    allows[kind] = (how, label)
    if call.endpoint is not None and not allows["endpoint"]:
        return Decision(False, f"the endpoint {call.endpoint} lets nothing of this through")
    if boundary and not allows["boundary"]:
        return Decision(False, "the permissions boundary does not allow it")
    if call.granted:
        return Decision(True, "a grant allows it")
    by_resource, by_identity = allows["resource"], allows["identity"]
    if call.principal.is_service:
        if by_resource and by_resource[0] == "direct":
            return Decision(True, by_resource[1])
        return Decision(False, "the resource's policy does not allow it")
    if not by_resource and _KEY.match(call.resource):
        return Decision(False, "the key's policy does not allow it")
    if not by_resource and _ROLE.match(call.resource) and call.action.startswith("sts:"):
        return Decision(False, "the role's trust policy does not allow it")
    if call.action in _FREE:
        return Decision(True, "nobody needs to be allowed this")
    if by_resource and by_identity:
        return Decision(True, by_identity[1])
    if not by_resource and not by_identity:
        return Decision(False, "no identity policy allows it")
    # One of the two is enough within an account only.
    if request.is_foreign():
        return Decision(False, "the other account does not allow it" if by_identity else "its own account does not allow it")
    if by_identity or by_resource[0] == "direct":
        return Decision(True, (by_identity or by_resource)[1])
    return Decision(False, "no identity policy allows it")


def _covers(pattern, resource):
    """A bucket's policy is about its objects too, a log group's about its streams."""
    return pattern == resource or resource.startswith((f"{pattern}/", f"{pattern}:")) or match_arn(pattern, resource)


_TOP = {"Version", "Id", "Statement"}
_STATEMENT = {"Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource", "NotResource", "Condition"}


def statements(document, has_principal):
    """The statements of a document, after a look at its form."""
    if unknown := set(document) - _TOP:
        raise Unknown(f"elements of a policy: {sorted(unknown)}")
    if document.get("Version") != "2012-10-17":
        raise Unknown(f"version of a policy: {document.get('Version')}; variables are text in older ones")
    found = _listed(document["Statement"])
    for statement in found:
        if unknown := set(statement) - _STATEMENT:
            raise Unknown(f"elements of a statement: {sorted(unknown)}")
        if statement.get("Effect") not in ("Allow", "Deny"):
            raise Unknown(f"effect: {statement.get('Effect')}")
        if ("Action" in statement) == ("NotAction" in statement):
            raise Unknown("a statement needs one of Action and NotAction")
        if "Resource" in statement and "NotResource" in statement:
            raise Unknown("a statement has Resource and NotResource")
        # Nothing here renders it, and AWS itself advises against it: whom it names has to be
        # read together with the account and the session.
        if "NotPrincipal" in statement:
            raise Unknown(f"NotPrincipal in the statement {statement.get('Sid')}")
        if ("Principal" in statement) != has_principal:
            raise Unknown(f"{'no' if has_principal else 'a'} principal in the statement {statement.get('Sid')}")
        # A policy of trust has no resource: it is the role's.
        if "Resource" not in statement and "NotResource" not in statement and not has_principal:
            raise Unknown(f"no resource in the statement {statement.get('Sid')}")
    return found


def _listed(value):
    return value if isinstance(value, list) else [value]


def actions_of(statement):
    """The patterns of actions that a statement names."""
    return _listed(statement.get("Action", statement.get("NotAction")))


def match_text(pattern, text):
    """IAM's `*` and `?`."""
    parts = re.split(r"([*?])", pattern)
    expression = "".join({"*": ".*", "?": "."}.get(part, re.escape(part)) for part in parts)
    return re.fullmatch(expression, text, re.DOTALL) is not None


def match_arn(pattern, arn):
    """Part by part: a wildcard reaches no further than the part that it is in."""
    if pattern == "*":
        return True
    wanted, given = pattern.split(":", 5), arn.split(":", 5)
    if len(wanted) != 6 or wanted[0] != "arn":
        raise Unknown(f"resource: {pattern}")
    return len(given) == 6 and all(match_text(a, b) for a, b in zip(wanted, given))


class _Request:
    """A call as statements see it."""

    def __init__(self, call):
        self.call = call
        given = {key.lower(): value for key, value in call.context.items()}
        principal = call.principal
        own = {
            "aws:principalisawsservice": "true" if principal.is_service else "false",
            "aws:securetransport": "true",
            # What SDKs negotiate. Calls that do worse say so.
            "s3:tlsversion": "1.3",
        }
        if call.resource == "*":
            own["aws:resourceaccount"] = ABSENT
        elif account := call.resource.split(":")[4]:
            own["aws:resourceaccount"] = account
        if principal.is_service:
            own["aws:principalservicename"] = principal.name
            own |= dict.fromkeys(["aws:principalaccount", "aws:principalarn"], ABSENT)
        else:
            own |= {"aws:principalaccount": principal.account, "aws:principalarn": principal.name,
                    "aws:principaltype": "AssumedRole", "aws:principalservicename": ABSENT,
                    "aws:username": ABSENT, "aws:sourceaccount": ABSENT, "aws:sourcearn": ABSENT}
            own |= {f"aws:principaltag/{key.lower()}": value for key, value in principal.tags.items()}
        for key in given:
            reference.type_of(key)
            if given[key] is not ABSENT and not reference.supports(call.action, call.resource, key):
                raise Unknown(f"{call.action} on {call.resource} never has {key}")
        self._keys = {**own, **given}
        # Of keys whose names users choose, a call that states one states all.
        self._complete = {reference.family(key) for key in self._keys} & {
            "aws:requesttag/", "aws:resourcetag/", "aws:principaltag/", "kms:encryptioncontext:", "kms:recipientattestation:"}
        self._complete.add("aws:principaltag/")

    def is_foreign(self):
        """Whether the resource is another account's than the caller's."""
        # Only buckets have names without an account, and policies of their own.
        if self.call.resource.startswith("arn:") and self.call.resource.split(":")[2] == "s3":
            return self.value("aws:ResourceAccount") != self.call.principal.account
        account = self.call.resource.split(":")[4] if self.call.resource != "*" else ""
        return account not in ("", self.call.principal.account)

    def value(self, key):
        """The values of a condition key, or ABSENT."""
        kind = reference.type_of(key)
        if key.lower() in self._keys:
            value = self._keys[key.lower()]
            if value is ABSENT:
                return ABSENT
            if isinstance(value, list) != (kind == "strings"):
                raise Unknown(f"{key} has {value}: one value or several?")
            return value
        if reference.family(key) in self._complete or not reference.supports(self.call.action, self.call.resource, key):
            return ABSENT
        raise Unknown(f"the call {self.call.action} on {self.call.resource} does not say whether it has {key}")

    def matches(self, statement):
        """`direct`, `account` (the statement is for the whole account) or nothing."""
        how = self._principal(statement)
        if not how or not self._action(statement) or not self._resource(statement):
            return None
        conditions = statement.get("Condition", {})
        for operator, keys in conditions.items():
            for key, values in keys.items():
                if not self._holds(operator, key, [_text(value) for value in _listed(values)]):
                    return None
        return how

    def _principal(self, statement):
        if "Principal" not in statement:
            return "direct"
        return self._named(statement["Principal"], statement["Effect"] == "Deny")

    def _named(self, element, is_deny):
        if element == "*":
            return "direct"
        if not isinstance(element, dict) or (unknown := set(element) - {"AWS", "Service"}):
            raise Unknown(f"principal: {element}")
        principal, found = self.call.principal, None
        for name in _listed(element.get("Service", [])):
            if "*" in name:
                raise Unknown(f"principal: {name}")
            if principal.is_service and name == principal.name:
                return "direct"
        for name in _listed(element.get("AWS", [])):
            if name == "*":
                if not principal.is_service:
                    return "direct"
            elif re.fullmatch(r"\d{12}", name) or re.fullmatch(r"arn:[\w-]+:iam::\d{12}:root", name):
                if not principal.is_service and principal.account in name:
                    found = "direct" if is_deny else "account"
            elif re.fullmatch(r"arn:[\w-]+:iam::\d{12}:(role|user)/[^*]+", name):
                if name == principal.name:
                    return "direct"
            else:
                raise Unknown(f"principal: {name}")
        return found

    def _action(self, statement):
        patterns = actions_of(statement)
        for pattern in patterns:
            if "*" not in pattern and "?" not in pattern:
                reference.action(pattern)
        named = any(match_text(pattern.lower(), self.call.action.lower()) for pattern in patterns)
        return named == ("Action" in statement)

    def _resource(self, statement):
        if "Resource" not in statement and "NotResource" not in statement:
            return True
        patterns = _listed(statement.get("Resource", statement.get("NotResource")))
        named = False
        for pattern in patterns:
            pattern = self._expanded(pattern)
            if pattern is not None:
                named = named or (match_arn(pattern, self.call.resource) if self.call.resource != "*" else pattern == "*")
        return named == ("Resource" in statement)

    def _expanded(self, text):
        """A text with its policy variables replaced; nothing if one has no value."""
        missing = False

        def replace(found):
            nonlocal missing
            name, _, default = (part.strip() for part in found.group(1).partition(","))
            if name in ("*", "?", "$"):
                raise Unknown(f"policy variable: {found.group()}")
            value = self.value(name)
            if isinstance(value, list):
                raise Unknown(f"policy variable of several values: {found.group()}")
            if value is ABSENT and default:
                value = re.fullmatch("'(.*)'", default).group(1)
            if value is ABSENT:
                missing = True
                return ""
            # What a caller may choose must not become a wildcard.
            if "*" in value or "?" in value:
                raise Unknown(f"policy variable with a wildcard: {found.group()} is {value}")
            return value

        expanded = re.sub(r"\$\{([^}]*)\}", replace, text)
        return None if missing else expanded

    def _holds(self, operator, key, values):
        found = re.fullmatch(r"(?:(ForAllValues|ForAnyValue):)?(\w+?)(IfExists)?", operator)
        if not found:
            raise Unknown(f"operator: {operator}")
        quantifier, name, if_exists = found.groups()
        kind = reference.type_of(key)
        given = self.value(key)
        if name == "Null":
            if quantifier or if_exists or values not in (["true"], ["false"]):
                raise Unknown(f"{operator}: {values}")
            # Of several values none is as good as absent.
            return (given is ABSENT or given == []) == (values == ["true"])
        if name not in _OPERATORS:
            raise Unknown(f"operator: {operator}")
        kinds, negated, test = _OPERATORS[name]
        if kind not in kinds:
            raise Unknown(f"{operator} of {key}, which is of the type {kind}")
        if (kind == "strings") != bool(quantifier):
            raise Unknown(f"{operator} of {key}, which has {'several values' if kind == 'strings' else 'one value'}")
        if given is ABSENT and if_exists:
            return True
        values = [value for value in map(self._expanded, values) if value is not None]
        if quantifier:
            each = [any(test(value, one) for value in values) != negated for one in given or []]
            return all(each) if quantifier == "ForAllValues" else any(each)
        if given is ABSENT:
            return negated
        return any(test(value, given) for value in values) != negated


def _text(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    raise Unknown(f"value of a condition: {value}")


def _moment(text):
    if re.fullmatch(r"\d+", text):
        return datetime.fromtimestamp(int(text), timezone.utc)
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def _in_network(wanted, given):
    return ipaddress.ip_address(given) in ipaddress.ip_network(wanted)


_TEXTS = ("string", "strings", "arn")
# Operator: the types of its keys, whether it is negated, the comparison.
_OPERATORS = {
    "StringEquals": (_TEXTS, False, lambda wanted, given: wanted == given),
    "StringNotEquals": (_TEXTS, True, lambda wanted, given: wanted == given),
    "StringEqualsIgnoreCase": (_TEXTS, False, lambda wanted, given: wanted.lower() == given.lower()),
    "StringNotEqualsIgnoreCase": (_TEXTS, True, lambda wanted, given: wanted.lower() == given.lower()),
    "StringLike": (_TEXTS, False, match_text),
    "StringNotLike": (_TEXTS, True, match_text),
    "ArnEquals": (("arn", "string"), False, match_arn),
    "ArnLike": (("arn", "string"), False, match_arn),
    "ArnNotEquals": (("arn", "string"), True, match_arn),
    "ArnNotLike": (("arn", "string"), True, match_arn),
    "Bool": (("bool",), False, lambda wanted, given: wanted.lower() == given.lower()),
    "NumericEquals": (("number",), False, lambda wanted, given: float(given) == float(wanted)),
    "NumericNotEquals": (("number",), True, lambda wanted, given: float(given) == float(wanted)),
    "NumericLessThan": (("number",), False, lambda wanted, given: float(given) < float(wanted)),
    "NumericLessThanEquals": (("number",), False, lambda wanted, given: float(given) <= float(wanted)),
    "NumericGreaterThan": (("number",), False, lambda wanted, given: float(given) > float(wanted)),
    "NumericGreaterThanEquals": (("number",), False, lambda wanted, given: float(given) >= float(wanted)),
    "DateLessThan": (("date",), False, lambda wanted, given: _moment(given) < _moment(wanted)),
    "DateGreaterThan": (("date",), False, lambda wanted, given: _moment(given) > _moment(wanted)),
    "IpAddress": (("ip",), False, _in_network),
    "NotIpAddress": (("ip",), True, _in_network),
}
