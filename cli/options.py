"""What commands with many options share."""

from collections.abc import Callable, Container
from dataclasses import fields
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import click

from hellods.knobs import BOUNDS

from .text import message

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


def options_of(kind: type, *, but: Container[str] = (), default: str = "") -> Callable[[F], F]:
    """Return a decorator that gives a command an option for each knob of a dataclass, in their order.

    Args:
        kind: the dataclass.
        but: names of knobs that the command asks for otherwise.
        default: what the help says of every default; options that are not given are None then.
    """
    hints = get_type_hints(kind)

    def decorate(command: F) -> F:
        for knob in reversed(fields(kind)):
            if knob.name not in but:
                value = None if default else knob.default
                unset = default or knob.metadata["unset"]
                text = knob.metadata["text"] + (f"  [default: {unset}]" if unset else "")
                command = _option(knob.name, hints[knob.name], knob.metadata[BOUNDS], value, text)(command)
        return command

    return decorate


def _option(name: str, hint: Any, bounds: tuple[float, float] | None, value: Any, text: str) -> Callable[[F], F]:
    """Return a decorator for an option of a type that a knob may have."""
    kind = get_args(hint)[0] if type(None) in get_args(hint) else hint  # X of X | None
    flag = "--" + name.replace("_", "-")
    attributes: dict[str, Any] = {"type": kind}
    if bounds:
        low, high = bounds
        attributes["type"] = click.IntRange(int(low), int(high)) if kind is int else click.FloatRange(low, high)
        attributes["metavar"] = "INTEGER" if kind is int else "FLOAT"  # INTEGER RANGE is too wide for its column
    elif kind is bool:
        flag = f"{flag}/--no-{flag[2:]}"
    elif get_origin(kind) is Literal:
        attributes["type"] = click.Choice(get_args(kind))
    elif get_origin(kind) is tuple:
        many = get_args(kind)[-1] is Ellipsis
        attributes = {"type": numbers, "metavar": "N,…"} if many else {"type": three, "metavar": "R,G,B"}
    shown = value is not None and value is not False
    return click.option(flag, name, default=value, show_default=shown, help=text, **attributes)


def with_names_of_options(command: click.Command) -> click.Command:
    """Return a command whose help calls each parameter in backticks by the name of its option."""
    for option in command.params:
        if isinstance(option, click.Option) and option.help:
            option.help = message(option.help, command)
    return command


def only(kind: type, knobs: dict[str, Any]) -> dict[str, Any]:
    """Return those of the options that are fields of `kind`."""
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in knobs.items() if name in names}
