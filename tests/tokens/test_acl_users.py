"""The users of docs/redis-contract.md: each can do its job, and nothing else."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import redis
from redis.crc import key_slot
from redis.exceptions import NoPermissionError

from tests.support.asking import Asker, judged
from tests.support.eventually import DEADLINE_S
from tests.support.redis import RedisServer
from tests.support.topologies import RunningCluster, running_cluster
from tokens.admin.admin import Admin
from tokens.admin.auditlog import Trail, Wanted
from tokens.admin.block import Blocker
from tokens.admin.granter import Granter
from tokens.admin.mirror import Mirror
from tokens.admin.revoke import Revoker
from tokens.audit import Journal
from tokens.check import Check
from tokens.issue import Issuer, connect
from tokens.outcome import Outcome
from tokens.policy.gate import Gate
from tokens.policy.rule import AclRule, Mode
from tokens.question import Reply
from tokens.record import Keys
from tokens.token import digest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "redis-contract.md").read_text()
CLIENT = bytes((192, 0, 2, 7))

USERS = ["issuer", "agent", "admin", "mirror"]

Login = Callable[[str], redis.Redis]


def lines(language: str) -> list[str]:
    """Return the page's lines that make users."""
    (block,) = re.findall(rf"^```{re.escape(language)}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return block.splitlines()


TELLING = {
    "7.0": re.findall(r"^    (ACL SETUSER issuer \(.*\))$", PAGE, re.MULTILINE),
    "6.2": re.findall(r"on Redis 6\.2, `(ACL SETUSER issuer .*?)`", PAGE),
}
"""What the page adds for issuers that are to tell of what they issue."""

LINES = {"7.0": lines("redis"), "6.2": [*lines("redis-6.2"), *lines("redis")[1:]]}


def run(client: redis.Redis, *command: object) -> Reply:
    reply: Reply = client.execute_command(*command)  # type: ignore[no-untyped-call]
    return reply


@pytest.fixture(params=LINES)
def server(request: pytest.FixtureRequest, start_redis: Callable[..., RedisServer]) -> RedisServer:
    """Give a server that has the users of the page."""
    server = start_redis()
    with server.client() as client:
        for line in LINES[request.param]:
            run(client, *line.split())
    return server


def opened(server: RedisServer, user: str) -> redis.Redis:
    return redis.Redis(
        unix_socket_path=server.socket, username=user, password=f"{user}-password", protocol=2
    )


@pytest.fixture
def login(server: RedisServer) -> Iterator[Login]:
    """Give what opens a client of one of the users."""
    with ExitStack() as stack:
        yield lambda user: stack.enter_context(opened(server, user))


class Agent:
    """What a worker sends in the life of tokens, as its own user, one batch after the other."""

    def __init__(self, client: redis.Redis) -> None:
        self._asker = Asker(client)
        self._greet(client, Keys().fence)
        rules = {
            "strict": AclRule(),
            "idle": AclRule(Mode.SESSION, session_idle_ms=60_000),
            "lasting": AclRule(Mode.SESSION),
            "tcp": AclRule(Mode.GRANT),
        }
        self._gate = Gate(rules, Keys(), 80, Journal(Keys().audit, 1000))

    def judge(
        self, acl: str, token: str = "", session: bytes = b"", *, is_logout: bool = False
    ) -> tuple[Outcome, bytes]:
        """Judge one request; return the outcome, and the id of a session that was opened."""
        check = Check(
            acl=acl.encode(),
            token=token.encode(),
            host=b"wiki.example",
            method=b"GET",
            path=b"/",
            nonce=b"",
            source=CLIENT,
            room_bytes=8000,
            session=session,
            via=b"query",
        )
        refusal = self._gate.look_logout(check) if is_logout else self._gate.look(check)
        assert refusal is None
        judgement = self._asker.run(judged(self._gate, [check]))
        (decision,) = judgement.decisions
        if judgement.openings:
            opened = self._gate.open([opening for _, opening in judgement.openings], 0.0)
            (decision,) = self._asker.run(opened).decisions
        notes = self._asker.answer(self._gate.take_notes(0.0))
        assert not any(isinstance(reply, Exception) for reply in notes), notes
        return decision.outcome, decision.session

    def _greet(self, client: redis.Redis, key: bytes) -> None:
        for command in (
            *(("SELECT", 0), ("TIME",), ("ECHO", "x"), ("PING",)),
            *(("HSETNX", key, "x", 1), ("HSET", key, "x", 2), ("HGET", key, "x")),
            *(("HLEN", key), ("HGETALL", key), ("HDEL", key, "x")),
        ):
            run(client, *command)


def test_each_does_its_part(login: Login) -> None:
    """Tokens are issued, consumed, and open sessions and grants; an admin sees and ends them."""
    issuer = Issuer(login("issuer"))
    agent = Agent(login("agent"))
    admin = Admin(login("admin"), by="root")

    def token(acl: str) -> str:
        return issuer.issue("user1", acl, 60, groups=["staff"]).token

    used = token("strict")
    assert agent.judge("strict", used) == (Outcome.OK, b"")
    assert agent.judge("strict", used) == (Outcome.REPLAYED, b"")
    for acl in ("idle", "lasting"):
        outcome, session = agent.judge(acl, token(acl))
        assert outcome is Outcome.OK
        assert agent.judge(acl, session=session)[0] is Outcome.SESSION
        assert agent.judge(acl, session=session, is_logout=True)[0] is Outcome.LOGGED_OUT
        assert agent.judge(acl, session=session)[0] is Outcome.SESSION_EXPIRED
    assert agent.judge("tcp", token("tcp"))[0] is Outcome.OK
    assert agent.judge("tcp")[0] is Outcome.GRANT

    granter = Granter(admin)
    granter.grant("tcp", "198.51.100.0/24", "user2", 60)
    assert {one.user for one in granter.grants()} == {"user1", "user2"}
    revoker = Revoker(admin)
    _, session = agent.judge("lasting", token("lasting"))
    unused = token("strict")
    assert revoker.revoke_user("user1").total == 2
    assert agent.judge("lasting", session=session)[0] is Outcome.SESSION_EXPIRED
    assert agent.judge("strict", unused)[0] is Outcome.REVOKED
    assert agent.judge("tcp")[0] is Outcome.NO_GRANT

    trail = Trail(Keys().audit, print)
    told = [event.facts["event"] for event in trail.past(login("admin"), Wanted())]
    assert {"consumed", "replayed", "session", "logout", "grant", "granted"} <= set(told)
    assert "revoked" in told


@pytest.mark.parametrize("user", USERS)
def test_each_reaches_every_database(login: Login, user: str) -> None:
    """A URL that names a database other than 0 is of use to everybody."""
    client = login(user)
    run(client, "SELECT", 3)
    if user == "issuer":
        assert Issuer(client).issue("user1", "strict", 60).token


def test_an_issuer_tells_nothing(login: Login) -> None:
    """Asked to tell, it issues all the same, and the stream is not touched."""
    issued = Issuer(login("issuer"), audit=True).issue("user1", "strict", 60)
    assert not issued.is_audited
    assert Agent(login("agent")).judge("strict", issued.token)[0] is Outcome.OK
    told = [
        event.facts["event"] for event in Trail(Keys().audit, print).past(login("admin"), Wanted())
    ]
    assert told == ["consumed"]


@pytest.mark.parametrize("version", LINES)
def test_an_issuer_that_tells_can_forge(
    start_redis: Callable[..., RedisServer], version: str
) -> None:
    """With the page's option `issued` is told, and its warning is true: it can trim and forge."""
    server = start_redis()
    (option,) = TELLING[version]
    with server.client() as client, opened(server, "issuer") as as_issuer:
        run(client, *LINES[version][0].split())
        run(client, *option.split())
        assert Issuer(as_issuer, audit=True).issue("user1", "strict", 60).is_audited
        run(as_issuer, *["XADD", "kat:audit", "MAXLEN", "0", "*", "e", "[]"])
        assert client.xlen("kat:audit") == 0
        for command in ("XRANGE kat:audit - +", "DEL kat:audit", "XADD kat:cut * e x", "GET x"):
            with pytest.raises(NoPermissionError):
                run(as_issuer, *command.split())
        if version == "6.2":
            assert run(as_issuer, "SET", "kat:audit", "x")
        else:
            with pytest.raises(NoPermissionError):
                run(as_issuer, "SET", "kat:audit", "x")


def test_an_admin_has_all_commands(login: Login) -> None:
    """No way of revoking, blocking, granting or reading the audit lacks a permission."""
    client = login("admin")
    admin = Admin(client, by="root", replicas=0)
    token = Issuer(login("issuer")).issue("user1", "strict", 60)
    agent = Agent(login("agent"))
    _, session = agent.judge("idle", Issuer(login("issuer")).issue("user1", "idle", 60).token)
    revoker, blocker, granter = Revoker(admin), Blocker(admin), Granter(admin)
    assert revoker.revoke_kid(token.kid).tokens == 1
    assert revoker.revoke_token(token.token.encode()).tokens == 0
    assert revoker.revoke_session(session).sessions == 1
    assert revoker.revoke_sid("0" * 12).sessions == 0
    granter.grant("tcp", "192.0.2.7", "user1", 60)
    assert revoker.end_grant("192.0.2.7").grants == 1
    revoker.revoke_group("staff")
    revoker.revoke_acl("idle")
    revoker.revoke_all()
    _, kept = blocker.block("192.0.2.7", 60)
    assert kept.is_audited
    assert [block.member for block in blocker.blocks()] == ["192.0.2.7"]
    assert blocker.unblock("192.0.2.7")[0]
    trail = Trail(Keys().audit, print)
    assert trail.wait(client, Wanted())
    assert trail.latest(client, Wanted(), 1)


def test_a_mirror_sees_and_hears_all(login: Login) -> None:
    """It reads grants and blocks, and hears at once of what agents and admins change."""
    admin = Admin(login("admin"), by="root")
    granter, blocker = Granter(admin), Blocker(admin)
    token = Issuer(login("issuer")).issue("user1", "tcp", 60).token
    agent = Agent(login("agent"))
    with closing(Mirror(login("mirror"), "kat:", ["tcp", "strict"])) as mirror:
        assert mirror.read().grants == {"tcp": {}, "strict": {}}
        granter.grant("strict", "198.51.100.0/24", "user2", 60)
        assert mirror.wait(DEADLINE_S)
        assert mirror.read().grants["strict"].keys() == {"198.51.100.0/24"}
        assert agent.judge("tcp", token)[0] is Outcome.OK
        assert mirror.wait(DEADLINE_S)
        assert mirror.read().grants["tcp"].keys() == {"192.0.2.7"}
        blocker.block("192.0.2.7", 60)
        assert mirror.wait(DEADLINE_S)
        assert mirror.read().blocks.keys() == {"192.0.2.7"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[RunningCluster]:
    """Run a cluster where the users have what the page adds for one."""
    (more,) = re.findall(r"In a cluster all four also need `(.*)`", PAGE)
    with running_cluster() as cluster:
        for node in cluster.primaries:
            with node.client() as client:
                for line in LINES["7.0"]:
                    run(client, *line.split(), *more.split())
                for option in TELLING["7.0"]:
                    run(client, *option.split())
        yield cluster


def test_each_finds_its_way_in_a_cluster(cluster: RunningCluster) -> None:
    """Issuer, admin and mirror reach every node, also for a slot that is on its way."""
    with connect(cluster.url.replace("//", "//issuer:issuer-password@")) as client:
        issuer = Issuer(client, audit=True)
        slot = key_slot(Keys().audit)
        owner = cluster.owner(slot)
        other = next(node for node in cluster.primaries if node is not owner)
        for _ in cluster.move(slot, other):
            assert issuer.issue("user1", "strict", 60).is_audited
    with connect(cluster.url.replace("//", "//admin:admin-password@")) as client:
        admin = Admin(client, by="root")
        Granter(admin).grant("tcp", "192.0.2.7", "user1", 60)
        mirror_url = cluster.url.replace("//", "//mirror:mirror-password@")
        with connect(mirror_url) as other, closing(Mirror(other, "kat:", ["tcp"])) as mirror:
            slot = key_slot(Keys().grants(b"tcp"))
            target = next(one for one in cluster.primaries if one is not cluster.owner(slot))
            for _ in cluster.move(slot, target):
                assert mirror.read().grants["tcp"].keys() == {"192.0.2.7"}
            assert Revoker(admin).revoke_user("user1").grants == 1
            assert mirror.wait(DEADLINE_S)
            assert mirror.read().grants == {"tcp": {}}


NOBODY = [
    *("FLUSHALL", "CONFIG GET *", "ACL LIST", "KEYS *", "MONITOR", "SHUTDOWN NOSAVE"),
    *("GET other", "SET other x", "PUBLISH other x", "SUBSCRIBE other", "EVAL return(1) 1 other"),
    *("REPLICAOF NO ONE", "FUNCTION LIST", "SCRIPT FLUSH", "CLIENT LIST", "CLUSTER RESET", "SAVE"),
]


@pytest.mark.parametrize("command", NOBODY)
@pytest.mark.parametrize("user", USERS)
def test_nobody_does_what_is_not_theirs(login: Login, user: str, command: str) -> None:
    """None of them reaches other keys or channels, or runs the server."""
    with pytest.raises(NoPermissionError):
        run(login(user), *command.split())


@pytest.mark.parametrize(
    "command",
    [
        *("GET {}", "GETDEL {}", "DEL {}", "UNLINK {}", "EXPIRE {} 1", "PTTL {}", "TYPE {}"),
        *("SET kat:cut x", "SET kat:s:0 x", "SET kat:grants:{{a}} x", "SCAN 0", "RANDOMKEY"),
        *("XRANGE kat:audit - +", "XTRIM kat:audit MAXLEN 0", "XADD kat:cut * e x"),
        *("XADD kat:audit * e []", "XADD kat:audit MAXLEN 0 * e []", "SET kat:audit x"),
        *("EVAL return(1) 0", "INFO", "PUBLISH kat:grants tcp", "SUBSCRIBE kat:grants"),
    ],
)
def test_an_issuer_only_issues(login: Login, command: str) -> None:
    """It cannot read a token, delete one, revoke, grant, or read what happened."""
    issuer = login("issuer")
    token = Issuer(issuer).issue("user1", "strict", 60).token
    key = Keys().token(digest(token.encode())).decode()
    with pytest.raises(NoPermissionError):
        run(issuer, *command.format(key).split())


@pytest.mark.parametrize("command", ["XRANGE kat:audit - +", "XREAD STREAMS kat:audit 0", "SCAN 0"])
def test_an_agent_looks_nothing_up(login: Login, command: str) -> None:
    """It sees only what it can name, and cannot read what happened."""
    with pytest.raises(NoPermissionError):
        run(login("agent"), *command.split())


@pytest.mark.parametrize(
    "command",
    [
        *("ZADD kat:grants:{{tcp}} 1 x", "ZREM kat:grants:{{tcp}} x", "DEL kat:grants:{{tcp}}"),
        *("HSET kat:cut all 1", "HDEL kat:cut all", "UNLINK kat:cut", "PUBLISH kat:grants tcp"),
        *("HSCAN kat:grants:{{tcp}}:meta 0", "GET {}", "GET kat:s:0", "SCAN 0", "PSUBSCRIBE *"),
        *(
            "XRANGE kat:audit - +",
            "HSCAN kat:fence 0",
            "ZSCAN kat:sub:user1 0",
            "XADD kat:audit * e x",
        ),
        *("EVAL return(1) 0", "SUBSCRIBE kat:other", "MULTI", "SET kat:t:0 x EX 60 NX"),
    ],
)
def test_a_mirror_only_reads(login: Login, command: str) -> None:
    """It changes nothing, and sees neither tokens nor sessions nor whose the grants are."""
    token = Issuer(login("issuer")).issue("user1", "strict", 60).token
    key = Keys().token(digest(token.encode())).decode()
    with pytest.raises(NoPermissionError):
        run(login("mirror"), *command.format(key).split())


@pytest.mark.parametrize(
    "command", ["SET kat:t:0 x EX 60 NX", "SETEX kat:t:0 60 x", "RESTORE x 0 x"]
)
def test_an_admin_does_not_issue(login: Login, command: str) -> None:
    """Who takes back gives out nothing."""
    with pytest.raises(NoPermissionError):
        run(login("admin"), *command.split())


@pytest.mark.parametrize(("version", "is_refused"), [("7.0", True), ("6.2", False)])
def test_reading_by_writing(
    start_redis: Callable[..., RedisServer],
    version: str,
    is_refused: bool,  # noqa: FBT001 - a column of cases
) -> None:
    """SET ... GET shows an issuer a record only where keys cannot be write-only."""
    server = start_redis()
    with server.client() as client, opened(server, "issuer") as as_issuer:
        run(client, *LINES[version][0].split())
        client.set("kat:t:0", "a record", ex=60)
        as_issuer.response_callbacks.clear()  # they would take the record for a yes
        command = ("SET", "kat:t:0", "x", "EX", "60", "GET")
        if is_refused:
            with pytest.raises(NoPermissionError):
                run(as_issuer, *command)
        else:
            assert run(as_issuer, *command) == b"a record"


# What only the other verbs of a script use, and what needs no permission.
_OTHERS = {"AUTH", "ZCOUNT", "UNLINK"}
_OFF_THE_HOT_WAY = {
    *("admin", "nodes", "revoke", "granter", "block", "auditlog", "permission", "facts", "client"),
    *("issue", "order"),
}


def test_an_agent_has_what_its_code_says(client: redis.Redis) -> None:
    """Each command in the code of the hot way is the agent's, and it has no other."""
    known = {name.upper() for name in client.command()}
    used: set[str] = set()
    for path in (ROOT / "tokens").rglob("*"):
        if path.suffix == ".py" and path.stem not in _OFF_THE_HOT_WAY:
            used |= set(re.findall(r'b"([A-Z]{3,})"', path.read_text())) & known
    for name in ("redeem", "cut", "grant", "touch"):
        script = (ROOT / "tokens" / "policy" / f"{name}.lua").read_text()
        used |= set(re.findall(r"redis[._]p?call\('([A-Z]+)'", script))
    (line,) = (line for line in LINES["7.0"] if " agent " in line)
    granted = {word.partition("|")[0] for word in re.findall(r"\+(\S+)", line.upper())}
    of_clusters = {"ASKING", "CLUSTER"}
    assert used - granted - of_clusters == _OTHERS
    assert granted - used == {"PING"}, "asked by `kat check`"
