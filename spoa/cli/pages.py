"""`kat pages`: the pages that visitors see, with the texts and the colour of this place."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from spoa.cli.settings import USAGE, fail

# Many times what fits into the pages; a mistaken path to a disk image is refused, not read.
_MAX_FILE_BYTES = 1024 * 1024


def _print_texts(is_wanted: bool) -> None:
    if is_wanted:
        from haproxy.pages import SHIPPED  # noqa: PLC0415 - see load_or_exit

        print(SHIPPED, end="")
        raise typer.Exit


def pages(
    folder: Annotated[
        Path, typer.Argument(help="HAProxy's folder of pages, as /etc/haproxy/errors.")
    ],
    texts: Annotated[
        Path | None,
        typer.Option(help="TOML file with a colour and texts. What it lacks stays as shipped."),
    ] = None,
    _print_texts: Annotated[
        bool,
        typer.Option(
            "--print-texts",
            callback=_print_texts,
            is_eager=True,
            help="Print the shipped texts, to begin a file with.",
        ),
    ] = False,
) -> None:
    """Write the pages that visitors see.

    Into HAProxy's folder, beside whatever else is there. HAProxy reads them when it is reloaded.
    """
    from haproxy.pages import PagesError, read, render  # noqa: PLC0415 - see load_or_exit

    document = _content(texts) if texts else ""
    try:
        files = render(read(document))
    except PagesError as error:
        fail(*(f"{texts}: {mistake}" for mistake in error.mistakes), code=USAGE)
    try:
        _write(folder, files)
    except OSError as error:
        fail(f"{folder}: cannot be written: {error.strerror}")
    print(f"wrote {len(files)} files into {folder}; reload HAProxy to have it read them")


def _content(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            raw = stream.read(_MAX_FILE_BYTES + 1)
        if len(raw) > _MAX_FILE_BYTES:
            fail(f"{file}: has more than {_MAX_FILE_BYTES} bytes", code=USAGE)
        return raw.decode()
    except OSError as error:
        fail(f"{file}: cannot be read: {error.strerror}", code=USAGE)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        fail(f"{file}: is not UTF-8 (at line {line})", code=USAGE)


def _write(folder: Path, files: Mapping[str, str]) -> None:
    """Replace each file in one step: HAProxy, reloaded meanwhile, reads no half of one."""
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".kat-pages-") as made:
        for name, content in files.items():
            Path(made, name).write_text(content, "utf-8")
        for name in files:
            Path(made, name).replace(folder / name)
