"""Messages as plain documents for programs: protobuf's JSON names and texts, but whole numbers as numbers.

Fields without presence are always there; an unset ``optional`` field or message is left out. See
https://protobuf.dev/programming-guides/json/ for the texts of well-known types.
"""

import base64
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message


def document(message: Message) -> dict[str, Any]:
    """A message as dictionaries, lists and scalars, with the field names of its ``.proto``."""
    fields: Any = message.DESCRIPTOR.fields
    return {field.name: _value(message, field) for field in fields if _shown(message, field)}


def _shown(message: Message, field: FieldDescriptor) -> bool:
    return not field.has_presence or message.HasField(field.name)


def _value(message: Message, field: FieldDescriptor) -> Any:
    value = getattr(message, field.name)
    nested = field.message_type
    if nested is not None and nested.GetOptions().map_entry:
        return {str(key): _item(nested.fields_by_name["value"], value[key]) for key in sorted(value)}
    if field.is_repeated:
        return [_item(field, item) for item in value]
    return _item(field, value)


def _item(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None:
        if field.message_type.full_name.startswith("google.protobuf."):
            return json_format.MessageToDict(value, preserving_proto_field_name=True)
        return document(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known is not None else value
    if field.type == FieldDescriptor.TYPE_BYTES:
        return base64.b64encode(value).decode()
    return value
