"""What the commands say, as plain text of 80 columns."""

import re
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

import click

WIDTH = 80
INDENT = 11  # where the second column begins
PARAMETER = re.compile(r"`([a-z_]+)(?:=([^`]+))?`")  # as the library's messages name it
FIRST = ("name", "architecture", "base", "base_sha256", "held_out_accuracy", "images_per_class", "size", "scale")


def escape(text: str) -> str:
    """Return `text` with everything that is not printable spelled out, so that a file cannot steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def message(text: str, command: click.Command) -> str:
    """Return what the library says, with each parameter as the option that it is of a command, if it is one.

    `fit_views` becomes --fit-views, `head='prototypes'` --head prototypes, and `overwrite=True` --overwrite.
    """
    names = {parameter.name for parameter in command.params}

    def option(found: re.Match[str]) -> str:
        name, value = found.groups()
        if name not in names:
            return found[0]
        flag = "--" + name.replace("_", "-")
        return flag if value in (None, "True") else flag + " " + value.strip("'")

    return PARAMETER.sub(option, escape(text))


def row(label: str, items: Iterable[str], *, lines: int = 6) -> str:
    """Return a label and, beside it, its items with commas between, on at most so many lines."""
    # textwrap breaks at ASCII spaces alone, so these keep an item in one piece where it fits on a line.
    joined = ", ".join(escape(item).replace(" ", "\0") for item in items)
    filled = textwrap.wrap(joined, WIDTH - INDENT, break_on_hyphens=False, max_lines=lines, placeholder=" …")
    return f"\n{'':{INDENT}}".join([f"{label:{INDENT}}{filled[0] if filled else '-'}", *filled[1:]]).replace("\0", " ")


def facts(value: Mapping[str, Any]) -> list[str]:
    """Return `key value` for what is set in a JSON object of any shape, inner keys with a dot."""
    found = []
    for key in [*(key for key in FIRST if key in value), *(key for key in value if key not in FIRST)]:
        inner = value[key]
        if isinstance(inner, Mapping):
            found += [f"{key}.{fact}" for fact in facts(inner)]
        elif inner is not None:
            found.append(f"{key} {scalar(inner)}")
    return found


def scalar(value: Any) -> str:
    """Return a JSON value in short: yes and no, lists with slashes, digests by their first 12 digits."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):
        return "/".join(scalar(item) for item in value)
    text = str(value)
    if re.fullmatch(r"[0-9a-f]{64}", text):
        return f"{text[:12]}…"
    return text if len(text) <= 60 else f"{text[:59]}…"
