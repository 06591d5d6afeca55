"""`kat demo`: see the program at work, then try it by hand."""

import signal
from pathlib import Path
from threading import Event
from typing import Annotated

import typer

from spoa.cli.settings import FAILURE, fail, load_or_exit

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_INTERRUPTED = 128 + signal.SIGINT


def demo(
    *,
    once: Annotated[bool, typer.Option("--once", help="Stop after the walk.")] = False,
    haproxy: Annotated[Path | None, typer.Option(help="The HAProxy to run.")] = None,
) -> None:
    """Show all of it at work, and stay to be tried by hand."""
    config = load_or_exit(None)

    from spoa.demo.play import play  # noqa: PLC0415 - see load_or_exit
    from spoa.demo.programs import DemoError, Ended  # noqa: PLC0415
    from tokens.client import StoreFault  # noqa: PLC0415

    # A flag, not an exception: nothing that was started is ever forgotten half-way.
    ended = Event()
    for number in _STOP_SIGNALS:
        signal.signal(number, lambda *_: ended.set())
    try:
        is_right = play(config, haproxy, ended, is_brief=once)
    except Ended:
        raise typer.Exit(_INTERRUPTED) from None
    except (DemoError, StoreFault) as error:
        fail(str(error))
    raise typer.Exit(0 if is_right else FAILURE)
