"""`kat issue`, as typed: what becomes of each option, and what it warns of."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

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


@pytest.fixture
def config(tmp_path: Path) -> Callable[[str], str]:
    """Give what writes a configuration with the ACL `demo` in a mode, and names its file."""

    def write(mode: str) -> str:
        file = tmp_path / "kat.toml"
        file.write_text(f'[acl.demo]\nmode = "{mode}"\n')
        return str(file)

    return write


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
        (("--session-ttl", "8h", "--session-idle", "30m"), "session", {"ttl": 28800, "idle": 1800}),
        (("--no-session",), "session", False),
        (("--ttl", "90"), "ttl", 90),
        (("--ttl", "5m"), "ttl", 300),
        (("--ttl", "1d"), "ttl", 86400),
        (("--nbf", "1767225600000"), "nbf", 1767225600000),
        (("--nbf", "0"), "nbf", 0),
    ],
)
def test_an_option_becomes_its_field(
    redis_server: RedisServer,
    client: redis.Redis,
    config: Callable[[str], str],
    *,
    options: tuple[str, ...],
    field: str,
    value: object,
) -> None:
    """Each option stands in the record, and nothing is said of it."""
    done = kat_issue(redis_server, *options, KAT_CONFIG=config("session"))
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
        (("--session-idle", "-1"), "--session-idle '-1': must be a whole number with a unit"),
        (("--session-ttl", "8 hours"), "--session-ttl '8 hours': must be a whole number with a"),
        (("--session-ttl", "9" * 18 + "d"), "session.ttl"),
        (("--ttl", "soon"), "--ttl 'soon': must be a whole number with a unit"),
        (("--ttl", "x" * 9000), "--ttl 'xxx"),
        (("--ttl", "1.5h"), "--ttl '1.5h'"),
        (("--ttl", ""), "--ttl ''"),
        (("--ttl", "0"), "ttl: 0, allowed is 1 to 86400"),
        (("--ttl", "2d"), "ttl: 172800, allowed is 1 to 86400"),
        (("--nbf", "-1"), "nbf"),
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
    assert len(done.stderr) < 300
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


NO_SESSIONS = "opens no sessions, so those options do nothing: its mode is "


@pytest.mark.parametrize(
    ("mode", "options", "warning"),
    [
        ("ip", (), "the ACL 'demo' looks at no token: its mode is ip; see `kat grant`"),
        ("ip", ("--no-session",), "the ACL 'demo' looks at no token: its mode is ip"),
        ("strict", ("--session-ttl", "1h"), f"the ACL 'demo' {NO_SESSIONS}strict"),
        ("grant", ("--session-idle", "60"), f"the ACL 'demo' {NO_SESSIONS}grant"),
        ("ip+token", ("--no-session",), f"the ACL 'demo' {NO_SESSIONS}ip+token"),
        ("strict", ("--nbf", "1767225600"), "--nbf 1767225600 is milliseconds, and looks like sec"),
        ("strict", ("--acl", "other"), "the ACL 'other' is not configured"),
    ],
)
def test_what_does_nothing_is_a_warning(
    redis_server: RedisServer,
    client: redis.Redis,
    config: Callable[[str], str],
    *,
    mode: str,
    options: tuple[str, ...],
    warning: str,
) -> None:
    """A token that cannot do what was asked is issued as asked, with one line that says why."""
    done = kat_issue(redis_server, *options, KAT_CONFIG=config(mode))
    assert (done.returncode, done.stderr.count("\n")) == (0, 1)
    assert done.stderr.startswith(f"kat: warning: {warning}")
    assert record(client)["sub"] == "u"


@pytest.mark.parametrize("mode", ["strict", "session", "grant", "ip+token"])
def test_what_works_is_no_warning(
    redis_server: RedisServer, config: Callable[[str], str], mode: str
) -> None:
    """Nothing is said of an ACL that takes tokens."""
    done = kat_issue(redis_server, KAT_CONFIG=config(mode))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("after_s", "is_told"), [(30, False), (7200, True)])
def test_a_token_that_begins_after_its_end_is_a_warning(
    redis_server: RedisServer,
    client: redis.Redis,
    after_s: int,
    is_told: bool,  # noqa: FBT001 - a column of cases
) -> None:
    """A token of one hour that begins in two never opens, and one that begins in time does."""
    nbf_ms = int(time.time() + after_s) * 1000
    done = kat_issue(redis_server, "--ttl", "1h", "--nbf", str(nbf_ms))
    assert done.returncode == 0
    assert (f"--nbf {nbf_ms} is after the end of the token" in done.stderr) is is_told
    assert record(client)["nbf"] == nbf_ms


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
