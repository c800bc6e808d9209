"""Knobs: fields of a dataclass that say what they are for and what they may be, and the check of that."""

import types
from collections.abc import Mapping
from dataclasses import field, fields
from functools import cache
from textwrap import fill
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

BOUNDS: Final = "bounds"  # in a field's metadata: the lowest and the highest value of a number


def bounded(low: float, high: float) -> Any:
    """Return a field of a dataclass, without a default, that holds a number in a range."""
    return field(metadata={BOUNDS: (low, high)})


def knob(default: Any, text: str, *, bounds: tuple[float, float] | None = None, unset: str = "") -> Any:
    """Return a field of a dataclass, for its docstring and for a command's help.

    Args:
        default: its value where none is given.
        text: one sentence or more, which name other knobs in backticks.
        bounds: the lowest and the highest value of a number.
        unset: what stands in for None.
    """
    return field(default=default, metadata={"text": text, BOUNDS: bounds, "unset": unset})


def documented(kind: type[T]) -> type[T]:
    """Return a dataclass with its knobs in its docstring."""
    said = []
    for knob in fields(kind):  # type: ignore[arg-type]
        text, bounds, unset = (knob.metadata[key] for key in ("text", BOUNDS, "unset"))
        whole = f"{knob.name}: {text}" + (f" {bounds[0]} to {bounds[1]}." if bounds else "")
        whole += f" None: {unset}." if unset else ""
        said.append(fill(whole, 120, initial_indent=" " * 8, subsequent_indent=" " * 12, break_on_hyphens=False))
    kind.__doc__ = "\n".join([(kind.__doc__ or "").rstrip(), "", "    Attributes:", *said, ""])
    return kind


def wrong_field(record: Any) -> str | None:
    """Return a message on the first field of a dataclass whose value its annotation or its bounds rule out, or None.

    Args:
        record: its annotations may be int, float (an int will do), str, bool, Literal, tuple[X, ...] of these,
            Mapping[X, Y], a class, or any of them or None.
    """
    bounds = _bounds(record.__class__)
    for name, hint in get_type_hints(record.__class__).items():
        value, kinds = getattr(record, name), get_args(hint) if _is_union(hint) else (hint,)
        low, high = bounds.get(name, (None, None))
        if value is None and types.NoneType in kinds:
            continue
        fits = any(_fits(value, kind) for kind in kinds)
        if fits and (low is None or low <= value <= high):
            continue
        expected = " or ".join(_words(kind) for kind in kinds if kind is not types.NoneType)
        if low is not None:
            expected = f"{low} to {high}" if fits else f"{low} to {high} as {expected}"
        return f"{name} is {value!r}, expected {expected}"
    return None


@cache
def _bounds(kind: type) -> dict[str, tuple[float, float]]:
    """Return the bounds of a dataclass's fields, also of those that it annotates more narrowly than its base."""
    known = [field for base in reversed(kind.__mro__) for field in getattr(base, "__dataclass_fields__", {}).values()]
    return {field.name: field.metadata[BOUNDS] for field in known if field.metadata.get(BOUNDS)}


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType)


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is one of an annotation's."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return value in arguments
    if origin is tuple:
        many = isinstance(value, tuple) and (arguments[-1] is Ellipsis or len(value) == len(arguments))
        return many and all(_fits(item, arguments[0]) for item in value)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        key, item = arguments
        return isinstance(value, Mapping) and all(_fits(k, key) and _fits(v, item) for k, v in value.items())
    if kind is not bool and isinstance(value, bool):
        return False
    return kind is Any or isinstance(value, (int, float) if kind is float else kind)


def _words(kind: Any) -> str:
    """Return what messages call the values of an annotation."""
    origin, arguments = get_origin(kind), get_args(kind)
    one = {int: "an int", float: "a number", str: "a text", bool: "True or False"}
    several = {int: "ints", float: "numbers", str: "texts"}
    if origin is Literal:
        return f"one of {', '.join(arguments)}"
    if origin is tuple:
        count = "" if arguments[-1] is Ellipsis else f"{len(arguments)} "
        return f"a tuple of {count}{several[arguments[0]]}"
    if isinstance(origin, type):
        return f"a mapping from {several[arguments[0]]} to {several[arguments[1]]}"
    return one.get(kind) or kind.__name__
