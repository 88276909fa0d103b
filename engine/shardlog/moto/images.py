"""moto's items as images: typed values in canonical form, as the service stores them. Pure."""

from __future__ import annotations

from typing import Any

from moto.dynamodb.models.dynamo_type import DynamoType, Item

from shardlog.server.attributes import Image, TypedValue, canonical


def image_of(item: Item | None) -> Image | None:
    """The image of an item; a copy, because moto changes items in place."""
    if item is None:
        return None
    return canonical({name: _typed(value) for name, value in item.attrs.items()})


def _typed(value: DynamoType | TypedValue) -> TypedValue:
    """A value of moto's, whose elements may be objects or still what came over the wire."""
    if not isinstance(value, DynamoType):
        return value
    content: Any = value.value
    if value.type == "L":
        content = [_typed(element) for element in content]
    elif value.type == "M":
        content = {name: _typed(element) for name, element in content.items()}
    return {value.type: content}
