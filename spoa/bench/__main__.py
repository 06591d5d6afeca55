"""`python -m spoa.bench`: measure, print, clean up."""

import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from spoa.bench import report
from spoa.bench.channel import Refused
from spoa.bench.load import UnexpectedAnswer
from spoa.bench.options import parse_options
from spoa.bench.plan import run
from spoa.bench.servers import NotStarted

INTERRUPTED = 130


def main(arguments: Sequence[str]) -> int:
    options = parse_options(arguments)
    signal.signal(signal.SIGTERM, _end)
    facts = report.environment()
    print(report.header(facts, options), flush=True)
    try:
        with tempfile.TemporaryDirectory(prefix="kat-bench-") as directory:
            results = run(options, Path(directory), _progress)
    except KeyboardInterrupt:
        return INTERRUPTED
    except (NotStarted, Refused, UnexpectedAnswer) as error:
        _progress("")
        print(error, file=sys.stderr)
        return 1
    _progress("")
    print(f"\n{report.tables(results)}")
    if options.json:
        report.write_json(options.json, facts, options, results)
    return 0


def _progress(doing: str) -> None:
    """Show on a terminal, in one line, what is going on. An empty text clears the line."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{doing}", end="", file=sys.stderr, flush=True)


def _end(_signal: int, _frame: FrameType | None) -> None:
    """Turn SIGTERM into an exception, so that everything started is stopped."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
