"""`kat issue`, as typed: what becomes of each option, and what it warns of."""

import json
import os
import subprocess
import sys

import pytest
import redis

from tests.support.records import NONCE
from tests.support.redis import RedisServer

DEADLINE_S = 30
_MAIN = "from spoa.cli import main; main()"


def kat_issue(
    server: RedisServer, *options: str, **environ: str
) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("KAT_")}
    place = {"KAT_CONFIG": os.devnull, "KAT_STORE__URL": f"unix://{server.socket}"}
    return subprocess.run(
        [sys.executable, "-c", _MAIN, "issue", "--acl", "demo", "--user", "u", *options],
        env=clean | place | environ,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def record(client: redis.Redis) -> dict[str, object]:
    [key] = client.keys("kat:t:*")
    raw = client.get(key)
    assert isinstance(raw, bytes)
    fields = json.loads(raw)
    assert isinstance(fields, dict)
    return fields


@pytest.mark.parametrize(
    ("options", "field", "value"),
    [
        (("--nonce", NONCE), "nonce", NONCE),
        (("--session-ttl", "3600"), "session", {"ttl": 3600}),
        (("--session-idle", "60"), "session", {"idle": 60}),
        (("--session-ttl", "90", "--session-idle", "60"), "session", {"ttl": 90, "idle": 60}),
        (("--no-session",), "session", False),
    ],
)
def test_an_option_becomes_its_field(
    redis_server: RedisServer,
    client: redis.Redis,
    options: tuple[str, ...],
    field: str,
    value: object,
) -> None:
    """Each option stands in the record, and nothing is said of it."""
    done = kat_issue(redis_server, *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert record(client)[field] == value


def test_without_options_the_acl_decides(redis_server: RedisServer, client: redis.Redis) -> None:
    """A token that says nothing of sessions leaves them to its ACL."""
    assert kat_issue(redis_server).returncode == 0
    assert record(client).keys() == {"v", "sub", "acl", "ttl"}


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--nonce", "short"), "nonce"),
        (("--nonce", NONCE.upper()), "nonce"),
        (("--session-ttl", "0"), "session.ttl"),
        (("--session-idle", "-1"), "session.idle"),
        (("--no-session", "--session-ttl", "60"), "--no-session"),
        (("--src", "0.0.0.0"), "src"),
        (("--src", "::"), "src"),
    ],
)
def test_what_cannot_be_is_a_sentence(
    redis_server: RedisServer, client: redis.Redis, options: tuple[str, ...], word: str
) -> None:
    """A wrong option is one sentence that names it, exit 2, and no token."""
    done = kat_issue(redis_server, *options)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert word in done.stderr
    assert client.dbsize() == 0


def test_loopback_is_issued_with_a_warning(redis_server: RedisServer, client: redis.Redis) -> None:
    """Who tries it out on one machine may bind to it, and learns that it is good for no more."""
    done = kat_issue(redis_server, "--src", "127.0.0.1", "--src", "192.0.2.7")
    assert done.returncode == 0
    assert record(client)["src"] == ["127.0.0.1", "192.0.2.7"]
    assert done.stderr == (
        "kat: warning: 127.0.0.1 is this machine's own address: of use only to try things out on "
        "it\n"
    )


def test_issuing_is_audited(redis_server: RedisServer, client: redis.Redis) -> None:
    """The stream tells of the token by its kid, unless the configuration has no stream."""
    done = kat_issue(redis_server, "--json")
    [(_, fields)] = client.xrange("kat:audit")
    [event] = json.loads(fields[b"e"])
    assert (event["event"], event["kid"]) == ("issued", json.loads(done.stdout)["kid"])
    assert kat_issue(redis_server, KAT_AUDIT__STREAM="false").returncode == 0
    assert client.xlen("kat:audit") == 1


def test_a_stream_that_refuses_is_a_warning(redis_server: RedisServer, client: redis.Redis) -> None:
    """Where the event cannot be written the token is printed all the same."""
    client.set("kat:audit", "no stream")
    done = kat_issue(redis_server)
    assert done.returncode == 0
    assert done.stdout.startswith("kat_")
    assert "audit stream" in done.stderr
