"""Draws as what the reference of spec/ has for them."""

from dataclasses import fields, is_dataclass
from typing import Any


def plain(drawn: Any) -> list[dict[str, Any]]:
    """A Draw of hellods as one dictionary of integers for each view."""
    columns: dict[str, list[Any]] = {}
    for field in fields(drawn):
        value = getattr(drawn, field.name)
        if is_dataclass(value):
            columns[field.name] = plain(value)
        elif hasattr(value, "tolist"):
            columns[field.name] = value.tolist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
