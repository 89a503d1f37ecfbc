"""Terraform's plugin protocol, version 5: the messages that a provider needs.

Field numbers are those of the protocol's published definition; fields that this
provider neither reads nor writes are left out.
"""

import json

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_MESSAGES = {
    "Empty": "",
    "DynamicValue": "msgpack bytes 1; json bytes 2",
    "Diagnostic": "severity int32 1; summary string 2; detail string 3; attribute AttributePath 4",
    "AttributePath": "steps AttributeStep* 1",
    "AttributeStep": "attribute_name string 1",
    "RawState": "json bytes 1",
    "Schema": "version int64 1; block Block 2",
    "Block": "version int64 1; attributes Attribute* 2; block_types NestedBlock* 3",
    "Attribute": "name string 1; type bytes 2; required bool 4; optional bool 5; computed bool 6",
    "NestedBlock": "type_name string 1; block Block 2; nesting int32 3; min_items int64 4; max_items int64 5",
    "NamedSchema": "key string 1; value Schema 2",
    # A map is a repeated message of key and value.
    "SchemaResponse": "provider Schema 1; resource_schemas NamedSchema* 2; data_source_schemas NamedSchema* 3",
    "PrepareRequest": "config DynamicValue 1",
    "PrepareResponse": "prepared_config DynamicValue 1; diagnostics Diagnostic* 2",
    "UpgradeRequest": "type_name string 1; version int64 2; raw_state RawState 3",
    "UpgradeResponse": "upgraded_state DynamicValue 1; diagnostics Diagnostic* 2",
    "ValidateRequest": "type_name string 1; config DynamicValue 2",
    "DiagnosticsResponse": "diagnostics Diagnostic* 1",
    "ConfigureRequest": "terraform_version string 1; config DynamicValue 2",
    "ReadRequest": "type_name string 1; current_state DynamicValue 2; private bytes 3",
    "ReadResponse": "new_state DynamicValue 1; diagnostics Diagnostic* 2; private bytes 3",
    "PlanRequest": "type_name string 1; prior_state DynamicValue 2; proposed_new_state DynamicValue 3; config DynamicValue 4",
    "PlanResponse": "planned_state DynamicValue 1; requires_replace AttributePath* 2; planned_private bytes 3; diagnostics Diagnostic* 4; legacy_type_system bool 5",
    "ApplyRequest": "type_name string 1; prior_state DynamicValue 2; planned_state DynamicValue 3; config DynamicValue 4",
    "ApplyResponse": "new_state DynamicValue 1; private bytes 2; diagnostics Diagnostic* 3; legacy_type_system bool 4",
    "ImportRequest": "type_name string 1; id string 2",
    "ImportedResource": "type_name string 1; state DynamicValue 2",
    "ImportResponse": "imported_resources ImportedResource* 1; diagnostics Diagnostic* 2",
    "DataRequest": "type_name string 1; config DynamicValue 2",
    "DataResponse": "state DynamicValue 1; diagnostics Diagnostic* 2",
    "StopResponse": "error string 1",
}

ERROR = 1
_NESTING = {"single": 1, "list": 2, "set": 3, "map": 4}

# Each procedure of the service: request and response.
PROCEDURES = {
    "GetSchema": ("Empty", None),
    "PrepareProviderConfig": ("PrepareRequest", "PrepareResponse"),
    "ValidateResourceTypeConfig": ("ValidateRequest", "DiagnosticsResponse"),
    "ValidateDataSourceConfig": ("ValidateRequest", "DiagnosticsResponse"),
    "UpgradeResourceState": ("UpgradeRequest", "UpgradeResponse"),
    "Configure": ("ConfigureRequest", "DiagnosticsResponse"),
    "ReadResource": ("ReadRequest", "ReadResponse"),
    "PlanResourceChange": ("PlanRequest", "PlanResponse"),
    "ApplyResourceChange": ("ApplyRequest", "ApplyResponse"),
    "ImportResourceState": ("ImportRequest", "ImportResponse"),
    "ReadDataSource": ("DataRequest", "DataResponse"),
    "Stop": ("Empty", "StopResponse"),
}


def _messages():
    field_types = descriptor_pb2.FieldDescriptorProto
    primitives = {
        "bytes": field_types.TYPE_BYTES,
        "string": field_types.TYPE_STRING,
        "bool": field_types.TYPE_BOOL,
        "int32": field_types.TYPE_INT32,
        "int64": field_types.TYPE_INT64,
    }
    file = descriptor_pb2.FileDescriptorProto(
        name="tfplugin5.proto", package="tfplugin5", syntax="proto3"
    )
    for message_name, fields in _MESSAGES.items():
        message = file.message_type.add(name=message_name)
        for field in filter(None, fields.split("; ")):
            name, kind, number = field.split()
            repeated = kind.endswith("*")
            kind = kind.rstrip("*")
            entry = message.field.add(
                name=name,
                number=int(number),
                label=field_types.LABEL_REPEATED if repeated else field_types.LABEL_OPTIONAL,
            )
            if kind in primitives:
                entry.type = primitives[kind]
            else:
                entry.type = field_types.TYPE_MESSAGE
                entry.type_name = f".tfplugin5.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tfplugin5.{name}"))
        for name in _MESSAGES
    }


MESSAGES = _messages()


def _block_message(block):
    message = MESSAGES["Block"]()
    for name, attribute in block["attributes"].items():
        flags = attribute["flags"]
        message.attributes.add(
            name=name,
            type=json.dumps(attribute["type"]).encode(),
            required="r" in flags,
            optional="o" in flags,
            computed="c" in flags,
        )
    for name, nested in block["blocks"].items():
        message.block_types.add(
            type_name=name,
            block=_block_message(nested["block"]),
            nesting=_NESTING[nested["nesting"]],
            min_items=nested["min"],
            max_items=nested["max"],
        )
    return message


def schema_response(schemas):
    """The answer to GetSchema, encoded, from (kind, name, block)."""
    response = MESSAGES["SchemaResponse"]()
    for kind, name, block in schemas:
        schema = MESSAGES["Schema"](block=_block_message(block))
        if kind == "provider":
            response.provider.CopyFrom(schema)
        elif kind == "resource":
            response.resource_schemas.add(key=name, value=schema)
        else:
            response.data_source_schemas.add(key=name, value=schema)
    return response.SerializeToString()
