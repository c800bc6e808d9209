"""The `hellods` command: one module for each sub-command, imported when it is called."""

import errno
import io
import sys
from importlib import import_module
from typing import Any

import click

from hellods import HelloError, __version__

from .text import escape, message

COMMANDS = ("build", "evaluate", "inspect", "verify")


class Commands(click.Group):
    """Sub-commands that are imported on demand, and one place where an error becomes a line and a status."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = import_module(f".{name}", __package__).command
        return command

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except HelloError as error:
            command = self.get_command(context, context.invoked_subcommand or "") or self
            raise click.ClickException(message(str(error), command)) from error
        except OSError as error:
            if error.errno == errno.EPIPE:  # `hellods inspect FILE | head`: click ends the process quietly
                raise
            raise click.ClickException(escape(str(error))) from error
        except RuntimeError as error:
            if type(error).__name__ != "OutOfMemoryError":  # torch's own, which is not imported here
                raise
            remedy = "choose a smaller --fit-batch-size in a build, a smaller --batch-size in an evaluation"
            raise click.ClickException(f"the GPU has too little memory: {remedy}") from error
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            raise click.exceptions.Exit(130) from None


@click.group(
    "hellods", cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, message="%(prog)s %(version)s")
def main() -> None:
    """Make, look at and check distilled data sets: one `.hello` file each."""
    if isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.isatty():
        sys.stdout.reconfigure(encoding="utf-8")  # a recipe or a card in a file, which Windows would write otherwise
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a class may have a name that this terminal has no letters for
            stream.reconfigure(errors="backslashreplace")
