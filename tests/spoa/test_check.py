"""What `kat check` finds."""

import fcntl
import grp
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from haproxy import FILES
from spoa.check.check import Finding, Level, findings
from spoa.config.acl import Acl
from spoa.config.model import Config
from spoa.config.sections import Audit, Limits, Listen, Store
from tests.support.redis import RedisServer
from tokens.policy.rule import Mode


def _config(place: Path, url: str = "redis://127.0.0.1:1", **sections: object) -> Config:
    given = {"listen": Listen(metrics="", workers=2), "store": Store(url=url), **sections}
    return Config.model_validate({"state_dir": place, **given})


def _about(subject: str, config: Config, *files: Path) -> list[Finding]:
    return [finding for finding in findings(config, files) if finding.subject == subject]


def _faults(subject: str, config: Config, *files: Path) -> list[str]:
    about = _about(subject, config, *files)
    return [finding.sentence for finding in about if finding.level is Level.FAIL]


def test_a_good_store_is_described(place: Path, redis_server: RedisServer) -> None:
    """A store that will do is named with version, role and policy."""
    found = _about("store", _config(place, f"unix://{redis_server.socket}"))
    assert [one.level for one in found] == [Level.WARN, Level.OK]  # it keeps nothing
    assert found[1].sentence.endswith(", master, noeviction")


def test_a_store_that_is_away_is_named(place: Path) -> None:
    """An unreachable Redis is a fault, told without its password."""
    [sentence] = _faults("store", _config(place, "redis://:hunter2@127.0.0.1:1"))
    assert sentence == "Redis at 127.0.0.1:1 cannot be reached: Connection refused"


def test_a_store_that_would_lose_tokens_is_a_fault(
    place: Path, start_redis: Callable[..., RedisServer]
) -> None:
    """A Redis that evicts keys, or is a replica, cannot keep a token single-use."""
    server = start_redis("--maxmemory-policy", "allkeys-lru", "--replicaof", "127.0.0.1", "1")
    faults = _faults("store", _config(place, f"unix://{server.socket}"))
    assert [fault.partition(":")[0] for fault in faults] == [
        "it is a slave",
        "maxmemory-policy is allkeys-lru",
    ]


def test_files_of_tls_that_are_none_are_a_fault(place: Path) -> None:
    """A CA file without a certificate is named, whether or not Redis is there."""
    file = place / "ca.pem"
    file.write_text("no PEM")
    store = Store(url="rediss://127.0.0.1:1", ca_file=file)
    [sentence] = _faults("store", _config(place, store=store))
    assert sentence.startswith(f"ca_file {file} cannot be used")


def test_a_key_that_everybody_can_read_is_a_warning(place: Path) -> None:
    """A private key is for the agent's user, and at most for its group."""
    key = place / "key.pem"
    key.touch()
    config = _config(place, store=Store(url="rediss://127.0.0.1:1", cert_file=key, key_file=key))
    for mode, told in ((0o640, []), (0o644, [f"key_file {key} can be read by everybody here"])):
        key.chmod(mode)
        about = _about("store", config)
        assert [one.sentence for one in about if one.level is Level.WARN] == told


def test_an_audit_that_can_be_written_is_told(place: Path, redis_server: RedisServer) -> None:
    """Asking writes nothing: neither to a stream that is there nor to one that is not."""
    config = _config(place, f"unix://{redis_server.socket}")
    for entries in (0, 1):
        [finding] = _about("audit", config)
        assert finding == Finding(Level.OK, "audit", "kat:audit can be written to")
        with redis_server.client() as client:
            assert client.xlen("kat:audit") == entries
            client.xadd("kat:audit", {"event": "[]"})


@pytest.mark.parametrize("ill", ["maxmemory", "min-replicas-to-write"])
def test_an_audit_that_cannot_be_written_just_now_is_a_fault(
    place: Path, start_redis: Callable[..., RedisServer], ill: str
) -> None:
    """A Redis that takes no writes takes no audit, whatever its users may do."""
    server = start_redis(f"--{ill}", "1")
    [fault] = _faults("audit", _config(place, f"unix://{server.socket}"))
    assert "OOM" in fault or "used memory" in fault or "NOREPLICAS" in fault


def test_an_audit_that_is_off_is_not_looked_at(place: Path, redis_server: RedisServer) -> None:
    """Who wants no stream needs no permission for it."""
    config = _config(place, f"unix://{redis_server.socket}", audit=Audit(stream=False))
    assert _about("audit", config) == []


@pytest.mark.parametrize(
    "rules", ["+@all -xadd ~*", "+@all ~kat:t:*"], ids=["not the command", "not the key"]
)
def test_an_audit_that_may_not_be_written_is_a_fault(
    place: Path, start_redis: Callable[..., RedisServer], rules: str
) -> None:
    """A Redis user without XADD, or for other keys, loses every event: said before it happens."""
    server = start_redis()
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "agent", "on", ">pw", *rules.split())
    config = _config(place, f"unix://agent:pw@{server.socket}")
    assert _faults("audit", config) == [
        "this Redis user may not XADD kat:audit: allow it, or set audit.stream = false"
    ]


def test_an_embedded_store_that_is_not_running_is_no_fault(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`kat serve` starts it, if there is a server to start."""
    [finding] = _about("store", _config(place, "embedded"))
    assert finding.level is Level.OK
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    [sentence] = _faults("store", _config(place, "embedded"))
    assert "apt install" in sentence


def test_an_embedded_store_that_should_run_and_does_not_is_a_fault(place: Path) -> None:
    """Where a `kat serve` holds the state directory, its Redis must answer."""
    config = _config(place, "embedded")
    config.redis_dir.mkdir(mode=0o700)
    (config.redis_dir / "lock").touch()
    assert _faults("store", config) == []
    with (config.redis_dir / "lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        [sentence] = _faults("store", config)
    assert (
        sentence == f"Redis at {config.redis_socket} cannot be reached: No such file or directory"
    )


def test_an_agent_without_its_embedded_store_is_a_fault(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where an agent answers, the private Redis must answer, whatever became of the lock."""
    monkeypatch.setattr("spoa.check.check.hello", lambda _: 4096)
    [sentence] = _faults("store", _config(place, "embedded"))
    assert "cannot be reached" in sentence


def test_an_embedded_store_that_refuses_is_a_fault(
    place: Path, start_redis: Callable[..., RedisServer]
) -> None:
    """A private Redis that answers PING with an error is asked further, not taken for absent."""
    server = start_redis()
    with server.client() as client:
        client.config_set("requirepass", "right-one")
    config = _config(place, "embedded")
    config.redis_dir.mkdir(mode=0o700)
    config.redis_socket.symlink_to(server.socket)
    with (config.redis_dir / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        [sentence] = _faults("store", config)
    assert sentence.endswith("asks for a password")


def test_a_directory_that_cannot_be_made_is_a_fault(place: Path) -> None:
    """Where the private Redis and the sockets shall be must be, or can be made."""
    assert _faults("state_dir", _config(place, "embedded")) == []
    assert _faults("run_dir", _config(place, "embedded")) == []
    (place / "file").touch()
    bad = _config(place / "file/below", "embedded")
    for key, directory in (("state_dir", bad.redis_dir), ("run_dir", bad.run_dir)):
        assert _faults(key, bad) == [
            f"{directory} cannot be made: {place}/file is not writable",
        ]
    in_the_way = _config(place, run_dir=place / "file")
    assert _faults("run_dir", in_the_way) == [
        f"{place}/file is no directory we can write to",
    ]


def test_a_directory_that_stops_haproxys_group_is_a_fault(place: Path) -> None:
    """Every directory above a socket must let the group of `listen.group` pass."""
    other = next(entry for entry in grp.getgrall() if entry.gr_gid != os.getgid())
    listen = Listen(spop=(f"unix:{place}/a/b/s",), group=other.gr_name, metrics="", workers=1)
    config = _config(place, listen=listen)
    (place / "a/b").mkdir(parents=True)
    for directory, mode in ((place, 0o755), (place / "a", 0o755), (place / "a/b", 0o754)):
        directory.chmod(mode)
    faults = _faults("listen", config)
    assert faults[0] == (
        f"the group {other.gr_name} cannot reach unix:{place}/a/b/s: "
        f"{place}/a/b does not let it pass"
    )
    (place / "a/b").chmod(0o755)
    assert not [fault for fault in _faults("listen", config) if "does not let it pass" in fault]


def test_a_free_address_is_left_free(place: Path) -> None:
    """Checking an address leaves no socket behind, and makes no directory."""
    [finding] = _about("listen", _config(place))
    assert finding.level is Level.OK
    assert finding.sentence == f"unix:{place}/run/spoa.sock is made by `kat serve`"
    assert not (place / "run").exists()
    (place / "run").mkdir()
    [finding] = _about("listen", _config(place))
    assert finding.sentence.endswith("can be bound; no agent runs there")
    assert list((place / "run").iterdir()) == []


def test_an_address_that_cannot_be_bound_is_a_fault(place: Path) -> None:
    """Each address is looked at, one per worker too."""
    listen = Listen(spop=(f"unix:{place}/none/{{worker}}",), metrics="", workers=2)
    faults = _faults("listen", _config(place, listen=listen))
    assert faults == [
        f"unix:{place}/none/{index} cannot be bound: No such file or directory" for index in (0, 1)
    ]


def test_a_port_in_use_is_a_fault(place: Path) -> None:
    """The metrics port is looked at too."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        listen = Listen(metrics=address, workers=1)
        faults = _faults("metrics", _config(place, listen=listen))
    assert faults == [f"{address} cannot be bound: another process listens there"]


def test_haproxys_files_must_agree(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own files agree with our own defaults, and every disagreement is named."""
    monkeypatch.setenv("KAT_FILES", str(FILES))
    file = FILES / "haproxy.cfg"
    good = _config(place, run_dir=Path("/run/kat"))
    assert [finding.level for finding in _about("haproxy", good, file)] == [Level.OK]
    door = FILES / "examples" / "grant-tcp.cfg"
    granting = _config(place, run_dir=Path("/run/kat"), acl={"demo": Acl(mode=Mode.GRANT)})
    assert [finding.level for finding in _about("haproxy", granting, file, door)] == [Level.OK]
    bad = _config(place, limits=Limits(deadline_ms=100), acl={"wiki": Acl()})
    late, elsewhere, *unknown = _faults("haproxy", bad, file)
    assert late.startswith("`timeout processing` is 100 ms, limits.deadline_ms 100:")
    assert elsewhere.startswith("sends to unix:/run/kat/spoa.sock")
    assert {line.partition(",")[0] for line in unknown} == {"a gate asks for the ACL demo"}


def test_a_haproxy_file_that_is_not_there_is_a_fault(place: Path) -> None:
    """A wrong path is named."""
    [sentence] = _faults("haproxy", _config(place), place / "none.cfg")
    fault = f"{place}/none.cfg: cannot be read: No such file or directory"
    assert sentence == f"{fault}; nothing of HAProxy was looked at"


def test_our_own_files_serve_sessions(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped haproxy.cfg opens sessions, looks at them and ends them."""
    monkeypatch.setenv("KAT_FILES", str(FILES))
    config = _config(place, run_dir=Path("/run/kat"), acl={"demo": Acl(mode=Mode.SESSION)})
    found = _about("haproxy", config, FILES / "haproxy.cfg")
    assert [finding.level for finding in found] == [Level.OK]


@pytest.mark.parametrize("mode", list(Mode))
def test_a_page_that_asks_in_vain_is_doubted(
    place: Path, monkeypatch: pytest.MonkeyPatch, mode: Mode
) -> None:
    """KAT_CONFIRM is of use where something stays open behind the token."""
    monkeypatch.setenv("KAT_FILES", str(FILES))
    monkeypatch.setenv("KAT_CONFIRM", "on")
    config = _config(place, run_dir=Path("/run/kat"), acl={"demo": Acl(mode=mode)})
    found = _about("haproxy", config, FILES / "haproxy.cfg")
    is_vain = mode in {Mode.STRICT, Mode.IP_TOKEN}
    assert [finding.level for finding in found] == [Level.WARN if is_vain else Level.OK]
    assert ("would need another one" in found[0].sentence) == is_vain


@pytest.mark.parametrize(
    ("url", "mode", "is_told"),
    [
        ("redis://:pw@h", 0o644, True),
        ("redis://:pw@h", 0o640, False),
        ("redis://user@h", 0o644, False),
        ("redis://h", 0o644, False),
        ("embedded", 0o644, False),
        ("redis+sentinel://h/s?sentinel_password=pw", 0o644, True),
        ("redis+cluster://u:pw@h", 0o644, True),
    ],
)
def test_a_password_that_everybody_can_read_is_a_warning(
    place: Path, url: str, mode: int, *, is_told: bool
) -> None:
    """A configuration file with a password is for the agent's user, whatever overrides it."""
    file = place / "kat.toml"
    file.write_text(f'[store]\nurl = "{url}"')
    file.chmod(mode)
    told = [one for one in findings(_config(place), [], file) if one.subject == "config"]
    sentence = f"{file} holds the password of Redis and can be read by everybody here: chmod o-r"
    assert told == ([Finding(Level.WARN, "config", sentence)] if is_told else [])
