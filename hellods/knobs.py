"""Knobs: fields of a dataclass that say what they are for, in its docstring and in a command's help."""

from dataclasses import field, fields
from textwrap import fill
from typing import Any, TypeVar

T = TypeVar("T")


def knob(default: Any, text: str, *, unset: str = "") -> Any:
    """Return a field of a dataclass.

    Args:
        default: its value where none is given.
        text: one sentence or more, which name other knobs in backticks.
        unset: what stands in for None.
    """
    return field(default=default, metadata={"text": text, "unset": unset})


def documented(kind: type[T]) -> type[T]:
    """Return a dataclass with its knobs in its docstring."""
    said = []
    for knob in fields(kind):  # type: ignore[arg-type]
        text, unset = knob.metadata["text"], knob.metadata["unset"]
        whole = f"{knob.name}: {text}" + (f" None: {unset}." if unset else "")
        said.append(fill(whole, 120, initial_indent=" " * 8, subsequent_indent=" " * 12, break_on_hyphens=False))
    kind.__doc__ = "\n".join([(kind.__doc__ or "").rstrip(), "", "    Attributes:", *said, ""])
    return kind
