"""Frozen dataclasses <-> JSON objects, by their annotations."""

import re
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from decimal import Decimal
from functools import cache
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from hellods.errors import FormatError, HelloError

T = TypeVar("T")

# Plain decimal notation, so that a number has one spelling in every language.
PLACES = 40
DECIMAL = re.compile(rf"-?(0|[1-9][0-9]{{0,17}})(\.[0-9]{{0,{PLACES - 1}}}[1-9])?")

# A field of this name holds the keys that are not fields, so that rewriting an object keeps them.
EXTRA = "extra"


def to_json(value: Any) -> Any:
    """Return `value` as what JSON holds: dataclasses as objects, tuples as lists, floats as decimal strings.

    A field of a dataclass that is annotated as float is one, also where it holds an int.
    """
    if is_dataclass(value) and not isinstance(value, type):
        hints = _hints(type(value))
        known = {field.name: getattr(value, field.name) for field in fields(value) if field.name != EXTRA}
        typed = {name: _floats(item) if _is_float(hints[name]) else item for name, item in known.items()}
        return to_json({**getattr(value, EXTRA, {}), **typed})
    if isinstance(value, float):
        return decimal(value)
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    return value


def _is_float(hint: Any) -> bool:
    return float in (hint, *get_args(hint))


def _floats(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_floats(item) for item in value]
    return value if value is None else float(value)


def decimal(value: float) -> str:
    """Return the shortest decimal string that reads back as `value`, without an exponent and to 40 places.

    Raises:
        FormatError: `value` is not finite, or 10^18 and more.
    """
    if not abs(value) < 1e18:  # also true of NaN
        raise FormatError(f"{float(value)!r} cannot be written as a decimal: numbers are finite and below 1e18 [H7]")
    text = format(Decimal(repr(float(value))), f".{PLACES}f").rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def from_json(
    kind: type[T], value: Any, where: str, *, lenient: bool = False, error: Callable[[str], HelloError] = FormatError
) -> T:
    """Return a `kind` (a frozen dataclass) made from a JSON object.

    Args:
        kind: its annotations are checked: int, str, bool, float (a decimal string), Literal, tuple[X, ...],
            X | None, dict[str, Any] and other dataclasses. Fields with a default may be missing.
        value: what a JSON parser returned.
        where: names the object in messages, as in `x.hello: header.images`.
        lenient: ignore unknown keys, as a reader does above the minor version that it knows. Keys that begin with
            `x-` are anyone's and always ignored.
        error: makes what is raised of a message.

    Raises:
        HelloError: a missing or unknown key, or a value of another type.
    """
    return _record(kind, value, where, lenient, error)  # type: ignore[no-any-return]


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _record(kind: Any, value: Any, where: str, lenient: bool, error: Callable[[str], HelloError]) -> Any:
    if not isinstance(value, dict):
        raise error(f"{where}: {_found(value)}, expected an object")
    hints = _hints(kind)
    extra = {key: item for key, item in value.items() if key not in hints or key == EXTRA}
    unknown = sorted(key for key in extra if not lenient and not key.startswith("x-"))
    if unknown:
        raise error(f"{where}: unknown key {unknown[0]!a}")
    arguments: dict[str, Any] = {EXTRA: extra} if EXTRA in hints else {}
    for field in fields(kind):
        if field.name in value and field.name != EXTRA:
            spot = f"{where}.{field.name}"
            arguments[field.name] = _value(hints[field.name], value[field.name], spot, lenient, error)
        elif field.default is MISSING and field.default_factory is MISSING:
            raise error(f"{where}: key {field.name!r} is missing")
    try:
        return kind(**arguments)
    except (ValueError, HelloError) as cause:  # raised by __post_init__: a value out of range
        raise error(f"{where}: {cause}") from cause


def _value(hint: Any, value: Any, where: str, lenient: bool, error: Callable[[str], HelloError]) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if type(None) in arguments:  # X | None
        inner = [argument for argument in arguments if argument is not type(None)]
        return None if value is None else _value(inner[0], value, where, lenient, error)
    if origin is Literal:
        if isinstance(value, (str, int)) and not isinstance(value, bool) and value in arguments:
            return value
        raise error(f"{where}: {_found(value)}, expected one of {', '.join(map(repr, arguments))}")
    if origin is tuple:
        if not isinstance(value, list):
            raise error(f"{where}: {_found(value)}, expected a list")
        if arguments[-1] is not Ellipsis and len(value) != len(arguments):
            raise error(f"{where}: {len(value)} items, expected {len(arguments)}")
        return tuple(_value(arguments[0], item, f"{where}[{i}]", lenient, error) for i, item in enumerate(value))
    if is_dataclass(hint):
        return _record(hint, value, where, lenient, error)
    if hint is float:
        if isinstance(value, str) and DECIMAL.fullmatch(value) and value != "-0":
            return float(value)
        raise error(f"{where}: {_found(value)}, expected a decimal string")
    expected = dict if origin is dict else hint
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        raise error(f"{where}: {_found(value)}, expected {expected.__name__}")
    return value


def _found(value: Any) -> str:
    text = ascii(value)
    return f"found {text if len(text) <= 60 else text[:57] + '...'}"
