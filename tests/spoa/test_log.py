"""One event is one line."""

import json
import logging
from collections.abc import Iterator

import pytest

from spoa.config.sections import Log, LogFormat, LogLevel
from spoa.log import configure, fields, log


@pytest.fixture(autouse=True)
def _put_back() -> Iterator[None]:
    speakers = [logging.getLogger(name) for name in ("kat", "tokens", "asyncio")]
    before = [(one, one.handlers, one.propagate, one.level) for one in speakers]
    yield
    for one, *state in before:
        one.handlers, one.propagate, one.level = state


def test_a_line_of_logfmt(capsys: pytest.CaptureFixture[str]) -> None:
    """Facts come in the order given, quoted where they need it."""
    configure(Log())
    log.warning("worker %s", "died", extra=fields(worker=0, why='a "b"', empty="", ok=True))
    line = capsys.readouterr().err
    assert line.endswith(
        'level=warning msg="worker died" worker=0 why="a \\"b\\"" empty="" ok=true\n'
    )


@pytest.mark.parametrize("style", LogFormat)
def test_a_peer_cannot_forge_a_line(style: LogFormat, capsys: pytest.CaptureFixture[str]) -> None:
    """Line breaks, escapes and foreign letters in a fact stay inside of it."""
    configure(Log(format=style))
    log.info("x", extra=fields(name="a\nlevel=error\r\x1b[2J\u2028\u00e9"))
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert line.isascii()
    assert "\x1b" not in line


def test_a_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    """A line of JSON is JSON, an exception included."""
    configure(Log(format=LogFormat.JSON))
    try:
        raise ValueError("why")  # noqa: TRY301 - the event itself
    except ValueError:
        log.exception("broken", extra=fields(worker=1))
    facts = json.loads(capsys.readouterr().err)
    assert (facts["level"], facts["msg"], facts["worker"]) == ("error", "broken", 1)
    assert facts["error"].endswith("ValueError: why")


def test_the_level_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    """What is less than the level makes no line, whoever speaks."""
    configure(Log(level=LogLevel.ERROR))
    for name in ("kat", "tokens.store.store", "asyncio"):
        logging.getLogger(name).warning("x")
    assert capsys.readouterr().err == ""


def test_the_store_speaks_the_same_language(capsys: pytest.CaptureFixture[str]) -> None:
    """Lines of `tokens` come once, and in our format."""
    configure(Log())
    logging.getLogger("tokens.store.store").warning("Redis is away")
    assert capsys.readouterr().err.endswith('level=warning msg="Redis is away"\n')
