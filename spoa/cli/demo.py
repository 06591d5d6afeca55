"""`kat demo`: see the program at work, then try it by hand."""

import signal
from pathlib import Path
from threading import Event
from typing import Annotated

import typer

from spoa.cli.settings import FAILURE, USAGE, fail

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_INTERRUPTED = 128 + signal.SIGINT


def demo(
    *,
    once: Annotated[bool, typer.Option("--once", help="Stop after the walk.")] = False,
    haproxy: Annotated[Path | None, typer.Option(help="The HAProxy to run.")] = None,
) -> None:
    """Show all of it at work, and stay to be tried by hand."""
    from spoa.config.file import ConfigError  # noqa: PLC0415 - see load_or_exit
    from spoa.demo.place import find_place  # noqa: PLC0415

    try:
        from spoa.demo.play import play  # noqa: PLC0415
    except ModuleNotFoundError as missing:
        fail(f"the demo needs {missing.name}: install kat-spoa[agent,demo]")
    from spoa.demo.programs import DemoError, Ended  # noqa: PLC0415
    from tokens.store.client import StoreFault  # noqa: PLC0415

    # A flag, not an exception: nothing that was started is ever forgotten half-way.
    ended = Event()
    for number in _STOP_SIGNALS:
        signal.signal(number, lambda *_: ended.set())
    try:
        is_right = play(find_place(), haproxy, ended, is_brief=once)
    except Ended:
        raise typer.Exit(_INTERRUPTED) from None
    except ConfigError as error:
        fail(*error.mistakes, code=USAGE)
    except (DemoError, StoreFault) as error:
        fail(str(error))
    raise typer.Exit(0 if is_right else FAILURE)
