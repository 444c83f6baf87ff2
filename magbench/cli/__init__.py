"""The command line. One file per command, each imported when it is asked for."""

import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from magbench import __version__
from magbench.cli import console
from magbench.errors import MagbenchError
from magbench.registry import did_you_mean, load_object

COMMANDS = {
    "run": "magbench.cli.run:command",
    "score": "magbench.cli.score:command",
    "fingerprint": "magbench.cli.fingerprint:command",
    "why": "magbench.cli.why:command",
    "report": "magbench.cli.report:command",
    "compare": "magbench.cli.compare:command",
    "gate": "magbench.cli.gate:command",
    "validate": "magbench.cli.validate:command",
    "study": "magbench.cli.study:command",
    "list": "magbench.cli.listing:command",
    "show": "magbench.cli.show:command",
    "data": "magbench.cli.data:command",
    "weights": "magbench.cli.weights:command",
    "check-policy": "magbench.cli.check_policy:command",
    "doctor": "magbench.cli.doctor:command",
}
"""Command names and where they are, in the order of `--help`."""

DEBUG = "magbench.debug"


class Magbench(click.Group):
    """The `magbench` command: finds its sub-commands lazily and turns errors into two lines and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command and give it the option `--debug`."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = load_object(COMMANDS[cmd_name])
        if not any(parameter.name == "debug" for parameter in command.params):
            command.params.append(_debug_option())
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or name the closest one."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(f"unknown command {args[0]!r}. {did_you_mean(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Errors made on purpose end here; others keep their traceback."""
        try:
            return super().invoke(ctx)
        except MagbenchError as error:
            console.error(error.message, error.hint, traceback=bool(ctx.meta.get(DEBUG)))
            return error.exit_code


def _debug_option() -> click.Option:
    def remember(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        ctx.meta[DEBUG] = value

    return click.Option(
        ["--debug"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        envvar="MAGBENCH_DEBUG",
        callback=remember,
        help="Show the traceback of an error.",
    )


@click.group("magbench", cls=Magbench, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="magbench")
def group() -> None:
    """Evaluate KV-cache policies in autoregressive long-video generation.

    Start with: magbench run --method memrope
    """


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run a command line and leave with its exit code.

    0 ok, 1 unexpected, 2 usage, 4 some samples failed, 130 interrupted (Ctrl-C or SIGTERM).

    Args:
        args: Without the program's name; None takes the process's own.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what batch systems and `timeout` send
    try:
        code = group.main(args, prog_name="magbench", standalone_mode=False)
    except click.UsageError as error:
        where = f"see {error.ctx.command_path} --help" if error.ctx else "see magbench --help"
        console.error(" ".join(error.format_message().split()), where)
        code = 2
    except click.ClickException as error:
        console.error(error.format_message(), None)
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        console.error("interrupted", None)
        code = 130
    sys.exit(code if isinstance(code, int) else 0)
