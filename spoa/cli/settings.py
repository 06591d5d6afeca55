"""How each command gets its configuration, and how it says what is wrong."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from spoa.config.model import Config

FAILURE = 1
USAGE = 2

_MAX_SHOWN_CHARS = 80

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", help="TOML file. Without it: $KAT_CONFIG, then /etc/kat/kat.toml."
    ),
]


def load_or_exit(file: Path | None) -> "Config":
    """Load the configuration, or name every mistake on stderr and end with USAGE."""
    # Here and in the commands: pydantic, redis and the rest would make `kat --help` slow.
    from spoa.config.file import ConfigError, load  # noqa: PLC0415

    try:
        return load(file)
    except ConfigError as error:
        fail(*error.mistakes, code=USAGE)


def quoted(argument: str) -> str:
    """Quote what was typed for a message: in ASCII, and cut."""
    return ascii(argument)[:_MAX_SHOWN_CHARS]


def fail(*sentences: str, code: int = FAILURE) -> NoReturn:
    """Say why on stderr, and end."""
    for sentence in sentences:
        print(f"kat: {sentence}", file=sys.stderr)
    raise typer.Exit(code)
