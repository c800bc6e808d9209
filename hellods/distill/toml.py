"""Recipes as TOML files: what `hellods inspect --recipe` prints and `hellods build --recipe` takes."""

import tomllib
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from hellods.distill.recipe import Recipe
from hellods.errors import OptionError

WORDS: Final = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text in quotes",
    tuple: "a list of whole numbers",
}


def to_toml(knobs: Mapping[str, Any]) -> str:
    """Return a line `key = value` for every knob that is set, by name."""
    return "".join(f"{name} = {_literal(value)}\n" for name, value in knobs.items() if value is not None)


def read_text(path: Path) -> str:
    """Return the text of a file in UTF-8, or in UTF-16 as PowerShell's `>` writes it.

    Raises:
        OSError: it cannot be read.
        UnicodeDecodeError: it is neither.
    """
    data = path.read_bytes()
    return data.decode("utf-16" if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig")


def read_knobs(path: Path) -> dict[str, Any]:
    """Return the knobs that a file sets, by name.

    Raises:
        OptionError: the file is missing or no TOML, or names the key that is unknown or has a value of another type
            or out of range.
    """
    try:
        knobs = tomllib.loads(read_text(path))
    except OSError as cause:
        raise OptionError(f"{path}: recipe cannot be read: {cause.strerror}") from cause
    except ValueError as cause:  # no text either
        raise OptionError(f"{path}: not TOML: {cause}") from cause
    hints = get_type_hints(Recipe)
    for name, value in knobs.items():
        if name not in hints:
            raise OptionError(f"{path}: unknown key {name!a}; a recipe has {', '.join(hints)}")
        kind = _kind(hints[name])
        if type(value) is int and kind is float:
            knobs[name] = float(value)
        elif kind is tuple and isinstance(value, list) and all(type(item) is int for item in value):
            knobs[name] = tuple(value)
        elif type(value) is not kind:
            raise OptionError(f"{path}: {name}: found {value!a}, expected {WORDS[kind]}")
    try:
        Recipe(**knobs)
    except OptionError as cause:
        raise OptionError(f"{path}: {cause}") from cause
    return knobs


def _kind(hint: Any) -> type:
    if get_origin(hint) in (Union, UnionType):
        return _kind(next(kind for kind in get_args(hint) if kind is not NoneType))
    kind: type = str if get_origin(hint) is Literal else get_origin(hint) or hint
    return kind


def _literal(value: str | float | bool | tuple[int, ...]) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return str(list(value))
    if not isinstance(value, str):
        return repr(value)
    plain = (c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08X}" for c in value)
    return f'"{"".join(plain)}"'
