"""DynamoDB's attribute values: how big they are, when they are equal, and how plain values become them. Pure.

A typed value is a map of one type and its content, as in the API's JSON, but binary is bytes: `{"S": "Fred"}`,
`{"N": "12.5"}`, `{"B": b"..."}`, `{"BOOL": True}`, `{"NULL": True}`, `{"L": [...]}`, `{"M": {...}}`, `{"SS": [...]}`,
`{"NS": [...]}`, `{"BS": [...]}`. The *canonical* form of a value is the one that all its equals share: numbers without
superfluous digits, as the service returns them, and sets in order; two images are the same item when their canonical
forms are equal.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from datetime import datetime
from decimal import Context, Decimal, InvalidOperation
from functools import lru_cache
from typing import Any, Final

Image = dict[str, Any]
TypedValue = dict[str, Any]

_CONTAINER_BYTES: Final = 3
_ELEMENT_BYTES: Final = 1
_SETS: Final = {"SS": "S", "NS": "N", "BS": "B"}
# Numbers have at most 38 digits here and 126 of exponent; the context of the caller's thread may round.
_EXACT: Final = Context(prec=400, traps=[])


def number_text(number: str | Decimal) -> str:
    """A number as the service returns it: plain digits, no zeros around them, no negative zero.

    What is no number stays as it is.
    """
    try:
        value = Decimal(number)
    except (InvalidOperation, TypeError, ValueError):
        return str(number)
    if not value.is_finite() or abs(value.adjusted()) > _EXACT.prec:
        return str(number)
    if not value:
        return "0"
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def canonical(image: Image) -> Image:
    """The canonical form of an image of typed values; sets that are empty, which the service has not, are left out.

    What is no value of its type (no number, no base64) has one as well: an item that holds it can be told, and removed.
    """
    return {name: _canonical(value) for name, value in image.items() if not _is_empty_set(value)}


def _is_empty_set(value: TypedValue) -> bool:
    return any(kind in _SETS and not content for kind, content in value.items())


def _canonical(value: TypedValue) -> TypedValue:
    ((kind, content),) = value.items()
    if kind == "N":
        return {kind: number_text(content)}
    if kind == "B":
        return {kind: _binary(content)}
    if kind == "M":
        return {kind: canonical(content)}
    if kind == "L":
        return {kind: [_canonical(element) for element in content]}
    if kind in _SETS:
        elements = [_canonical({_SETS[kind]: element})[_SETS[kind]] for element in content]
        return {kind: _sorted_numbers(elements) if kind == "NS" else sorted(elements)}
    return {kind: content}


def _sorted_numbers(numbers: list[str]) -> list[str]:
    try:
        return sorted(numbers, key=Decimal)
    except InvalidOperation:  # one of them is none
        return sorted(numbers)


def _binary(content: bytes | str) -> bytes:
    """Binary content, which JSON has as base64."""
    if not isinstance(content, str):
        return bytes(content)
    try:
        return base64.b64decode(content)
    except ValueError:  # it is none
        return content.encode()


def image_size(image: Image) -> int:
    """Bytes of an image of typed values: of its names (UTF-8) and its values (Developer Guide, item sizes)."""
    # Most values are texts and numbers, and this runs for every attribute that is read.
    texts, size = [*image], 0
    for value in image.values():
        if "S" in value:
            texts.append(value["S"])
        elif "N" in value:
            size += _number_size(value["N"])
        else:
            size += _value_size(value)
    return size + _text_size("".join(texts))


def _value_size(value: TypedValue) -> int:
    ((kind, content),) = value.items()
    return _SIZES[kind](content)


@lru_cache(maxsize=65_536)
def _number_size(text: str) -> int:
    digits = text.partition("E")[0].lstrip("-").replace(".", "").strip("0")
    return (len(digits) + 1) // 2 + 1


def _map_size(content: Image) -> int:
    return _CONTAINER_BYTES + _ELEMENT_BYTES * len(content) + image_size(content)


def _list_size(content: list[TypedValue]) -> int:
    return _CONTAINER_BYTES + sum(_ELEMENT_BYTES + _value_size(element) for element in content)


def _text_size(content: str) -> int:
    return len(content) if content.isascii() else len(content.encode())


_SIZES: Final[dict[str, Callable[[Any], int]]] = {
    "S": _text_size,
    "N": _number_size,
    "B": len,
    "BOOL": lambda _: 1,
    "NULL": lambda _: 1,
    "M": _map_size,
    "L": _list_size,
    "SS": lambda content: sum(map(_text_size, content)),
    "NS": lambda content: sum(map(_number_size, content)),
    "BS": lambda content: sum(map(len, content)),
}


def typed_image(image: Image) -> Image:
    """An image of plain values, as a program appended it, as typed values."""
    return {name: _TYPED[type(value)](value) for name, value in image.items()}


def typed(value: Any) -> TypedValue:
    """A plain value as a typed one.

    What DynamoDB lacks becomes the nearest that it has: a time is text (ISO 8601), a number that is not finite is
    text, a set of elements of several kinds, or of none, is a list.
    """
    return _TYPED[type(value)](value)


def _typed_float(value: float) -> TypedValue:
    text = repr(value)
    if not math.isfinite(value):
        return {"S": text}
    return {"N": number_text(text) if "e" in text or text[0] == "-" else text.removesuffix(".0")}


def _typed_decimal(value: Decimal) -> TypedValue:
    return {"N": number_text(value)} if value.is_finite() else {"S": str(value)}


def _typed_set(elements: set[Any]) -> TypedValue:
    members = sorted((typed(element) for element in elements), key=repr)
    kinds = {kind for member in members for kind in member}
    if len(kinds) == 1 and kinds <= {"S", "N", "B"}:
        (kind,) = kinds
        content = [member[kind] for member in members]
        return {f"{kind}S": sorted(content, key=Decimal if kind == "N" else None)}
    return {"L": members}


# The engine keeps exactly these types, and no subclasses.
_TYPED: Final[dict[type, Callable[[Any], TypedValue]]] = {
    str: lambda value: {"S": value},
    int: lambda value: {"N": str(value)},
    float: _typed_float,
    Decimal: _typed_decimal,
    bool: lambda value: {"BOOL": value},
    type(None): lambda _: {"NULL": True},
    bytes: lambda value: {"B": value},
    list: lambda value: {"L": [_TYPED[type(element)](element) for element in value]},
    dict: lambda value: {"M": typed_image(value)},
    set: _typed_set,
    datetime: lambda value: {"S": value.isoformat()},
}
