import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from spoa.cli.inspect import inspect
from spoa.dissect.dissect import MAX_FRAME_BYTES, NotSpop, dissect
from spoa.dissect.transcript import CaptureError
from spoa.spop import schema
from spoa.spop.constants import DataType, FrameType, Scope
from tests.support.frames import (
    ABORT,
    FIN,
    fragment,
    frame,
    hello,
    ids,
    message,
    notify,
    string,
    typed,
)
from tests.support.vectors import Vector, all_vectors, vector

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN = b"kat_ThisOnlyLooksLikeATokenInAVector000000"
COOKIE = b"ThisOnlyLooksLikeASessionCookie000000000000"
MESSAGE = message(b"check-http", (b"token", string(TOKEN)), (b"session", string(COOKIE)))


def _lines(data: bytes, *, show_secrets: bool = False) -> list[str]:
    lines: list[str] = []
    with contextlib.suppress(NotSpop):
        lines += dissect(io.BufferedReader(io.BytesIO(data)), show_secrets=show_secrets)
    return lines


def test_tree() -> None:
    """A frame is a line with its offset, type, length, flags and ids; its payload stands below."""
    args = [
        (b"acl", string(b'a "b"\n\xff')),
        (b"src", typed(DataType.IPV6, bytes(15) + b"\x01")),
        (b"", typed(DataType.INT32, -1)),
        (b"raw", typed(DataType.BINARY, b"\x00\xff")),
        (b"odd", typed(DataType.NULL, None, flags=4)),
        (b"yes", typed(DataType.BOOL, value=True)),
    ]
    sent = notify(300, message(b"check-http", *args))
    assert _lines(hello() + sent)[-8:] == [
        f"@{len(hello())} NOTIFY length={len(sent) - 4} flags=FIN stream=300 frame=1",
        "  message check-http, 6 arguments",
        r'    acl = STRING "a \"b\"\n\xff"',
        "    src = IPV6 ::1",
        '    "" = INT32 -1',
        "    raw = BINARY 00ff",
        "    odd = NULL flags=4",
        "    yes = BOOL true",
    ]


def test_actions() -> None:
    """Actions name the scope as HAProxy's configuration does."""
    actions = schema.actions.build(
        [
            schema.SetVar(Scope.TRANSACTION, b"allow", typed(DataType.BOOL, value=False)),
            schema.UnsetVar(Scope.SESSION, b"user"),
        ]
    )
    assert _lines(frame(FrameType.ACK, actions, ids=ids(1)))[1:] == [
        "  set-var txn.allow = BOOL false",
        "  unset-var sess.user",
    ]


@pytest.mark.parametrize("recorded", all_vectors(), ids=str)
def test_vectors(recorded: Vector) -> None:
    """Every recording is a tree of all its frames without a malformed byte."""
    lines = _lines(recorded.path.read_bytes())
    assert not [line for line in lines if "malformed" in line or "cut off" in line]
    heads = [line for line in lines if " @" in line]
    assert len(heads) == len(recorded.frames)
    closings = [line for line in lines if line in ("> end", "> reset", "< end")]
    assert closings == [f"{side} {closing}" for side, closing in recorded.closings]


def test_fragments_are_joined() -> None:
    """The arguments of a fragmented NOTIFY are shown with its last fragment."""
    lines = _lines(vector("2.6", "fragmented").path.read_bytes())
    assert sum("fragment of" in line for line in lines) == 4
    assert sum("message check-http, 16 arguments" in line for line in lines) == 1
    assert "... 600 bytes" in "".join(lines)


@pytest.mark.parametrize("recorded", all_vectors(), ids=str)
def test_raw_bytes(recorded: Vector) -> None:
    """Raw bytes of one direction show the frames that the transcript shows for it."""
    raw = [line for line in _lines(recorded.from_haproxy) if "@" in line]
    told = [line for line in _lines(recorded.path.read_bytes()) if line.startswith("> @")]
    assert [f"> {line}" for line in raw] == told


@pytest.mark.parametrize(
    "data",
    [
        notify(1, MESSAGE),
        notify(1, MESSAGE)[:-3],
        notify(1, MESSAGE[:-3]),
        notify(1, message(b"m", (b"path", string(b"/x?kat=" + TOKEN)))),
        notify(1, message(TOKEN, (TOKEN, string(b"x")))),
        notify(1, MESSAGE[:40], 0) + fragment(1, MESSAGE[40:], FIN),
        fragment(1, MESSAGE, FIN),
        frame(99, MESSAGE),
        frame(FrameType.ACK, b"\x01\x03\x02\x07session" + schema.typed_data.build(string(COOKIE))),
        frame(FrameType.ACK, b"\x09" + MESSAGE),
        b"GET /?kat=" + TOKEN + b" HTTP/1.1\r\nCookie: a=" + COOKIE,
    ],
)
def test_secrets_are_hidden(data: bytes) -> None:
    """No token and no cookie is shown unless asked for, in good frames, bad ones and dumps."""
    hidden = "\n".join(_lines(data))
    shown = "\n".join(_lines(data, show_secrets=True))
    for secret in (TOKEN, COOKIE):
        for part in (secret[4:20], secret[-16:]):
            assert part.decode() not in hidden
            assert part.hex(" ")[:24] not in hidden
    assert hidden != shown


def test_broken_length_hides_too() -> None:
    """A length that cuts a token in two does not show its second half as the next name."""
    payload = bytearray(MESSAGE)
    payload[payload.index(TOKEN) - 1] = 10
    assert TOKEN[20:30].decode() not in "\n".join(_lines(notify(1, bytes(payload))))


def test_malformed_goes_on() -> None:
    """A broken payload is shown up to its fault, then as hex; the next frame is read again."""
    broken = notify(1, b"\x01m\x02\x01a\x00\x01b\x08\x09xyz")
    lines = _lines(broken + notify(3))
    assert lines[1:5] == [
        "  message m, 2 arguments",
        "    a = NULL",
        "  malformed at byte 19: value: 9 bytes expected, 3 left",
        "    000013  08 09 78 79 7a                                   ..xyz",
    ]
    assert lines[5].startswith(f"@{len(broken)} NOTIFY")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"\x00\x00\x00\x02\x03\x00", "malformed at byte 5: 4 bytes expected, 1 left"),
        (frame(3, b"\x01m\x01\x01a\x0c"), "12 is not a valid DataType"),
        (frame(103, b"\x09\x01"), "action type 9 with 1 arguments"),
        (frame(103, b"\x02\x02\x07\x01a"), "7 is not a valid Scope"),
        (frame(99, b"?"), "unknown type 99"),
        (frame(3, b"", FIN | ABORT), "aborted"),
        (fragment(1, b"x"), "a fragment without its beginning"),
        (notify(1, b"", 0) + fragment(2, b"x"), "a fragment without its beginning"),
        (notify(1, b"", 0) + fragment(1, bytes(60_000)) * 2, "dropped: more than 65536 bytes"),
        (frame(3, b"", 0x80000001), "flags=FIN+0x80000000"),
        (hello()[:40], "cut off after 36 bytes of"),
        (hello() + b"\x00\x00", "cut off after 2 bytes of a frame's length"),
        (b"GET / HTTP/1.1\r\n\r\n", "looks like an HTTP request"),
        (b"\x16\x03\x01\x02\x00\x01", "looks like a TLS handshake"),
        ((MAX_FRAME_BYTES + 1).to_bytes(4), "not SPOP: a frame of 1048577 bytes"),
    ],
)
def test_faults(data: bytes, told: str) -> None:
    """Each fault is told in words."""
    assert told in "\n".join(_lines(data))


def test_long_dump_is_cut() -> None:
    """A dump ends after 256 bytes and says how many more there are."""
    lines = _lines(frame(99, bytes(5000)))
    assert len(lines) == 18
    assert lines[-1].strip() == "... 4744 bytes more"


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(min_size=1, max_size=200), st.sampled_from([0, 1, 2, 3, 101, 102, 103, 50]))
def test_any_bytes(data: bytes, kind: int) -> None:
    """Whatever the bytes, the lines are printable ASCII, and a good frame behind is found."""
    lines = _lines(frame(kind, data) + notify(7))
    assert any("NOTIFY" in line and "stream=7" in line for line in lines)
    assert all(line.isascii() and line.isprintable() for line in lines)
    for raw in (data, b"> " + data, b"#" + data):
        with contextlib.suppress(CaptureError):
            _lines(raw)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"# only a comment\n", "empty"),
        (b"#\n00 01\n", "line 2 comes before the first"),
        (b"> 00 0\n", "line 1 is neither hex"),
        (b"> 00\n\n> over\n", "line 3 is neither hex"),
        (b"> " + b"00" * 40_000, "line 1 is longer than 65536 bytes"),
        (b"", "empty"),
    ],
)
def test_bad_captures(text: bytes, told: str) -> None:
    """What is no capture is refused in a sentence with the line's number."""
    with pytest.raises(CaptureError, match=told):
        _lines(text)


class _Endless(io.RawIOBase):
    """A pipe that never ends and counts what was taken from it."""

    taken = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        unit = notify(1)
        room = len(buffer) // len(unit) * len(unit)
        buffer[:room] = unit * (room // len(unit))
        self.taken += room
        return room


def test_endless_pipe() -> None:
    """Lines come while the pipe is still open, after a bounded amount of it."""
    pipe = _Endless()
    lines: Iterator[str] = dissect(io.BufferedReader(pipe))
    assert "NOTIFY" in next(lines)
    assert pipe.taken <= 1 << 17


@pytest.fixture
def command() -> typer.Typer:
    app = typer.Typer()
    app.command()(inspect)
    return app


def test_command_reads_a_file(command: typer.Typer) -> None:
    """`kat inspect FILE` prints the tree and exits 0; --show-secrets shows them."""
    path = str(vector("3.2", "gate").path)
    hidden = CliRunner().invoke(command, [path])
    assert hidden.exit_code == 0
    assert "token = STRING kat_**** (42 bytes)" in hidden.stdout
    assert "session = STRING **** (43 bytes)" in hidden.stdout
    shown = CliRunner().invoke(command, [path, "--show-secrets"])
    assert f'token = STRING "{TOKEN.decode()}"' in shown.stdout


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 1),
        (bytes(12), 1),
        (b"\x00\x00", 1),
        (frame(99, b"xyz"), 1),
        (b"> 47 45 54 20 2f\n< 48 54 54 50 2f\n", 1),
        (hello() + b"GET / HTTP/1.1\r\n\r\n", 0),
        (hello()[:40], 0),
        (notify(1, b"\xff"), 0),
        (b"> 47 45 54 20 2f\n< " + hello().hex(" ").encode() + b"\n", 0),
    ],
)
def test_command_says_when_it_is_no_spop(
    command: typer.Typer, tmp_path: Path, data: bytes, code: int
) -> None:
    """Without one frame of SPOP the tree of what is there ends in a sentence and exit 1."""
    file = tmp_path / "capture"
    file.write_bytes(data)
    result = CliRunner().invoke(command, [str(file)])
    assert result.exit_code == code
    assert result.stdout
    sentence = f"kat inspect: {file} holds no frame of SPOP\n"
    assert result.stderr == (sentence if code else "")


@pytest.mark.parametrize("kind", ["missing", "a directory", "empty", "unreadable text"])
def test_command_refuses(command: typer.Typer, tmp_path: Path, kind: str) -> None:
    """What can not be read is one sentence on stderr with the file's name, and exit code 2."""
    path = tmp_path / "capture"
    match kind:
        case "a directory":
            path.mkdir()
        case "empty":
            path.touch()
        case "unreadable text":
            path.write_text("> not hex\n")
    result = CliRunner().invoke(command, [str(path)])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"kat inspect: cannot read {path}: ")
    assert result.stderr.count("\n") == 1


_PROGRAM = "import typer; from spoa.cli.inspect import inspect; typer.run(inspect)"
_ROOT = Path(__file__).parent.parent.parent


def test_command_in_a_pipe() -> None:
    """Bytes on stdin are read, and a reader of the output that leaves early causes no traceback."""
    source, sink = os.pipe()
    os.close(source)
    with os.fdopen(sink, "wb") as closed:
        result = subprocess.run(
            [sys.executable, "-c", _PROGRAM],
            input=hello() + notify(1) * 100,
            stdout=closed,
            stderr=subprocess.PIPE,
            cwd=_ROOT,
            timeout=30,
            check=False,
        )
    assert result.stderr == b""


def test_command_reads_stdin() -> None:
    """Without a file the capture comes from stdin."""
    result = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        input=hello(),
        capture_output=True,
        cwd=_ROOT,
        timeout=30,
        check=False,
    )
    assert result.returncode == 0
    assert result.stdout.startswith(b"@0 HAPROXY-HELLO")


def test_command_without_construct(command: typer.Typer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra `inspect` the command says what to install."""
    monkeypatch.setitem(sys.modules, "construct", None)
    for name in ("spoa.dissect.dissect", "spoa.dissect.payload", "spoa.spop.schema"):
        monkeypatch.delitem(sys.modules, name)
    result = CliRunner().invoke(command, ["capture"])
    assert result.exit_code == 2
    assert result.stderr == "kat inspect: needs construct: install kat-spoa[inspect]\n"
