"""examples/: what people copy works, in each language, against a real Redis."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
import redis

from tests.support.redeem import Ask, Redeemer
from tests.support.redis import RedisServer
from tests.support.redis_proxy import RedisProxy, Step
from tests.support.tls_front import CERTIFICATE, tls_front
from tokens.token import digest, is_well_formed

FOLDER = Path(__file__).parents[2] / "examples"
DEADLINE_S = 60
PASSWORD = "p@ss/w%rd"
SECRETS = "kat_|[0-9a-f]{13}|Traceback"
SAID_OF_REDIS = (
    r"Redis did not confirm a token: Redis at \S+|Redis at \S+ did not confirm a token: "
)

# What the shell scripts may call; there is nothing else on their PATH.
TOOLS = [
    *("awk", "cut", "gzip", "head", "od", "openssl", "redis-cli", "sha256sum", "tail", "timeout"),
    "tr",
]
EXAMPLES = {
    "redis-cli": ("/bin/sh", "issue-with-redis-cli.sh"),
    "redis-cli in bash": ("bash", "issue-with-redis-cli.sh"),
    "openssl": ("/bin/sh", "issue-with-openssl.sh"),
    "openssl in bash": ("bash", "issue-with-openssl.sh"),
    "python": (sys.executable, "issue.py"),
    "asyncio": (sys.executable, "issue_async.py"),
    "node": ("node", "issue.mjs"),
}


@dataclass
class Place:
    """An example on a machine of its own, a Redis behind a proxy, and what `ps` would show."""

    command: tuple[str, ...]
    proxy: RedisProxy
    environment: dict[str, str]
    arguments: Path

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.command, *arguments],
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )

    def issue(self, *, is_quiet: bool = True, **environment: str) -> Ask:
        """Issue a token; return what an agent asks when somebody shows it."""
        done = self.run("user1", "wiki", "60", **environment)
        assert done.returncode == 0, done.stderr
        assert not (done.stderr and is_quiet)
        assert re.search(SECRETS, done.stderr) is None
        token = done.stdout.removesuffix("\n").encode()
        assert is_well_formed(token)
        shown = self.arguments.read_text()
        assert token[4:36].decode() not in shown
        assert digest(token).decode() not in shown
        return Ask(b"kat:t:" + digest(token))

    def keys(self) -> list[bytes]:
        """Name what was to be set, in order."""
        frames = [frame for name, frame in self.proxy.commands if name == b"SET"]
        return [re.findall(rb"kat:t:[0-9a-f]{64}", frame)[0] for frame in frames]


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """Put each tool behind a script that notes its arguments."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (tmp_path / "arguments").touch()
    for name in TOOLS:
        real = shutil.which(name)
        assert real, f"the examples need {name}: install it, as scripts/prepare test does"
        note = f'printf "%s\\n" "$*" >>{tmp_path}/arguments'
        (folder / name).write_text(f'#!/bin/sh\n{note}\nexec {real} "$@"\n')
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def at(tools: Path) -> Iterator[Callable[[str, RedisServer], Place]]:
    """Give what puts an example before a Redis."""
    with ExitStack() as stack:

        def place(name: str, server: RedisServer) -> Place:
            program, file = EXAMPLES[name]
            path = shutil.which(program)
            assert path, f"this example needs {program}: `scripts/prepare test` installs it"
            proxy = stack.enter_context(RedisProxy(server.socket, None))
            tls_port = stack.enter_context(tls_front(proxy.port))
            environment = {
                "PATH": str(tools),
                "REDIS_URL": proxy.url,
                "REDIS_CLI": f"-h 127.0.0.1 -p {proxy.port}",
                "REDIS_PORT": str(tls_port),
                "REDIS_CA": str(CERTIFICATE),
            }
            return Place((path, str(FOLDER / file)), proxy, environment, tools.parent / "arguments")

        yield place


@pytest.fixture(params=EXAMPLES)
def place(
    request: pytest.FixtureRequest,
    at: Callable[[str, RedisServer], Place],
    redis_server: RedisServer,
) -> Place:
    """Each example, before the empty Redis of the tests."""
    return at(request.param, redis_server)


def test_every_example_is_run() -> None:
    """No file is shown that nobody runs."""
    shown = {path.name for path in FOLDER.iterdir() if path.name != "__pycache__"}
    assert shown == {file for _, file in EXAMPLES.values()}


def test_an_example_issues_a_token(place: Place, client: redis.Redis) -> None:
    """What it prints opens the gate once, as the user and for the ACL and time that were asked."""
    ask = place.issue()
    assert client.keys() == [ask.key]
    record = client.get(ask.key)
    assert isinstance(record, bytes)
    assert json.loads(record) == {"v": 1, "sub": "user1", "acl": ["wiki"], "ttl": 60}
    assert 30_000 < client.pttl(ask.key) <= 60_000
    redeemer = Redeemer(client)
    assert redeemer.redeem_one(ask).code == "ok"
    assert redeemer.redeem_one(Ask(ask.key, claim="c0ffee.2")).code == "replayed"


def test_an_example_sets_once_and_atomically(place: Place) -> None:
    """One SET with EX and NX reaches Redis, and no other command that writes."""
    place.issue()
    (command,) = (frame for name, frame in place.proxy.commands if name == b"SET")
    words = [word.upper() for word in command.split(b"\r\n")]
    assert {b"EX", b"60", b"NX"} <= set(words)
    written = {name for name, _ in place.proxy.commands}
    assert written <= {b"SET", b"QUIT", b"COMMAND", b"CLIENT", b"HELLO"}


@pytest.mark.parametrize("step", [Step.CUT, b"$-1\r\n", b"-LOADING not yet\r\n"])
def test_in_doubt_an_example_mints_anew(
    place: Place, client: redis.Redis, step: Step | bytes
) -> None:
    """A lost reply, a null and an error are each followed by another token, which is the one."""
    place.proxy.plan(b"SET", step)
    ask = place.issue(is_quiet=False)
    *before, last = place.keys()
    assert before
    assert ask.key == last
    assert last not in before
    assert Redeemer(client).redeem_one(ask).code == "ok"


def test_an_example_gives_up(place: Place, client: redis.Redis) -> None:
    """A Redis that confirms nothing is a sentence and exit 1: three tokens tried, none told."""
    client.config_set("min-replicas-to-write", "1")
    try:
        done = place.run("user1", "wiki", "60")
    finally:
        client.config_set("min-replicas-to-write", "0")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert re.search(SAID_OF_REDIS, done.stderr)
    assert re.search("NOREPLICAS|enough good replicas", done.stderr)
    assert re.search(SECRETS, done.stderr) is None
    assert len(set(place.keys())) == 3


def test_an_example_says_who_is_away(place: Place) -> None:
    """Where nothing listens, one sentence names the place and what to do, and the exit is 1."""
    place.proxy.vanish()
    done = place.run("user1", "wiki", "60")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert re.search(SAID_OF_REDIS, done.stderr)
    assert "REDIS_" in done.stderr or "does it listen there" in done.stderr
    ports = {str(place.proxy.port), place.environment["REDIS_PORT"]}
    assert any(f":{port} " in done.stderr or f":{port}:" in done.stderr for port in ports)


def with_password(place: Place, password: str) -> dict[str, str]:
    return {
        "REDIS_URL": place.proxy.url.replace("//", f"//:{quote(password, safe='')}@"),
        "REDISCLI_AUTH": password,
        "REDIS_PASSWORD": password,
    }


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_keeps_the_password(
    name: str, at: Callable[[str, RedisServer], Place], start_redis: Callable[..., RedisServer]
) -> None:
    """A password gets it in and stands in no argument; a wrong one is told to nobody."""
    server = start_redis()
    place = at(name, server)
    with server.client() as client:
        client.config_set("requirepass", PASSWORD)
        client.execute_command("AUTH", PASSWORD)  # type: ignore[no-untyped-call]
        ask = place.issue(**with_password(place, PASSWORD))
        assert client.keys() == [ask.key]
        done = place.run("user1", "wiki", "60", **with_password(place, "wr@ng/one"))
        assert client.keys() == [ask.key]
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "refuses the user or the password" in done.stderr
    assert "wr@ng" not in done.stderr
    assert "p@ss" not in (shown := place.arguments.read_text())
    assert "wr@ng" not in shown


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_login_is_no_token(
    name: str, at: Callable[[str, RedisServer], Place], start_redis: Callable[..., RedisServer]
) -> None:
    """The OK to a password is not taken for that to a SET whose reply is lost."""
    server = start_redis()
    place = at(name, server)
    place.proxy.plan(b"SET", Step.CUT)
    with server.client() as client:
        client.config_set("requirepass", PASSWORD)
        ask = place.issue(is_quiet=False, **with_password(place, PASSWORD))
    *before, last = place.keys()
    assert before
    assert ask.key == last
    assert last not in before


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_says_what_is_not_permitted(
    name: str, at: Callable[[str, RedisServer], Place], start_redis: Callable[..., RedisServer]
) -> None:
    """A user that may not SET is told so."""
    server = start_redis()
    place = at(name, server)
    with server.client() as client:
        client.config_set("requirepass", PASSWORD)
        client.execute_command("AUTH", PASSWORD)  # type: ignore[no-untyped-call]
        client.execute_command("ACL", "SETUSER", "default", "-set")  # type: ignore[no-untyped-call]
        done = place.run("user1", "wiki", "60", **with_password(place, PASSWORD))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert re.search("permission|permit", done.stderr)
    assert "p@ss" not in done.stderr


@pytest.mark.parametrize("name", ["openssl", "openssl in bash", "node", "python", "asyncio"])
def test_an_example_talks_to_no_stranger(
    name: str, at: Callable[[str, RedisServer], Place], redis_server: RedisServer
) -> None:
    """A certificate that nobody vouches for is refused before a password could be said."""
    place = at(name, redis_server)
    url = f"rediss://:{quote(PASSWORD, safe='')}@localhost:{place.environment['REDIS_PORT']}"
    stranger = {"REDIS_URL": url, "REDIS_CA": "", "REDIS_PASSWORD": PASSWORD}
    done = place.run("user1", "wiki", "60", **stranger)
    assert (done.returncode, done.stdout) == (1, "")
    assert place.proxy.commands == []


@pytest.mark.parametrize("name", ["node", "python", "asyncio"])
def test_an_example_speaks_tls(
    name: str,
    at: Callable[[str, RedisServer], Place],
    redis_server: RedisServer,
    client: redis.Redis,
) -> None:
    """With `rediss:` and a CA of one's own that vouches for the certificate, it issues."""
    place = at(name, redis_server)
    url = f"rediss://localhost:{place.environment['REDIS_PORT']}"
    ask = place.issue(REDIS_URL=url, NODE_EXTRA_CA_CERTS=str(CERTIFICATE))
    assert client.keys() == [ask.key]


@pytest.mark.parametrize("name", ["node", "python", "asyncio"])
def test_an_example_heeds_the_database(
    name: str, at: Callable[[str, RedisServer], Place], start_redis: Callable[..., RedisServer]
) -> None:
    """A token goes to the database of the URL; one that is not there gets nothing into another."""
    server = start_redis()
    place = at(name, server)
    with server.client() as client:
        ask = place.issue(REDIS_URL=f"{place.proxy.url}/3")
        assert client.keys() == []
        done = place.run("user1", "wiki", "60", REDIS_URL=f"{place.proxy.url}/99")
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert client.info("keyspace").keys() == {"db3"}
        client.select(3)  # type: ignore[no-untyped-call]
        assert client.keys() == [ask.key]


def test_node_believes_no_login_that_failed(
    at: Callable[[str, RedisServer], Place], redis_server: RedisServer, client: redis.Redis
) -> None:
    """A Redis that refuses the user, though it lets anybody in, is sent no token."""
    place = at("node", redis_server)
    url = place.proxy.url.replace("//", "//nobody:hunter2@")
    done = place.run("user1", "wiki", "60", REDIS_URL=url)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "refuses the user or the password" in done.stderr
    assert "hunter2" not in done.stderr
    assert client.dbsize() == 0
    assert place.keys() == []


SILENT = """
const { EventEmitter } = require("node:events");
require("node:net").connect = () => {
  const socket = new EventEmitter();
  socket.setTimeout = socket.write = () => {};
  process.nextTick(() => socket.emit("error", Object.assign(new Error(""), { code: "EHOSTDOWN" })));
  return socket;
};
"""


def test_node_believes_no_error_without_words(
    at: Callable[[str, RedisServer], Place], redis_server: RedisServer, tmp_path: Path
) -> None:
    """What Node says of several addresses that all fail has no words, and confirms no token."""
    (tmp_path / "silent.cjs").write_text(SILENT)
    options = f"--require {tmp_path}/silent.cjs"
    done = at("node", redis_server).run("user1", "wiki", "60", NODE_OPTIONS=options)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "EHOSTDOWN" in done.stderr


URLS = {
    "no URL": "hunter2",
    "nothing": "",
    "another scheme": "http://:hunter2@127.0.0.1",
    "no host": "redis://:hunter2@",
    "a port that is none": "redis://:hunter2@127.0.0.1:99999",
    "a broken escape": "redis://:hunter2%zz@127.0.0.1",
    "a user without a password": "redis://hunter2@127.0.0.1",
    "a database that is none": "redis://:hunter2@127.0.0.1/first",
    "a query": "redis://:hunter2@127.0.0.1/0?db=1",
    "a socket": "unix://:hunter2@/run/redis.sock",
    "Sentinels": "redis+sentinel://:hunter2@127.0.0.1,127.0.0.2/kat",
    "a cluster": "rediss+cluster://:hunter2@127.0.0.1,127.0.0.2",
}


@pytest.mark.parametrize("url", URLS.values(), ids=URLS)
def test_node_quotes_no_url(
    at: Callable[[str, RedisServer], Place], redis_server: RedisServer, url: str
) -> None:
    """A URL that the example for Node cannot use is a sentence, exit 2, and none of it is told."""
    done = at("node", redis_server).run("user1", "wiki", "60", REDIS_URL=url)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "REDIS_URL" in done.stderr
    assert "hunter2" not in done.stderr
    assert ("not supported here" in done.stderr) is url.startswith(("unix", "redis+", "rediss+"))


WRONG = {
    "nothing": (),
    "two arguments": ("user1", "wiki"),
    "four arguments": ("user1", "wiki", "60", "x"),
    "no user": ("", "wiki", "60"),
    "a user with a line end": ("user1\nx", "wiki", "60"),
    "a user with a blank at its end": ("admin ", "wiki", "60"),
    "a user of 129 bytes": ("u" * 129, "wiki", "60"),
    "no ACL": ("user1", "", "60"),
    "an ACL with a space": ("user1", "wiki docs", "60"),
    "an ACL that ends the JSON": ("user1", 'wiki"],"x":["', "60"),
    "an ACL of 65 characters": ("user1", "w" * 65, "60"),
    "no time": ("user1", "wiki", ""),
    "time that is none": ("user1", "wiki", "soon"),
    "zero seconds": ("user1", "wiki", "0"),
    "seconds below zero": ("user1", "wiki", "-60"),
    "a fraction of seconds": ("user1", "wiki", "60.5"),
    "more than a day": ("user1", "wiki", "86401"),
    "more than all days": ("user1", "wiki", "9" * 30),
}


@pytest.mark.parametrize("arguments", WRONG.values(), ids=WRONG)
def test_an_example_refuses(place: Place, arguments: tuple[str, ...]) -> None:
    """What no agent would accept is one sentence and exit 2, and Redis is not asked."""
    done = place.run(*arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "Traceback" not in done.stderr
    assert place.keys() == []


@pytest.mark.parametrize(
    "user", ['x","acl":["other"]', "x' EX 9 NX", "x\\", "$(id)", "%s%n", "*", "-e", "a b", "\u00e4"]
)
def test_a_user_is_only_a_user(place: Place, client: redis.Redis, user: str) -> None:
    """Whatever is in a user's name is refused, or becomes that very name and nothing else."""
    done = place.run(user, "wiki", "60")
    if done.returncode == 0:
        (key,) = client.keys()
        record = client.get(key)
        assert isinstance(record, bytes)
        assert json.loads(record) == {"v": 1, "sub": user, "acl": ["wiki"], "ttl": 60}
    else:
        assert (done.returncode, done.stdout, place.keys()) == (2, "", [])
