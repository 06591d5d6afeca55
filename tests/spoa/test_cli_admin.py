"""`kat revoke`, `kat block` and `kat grant`, as typed."""

import json
import os
import pty
import pwd
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from spoa.cli.admin import moment
from spoa.cli.app import app
from spoa.cli.progress import QUIET_S, Progress
from tests.support.eventually import eventually
from tests.support.holdings import Holdings, kid_of, sid_of
from tests.support.redis import RedisServer
from tests.support.topologies import Node, running_node
from tokens.token import mint

DEADLINE_S = 30
UNFENCED = {"KAT_STORE__FENCE": "false"}
_MAIN = "from spoa.cli import main; main()"

Done = subprocess.CompletedProcess[str]
Kat = Callable[..., Done]


def _as_typed(*arguments: str, stdin: str | int = "", **environ: str) -> Done:
    """Run `kat` as a process, with no configuration but `environ`. An int is a file to read."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("KAT_")}
    given: dict[str, Any] = {"input": stdin} if isinstance(stdin, str) else {"stdin": stdin}
    return subprocess.run(
        [sys.executable, "-c", _MAIN, *arguments],
        env={**clean, "KAT_CONFIG": os.devnull, **environ},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
        **given,
    )


def _run(*arguments: str, stdin: str = "", **environ: str) -> Done:
    """Do the same in this process, which has loaded everything already."""
    clean: dict[str, str | None] = {name: None for name in os.environ if name.startswith("KAT_")}
    clean |= {"KAT_CONFIG": os.devnull} | environ
    done = CliRunner().invoke(app, arguments, input=stdin, env=clean, prog_name="kat")
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return Done(arguments, done.exit_code, done.stdout, done.stderr)


@pytest.fixture
def held(client: Any) -> Holdings:
    return Holdings(client)


@pytest.fixture
def kat(redis_server: RedisServer) -> Kat:
    """Run `kat` with the test's Redis, which has met no agent, and nobody wonders."""
    return partial(_run, KAT_STORE__URL=f"unix://{redis_server.socket}", **UNFENCED)


@pytest.fixture
def typed_kat(redis_server: RedisServer) -> Kat:
    """Do the same as a process."""
    return partial(_as_typed, KAT_STORE__URL=f"unix://{redis_server.socket}", **UNFENCED)


# kat revoke


def test_a_token_is_revoked_from_stdin(kat: Kat, held: Holdings) -> None:
    """Its text on stdin, with a line end or without; the answer names what was found."""
    for end in ("", "\n", "\r\n"):
        token = held.token()
        done = kat("revoke", "--token", stdin=token + end)
        assert (done.returncode, done.stderr) == (0, "")
        first, *rest = done.stdout.splitlines()
        assert first == "1 revoked: 1 token"
        assert rest == [
            "refused from now on: this token, and whatever it opened",
            "replicas that confirmed: 0 (asked: 0)",
        ]
        assert not held.has_token(token)


def test_a_consumed_token_is_said_to_be_so(kat: Kat, held: Holdings) -> None:
    """What it opened ends, and that it was consumed is told."""
    token = held.token(is_consumed=True)
    held.session(kid=kid_of(token))
    done = kat("revoke", "--kid", kid_of(token))
    assert done.returncode == 0
    assert done.stdout.splitlines()[:3] == [
        "1 revoked: 1 session",
        "1 token of that kid was consumed already",
        f"refused from now on: token {kid_of(token)}, and whatever it opened",
    ]


def test_a_session_is_revoked_by_sid_or_from_stdin(kat: Kat, held: Holdings) -> None:
    """The id, which is a secret, comes on stdin; the sid may be typed."""
    one, two = held.session(), held.session()
    for arguments, stdin in ((("--session", sid_of(one)), ""), (("--session", "-"), two)):
        done = kat("revoke", *arguments, stdin=stdin)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines() == [
            "1 revoked: 1 session",
            "replicas that confirmed: 0 (asked: 0)",
        ]
    assert not held.has_session(one)
    assert not held.has_session(two)


def test_a_user_is_revoked(kat: Kat, held: Holdings) -> None:
    """The answer counts what he had, and says until when it was issued."""
    held.session()
    held.session()
    held.grant("10.0.0.1")
    done = kat("revoke", "--user", "user1")
    assert (done.returncode, done.stderr) == (0, "")
    first, second, third, _ = done.stdout.splitlines()
    assert first == "3 revoked: 2 sessions, 1 grant"
    assert third == "not counted: tokens, of which there is no list"
    assert second.startswith("refused from now on: whatever was issued to user user1 before 20")
    assert held.events()[-1]["by"] not in ("", None)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("--group", "staff"), "whatever was issued to members of group staff before 20"),
        (("--acl", "wiki"), "whatever was issued for ACL wiki before 20"),
        (("--all", "--yes"), "whatever was issued before 20"),
    ],
)
def test_what_cannot_be_counted_is_cut_and_said(
    kat: Kat, held: Holdings, arguments: tuple[str, ...], what: str
) -> None:
    """No number is given that would look like a count of everything."""
    done = kat("revoke", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert "revoked" not in done.stdout
    assert f"refused from now on: {what}" in done.stdout
    assert "not counted: tokens and sessions" in done.stdout
    assert ("IP grants" in done.stdout) is (arguments[0] == "--group")
    assert held.version() > 0


@pytest.mark.parametrize(
    "arguments",
    [
        *(("--kid", "0123456789ab"), ("--session", "0123456789ab"), ("--user", "nobody")),
        *(("--grant", "192.0.2.7"), ("--grant", "192.0.2.7", "--acl", "wiki")),
    ],
)
def test_what_does_not_exist_is_zero_and_no_failure(kat: Kat, arguments: tuple[str, ...]) -> None:
    """0 revoked, exit 0."""
    done = kat("revoke", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "0 revoked"
    token = kat("revoke", "--token", stdin=mint())
    assert (token.returncode, token.stdout.splitlines()[0]) == (0, "0 revoked")


def test_a_grant_is_ended_and_its_network_is_named(kat: Kat, held: Holdings) -> None:
    """Who ends the grant of an address is told of a network through which it still stands."""
    held.grant("192.0.2.7", "tcp")
    held.grant("192.0.2.7", "wiki")
    held.grant("192.0.2.0/24", "wiki")
    done = kat("revoke", "--grant", "192.0.2.7", "--acl", "tcp")
    assert (done.stdout.splitlines()[0], done.stderr) == ("1 revoked: 1 grant", "")
    assert held.has_grant("192.0.2.7", "wiki")
    done = kat("revoke", "--grant", "192.0.2.7")
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == "1 revoked: 1 grant"
    assert done.stderr == (
        "kat: warning: 192.0.2.7 is still granted at ACL wiki, by 192.0.2.0/24\n"
    )


def test_as_a_process_it_does_the_same(typed_kat: Kat, held: Holdings) -> None:
    """What the other tests do in one process, once as typed: the secret from a pipe."""
    token = held.token()
    done = typed_kat("revoke", "--token", stdin=f"{token}\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("1 revoked: 1 token\n")
    done = typed_kat("revoke", "--token", token)
    assert (done.returncode, done.stdout) == (2, "")
    assert token[4:] not in done.stderr


def test_the_same_in_json(kat: Kat, held: Holdings) -> None:
    """One object, with all numbers."""
    held.session()
    told = json.loads(kat("revoke", "--user", "user1", "--json").stdout)
    assert told.pop("cut_ms") > 0
    assert told == {
        "revoked": 1,
        "tokens": 0,
        "consumed": 0,
        "sessions": 1,
        "grants": 0,
        "not_counted": ["tokens"],
        "undone": [],
        "still": [],
        "replicas": {"asked": 0, "confirmed": 0},
        "audited": True,
    }


def test_everything_asks_before(kat: Kat, held: Holdings) -> None:
    """--all without --yes does nothing where nobody can be asked, and exits 2."""
    held.session()
    done = kat("revoke", "--all")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--yes" in done.stderr
    assert not held.version()


@pytest.mark.parametrize(("typed", "code"), [("all", 0), ("yes", 1), ("", 1)])
def test_everything_asks_at_a_terminal(
    typed_kat: Kat, held: Holdings, typed: str, code: int
) -> None:
    """Only the very word does it."""
    terminal, stdin = pty.openpty()
    try:
        os.write(terminal, f"{typed}\n".encode())
        done = typed_kat("revoke", "--all", stdin=stdin)
    finally:
        os.close(terminal)
        os.close(stdin)
    assert done.returncode == code
    assert "Type all to do it" in done.stderr
    assert bool(held.version()) is (code == 0)


SELECTORS = ("--kid 0123456789ab", "--token", "--session -", "--user u", "--group g", "--acl a")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("revoke", "takes exactly one of --kid --token --session --user --group --acl --all"),
        *((f"revoke {one} --all --yes", "and --all were given") for one in SELECTORS),
        ("revoke --user u --group g", "--user and --group were given"),
        ("revoke --acl a --user u", "--user and --acl were given"),
        ("revoke --grant 10.0.0.1 --user u", "--user and --grant were given"),
        ("revoke --kid xyz", "kid: not 12 hexadecimal digits"),
        ("revoke --kid 0123456789AB", "kid: not 12 hexadecimal digits in small letters"),
        ("revoke --session xyz", "sid: not 12 hexadecimal digits"),
        ("revoke --token", "stdin holds no token: kat_..., 42 characters in all"),
        ("revoke --session -", "stdin holds no session id"),
        ("revoke --user=", "user: '' is not 1 to 128 bytes"),
        ("revoke --group a,b", "group: 'a,b' is not"),
        ("revoke --acl *", "acl: '*' is not"),
        ("revoke --grant nowhere", "'nowhere' is neither an address nor a network"),
        ("revoke --grant 192.0.2.7/24", "host bits: 192.0.2.0/24 is the whole network"),
        ("revoke --user u --replicas -1", "'--replicas'"),
        ("revoke --user u --wait-ms 0", "'--wait-ms'"),
        ("revoke word --user u", "takes options alone"),
        ("block --lift", "name an address"),
        ("block --for 1h", "name an address"),
        ("block 192.0.2.7", "say either --for how long, or --lift"),
        ("block 192.0.2.7 --for 1h --lift", "say either --for how long, or --lift"),
        ("block 192.0.2.7 --for soon", "--for 'soon': must be a whole number with a unit"),
        ("block 192.0.2.7 --for 0", "a block of 0 s: 1 to 31536000 s are allowed"),
        ("block 192.0.2.7 --for 366d", "a block of 31622400 s"),
        ("block nowhere --for 1h", "'nowhere' is neither"),
        ("block --lift 192.0.2.0/25", "a size that no agent looks for"),
        ("grant 192.0.2.7", "needs --acl, --user and --for how long"),
        ("grant 192.0.2.7 --for 1h", "'192.0.2.7': needs --acl and --user"),
        ("revoke --user u --group g --all", "; --user, --group and --all were given"),
        ("grant --user=", "user: '' is not 1 to 128 bytes"),
        ("grant 192.0.2.7 --acl demo --user u", "'192.0.2.7': needs --for how long"),
        ("grant --for 1h", "name an address"),
        ("grant 127.0.0.1 --acl demo --user u --for 1h", "127.0.0.1 is never granted"),
        ("grant ff02::1 --acl demo --user u --for 1h", "multicast"),
        ("grant 192.0.2.7 --acl demo --user u --for 31d", "a grant of 2678400 s: 1 to 2592000 s"),
        ("grant 192.0.2.7 --acl demo --user u --for 1w", "--for '1w': must be"),
        ("grant 192.0.2.7 --acl * --user u --for 1h", "acl: '*' is not"),
        ("grant --acl *", "acl: '*' is not"),
    ],
)
def test_an_argument_that_cannot_be_is_a_sentence(
    kat: Kat, held: Holdings, arguments: str, sentence: str
) -> None:
    """Exit 2, nothing on stdout, nothing written."""
    done = kat(*arguments.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert held.client.keys() == []


@pytest.mark.parametrize(
    "arguments",
    [
        *(("revoke", "--token", "{}"), ("revoke", "{}"), ("revoke", "--token={}")),
        *(("revoke", "--kid", "{}"), ("revoke", "--session", "{}"), ("revoke", "--user", "x{}")),
        *(("revoke", "--wait-ms", "{}"), ("revoke", "--no-such={}"), ("block", "{}"), ("{}",)),
        ("grant", "{}", "--acl", "demo", "--user", "u", "--for", "1h"),
    ],
)
def test_a_token_in_an_argument_is_refused_unsaid(
    kat: Kat, held: Holdings, arguments: tuple[str, ...]
) -> None:
    """Whoever types a token where all can see it is told, and does not see it once more."""
    token = held.token()
    done = kat(*(argument.format(token) for argument in arguments))
    assert (done.returncode, done.stdout) == (2, "")
    assert token[4:] not in done.stderr
    assert "stdin" in done.stderr
    assert held.has_token(token)


@pytest.mark.parametrize("arguments", [("--session", "{}"), ("{}",), ("--session", "-", "{}")])
def test_a_session_id_in_an_argument_is_refused_unsaid(
    kat: Kat, held: Holdings, arguments: tuple[str, ...]
) -> None:
    """The same for a session's id."""
    session = held.session()
    done = kat("revoke", *(argument.format(session) for argument in arguments))
    assert (done.returncode, done.stdout) == (2, "")
    assert session not in done.stderr
    assert held.has_session(session)


@pytest.mark.parametrize("stdin", ["", "kat_0", "x" * 100_000, "kat_" + "0" * 38, "\x00"])
def test_what_is_no_secret_on_stdin_is_refused_unsaid(kat: Kat, stdin: str) -> None:
    """What does not look like the secret is not sent to Redis, nor repeated."""
    for option in (("--token",), ("--session", "-")):
        done = kat("revoke", *option, stdin=stdin)
        assert (done.returncode, done.stdout) == (2, "")
        assert "stdin holds no" in done.stderr
        assert not stdin or stdin not in done.stderr


def test_nothing_secret_is_printed(kat: Kat, held: Holdings) -> None:
    """No token, no session id and no whole digest, on stdout, stderr or in the audit."""
    token, session = held.token(), held.session()
    digests = [key.decode().rpartition(":")[2] for key in held.client.keys("kat:[ts]:*")]
    done = [
        kat("revoke", "--token", "--json", stdin=token),
        kat("revoke", "--session", "-", stdin=session),
        kat("revoke", "--kid", kid_of(token)),
    ]
    told = "".join(one.stdout + one.stderr for one in done) + str(held.events())
    assert len(digests) == 2
    assert not [secret for secret in (token, session, *digests) if secret in told]


def test_without_a_store_it_is_one_sentence(tmp_path: Path) -> None:
    """Exit 1, and what to do."""
    for command in (
        ("revoke", "--user", "u"),
        ("block",),
        ("grant", "10.0.0.1", "--acl", "demo", "--user", "u", "--for", "1h"),
    ):
        done = _run(*command, KAT_STATE_DIR=str(tmp_path))
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.count("\n") == 1
        assert "is `kat serve` running?" in done.stderr


def test_the_prefix_is_kept(kat: Kat, held: Holdings) -> None:
    """Under another prefix nothing of this one is touched."""
    token = held.token()
    before = held.client.keys()
    other = Holdings(held.client, "other:")
    session = other.session()
    done = kat("revoke", "--user", "user1", KAT_STORE__PREFIX="other:")
    assert done.stdout.startswith("1 revoked: 1 session")
    kat("block", "192.0.2.7", "--for", "1h", KAT_STORE__PREFIX="other:")
    kat(
        *("grant", "10.0.0.1", "--acl", "demo", "--user", "u", "--for", "1h"),
        KAT_STORE__PREFIX="other:",
    )
    assert not other.has_session(session)
    assert held.has_token(token)
    assert [key for key in held.client.keys("*") if not key.startswith(b"other:")] == before


def test_a_stream_that_is_off_is_left_alone(kat: Kat, held: Holdings) -> None:
    """Without audit.stream nothing is told, and nothing is warned of."""
    done = kat("revoke", "--user", "user1", KAT_AUDIT__STREAM="false")
    assert (done.returncode, done.stderr) == (0, "")
    assert not held.client.exists(held.keys.audit)


def test_a_stream_that_refuses_is_a_warning(kat: Kat, held: Holdings) -> None:
    """What was done is done: exit 0, and a sentence."""
    held.client.set(held.keys.audit, "no stream")
    for command in (
        ("revoke", "--user", "u"),
        ("block", "10.0.0.1", "--for", "1h"),
        ("grant", "10.0.0.1", "--acl", "demo", "--user", "u", "--for", "1h"),
    ):
        done = kat(*command)
        assert done.returncode == 0
        assert "refuses to tell of it in the audit stream" in done.stderr


# What Redis does not let an admin do.


def test_a_full_redis_revokes(kat: Kat, held: Holdings) -> None:
    """A revocation needs no memory that Redis does not give: it is done, and only not audited."""
    session = held.session()
    held.grant("10.0.0.1")
    held.grant("10.0.0.1", user="user2")
    held.client.config_set("maxmemory", 1)
    try:
        done = kat("revoke", "--user", "user1")
        blocked = kat("block", "192.0.2.7", "--for", "1h")
        granted = kat("grant", "10.0.0.1", "--acl", "demo", "--user", "u", "--for", "1h")
    finally:
        held.client.config_set("maxmemory", 0)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "2 revoked: 1 session, 1 grant")
    assert "refused from now on" in done.stdout
    assert "refuses to tell of it in the audit stream" in done.stderr
    assert held.cut().is_revoked(b"", b"", b"user1", b"", 1)
    assert not held.has_session(session)
    assert held.has_grant("10.0.0.1")
    assert blocked.returncode == 0
    assert held.cut().blocked_until(b"192.0.2.7")
    assert (granted.returncode, granted.stdout) == (1, "")
    assert "it is full, used_memory has reached maxmemory: raise maxmemory" in granted.stderr
    assert "script" not in granted.stderr


@pytest.mark.parametrize(
    ("arguments", "who"),
    [
        (("--user", "user1"), "whoever has a token of user user1"),
        (("--kid", "0123456789ab"), "whatever token 0123456789ab is just opening"),
        (("--acl", "wiki"), "whoever has a token or a session for ACL wiki"),
        (("--all", "--yes"), "whoever has a token or a session"),
    ],
)
def test_a_cut_that_cannot_be_written_is_said(
    kat: Kat,
    held: Holdings,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    who: str,
) -> None:
    """Where a full Redis does not take it, all is deleted that can be; who gets in is named."""
    script = b"redis.call('HSET', KEYS[1], 'x', 'y')"
    monkeypatch.setattr("tokens.admin.admin._SCRIPT", script)
    held.session()
    held.grant("10.0.0.1", by="kid:0123456789ab")
    held.client.config_set("maxmemory", 1)
    try:
        done = kat("revoke", *arguments)
        told = json.loads(kat("revoke", *arguments, "--json").stdout)
    finally:
        held.client.config_set("maxmemory", 0)
    assert done.returncode == 1
    assert f"kat: NOT revoked in full: {who} may still get in" in done.stderr
    assert "raise maxmemory" in done.stderr
    assert "refused from now on" not in done.stdout
    assert "script:" not in done.stderr
    assert not held.has_grant("10.0.0.1")
    assert (told["cut_ms"], told["undone"][0]["what"]) == (None, "cut")


ADMIN = "on nopass ~* &* +@all"


@pytest.fixture
def limited(redis_server: RedisServer, held: Holdings) -> Iterator[Callable[[str], Kat]]:
    """Give `kat` as a user who may do everything but one thing."""

    def kat_without(command: str) -> Kat:
        held.client.execute_command("ACL", "SETUSER", "limited", *ADMIN.split(), f"-{command}")
        url = f"unix://limited:x@{redis_server.socket}"
        return partial(_run, KAT_STORE__URL=url, **UNFENCED)

    yield kat_without
    held.client.execute_command("ACL", "DELUSER", "limited")


@pytest.mark.parametrize("command", ["dbsize", "wait", "publish"])
def test_what_is_not_needed_is_not_missed(
    limited: Callable[[str], Kat], held: Holdings, command: str
) -> None:
    """A user who may not count keys, say, revokes as any other."""
    held.session()
    held.grant("10.0.0.1", acl="a")
    done = limited(command)("revoke", "--user", "user1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "2 revoked: 1 session, 1 grant"


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("scan", "NOT revoked in full: IP grants may still stand, see `kat grant`"),
        ("hscan", "NOT revoked in full: IP grants may still stand, see `kat grant`"),
        ("zrem", "NOT revoked in full: IP grants may still stand, see `kat grant`"),
        ("zrange", "sessions were not all deleted, which open nothing all the same"),
        ("unlink", "sessions were not all deleted, which open nothing all the same"),
        ("info", "it is done, but whether replicas have it cannot be told"),
    ],
)
def test_what_a_user_may_not_is_said_and_the_rest_done(
    limited: Callable[[str], Kat], held: Holdings, command: str, sentence: str
) -> None:
    """The cut is written and told in the audit, what was not done is a sentence, exit 1."""
    held.session()
    held.grant("10.0.0.1")
    done = limited(command)("revoke", "--user", "user1")
    assert done.returncode == 1
    assert sentence in done.stderr
    assert f"its user may not run {command.upper()}" in done.stderr or command == "zrem"
    assert "refused from now on" in done.stdout
    assert "NOPERM" not in done.stderr
    assert "permissions" not in done.stderr
    assert held.cut().is_revoked(b"", b"", b"user1", b"", 1)
    assert [event["event"] for event in held.events()] == ["revoked"]
    assert held.has_grant("10.0.0.1") is (command in {"scan", "hscan", "zrem"})


@pytest.mark.parametrize("arguments", [("revoke", "--user", "u"), ("block", "10.0.0.1", "--lift")])
def test_nothing_is_done_without_the_cut(
    limited: Callable[[str], Kat], held: Holdings, arguments: tuple[str, ...]
) -> None:
    """A user who may not write it is told so in one sentence, and nothing was written."""
    done = limited("eval")(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith(" refuses: its user may not run EVAL\n")
    assert done.stderr.count("\n") == 1
    assert held.client.keys() == []


def test_a_replica_is_no_place_to_revoke(replicated: Node) -> None:
    """What is to be done is said, and no hash of a script."""
    with replicated.client() as client:
        [(_, address)] = [one for one in client.info("replication").items() if one[0] == "slave0"]
    url = f"redis://{address['ip']}:{address['port']}"
    for command in (
        ("revoke", "--user", "u"),
        ("block", "10.0.0.1", "--for", "1h"),
        ("grant", "10.0.0.1", "--acl", "demo", "--user", "u", "--for", "1h"),
    ):
        done = _run(*command, KAT_STORE__URL=url, **UNFENCED)
        assert (done.returncode, done.stdout) == (1, "")
        assert "it is a replica, which takes no changes: name its primary" in done.stderr
        assert "script" not in done.stderr


# Who acts, and where.


def test_where_no_agent_was_ever_seen_is_a_warning(redis_server: RedisServer, client: Any) -> None:
    """Another database or prefix than the agents' is noticed; it is done all the same."""
    kat = partial(_run, KAT_STORE__URL=f"unix://{redis_server.socket}")
    client.hset("kat:fence", "x", 1)
    for command in (
        ("revoke", "--user", "u"),
        ("block", "10.0.0.1", "--for", "1h"),
        ("grant", "--acl", "demo"),
    ):
        assert kat(*command).stderr == ""
        done = kat(*command, KAT_STORE__PREFIX="other:")
        assert done.returncode == 0
        assert done.stderr == (
            "kat: warning: no agent was ever seen here, there is no other:fence: are store.url "
            "and store.prefix those of the agents?\n"
        )


@pytest.mark.parametrize(
    ("sudo_user", "by"),
    [("nobody", "nobody"), ("no such user", None), ("", None), ("\udcff", None)],
)
def test_who_became_root_is_named(
    kat: Kat, held: Holdings, monkeypatch: pytest.MonkeyPatch, sudo_user: str, by: str | None
) -> None:
    """The audit names who called sudo, if the system knows him, and else who runs this."""
    monkeypatch.setenv("SUDO_USER", sudo_user)
    kat("block", "10.0.0.1", "--for", "1h")
    (event,) = held.events()
    assert event["by"] == (by or pwd.getpwuid(os.getuid()).pw_name)


@pytest.mark.parametrize(
    "arguments",
    [
        *(("revoke", "--user", "{}"), ("revoke", "--kid={}"), ("revoke", "{}"), ("block", "{}")),
        *(("block", "10.0.0.1", "--for", "{}"), ("grant", "{}"), ("grant", "--acl", "{}")),
        *(("issue", "--user", "{}"), ("audit", "--user", "{}"), ("inspect", "{}"), ("{}",)),
        *(("check", "{}"), ("check", "--config", "{}"), ("serve", "--{}"), ("demo", "{}")),
    ],
)
def test_what_is_no_text_is_a_sentence(kat: Kat, arguments: tuple[str, ...]) -> None:
    """Bytes that are not UTF-8, in any argument of any command: exit 2."""
    done = kat(*(argument.format("a\udcff\udcfe") for argument in arguments))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert " is not UTF-8: '" in done.stderr


def test_typed_bytes_are_no_text(typed_kat: Kat) -> None:
    """The same as the system gives them, whatever its encoding is."""
    for language in ("C", "C.UTF-8"):
        done = typed_kat("revoke", "--user", "\udcff", LC_ALL=language)
        assert (done.returncode, done.stdout) == (2, "")
        assert "argument 3 is not UTF-8: '\\udcff'" in done.stderr


# Replicas.


@pytest.fixture(scope="module")
def replicated() -> Iterator[Node]:
    """Give a primary with one replica."""
    with ExitStack() as stack:
        primary = stack.enter_context(running_node("--repl-diskless-sync-delay", "0"))
        follow = ("--replicaof", f"127.0.0.1 {primary.port}")
        replica = stack.enter_context(running_node(*follow))
        eventually(partial(_is_linked, primary, replica), "the replica has its copy")
        yield primary


def _is_linked(primary: Node, replica: Node) -> bool:
    is_up = replica.info()["master_link_status"] == "up"
    return is_up and primary.info()["connected_slaves"] == 1


@pytest.mark.parametrize(
    "command", [("revoke", "--user", "u"), ("block", "192.0.2.7", "--for", "1h")]
)
def test_the_number_of_replicas_that_confirmed_is_told(
    replicated: Node, command: tuple[str, ...]
) -> None:
    """One is asked where there is one; with fewer than asked it is done, and the exit is 1."""
    url = f"unix://{replicated.server.socket}"
    run = partial(_run, *command, KAT_STORE__URL=url, **UNFENCED)
    done = run("--wait-ms", "30000")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "replicas that confirmed: 1 (asked: 1)"
    done = run("--replicas", "0")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].endswith("(asked: 0)")
    done = run("--replicas", "2", "--wait-ms", "1")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].endswith("(asked: 2)")
    assert "of 2 replicas confirmed within 1 ms: it is done, but" in done.stderr
    done = run("--replicas", "2", "--wait-ms", "1", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["replicas"]["asked"] == 2


def test_a_redis_without_replicas_cannot_confirm(kat: Kat, held: Holdings) -> None:
    """Asked for one, it says 0 of 1, exits 1, and has done it."""
    done = kat("revoke", "--user", "u", "--replicas", "1", "--wait-ms", "1")
    assert done.returncode == 1
    assert "replicas that confirmed: 0 (asked: 1)" in done.stdout
    assert "kat: 0 of 1 replicas confirmed within 1 ms: it is done, but" in done.stderr
    assert held.version()


# kat block


def test_an_address_is_blocked_listed_and_let_in(kat: Kat, held: Holdings) -> None:
    """The three ways of the command, one after the other."""
    assert kat("block").stdout == "nothing is blocked\n"
    done = kat("block", "::ffff:192.0.2.7", "--for", "2h")
    assert (done.returncode, done.stderr) == (0, "")
    first, last = done.stdout.splitlines()
    assert first.startswith("192.0.2.7 is blocked until 20")
    assert last == "replicas that confirmed: 0 (asked: 0)"
    assert held.cut().blocked_until(b"192.0.2.7") > 0
    _, row = kat("block").stdout.splitlines()
    assert row.split()[:3] == ["192.0.2.7", "1h", "59m"]
    done = kat("block", "--lift", "192.0.2.7")
    assert done.stdout.splitlines()[0] == "192.0.2.7 is no longer blocked"
    assert held.cut().blocked_until(b"192.0.2.7") == 0
    done = kat("block", "--lift", "192.0.2.7")
    assert (done.returncode, done.stdout) == (0, "192.0.2.7 was not blocked\n")


def test_who_is_still_blocked_is_told(kat: Kat) -> None:
    """A network that holds the address is named when its own block is lifted."""
    kat("block", "192.0.2.0/24", "--for", "1h")
    done = kat("block", "192.0.2.7", "--lift")
    assert done.returncode == 0
    assert done.stderr == "kat: warning: 192.0.2.7 is still blocked, by 192.0.2.0/24\n"


def test_blocks_in_json(kat: Kat) -> None:
    """A list of objects; one for each change."""
    assert json.loads(kat("block", "--json").stdout) == []
    made = json.loads(kat("block", "192.0.2.7", "--for", "90", "--json").stdout)
    assert (made["member"], made["left_ms"], made["audited"]) == ("192.0.2.7", 90_000, True)
    (listed,) = json.loads(kat("block", "--json").stdout)
    assert listed["until_ms"] == made["until_ms"]
    lifted = json.loads(kat("block", "--lift", "192.0.2.7", "--json").stdout)
    assert (lifted["lifted"], lifted["replicas"]) == (1, {"asked": 0, "confirmed": 0})


def test_a_block_that_is_shortened_says_so(kat: Kat) -> None:
    """Until when it was; nothing where it is lengthened or new."""
    assert "was until" not in kat("block", "10.0.0.1", "--for", "1h").stdout
    assert "was until" not in kat("block", "10.0.0.1", "--for", "2h").stdout
    until_ms = json.loads(kat("block", "--json").stdout)[0]["until_ms"]
    done = kat("block", "10.0.0.1", "--for", "60s")
    assert f", was until {moment(until_ms)}\n" in done.stdout
    told = json.loads(kat("block", "10.0.0.1", "--for", "30s", "--json").stdout)
    assert told["was_until_ms"] > told["until_ms"]


# kat grant


def test_every_owner_of_a_grant_is_listed_and_named(kat: Kat, held: Holdings) -> None:
    """One line for each; of one user alone if asked; who keeps it when another is revoked."""
    held.grant("192.0.2.7", user="alice")
    kat("grant", "192.0.2.7", "--acl", "wiki", "--user", "bob", "--for", "2h")
    _, *rows = kat("grant").stdout.splitlines()
    assert [row.split()[:3] for row in rows] == [
        ["wiki", "192.0.2.7", "alice"],
        ["wiki", "192.0.2.7", "bob"],
    ]
    assert [one["user"] for one in json.loads(kat("grant", "--user", "bob", "--json").stdout)] == [
        "bob"
    ]
    done = kat("revoke", "--user", "alice")
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "1 revoked: 1 grant")
    assert done.stderr == "kat: warning: 192.0.2.7 is still granted at ACL wiki, to bob\n"
    assert held.has_grant("192.0.2.7")
    assert kat("revoke", "--user", "bob").stderr == ""
    assert not held.has_grant("192.0.2.7")


def test_an_address_is_granted_and_listed(kat: Kat, held: Holdings) -> None:
    """Agents find it; the list says whose it is, by whom and for how long."""
    assert kat("grant").stdout == "nothing is granted\n"
    done = kat("grant", "--acl", "demo", "--user", "user1", "192.0.2.7", "--for", "1h")
    assert done.returncode == 0
    assert done.stdout.startswith("192.0.2.7 is granted at ACL demo until 20")
    assert held.has_grant("192.0.2.7", "demo")
    head, row = kat("grant").stdout.splitlines()
    assert head.split() == ["ACL", "ADDRESS", "USER", "BY", "LEFT", "UNTIL"]
    assert row.split()[:3] == ["demo", "192.0.2.7", "user1"]
    assert row.split()[4] == "59m"
    (told,) = json.loads(kat("grant", "--acl", "demo", "--json").stdout)
    assert (told["acl"], told["member"], told["user"]) == ("demo", "192.0.2.7", "user1")
    assert json.loads(kat("grant", "--acl", "other", "--json").stdout) == []


def test_a_grant_that_opens_nothing_is_a_warning(kat: Kat, tmp_path: Path) -> None:
    """An ACL that is not configured, or whose mode asks for no grants, is named.

    One that is mirrored into HAProxy is heeded there.
    """
    command = ("grant", "192.0.2.7", "--user", "u", "--for", "1h", "--acl")
    assert "the ACL 'demo' does not ask for grants" in kat(*command, "demo").stderr
    assert "the ACL 'none' is not configured here" in kat(*command, "none").stderr
    file = tmp_path / "kat.toml"
    kept = 'runtime = "unix:/run/haproxy/kat.sock"\nacl = { list = "#500" }'
    file.write_text(f'[acl.tcp]\nmode = "ip"\n[allowlist.edge]\n{kept}\n')
    assert kat(*command, "tcp", KAT_CONFIG=str(file)).stderr == ""
    assert kat(*command, "list", KAT_CONFIG=str(file)).stderr == ""


def test_what_others_wrote_moves_no_cursor(kat: Kat, held: Holdings) -> None:
    """Control characters in what another program granted are shown, not sent to the terminal."""
    held.client.zadd(held.keys.grants(b"demo"), {"\x1b[2J": 2**52, "10.0.0.1": float("inf")})
    done = kat("grant")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert "10.0.0.1" in done.stdout


# How far a search is.


class Screen:
    def __init__(self, *, is_terminal: bool) -> None:
        self.shown = ""
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal

    def write(self, text: str) -> None:
        self.shown += text

    def flush(self) -> None:
        pass


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_long_search_is_told_at_a_terminal(*, is_terminal: bool) -> None:
    """Nothing for two seconds; then a line that is drawn over and taken away; never in a log."""
    now_s = 0.0
    screen: Any = Screen(is_terminal=is_terminal)
    with Progress(screen, lambda: now_s) as progress:
        now_s = QUIET_S - 0.01
        progress(1000, 5_000_000)
        assert screen.shown == ""
        now_s = QUIET_S
        progress(2000, 5_000_000)
        progress(3000, 5_000_000)
        drawn = "\rlooked at 2,000 of 5,000,000 keys\x1b[K" if is_terminal else ""
        assert screen.shown == drawn
    assert screen.shown == (drawn + "\r\x1b[K" if is_terminal else "")


def test_a_short_search_leaves_no_trace() -> None:
    """Without a line nothing is taken away."""
    screen: Any = Screen(is_terminal=True)
    with Progress(screen, lambda: 0.0) as progress:
        progress(1, 1)
    assert screen.shown == ""
