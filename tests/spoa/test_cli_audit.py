"""`kat audit`, as typed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from tests.support.eventually import eventually
from tests.support.redis import RedisServer
from tokens.audit import entry

DEADLINE_S = 30
_MAIN = "from spoa.cli import main; main()"
_KEY = b"kat:audit"
_AT_MS = 1714557600000  # 2024-05-01T10:00:00Z


def _arguments(*arguments: str) -> list[str]:
    return [sys.executable, "-c", _MAIN, "audit", *arguments]


def _environ(server: RedisServer, **more: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("KAT_")}
    return {
        **clean,
        "KAT_CONFIG": os.devnull,
        "KAT_STORE__URL": f"unix://{server.socket}",
        "TZ": "XXX-3",  # three hours east
        **more,
    }


def _audit(
    server: RedisServer, *arguments: str, **environ: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        _arguments(*arguments),
        env=_environ(server, **environ),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


@pytest.fixture
def follow(redis_server: RedisServer) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Give what starts a `kat audit --follow`; it ends with the test."""
    with contextlib.ExitStack() as started:

        def start(*arguments: str, server: RedisServer = redis_server) -> subprocess.Popen[str]:
            process = started.enter_context(
                subprocess.Popen(
                    _arguments("--follow", *arguments),
                    env=_environ(server),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            started.callback(process.kill)
            return process

        yield start


def _tell(client: redis.Redis, *events: dict[str, object], at: str = "*") -> None:
    *_, field, value = entry(_KEY, [{"event": "consumed", **event} for event in events], 1000)
    client.xadd(_KEY, {field: value}, id=at)


def _lines(told: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in told.splitlines()]


def test_a_table_for_people(redis_server: RedisServer, client: redis.Redis) -> None:
    """Times in UTC, facts in columns, the others with their names; a header, and no complaint."""
    _tell(
        client,
        {"acl": "demo", "kid": "0123456789ab", "user": "u1", "src": "192.0.2.7", "id": "C0:1"},
        {"event": "replayed", "acl": "demo", "id": "C0:2", "n": 4},
        at=f"{_AT_MS}-0",
    )
    done = _audit(redis_server)
    assert (done.returncode, done.stderr) == (0, "")
    at = "2024-05-01T10:00:00Z"
    assert done.stdout.splitlines() == [
        "TIME                 EVENT    ACL        USER       SRC             KID",
        f"{at} consumed demo       u1         192.0.2.7       0123456789ab id=C0:1",
        f"{at} replayed demo       -          -               -            n=4 id=C0:2",
    ]
    _tell(client, {"event": "replayed", "first_at": _AT_MS, "first_src": "10.0.0.1"})
    assert "first_at=2024-05-01T10:00:00Z first_src=10.0.0.1" in _audit(redis_server).stdout


def test_a_session_is_shown_by_the_name_that_ends_it(
    redis_server: RedisServer, client: redis.Redis
) -> None:
    """The sid of an opened session stands in its line."""
    _tell(client, {"event": "session", "user": "u1", "sid": "ba9876543210"})
    assert " sid=ba9876543210\n" in _audit(redis_server).stdout


def test_lines_of_json_for_programs(redis_server: RedisServer, client: redis.Redis) -> None:
    """Each line is an object with every fact and a moment in UTC."""
    _tell(client, {"user": "J\u00fcrgen\x1b\u2028", "n": 3, "ts": "mine"}, at=f"{_AT_MS}-0")
    done = _audit(redis_server, "--json", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()
    assert _lines(done.stdout) == [
        {
            "ts": "2024-05-01T10:00:00.000Z",
            "event": "consumed",
            "user": "J\u00fcrgen\x1b\u2028",
            "n": 3,
        }
    ]


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_a_name_stays_in_its_line(
    redis_server: RedisServer, client: redis.Redis, encoding: str
) -> None:
    """Controls, line breaks and directions in a fact are shown and not done, on any terminal."""
    rubbish = "a\n\x1b[2J\u202e\u2028\x85\ud800\u00e9"
    _tell(client, {"user": rubbish, rubbish: rubbish, "acl": [1, "\x1b"]})
    done = _audit(redis_server, PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, "")
    _, line = done.stdout.splitlines()
    assert line.isprintable()
    assert line.count(r"a\n\x1b[2J\u202e\u2028\x85\ud800") == 3
    assert ("\u00e9" in line) is (encoding == "utf-8")


def test_a_name_makes_no_columns(redis_server: RedisServer, client: redis.Redis) -> None:
    """Whoever is called like the rest of a line does not get to write it."""
    _tell(client, {"event": "refused", "user": "alice       198.51.100.1    0123456789ab"})
    _tell(client, {"event": "refused", "user": "bob reason=wrong_src"})
    lines = _audit(redis_server).stdout.splitlines()[-2:]
    assert '"alice       198.51.100.1    0123456789ab"' in lines[0]
    assert '"bob reason=wrong_src"' in lines[1]


def test_the_last_fifty_unless_asked_otherwise(
    redis_server: RedisServer, client: redis.Redis
) -> None:
    """Without filter or -n it is the last 50; with a filter all of it; with -n the last n."""
    for number in range(120):
        _tell(client, {"user": f"u{number % 2}", "n": number})
    found = {
        (): range(70, 120),
        ("-n", "3"): range(117, 120),
        ("--user", "u1"): range(1, 120, 2),
        ("--user", "u1", "-n", "2"): range(117, 120, 2),
        ("--since", "1h"): range(120),
        ("--until", "1h"): range(0),
        ("--since", "2024-05-01", "--until", "2999-01-01T00:00Z", "-n", "1"): range(119, 120),
    }
    for arguments, numbers in found.items():
        done = _audit(redis_server, "--json", *arguments)
        assert [event["n"] for event in _lines(done.stdout)] == [*numbers], arguments


def test_filters_are_passed_on(redis_server: RedisServer, client: redis.Redis) -> None:
    """Each option picks the event that it names."""
    picks = {
        ("--ip", "::ffff:10.1.2.3"): {"src": "10.1.2.3"},
        ("--kid", "0123456789ab"): {"kid": "0123456789ab"},
        ("--acl", "b"): {"acl": "b"},
        ("--event", "grant_ended"): {"event": "grant_ended"},
        ("--user", "\u00fc"): {"user": "\u00fc"},
    }
    _tell(client, {"user": "nobody"}, *picks.values())
    for arguments, facts in picks.items():
        [event] = _lines(_audit(redis_server, "--json", *arguments).stdout)
        assert event.items() >= facts.items()


def test_a_time_is_utc_unless_it_says_otherwise(
    redis_server: RedisServer, client: redis.Redis
) -> None:
    """A time without zone is UTC, as those that are printed; one with a zone is what it says."""
    _tell(client, {"user": "u"}, at=f"{_AT_MS}-0")
    is_before = {
        "2024-05-01T10:00:00": True,
        "2024-05-01T10:00:01": False,
        "2024-05-01T10:00:00Z": True,
        "2024-05-01T10:00:01Z": False,
        "2024-05-01T12:00:00+02:00": True,
        "2024-05-01T12:00:01+02:00": False,
    }
    for since, expected in is_before.items():
        told = _audit(redis_server, "--json", "--since", since).stdout
        assert bool(told) is expected, since


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--ip", "10.0.0"), "--ip '10.0.0' is no address and no network"),
        (("--ip", "10.0.0.0/33"), "is no address and no network"),
        (("--kid", "0123"), "--kid takes the 12 hex digits"),
        (("--event", "used"), "--event 'used' is none of issued, consumed"),
        (("--acl", "a b"), "--acl 'a b' is not 1 to 64 of"),
        (("--user", "x" * 129), "is not 1 to 128 bytes"),
        (("--since", "yesterday"), "--since 'yesterday' is no duration"),
        (("--since", "2026-13-01T00:00"), "is no duration"),
        (("--until", "10x"), "--until '10x' is no duration"),
        (("--since", "1m", "--until", "2m"), "--since is after --until"),
        (("--follow", "--until", "1m"), "--follow has no end"),
        (("-n", "0"), "-n"),
    ],
)
def test_an_argument_that_cannot_be(
    redis_server: RedisServer, arguments: tuple[str, ...], sentence: str
) -> None:
    """It is one sentence about the option, and exit 2."""
    done = _audit(redis_server, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_token_for_a_kid_is_not_repeated(redis_server: RedisServer) -> None:
    """Who looks for a token by its text reads no token in the answer."""
    done = _audit(redis_server, "--kid", "kat_" + "x" * 38)
    assert done.returncode == 2
    assert "xxx" not in done.stderr


def test_nothing_to_tell_is_no_output(redis_server: RedisServer) -> None:
    """An empty or absent stream is neither a table nor a mistake."""
    done = _audit(redis_server)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_no_redis_is_one_sentence(place: Path) -> None:
    """Exit 1, and what to do, where nothing can be connected to."""
    done = subprocess.run(
        _arguments(),
        env={**os.environ, "KAT_CONFIG": os.devnull, "KAT_STATE_DIR": str(place)},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "is `kat serve` running?" in done.stderr


def test_what_is_no_stream_is_one_sentence(redis_server: RedisServer, client: redis.Redis) -> None:
    """A key of another type is Redis's own complaint, and exit 1."""
    client.set(_KEY, "x")
    done = _audit(redis_server)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "WRONGTYPE" in done.stderr


def test_a_foreign_entry_is_said_and_skipped(
    redis_server: RedisServer, client: redis.Redis
) -> None:
    """The sentence is on stderr; the events beside it are on stdout."""
    client.xadd(_KEY, {"x": "y"})
    client.xadd(_KEY, {"x": "y"})
    _tell(client, {"user": "u"})
    done = _audit(redis_server, "--json")
    assert done.returncode == 0
    assert [event["user"] for event in _lines(done.stdout)] == ["u"]
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("kat: entry ")


def test_following(follow: Callable[..., subprocess.Popen[str]], client: redis.Redis) -> None:
    """What has happened comes first, then each event as it happens; Ctrl-C ends it quietly."""
    for user in ("old", "u1", "u2"):
        _tell(client, {"user": user})
    process = follow("--json", "-n", "2")
    assert process.stdout
    assert process.stderr
    assert [json.loads(process.stdout.readline())["user"] for _ in range(2)] == ["u1", "u2"]
    _tell(client, {"user": "u3"})
    assert json.loads(process.stdout.readline())["user"] == "u3"
    process.send_signal(signal.SIGINT)
    assert process.wait(DEADLINE_S) == 128 + signal.SIGINT
    assert (process.stdout.read(), process.stderr.read()) == ("", "")


def test_a_pipe_that_closes_ends_following(
    follow: Callable[..., subprocess.Popen[str]], client: redis.Redis
) -> None:
    """Who has seen enough is told nothing more: `kat audit -f | head`."""
    _tell(client, {"user": "u1"})
    process = follow()
    assert process.stdout
    assert process.stderr
    process.stdout.readline()
    process.stdout.close()
    _tell(client, {"user": "u2"})
    assert process.wait(DEADLINE_S) == 1
    assert process.stderr.read() == ""


def test_a_pipe_that_closes_is_noticed_while_nothing_happens(
    follow: Callable[..., subprocess.Popen[str]], client: redis.Redis
) -> None:
    """`kat audit -f | head` ends without another event: the shell waits for both of them."""
    _tell(client, {"user": "u1"})
    process = follow("--json")
    assert process.stdout
    assert process.stderr
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(DEADLINE_S) == 1
    assert process.stderr.read() == ""


def test_a_pipe_that_closes_is_noticed_while_redis_is_away(
    follow: Callable[..., subprocess.Popen[str]], start_redis: Callable[..., RedisServer]
) -> None:
    """Nobody is waited for on behalf of nobody."""
    server = start_redis()
    process = follow(server=server)
    assert process.stdout
    assert process.stderr
    with server.client() as client:
        eventually(lambda: client.info("clients")["blocked_clients"] == 1, "it follows")
    server.process.kill()
    server.process.wait(DEADLINE_S)
    assert process.stderr.readline().endswith("; waiting for it\n")
    process.stdout.close()
    assert process.wait(DEADLINE_S) == 1
    assert "Traceback" not in process.stderr.read()


def test_a_redis_that_restarts_is_waited_for(
    follow: Callable[..., subprocess.Popen[str]], start_redis: Callable[..., RedisServer]
) -> None:
    """Its going and its coming are one line each on stderr, and what happens next is told."""
    server = start_redis()
    with server.client() as client:
        _tell(client, {"user": "u1"})
    process = follow("--json", server=server)
    assert process.stdout
    assert process.stderr
    assert json.loads(process.stdout.readline())["user"] == "u1"
    server.process.kill()
    server.process.wait(DEADLINE_S)
    assert process.stderr.readline().endswith("; waiting for it\n")
    with subprocess.Popen(server.process.args) as again:
        try:
            with server.client() as client:
                eventually(lambda: _answers(client), "Redis is up again")
                _tell(client, {"user": "u2"})
            assert json.loads(process.stdout.readline())["user"] == "u2"
        finally:
            again.kill()
    process.send_signal(signal.SIGINT)
    assert process.wait(DEADLINE_S) == 128 + signal.SIGINT
    said = process.stderr.read().splitlines()
    assert "kat: Redis answers again" in said
    assert "Traceback" not in str(said)


def _answers(client: redis.Redis) -> bool:
    with contextlib.suppress(redis.ConnectionError):
        return bool(client.ping())
    return False
