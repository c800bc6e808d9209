"""A recipe file stands in for the defaults of options, but for what does not follow from it any more."""

from collections.abc import Mapping
from pathlib import Path

import click
from click.core import ParameterSource

from hellods.distill.recipe import FOLLOWS, NO_ASSISTANT, trains
from hellods.distill.toml import read_knobs


def choose_recipe(context: click.Context, _: click.Parameter, path: str | None) -> str | None:
    """Return the path of a recipe file, which stands in for defaults."""
    if path:
        context.default_map = read_knobs(Path(path))
    return path


def asks_for(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is ParameterSource.COMMANDLINE


def outdated(context: click.Context) -> dict[str, set[str]]:
    """Return the knobs of a recipe file that followed by default from others in it, and the options that change these.

    A knob whose causes are not in the file was written by hand, and is kept.
    """
    held, given = context.default_map or {}, context.params
    changed = {
        name: {f"--{name.replace('_', '-')}"} for name in held if asks_for(context, name) and given[name] != held[name]
    }
    if asks_for(context, "teacher") and "assistant" in held:
        # Only where the teacher was trained has a file stages without an assistant.
        trained = held["assistant"] == NO_ASSISTANT and "teacher_stages" in held
        if trained != trains(given["teacher"]):
            changed["teacher"] = {"--teacher"}
    found: dict[str, set[str]] = {}
    for name, causes in FOLLOWS.items():
        options = {option for cause in causes for option in changed.get(cause, ())}
        if options and context.get_parameter_source(name) is ParameterSource.DEFAULT_MAP:
            found[name] = changed[name] = options
    return found


def note(path: str, anew: Mapping[str, set[str]]) -> str:
    """Return what is said of the knobs in a recipe file that are not taken from it, and the options that are why."""
    options = ", ".join(sorted({option for options in anew.values() for option in options}))
    return f"{path}: worked out anew because of {options}: {', '.join(anew)}; to keep one, give it as an option, too"
