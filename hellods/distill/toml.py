"""Recipes as TOML files: what `hellods inspect --recipe` prints and `hellods build --recipe` takes."""

import tomllib
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hellods.distill.recipe import Inputs, Recipe
from hellods.errors import OptionError


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
    """Return the knobs of a recipe that a file sets, by name, and the base model.

    Raises:
        OptionError: the file is missing or no TOML, or names the key that is unknown or has a value of another type
            or out of range.
    """
    if path.suffix == ".hello":
        raise OptionError(f"{path}: an archive: give its recipe, as `hellods inspect --recipe` prints it")
    try:
        knobs = tomllib.loads(read_text(path))
    except OSError as cause:
        raise OptionError(f"{path}: recipe cannot be read: {cause.strerror}") from cause
    except ValueError as cause:  # no text either
        raise OptionError(f"{path}: not TOML: {cause}") from cause
    names = ["base", *(field.name for field in fields(Recipe))]
    if unknown := [name for name in knobs if name not in names]:
        meant = get_close_matches(unknown[0], names, 1)
        known = f"did you mean {meant[0]}?" if meant else f"a recipe has {', '.join(names)}"
        raise OptionError(f"{path}: unknown key {unknown[0]!a}; {known}")
    knobs = {name: tuple(value) if isinstance(value, list) else value for name, value in knobs.items()}
    try:
        Inputs(data="", base=knobs.get("base"))
        Recipe(**{name: value for name, value in knobs.items() if name != "base"})
    except OptionError as cause:
        raise OptionError(f"{path}: {cause}") from cause
    return knobs


def _literal(value: str | float | bool | tuple[int, ...]) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return str(list(value))
    if not isinstance(value, str):
        return repr(value)
    plain = (c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08X}" for c in value)
    return f'"{"".join(plain)}"'
