"""`kat check`: what would go wrong, said before it does."""

from pathlib import Path
from typing import Annotated

import typer

from spoa.cli.settings import FAILURE, ConfigFile


def check(
    config: ConfigFile = None,
    haproxy: Annotated[
        list[Path] | None,
        typer.Option(help="haproxy.cfg or an SPOE file to compare with; may be repeated."),
    ] = None,
) -> None:
    """Say what would go wrong, before it does.

    Looks at the configuration, Redis, the sockets and, when named, HAProxy's files: one line per
    finding, exit 1 if any says FAIL.
    """
    from spoa.check.check import Finding, Level, findings  # noqa: PLC0415 - see load_or_exit
    from spoa.config.file import ConfigError, file_of, load  # noqa: PLC0415

    try:
        settings = load(config)
    except ConfigError as error:
        for mistake in error.mistakes:
            print(Finding(Level.FAIL, "config", mistake))
        raise typer.Exit(FAILURE) from None
    print(Finding(Level.OK, "config", f"ACLs: {', '.join(settings.acl)}"))
    has_failed = False
    for finding in findings(settings, haproxy or (), file_of(config)):
        has_failed |= finding.level is Level.FAIL
        print(finding)
    raise typer.Exit(FAILURE if has_failed else 0)
