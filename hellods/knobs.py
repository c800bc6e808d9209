"""Knobs: fields of a dataclass that say what they are for, in its docstring and in a command's help."""

from dataclasses import field, fields
from textwrap import fill
from typing import Any, TypeVar

from hellods.record import BOUNDS

T = TypeVar("T")


def knob(default: Any, text: str, *, bounds: tuple[float, float] | None = None, unset: str = "") -> Any:
    """Return a field of a dataclass.

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
