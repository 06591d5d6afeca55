"""`python -m bench`: our agent beside the others; measure, print, clean up."""

import errno
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from bench.peers.options import Options, parse_options
from bench.peers.plan import Measured, run
from bench.peers.subjects import subjects
from spoa.bench import report
from spoa.bench.fault import Fault
from spoa.bench.progress import Progress
from spoa.cli.output import NotWritten, discard_stdout, replace_stdout

_INTERRUPTED = 130
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(arguments: Sequence[str]) -> int:
    options = parse_options(arguments, [subject.name for subject in subjects()])
    replace_stdout()
    try:
        _report(options)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except Fault as error:
        print(error, file=sys.stderr)
        return 1
    except NotWritten as error:
        discard_stdout()
        if error.errno != errno.EPIPE:  # else whoever reads has seen enough
            print(error, file=sys.stderr)
        return 1
    return 0


def _report(options: Options) -> None:
    facts = report.environment()
    facts["load"] = f"{options.rounds} x {options.seconds:g} s, alternated, not pinned"
    print(report.header(facts, None), flush=True)
    measured = _measure(options)
    facts |= {name: note for name, note in measured.notes.items() if note}
    _show(measured)
    for path, write in ((options.json, report.write_json), (options.html, report.write_html)):
        try:
            if path:
                write(path, facts, None, measured.results)
        except OSError as error:  # of a full disk, it names no file
            raise Fault(f"{path} cannot be written: {error.strerror}") from error


def _measure(options: Options) -> Measured:
    for number in _STOP_SIGNALS:
        signal.signal(number, _stop)
    with (
        tempfile.TemporaryDirectory(prefix="kat-peers-") as directory,
        Progress(sys.stderr) as progress,
    ):
        return run(options, Path(directory), progress)


def _show(measured: Measured) -> None:
    print(f"\n{report.tables(measured.results)}")
    print("\nOurs does all of its policy, the others a plain GETDEL.")
    for name, note in measured.notes.items():
        if note:
            print(f"{name}: {note}")
    sys.stdout.flush()  # whatever comes of the files


def _stop(_number: int, _frame: FrameType | None) -> None:
    """Leave everything that was begun, once: who is impatient does not stop the stopping."""
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
