"""What commands with many options share."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any] | click.Command)


def three(value: str | tuple[float, float, float]) -> tuple[float, float, float]:
    """Return three numbers, one for each channel, from text with commas between."""
    if isinstance(value, tuple):  # the default
        return value
    try:
        red, green, blue = (float(part) for part in value.split(","))
    except ValueError as cause:
        raise click.BadParameter(f"{value!r} is not three numbers such as 0.485,0.456,0.406") from cause
    return red, green, blue


def numbers(value: str | tuple[int, ...]) -> tuple[int, ...]:
    """Return whole numbers from text with commas between."""
    if isinstance(value, tuple):  # of a recipe file
        return value
    try:
        return tuple(int(part) for part in value.split(","))
    except ValueError as cause:
        raise click.BadParameter(f"{value!r} is not whole numbers such as 1,2") from cause


def options_of(*kinds: type) -> Callable[..., Callable[[F], F]]:
    """Return a decorator for an option that is spelled as a field of one of `kinds`, and has its default."""
    defaults = {field.name: field.default for kind in kinds for field in fields(kind)}

    def option(name: str, text: str, kind: Any = None, **attributes: Any) -> Callable[[F], F]:
        default = defaults[name]
        flag = "--" + name.replace("_", "-")
        if default is False and kind is not bool:
            return click.option(flag, is_flag=True, help=text)
        flag = f"{flag}/--no-{flag[2:]}" if kind is bool else flag
        return click.option(
            flag, name, type=kind, default=default, show_default=default is not None, help=text, **attributes
        )

    return option


def only(kind: type, knobs: dict[str, Any]) -> dict[str, Any]:
    """Return those of the options that are fields of `kind`."""
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in knobs.items() if name in names}
