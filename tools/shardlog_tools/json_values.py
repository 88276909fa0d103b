"""Values as JSON, in both directions, so that nothing is lost on the way out and in again.

JSON has no bytes, decimals, sets, times, and no number that is not finite. Each of these becomes an object with one
key that begins with `$`, a *form*:

| value | JSON |
|---|---|
| bytes | `{"$bytes": "<base64>"}` |
| Decimal | `{"$decimal": "1.0"}`; trailing zeros, signs, `NaN` and `Infinity` as `str` writes them |
| set | `{"$set": [...]}`, the elements sorted by their JSON, so that the same set always gives the same text |
| datetime | `{"$datetime": "2026-01-02T03:04:05+00:00"}`; without an offset it is naive and stays so; no fold |
| float that is not finite | `{"$float": "NaN"}`, `"-Infinity"`...; `"NaN(fff8000000000001)"` for another NaN |
| dict with a key `$...` | the same object, the key with one more `$` |

Everything else is JSON's own. An integer and a float stay apart (`1` and `1.0`), as do `0.0` and `-0.0`; integers go to
2^64-1, which readers that turn every number into a double (not ours) round.

Reading is strict, because what is guessed is lost: a bare `NaN`, a number too large for a double, a name twice in one
object, an element twice in a set, digits beyond the microsecond, or a `$` name that is no form raise ValueError.

The usual record holds nothing of all this. So `to_json` and `has_forms` look at the text, in C, and only where a `"$`
stands in it is the value walked in Python.
"""

from __future__ import annotations

import base64
import json
import math
import re
import struct
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NoReturn

# Far above what the engine takes (32), far below what Python's stack takes.
_LEVELS_MAX: Final = 100
_CANONICAL_NAN_BITS: Final = 0x7FF8000000000000
_DOUBLE: Final = struct.Struct(">d")
_DOUBLE_BITS: Final = struct.Struct(">Q")
# Line breaks to Unicode, and so to many readers of lines, though not to JSON; they stand in strings only.
_LINE_BREAKS: Final = re.compile("[\u0085\u2028\u2029]")
_NAN_BITS: Final = re.compile(r"NaN\(([0-9a-f]{16})\)", re.ASCII)
_DATETIME: Final = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:\d\d(:\d\d(\.\d{1,6})?)?)?", re.ASCII
)

_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False)


def to_json(value: object) -> str:
    """The JSON text of a value, on one line."""
    try:
        text = _encoder.encode(value)
        needs_forms = '"$' in text
    except (TypeError, ValueError):  # a type that JSON lacks, or a number that is not finite
        needs_forms = True
    if needs_forms:
        text = _encoder.encode(_with_forms(value))
    return text if text.isascii() else _LINE_BREAKS.sub(_escaped, text)


def from_json(text: str) -> Any:
    """The value of a JSON text. Raises ValueError, which says what is wrong."""
    value = parse(text)
    return restore(value) if has_forms(text) else value


def has_forms(text: str) -> bool:
    """Whether a JSON text may hold forms or escaped names; where it does not, `parse` gives the values themselves."""
    return '"$' in text or "\\u0024" in text


def parse(text: str) -> Any:
    """Strict JSON, forms left as they stand. Raises ValueError."""
    try:
        return _decoder.decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.pos + 1}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def restore(value: Any, level: int = 0) -> Any:
    """A parsed value with its forms turned into what they stand for. Raises ValueError."""
    if level > _LEVELS_MAX:
        raise ValueError("nested too deeply")
    if type(value) is list:
        return [restore(element, level + 1) for element in value]
    if type(value) is not dict:
        return value
    names = [name for name in value if name.startswith("$") and not name.startswith("$$")]
    if not names:
        return {
            name[1:] if name.startswith("$$") else name: restore(element, level + 1) for name, element in value.items()
        }
    form = _FORMS.get(names[0])
    if form is None:
        raise ValueError(f"{names[0]}: expected one of {', '.join(_FORMS)}, or {'$' + names[0]!r} for the name itself")
    if len(value) > 1:
        raise ValueError(f"{names[0]}: expected to stand alone in its object, found beside {sorted(set(value))!r:.60}")
    return form(value[names[0]])


def _escaped(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def _with_forms(value: object) -> object:
    if isinstance(value, dict):
        return {"$" + name if name.startswith("$") else name: _with_forms(element) for name, element in value.items()}
    if isinstance(value, list):
        return [_with_forms(element) for element in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": _float_text(value)}
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode("ascii")}
    if isinstance(value, Decimal):
        return {"$decimal": str(value)}
    if isinstance(value, set):
        return {"$set": sorted((_with_forms(element) for element in value), key=_encoder.encode)}
    if isinstance(value, datetime):
        return {"$datetime": value.isoformat()}
    return value


def _float_text(value: float) -> str:
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    (bits,) = _DOUBLE_BITS.unpack(_DOUBLE.pack(value))
    return "NaN" if bits == _CANONICAL_NAN_BITS else f"NaN({bits:016x})"


def _float_of(text: object) -> float:
    if text in ("Infinity", "-Infinity"):
        return float(str(text))
    bits = _CANONICAL_NAN_BITS
    if text != "NaN":
        match = _NAN_BITS.fullmatch(text) if isinstance(text, str) else None
        bits = int(match[1], 16) if match else 0
    (value,) = _DOUBLE.unpack(_DOUBLE_BITS.pack(bits))
    if not math.isnan(value):
        raise ValueError(
            f"$float: expected NaN, NaN(<16 hexadecimal digits>), Infinity or -Infinity, found {text!r:.60}"
        )
    return float(value)


def _bytes_of(text: object) -> bytes:
    encoded = _string(text, "$bytes")
    try:
        return base64.b64decode(encoded, validate=True)
    except ValueError as error:
        raise ValueError(f"$bytes: expected base64, found {text!r:.60}") from error


def _decimal_of(text: object) -> Decimal:
    digits = _string(text, "$decimal")
    try:
        return Decimal(digits)
    except (InvalidOperation, ValueError) as error:
        raise ValueError(f"$decimal: expected a decimal number as a string, found {text!r:.60}") from error


def _datetime_of(text: object) -> datetime:
    if not _DATETIME.fullmatch(_string(text, "$datetime")):
        raise ValueError(f"$datetime: expected such as 2026-01-02T03:04:05.678901+00:00, found {text!r:.60}")
    try:
        return datetime.fromisoformat(str(text))
    except ValueError as error:
        raise ValueError(f"$datetime: {error}, found {text!r:.60}") from error


def _set_of(elements: object) -> set[Any]:
    if not isinstance(elements, list):
        raise ValueError(f"$set: expected an array, found {elements!r:.60}")
    try:
        restored = {restore(element) for element in elements}
    except TypeError as error:
        raise ValueError(f"$set: {error}") from error
    if len(restored) != len(elements):
        raise ValueError(f"$set: expected elements that differ, found {elements!r:.60}")
    return restored


def _string(value: object, form: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{form}: expected a string, found {value!r:.60}")
    return value


_FORMS: Final = {
    "$bytes": _bytes_of,
    "$decimal": _decimal_of,
    "$set": _set_of,
    "$datetime": _datetime_of,
    "$float": _float_of,
}


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r:.60} stands twice in one object")
    return members


def _finite_float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f'{text:.60} is too large for a float; as a decimal: {{"$decimal": "{text:.60}"}}')
    return value


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f'{text} is not JSON; write {{"$float": "{text}"}}')


_decoder = json.JSONDecoder(object_pairs_hook=_unique_names, parse_float=_finite_float, parse_constant=_refuse_constant)
