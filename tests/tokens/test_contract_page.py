"""docs/redis-contract.md: what it shows works, what it lists is what the code does."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest
import redis

from tests.support.asking import Asker, judged
from tests.support.records import NONCE, in_place_of, with_fields
from tests.support.redeem import Answer, Ask, Redeemer
from tests.support.redis import RedisServer
from tokens.admin.admin import Admin
from tokens.admin.block import Blocker
from tokens.admin.granter import Granter
from tokens.admin.mirror import Mirror
from tokens.admin.news import EVERYBODY
from tokens.admin.revoke import Revoker
from tokens.admin.scan import PER_STEP
from tokens.audit import EVENTS, FIELD, Journal, entry
from tokens.check import Check
from tokens.issue import Issued, Issuer
from tokens.outcome import Outcome
from tokens.policy.cut import CLOCK_GRAIN_MS
from tokens.policy.gate import Gate
from tokens.policy.rule import AclRule, Mode
from tokens.policy.session import OPENING_WAYS, mint_session, session_digest
from tokens.policy.sessionrecord import read_session
from tokens.record import BadRecord, Keys, read_record
from tokens.token import digest, is_well_formed

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "redis-contract.md").read_text()
TYPICAL = b'{"v":1,"sub":"user1","acl":["confluence"],"ttl":60}'
HERE = bytes((192, 0, 2, 7))
BLOCKED = bytes((198, 51, 100, 9))


def section(heading: str) -> str:
    """Return what stands under a heading, up to the next one of any level."""
    found = re.search(rf"^#+ {heading}\n(.*?)(?=^#+ |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"the page has no heading {heading!r}"
    return found[1]


def example(language: str, heading: str) -> str:
    code = re.search(rf"^```{language}\n(.*?)^```$", section(heading), re.MULTILINE | re.DOTALL)
    assert code
    return code[1]


def table(heading: str, number: int = 0) -> list[list[str]]:
    """Return the cells of one of the tables under a heading, without its head."""
    tables = re.findall(r"(?:^\|.*\n)+", section(heading), re.MULTILINE)
    rows = tables[number].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def names(cells: list[str]) -> list[str]:
    """Return what stands between backticks."""
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


@pytest.fixture
def server(start_redis: Callable[..., RedisServer]) -> RedisServer:
    """Give a server with the users of the page."""
    server = start_redis()
    with server.client() as client:
        for line in example("redis", "Least privilege").splitlines():
            client.execute_command(*line.split())  # type: ignore[no-untyped-call]
    return server


Shell = Callable[[str, str], "subprocess.CompletedProcess[str]"]


@pytest.fixture
def shell(server: RedisServer, tmp_path: Path) -> Shell:
    """Give what runs lines of the page as one of its users; redis-cli finds the server."""

    def run(user: str, lines: str) -> subprocess.CompletedProcess[str]:
        redis_cli = tmp_path / "redis-cli"
        where = f"{shutil.which('redis-cli')} -s {server.socket} --user {user}"
        redis_cli.write_text(f'#!/bin/sh\nexec {where} "$@"\n')
        redis_cli.chmod(0o755)
        return subprocess.run(
            ["sh", "-eu"],
            input=lines,
            env={"PATH": f"{tmp_path}:/usr/bin:/bin", "REDISCLI_AUTH": f"{user}-password"},
            text=True,
            capture_output=True,
            timeout=30,
            check=True,
        )

    return run


class Door:
    """One gate of each kind, in front of a real Redis."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self._issuer = Issuer(client)
        self._asker = Asker(client)
        rules = {"confluence": AclRule(), "tcp": AclRule(Mode.IP)}
        self._gate = Gate(rules, Keys(), 80, Journal(Keys().audit, 1000))

    def issue(self, user: str = "user1") -> Issued:
        return self._issuer.issue(user, "confluence", 60)

    def ask(self, acl: str, issued: Issued | None = None, source: bytes = HERE) -> Outcome:
        token = issued.token.encode() if issued else b""
        check = Check(acl.encode(), token, b"h", b"GET", b"/", b"", source, 8000)
        assert self._gate.look(check) is None
        (decision,) = self._asker.run(judged(self._gate, [check])).decisions
        return decision.outcome

    def now_ms(self) -> int:
        seconds, micros = self.client.time()
        return int(seconds * 1000 + micros // 1000)


def test_every_code_block_is_run() -> None:
    """No block of code stands on the page that the tests here and in test_acl_users do not run."""
    blocks = re.findall(r"^```(\S+)\n", PAGE, re.MULTILINE)
    assert sorted(blocks) == ["json", "python", "redis", "redis-6.2", "sh", "sh", "sh", "sh"]


def test_the_shell_example_issues_a_token(server: RedisServer, shell: Shell) -> None:
    """The lines for the shell print a token that agents accept once, and leave it nowhere else."""
    done = shell("issuer", example("sh", "By hand"))
    token = done.stdout.removesuffix("\n").encode()
    assert done.stderr == "OK\n"
    assert is_well_formed(token)
    ask = Ask(b"kat:t:" + digest(token), acl="confluence")
    with server.client() as client:
        assert client.keys() == [ask.key]
        assert Redeemer(client).redeem_one(ask) == Answer("ok", TYPICAL)


def test_the_python_example_issues_a_token(
    redis_server: RedisServer, client: redis.Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    """The lines for Python do the same, against the Redis of the test."""
    code = example("python", "In Python")
    assert "redis://127.0.0.1" in code
    exec(code.replace("redis://127.0.0.1", f"unix://{redis_server.socket}"), {})
    token = capsys.readouterr().out.removesuffix("\n").encode()
    ask = Ask(b"kat:t:" + digest(token), acl="confluence")
    assert Redeemer(client).redeem_one(ask).code == "ok"


def test_the_examples_are_listed() -> None:
    """The page's table leads to every example there is."""
    listed = re.findall(r"\(\.\./examples/(\S+)\)", section("In other languages"))
    there = {path.name for path in (ROOT / "examples").iterdir() if path.is_file()}
    assert set(listed) == there


def test_the_one_command_is_the_typical_record() -> None:
    """The command that the page begins with writes a record that reads strictly."""
    (raw,) = re.findall(r"SET kat:t:<h> '(.*)' EX 60 NX", PAGE)
    assert raw.encode() == TYPICAL
    assert read_record(TYPICAL).sub == "user1"


def test_the_shape_is_a_tokens() -> None:
    """What shows the shape of a token has it, and is none."""
    (shape,) = re.findall(r"^    (kat_\w+)$", section("The token"), re.MULTILINE)
    assert len(shape) == 42
    assert not is_well_formed(shape.encode())


def test_the_table_of_fields_is_complete() -> None:
    """Each field of the page's table is known to the reader, and the reader knows no other."""
    record = section("The record")
    listed = re.findall(r"^\| `(\w+)` \| [^|]*optional \|", record, re.MULTILINE)
    required = re.findall(r"^\| `(\w+)` \| (?:(?!optional)[^|])* \|", record, re.MULTILINE)
    assert required == ["v", "sub", "acl", "ttl"]
    for field in listed:
        with pytest.raises(BadRecord, match=f"^{field}: null where"):
            read_record(with_fields(f'"{field}":null'))
    for field in required:
        with pytest.raises(BadRecord, match=rf"^{field}: nothing where|^unknown field '{field}'"):
            read_record(in_place_of(f'"{field}":', '"meta":'))
    code = (ROOT / "tokens" / "record.py").read_text()
    assert set(re.findall(r'take\("(\w+)"', code)) == {*listed, *required}


def test_the_answers_are_those_of_the_script() -> None:
    """Every answer that redeem.lua can give stands in the page's table."""
    script = (ROOT / "tokens" / "policy" / "redeem.lua").read_text()
    given = set(re.findall(r"return '(\w+)'", script))
    listed = {name for row in table("Consume") for name in names(row)} | {
        f"wrong_{binding}" for binding in ("acl", "host", "method", "path", "src", "nonce")
    }
    assert given
    assert given <= listed


def test_a_tombstone_is_as_shown(client: redis.Redis) -> None:
    """What a consumed token leaves has the page's form, and keeps its TTL."""
    (form,) = re.findall(r"^    (consumed <claim> .*)$", section("Consume"), re.MULTILINE)
    pattern = re.escape(form).replace(re.escape("<claim>"), r"c0ffee\.1")
    pattern = pattern.replace(re.escape("<consumed at, ms>"), r"\d{13}")
    pattern = pattern.replace(re.escape("<client address or ->"), r"192\.0\.2\.7")
    pattern = pattern.replace(re.escape("<the raw record>"), re.escape(TYPICAL.decode()))
    redeemer = Redeemer(client)
    key = redeemer.put(TYPICAL)
    assert redeemer.redeem_one(Ask(key, acl="confluence")).code == "ok"
    assert re.fullmatch(pattern, redeemer.value(key).decode())
    assert client.pttl(key) > 0


def test_a_session_is_as_shown() -> None:
    """The page's session reads, its table names its fields, and `sid` is no more than a name."""
    raw = example("json", "Sessions").encode()
    session = read_session(raw)
    assert (session.user, session.groups, session.acl) == (b"user1", b"staff", b"confluence")
    listed = {name for field, *_ in table("Sessions") for name in names([field])}
    assert listed | {"v"} == json.loads(raw).keys()


def test_a_cookie_is_as_described() -> None:
    """Its value has one of the page's two forms, and the SHA-256 of all of it names the session."""
    page = section("A gate of your own")
    assert "`<43 characters>`, or `<43 characters>.<idle seconds>`" in page
    for idle_ms, end in ((None, rb""), (1_800_000, rb"\.1800")):
        value = mint_session(idle_ms)
        assert re.fullmatch(rb"[A-Za-z0-9_-]{43}" + end, value)
        assert session_digest(value) == sha256(value).hexdigest().encode()
    (row,) = (row for row in table("A gate of your own") if "via" in row[0])
    header, *opening = names(row[1:])
    assert header == "header"
    assert {name.encode() for name in opening} == OPENING_WAYS
    assert Outcome.LOGGED_OUT.value == (b"missing", b"logged_out")
    assert "`missing`" in page
    assert "`logged_out`" in page


def test_the_variables_of_a_gate_are_sent() -> None:
    """The page names variables that HAProxy's messages carry, a logout's two among them."""
    spoe = (ROOT / "haproxy" / "kat.spoe.conf").read_text()
    messages = dict(re.findall(r"^spoe-message (\S+)\n\s+args (.*)$", spoe, re.MULTILINE))
    for variable in names([row[0] for row in table("A gate of your own")]):
        assert f"=var({variable}) " in messages["check-http"]
    assert {"acl", "session"} < {word.partition("=")[0] for word in messages["logout"].split()}


@pytest.mark.parametrize(
    ("field", "answer"),
    [
        ('"src":["192.0.2.7/24"]', "wrong_src"),
        ('"src":["192.0.2.0/25"]', "wrong_src"),
        ('"method":["get"]', "wrong_method"),
        ('"host":["Wiki.Example"]', "wrong_host"),
        ('"host":["wiki.example:443"]', "wrong_host"),
        (f'"nonce":"{NONCE.upper()}"', "wrong_nonce"),
        ('"acl":["wiki "]', "wrong_acl"),
        ('"src":["here"]', "bad_record"),
        ('"path":["x"]', "bad_record"),
        ('"nonce":"00"', "bad_record"),
        ('"method":["GET","get"]', "ok"),
        ('"src":["192.0.2.7","192.0.2.7/24"]', "ok"),
        ('"groups":["a,b"]', "ok"),
        ('"session":{"ttl":"1"}', "ok"),
    ],
)
def test_who_judges_what_is_as_described(client: redis.Redis, field: str, answer: str) -> None:
    """What is misspelt matches nobody, or is refused by the agent once the script consumed it."""
    raw = with_fields(field)
    with pytest.raises(BadRecord):
        read_record(raw)
    redeemer = Redeemer(client)
    ask = Ask(redeemer.put(raw), nonce=NONCE)
    assert redeemer.redeem_one(ask).code == answer


def test_a_grant_by_hand_opens(server: RedisServer, shell: Shell) -> None:
    """The lines for a grant let the address through, and tell who listens; ZREM and HDEL end it."""
    with server.client() as client, client.pubsub() as listener:
        door = Door(client)
        assert door.ask("tcp") is Outcome.NO_GRANT
        listener.subscribe("kat:grants")
        listener.get_message(timeout=10)
        shell("admin", example("sh", "IP grants"))
        assert door.ask("tcp") is Outcome.GRANT
        assert door.ask("tcp", source=BLOCKED) is Outcome.NO_GRANT
        message = listener.get_message(timeout=10)
        assert message is not None
        assert message["data"] == b"tcp"
        end_ms = client.zscore("kat:grants:{tcp}", "192.0.2.7")
        assert isinstance(end_ms, float)
        assert 0 < end_ms - door.now_ms() <= 3_600_000
        holder = json.loads(client.hget("kat:grants:{tcp}:meta", "192.0.2.7") or b"")
        assert holder.keys() == {"sub", "by", "iat"}
        shell("admin", "redis-cli ZREM kat:grants:{tcp} 192.0.2.7")
        assert door.ask("tcp") is Outcome.NO_GRANT


def test_a_mirror_by_hand_sees_what_agents_see(server: RedisServer, shell: Shell) -> None:
    """The commands of the list are those of a mirror, and show what was granted and blocked."""
    page = section("Mirroring grants")
    commands = [name for name in names([page]) if re.match(r"(TIME|SUBSCRIBE|[HZ]SCAN)( |$)", name)]
    assert [name.split()[0] for name in commands] == ["SUBSCRIBE", "TIME", "HSCAN", "ZSCAN"]
    assert f"`{EVERYBODY.decode()}` is all of them" in page
    assert page.count(f" COUNT {PER_STEP}`") == 2
    shell("admin", example("sh", "IP grants"))
    shell("admin", example("sh", "Revocation and blocks"))
    done = shell("mirror", "".join(f"redis-cli {one}\n" for one in _typed(commands[1:])))
    assert "192.0.2.7\n" in done.stdout
    assert "addr:198.51.100.0/24\n" in done.stdout
    assert "sub:user1" not in done.stdout
    with server.client() as client, closing(Mirror(client, "kat:", ["tcp"])) as mirror:
        shown = mirror.read()
    assert shown.grants["tcp"].keys() == {"192.0.2.7"}
    assert shown.blocks.keys() == {"198.51.100.0/24"}


def _typed(commands: list[str]) -> list[str]:
    """Quote what a shell would take for its own, and name the ACL."""
    return [one.replace("addr:*", "'addr:*'").replace("<acl>", "tcp") for one in commands]


def test_a_revocation_by_hand_holds(server: RedisServer, shell: Shell) -> None:
    """The lines for it refuse what the user had, and the network; nobody else and nothing later.

    Who mirrors grants hears of the block.
    """
    with server.client() as client, closing(Mirror(client, "kat:", ["tcp"])) as mirror:
        door = Door(client)
        assert mirror.read().blocks == {}
        before, others, blocked = door.issue(), door.issue("user2"), door.issue("user2")
        assert door.ask("confluence", door.issue()) is Outcome.OK
        shell("admin", example("sh", "Revocation and blocks"))
        assert mirror.wait(30)
        assert mirror.read().blocks.keys() == {"198.51.100.0/24"}
        assert door.ask("confluence", before) is Outcome.REVOKED
        assert door.ask("confluence", blocked, BLOCKED) is Outcome.BLOCKED
        assert door.ask("confluence", others) is Outcome.OK
        cut_ms = int(client.hget("kat:cut", "sub:user1") or 0)
        while door.now_ms() <= cut_ms + CLOCK_GRAIN_MS:
            pass
        assert door.ask("confluence", door.issue()) is Outcome.OK


@pytest.mark.parametrize("field", ["sub:user1", "group:staff", "acl:confluence", "all", "kid:"])
def test_the_fields_of_the_cut_are_those_listed(client: redis.Redis, field: str) -> None:
    """Each field of the page's table revokes, and there is no other in it but addr and v."""
    listed = [name for row in table("Revocation and blocks") for name in names(row[:1])]
    assert field.partition(":")[0] in {name.partition(":")[0] for name in listed}
    assert {name.partition(":")[0] for name in listed} == {
        *("sub", "group", "acl", "all", "kid", "addr", "v"),
    }
    door = Door(client)
    issued = Issuer(client).issue("user1", "confluence", 60, groups=["staff"])
    name = field + (issued.kid if field == "kid:" else "")
    client.hset("kat:cut", mapping={name: door.now_ms(), "v": 1})
    assert door.ask("confluence", issued) is Outcome.REVOKED


def test_the_audit_is_read_by_hand(server: RedisServer, shell: Shell) -> None:
    """The line for it prints what happened."""
    with server.client() as client:
        issued = Issuer(client, audit=True).issue("user1", "confluence", 60)
    assert issued.kid in shell("admin", example("sh", "Audit")).stdout


def test_the_table_of_events_is_complete() -> None:
    """The page lists every event there is, and no other; an entry has the field that it names."""
    listed = [name for row in table("Audit") for name in names(row[:1])]
    assert sorted(listed) == sorted(EVENTS)
    assert f"`{FIELD.decode()}`" in section("Audit").partition("|")[0]
    assert entry(b"kat:audit", [{"event": "issued"}], 10)[-2:] == (FIELD, b'[{"event":"issued"}]')


def test_the_table_of_facts_is_complete(client: redis.Redis) -> None:
    """Whatever an agent or an admin tells of an event has a row in the page's table."""
    listed = {name for row in table("Audit", 1) for name in names(row[:1])}
    journal = Journal(b"kat:audit", 10)
    check = Check(b"wiki", b"", b"h", b"GET", b"/", b"", HERE, 8000, unique_id=b"1-2")
    journal.add(b"consumed", check, b"0" * 12, b"user1")
    journal.add(b"session", check, b"0" * 12, b"user1", b"0" * 12)
    for _ in range(3):
        journal.add(b"refused", check, b"0" * 12, b"user1", b"early")
        journal.add(b"replayed", check, b"0" * 12, b"", b"1767225600000 192.0.2.9")
    journal.fence_moved(b"0" * 40, 1)
    questions = [journal.take(0.0), journal.take(1e6)]
    lists = [json.loads(bytes(question.head[-1])) for question in questions if question]
    admin = Admin(client, by="root")
    Granter(admin).grant("tcp", "192.0.2.7", "user1", 60)
    Blocker(admin).block("192.0.2.7", 60)
    Revoker(admin).revoke_group("staff")
    lists += [json.loads(fields[FIELD]) for _, fields in client.xrange("kat:audit")]
    facts = {name for events in lists for event in events for name in event}
    assert facts - {"event"} == listed


def test_the_page_names_every_key() -> None:
    """The keys that the page lists are those that the code makes."""
    listed = {name for row in table("The Redis contract, version 1") for name in names(row[:1])}
    keys = Keys()
    assert listed == {
        key.decode()
        for key in (
            *(keys.token(b"<h>"), keys.session(b"<h>"), keys.sub(b"<sub>")),
            *(keys.grants(b"<acl>"), keys.grants_meta(b"<acl>")),
            *(keys.cut, keys.audit, keys.fence),
        )
    }
