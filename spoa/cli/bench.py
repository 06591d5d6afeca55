"""`kat bench`: how fast the agent is on this machine."""

import os
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from spoa.cli.settings import USAGE, fail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spoa.bench.options import Options
    from spoa.bench.result import Result

_INTERRUPTED = 128 + signal.SIGINT
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)

_Number = int | None
_Texts = list[str] | None


# The defaults stand in spoa/bench/options.py. Repeated for --help, which does not load redis.
def bench(
    parts: Annotated[
        _Texts,
        typer.Argument(
            metavar="PART",
            help="capacity, latency, placement, haproxy, growth, disturbed. "
            "Without any: capacity and latency.",
            show_default=False,
        ),
    ] = None,
    *,
    quick: Annotated[
        bool, typer.Option("--quick", help="Seconds in all: shows that it works, no more.")
    ] = False,
    scenario: Annotated[
        _Texts,
        typer.Option(metavar="NAME", help="Ask only this: consume, session, ...; may be repeated."),
    ] = None,
    rounds: Annotated[
        _Number, typer.Option(help="Rounds of each kind; the tables have medians. Default: 5.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(help="How long a round is, about. Default: 0.8.")
    ] = None,
    connections: Annotated[_Number, typer.Option(help="SPOP connections. Default: 16.")] = None,
    in_flight: Annotated[
        _Number, typer.Option(help="Requests in flight on each; HAProxy has 20. Default: 20.")
    ] = None,
    rate: Annotated[
        list[float] | None,
        typer.Option(
            metavar="N", help="Open loop: requests/s; may be repeated. Default: 5000 and 20000."
        ),
    ] = None,
    users: Annotated[
        _Number, typer.Option(help="Who share the tokens. Default: each has its own.")
    ] = None,
    workers: Annotated[
        _Number, typer.Option(help="Worker processes of the agent. Default: 1.")
    ] = None,
    generators: Annotated[
        _Number, typer.Option(help="Processes that generate the load. Default: 1.")
    ] = None,
    pin: Annotated[
        bool, typer.Option("--pin", help="The agent alone on the last core, all else elsewhere.")
    ] = False,
    transport: Annotated[
        str | None,
        typer.Option(metavar="unix|tcp", help="How the agent is asked. Default: unix."),
    ] = None,
    redis: Annotated[
        str | None,
        typer.Option(metavar="unix|tcp", help="How the agent reaches Redis. Default: unix."),
    ] = None,
    against: Annotated[
        _Texts,  # no Path: of an empty text, that is the current directory
        typer.Option(
            metavar="DIR",
            help="A directory with another build of the packages, measured side by side in "
            "capacity and latency; may be repeated.",
        ),
    ] = None,
    json: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write all figures of all rounds there, too."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page with pictures.")
    ] = None,
) -> None:
    """Say how fast the agent is on this machine.

    Starts a private Redis and the agent, asks as HAProxy would, verifies every answer, prints
    tables and stops everything again.

    KAT_BENCH_MINUTES=10 lets disturbed watch memory for ten minutes; KAT_BENCH_LARGE=1 lets growth
    store 10,000,000 tokens, too.
    """
    from spoa.bench.fault import Fault  # noqa: PLC0415 - see load_or_exit
    from spoa.bench.options import BadOption, read_options  # noqa: PLC0415

    try:
        options = read_options(
            parts=parts or (),
            quick=quick,
            scenarios=scenario or (),
            rounds=rounds,
            seconds=seconds,
            connections=connections,
            in_flight=in_flight,
            rates=rate or (),
            users=users,
            workers=workers,
            generators=generators,
            pin=pin,
            transport=transport,
            redis=redis,
            against=against or (),
            json=json,
            html=html,
        )
        _check_environment(options)
    except (BadOption, Fault) as error:
        fail(str(error), code=USAGE)
    _measure_and_tell(options)


def _check_environment(options: "Options") -> None:
    """Read what the parts will read, while nothing has been started. Raises Fault."""
    from spoa.bench.fault import Fault  # noqa: PLC0415 - see load_or_exit
    from spoa.bench.options import Part  # noqa: PLC0415

    if Part.DISTURBED in options.parts:
        from spoa.bench.disturbed import minutes  # noqa: PLC0415

        minutes(options)
    if Part.GROWTH in options.parts:
        from spoa.bench.growth import LARGE_VARIABLE  # noqa: PLC0415

        text = os.environ.get(LARGE_VARIABLE, "")
        if text not in {"", "0", "1"}:
            raise Fault(f"{LARGE_VARIABLE} is {text!a}: must be 0 or 1")


def _measure_and_tell(options: "Options") -> None:
    from spoa.bench import report  # noqa: PLC0415 - see load_or_exit
    from spoa.bench.fault import Fault  # noqa: PLC0415

    results: list[Result] = []
    faults: list[str] = []
    try:
        facts = report.environment(_haproxies(options))
        print(report.header(facts, options), flush=True)
        _measure(options, results)
    except KeyboardInterrupt:
        raise typer.Exit(_INTERRUPTED) from None
    except Fault as error:
        faults.append(str(error))
    # What was measured before a part broke took minutes, and is as good as ever.
    if results:
        print(f"\n{report.tables(results)}", flush=True)
        for path, write in ((options.json, report.write_json), (options.html, report.write_html)):
            try:
                if path:
                    write(path, facts, options, results)
            except OSError as error:  # of a full disk, it names no file
                faults.append(f"{path} cannot be written: {error.strerror}")
    if faults:
        fail(*faults)


def _haproxies(options: "Options") -> "Sequence[Path]":
    """Find those that will take part, before anything is measured. Raises Fault."""
    from spoa.bench.options import Part  # noqa: PLC0415 - see load_or_exit

    if Part.HAPROXY not in options.parts:
        return ()
    from spoa.bench.haproxy.front import find_haproxies  # noqa: PLC0415

    return [one.path for one in find_haproxies()]


def _measure(options: "Options", results: "list[Result]") -> None:
    """Add results as they come. Everything that was started is stopped, however it ends."""
    from spoa.bench.plan import run  # noqa: PLC0415 - see load_or_exit
    from spoa.bench.progress import Progress  # noqa: PLC0415

    for number in _STOP_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, _stop)
    with (
        tempfile.TemporaryDirectory(prefix="kat-bench-") as directory,
        Progress(sys.stderr) as progress,
    ):
        results.extend(run(options, Path(directory), progress))


def _stop(_number: int, _frame: FrameType | None) -> None:
    """Leave everything that was begun, once: who is impatient does not stop the stopping."""
    for number in _STOP_SIGNALS:
        # No SIG_IGN: Python complains about a signal that came while it was set.
        signal.signal(number, lambda *_: None)
    raise KeyboardInterrupt
