"""`kat`: one thin file per command.

This file stays light: every worker process imports it once more, on its way to its own work,
because multiprocessing imports the main module again. typer costs 8 MB.
"""

import errno
import signal
import sys

_OURS = ("spoa", "tokens", "haproxy")


def main() -> None:
    """Run the command line. What ends it is a sentence, never a traceback of others' doing."""
    from spoa.cli.output import NotWritten, discard_stdout, replace_stdout  # noqa: PLC0415

    replace_stdout()
    try:
        _run()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.partition(".")[0] in _OURS:
            raise
        sys.exit(f"kat: needs {missing.name}: install kat-spoa[agent]")
    except NotWritten as error:
        discard_stdout()
        # Whoever reads our output has seen enough: that is no fault to be told.
        sys.exit(1 if error.errno == errno.EPIPE else f"kat: {error}")


def _run() -> None:
    from spoa.cli.app import app  # noqa: PLC0415 - see above

    try:
        app()
    finally:
        sys.stdout.flush()
