"""What an attribute value of a request must be: the service's rules, and its words where it refuses. Pure.

moto trusts its clients' SDKs, which trust the service: a set of numbers that are none, a value of two types, or base64
that is none would end in the table. Values are those of the request's JSON, so binary is base64; they may be anything.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from moto.dynamodb.exceptions import MockValidationException, SerializationException

from shardlog.format.values import LEVELS_MAX

DIGITS_MAX: Final = 38
EXPONENT_MAX: Final = 125
EXPONENT_MIN: Final = -130

_INVALID: Final = "One or more parameter values were invalid: "
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_JSON_NAMES: Final[dict[type, str]] = {
    str: "STRING_VALUE",
    int: "NUMBER_VALUE",
    float: "DECIMAL_VALUE",
    bool: "TRUE_VALUE",
}


def check_image(image: object) -> None:
    """Raise what moto answers unless each attribute is a value that the service takes; what is no map is others'."""
    if isinstance(image, dict):
        for value in image.values():
            check_value(value)


def check_value(value: object, level: int = 0) -> None:
    """Raise what moto answers unless a value is one that the service takes; `level` counts the containers around it."""
    if not isinstance(value, dict):
        raise SerializationException("Expected an AttributeValue: a structure or map")
    given = {kind: content for kind, content in value.items() if kind in _CHECKS and content is not None}
    if not given:
        raise MockValidationException(
            "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes"
        )
    if len(given) > 1:
        raise MockValidationException(
            "Supplied AttributeValue has more than one datatypes set, "
            "must contain exactly one of the supported datatypes"
        )
    ((kind, content),) = given.items()
    _CHECKS[kind](content, level)


def _text(content: object, _level: int = 0) -> str:
    if not isinstance(content, str):
        raise SerializationException(_unconvertible(content, "String"))
    return content


def _number(content: object, _level: int = 0) -> Decimal:
    text = _text(content)
    if not _NUMBER.fullmatch(text):
        raise MockValidationException(f"The parameter cannot be converted to a numeric value: {text}".rstrip(": "))
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise _out_of_range("overflow", "larger") from None
    if not number:
        return number
    if number.adjusted() > EXPONENT_MAX:
        raise _out_of_range("overflow", "larger")
    if number.adjusted() < EXPONENT_MIN:
        raise _out_of_range("underflow", "smaller")
    if len("".join(map(str, number.as_tuple().digits)).strip("0")) > DIGITS_MAX:
        raise MockValidationException(f"Attempting to store more than {DIGITS_MAX} significant digits in a Number")
    return number


def _out_of_range(name: str, comparison: str) -> MockValidationException:
    return MockValidationException(
        f"Number {name}. Attempting to store a number with magnitude {comparison} than supported range"
    )


def _binary(content: object, _level: int = 0) -> bytes:
    try:
        return base64.b64decode(_text(content), validate=True)
    except (binascii.Error, ValueError) as error:
        raise SerializationException(f"The value cannot be converted to a Blob: Invalid Base64: {error}") from None


def _boolean(content: object, _level: int) -> None:
    if not isinstance(content, bool):
        raise SerializationException(_unconvertible(content, "Boolean"))


def _null(content: object, level: int) -> None:
    _boolean(content, level)
    if content is not True:
        raise MockValidationException(f"{_INVALID}Null attribute value types must have the value of true")


def _map(content: object, level: int) -> None:
    if not isinstance(content, dict):
        raise SerializationException(_unconvertible(content, "Map"))
    _deeper(level)
    for value in content.values():
        check_value(value, level + 1)


def _list(content: object, level: int) -> None:
    _deeper(level)
    for value in _elements(content):
        check_value(value, level + 1)


def _deeper(level: int) -> None:
    if level >= LEVELS_MAX:
        raise MockValidationException("Nesting Levels have exceeded supported limits")


def _set_of(element: Callable[[object], object], empty: str) -> Callable[[object, int], None]:
    def check(content: object, _level: int) -> None:
        elements = _elements(content)
        if not elements:
            raise MockValidationException(_INVALID + empty)
        if len({element(member) for member in elements}) < len(elements):
            shown = ", ".join(map(str, elements))
            raise MockValidationException(f"{_INVALID}Input collection [{shown}] contains duplicates.")

    return check


def _elements(content: object) -> list[Any]:
    if not isinstance(content, list):
        raise SerializationException("Expected a list")
    return content


def _unconvertible(content: object, kind: str) -> str:
    name = _JSON_NAMES.get(type(content))
    return f"{name} cannot be converted to {kind}" if name else "Start of structure or map found where not expected"


_CHECKS: Final[dict[str, Callable[[object, int], object]]] = {
    "S": _text,
    "N": _number,
    "B": _binary,
    "BOOL": _boolean,
    "NULL": _null,
    "M": _map,
    "L": _list,
    "SS": _set_of(_text, "An string set  may not be empty"),
    "NS": _set_of(_number, "An number set  may not be empty"),
    "BS": _set_of(_binary, "Binary sets should not be empty"),
}
