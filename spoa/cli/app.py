"""The commands of `kat`, put together."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from spoa.cli.allowlist import allowlist
from spoa.cli.audit import audit
from spoa.cli.bench import bench
from spoa.cli.block import block
from spoa.cli.check import check
from spoa.cli.demo import demo
from spoa.cli.grant import grant
from spoa.cli.inspect import inspect
from spoa.cli.issue import issue
from spoa.cli.pages import pages
from spoa.cli.revoke import revoke
from spoa.cli.secret import refuse_tokens, refuse_what_is_no_text
from spoa.cli.serve import serve
from spoa.version import version


class _Commands(TyperGroup):
    # Any: click's Context, or that of the click which newer versions of typer bring along.
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        # Before anybody says which of the arguments is wrong.
        refuse_tokens(args)
        refuse_what_is_no_text(args)
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="kat",
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    # Plain text in, plain text out: for logs, pipes and consoles at three in the morning.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for command in (
    *(serve, issue, revoke, block, grant, allowlist, audit),
    *(check, pages, inspect, demo, bench),
):
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
