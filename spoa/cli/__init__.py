"""`kat`: one thin file per command.

This file stays light: every worker process imports it once more, on its way to its own work,
because multiprocessing imports the main module again. typer costs 8 MB.
"""


def main() -> None:
    """Run the command line."""
    from spoa.cli.app import app  # noqa: PLC0415 - see above

    app()
