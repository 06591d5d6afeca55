"""`kat inspect`: a capture of SPOP as a readable tree."""

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

_NO_SPOP = 1
_UNREADABLE = 2


def inspect(
    file: Annotated[Path | None, typer.Argument(help="The capture; without it, stdin.")] = None,
    *,
    show_secrets: Annotated[bool, typer.Option(help="Show tokens and cookies.")] = False,
) -> None:
    """Print captured SPOP as a readable tree.

    The capture is raw bytes or a transcript.
    """
    try:
        # Here and not above: the agent's own extra does not install `construct`.
        from spoa.dissect.dissect import CaptureError, NotSpop, dissect  # noqa: PLC0415
    except ModuleNotFoundError as missing:
        _fail(f"needs {missing.name}: install kat-spoa[inspect]")
    try:
        with file.open("rb") if file else open(0, "rb", closefd=False) as capture:
            for line in dissect(capture, show_secrets=show_secrets):
                print(line, flush=True)
    except BrokenPipeError:
        raise  # whoever reads our output has seen enough: typer ends quietly
    except (OSError, CaptureError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        _fail(f"cannot read {file or 'stdin'}: {reason}")
    except NotSpop:
        _fail(f"{file or 'stdin'} holds no frame of SPOP", _NO_SPOP)


def _fail(sentence: str, code: int = _UNREADABLE) -> NoReturn:
    sys.stdout.flush()
    print(f"kat inspect: {sentence}", file=sys.stderr)
    raise typer.Exit(code) from None
