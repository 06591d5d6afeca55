"""The commands of `kat`, put together."""

from typing import Annotated

import typer

from spoa.cli.check import check
from spoa.cli.demo import demo
from spoa.cli.inspect import inspect
from spoa.cli.issue import issue
from spoa.cli.serve import serve
from spoa.version import version

app = typer.Typer(
    name="kat",
    no_args_is_help=True,
    add_completion=False,
    # Plain text in, plain text out: for logs, pipes and consoles at three in the morning.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for command in (serve, issue, check, inspect, demo):
    app.command()(command)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"kat {version()}")
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the release."
        ),
    ] = False,
) -> None:
    """HAProxy asks, kat consumes the token, HAProxy lets the request through."""
