"""What may be set, and what a setting means."""

import os
import pickle
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from spoa.config.acl import Acl
from spoa.config.endpoint import TcpEndpoint, UnixEndpoint
from spoa.config.model import Config
from spoa.config.sections import Limits, Listen, Store
from tokens.policy.rule import Mode


def test_every_key_has_a_default() -> None:
    """A configuration of nothing protects one ACL, `demo`, strictly, with a private Redis."""
    config = Config()
    assert config.acl == {"demo": Acl(mode=Mode.STRICT)}
    assert list(config.rules) == ["demo"]
    assert config.store.is_embedded
    assert config.limits.deadline_ms == 80


def test_it_cannot_be_changed() -> None:
    """A Config is the same for everybody, from beginning to end."""
    with pytest.raises(ValidationError, match="frozen"):
        Config().limits.deadline_ms = 1  # type: ignore[misc]


def test_it_reaches_a_worker_whole() -> None:
    """A Config survives the way into another process."""
    config = Config(state_dir=Path("/s"), store=Store(url="redis://:secret@h"))
    assert pickle.loads(pickle.dumps(config)) == config


def test_its_text_holds_no_password() -> None:
    """Whoever prints a Config prints no password."""
    assert "secret" not in repr(Config(store=Store(url="redis://:secret@h")))


def test_a_chosen_state_directory_holds_the_sockets() -> None:
    """A state directory without a run directory has one inside."""
    config = Config(state_dir=Path("/s"))
    assert config.run_dir == Path("/s/run")
    assert config.endpoints == (UnixEndpoint("/s/run/spoa.sock"),)


def test_a_chosen_run_directory_stands() -> None:
    """A run directory is where it is said to be."""
    config = Config(state_dir=Path("/s"), run_dir=Path("/r"))
    assert config.endpoints == (UnixEndpoint("/r/spoa.sock"),)


@pytest.mark.skipif(os.geteuid() != 0, reason="about root")
def test_root_uses_the_system_directories() -> None:
    """As root the agent lives in /var/lib and /run."""
    assert (Config().state_dir, Config().run_dir) == (Path("/var/lib/kat"), Path("/run/kat"))


def test_shared_and_own_sockets_are_told_apart() -> None:
    """The supervisor binds what is shared, each worker what has its number."""
    listen = Listen(insecure=True, spop=("unix:/s.sock", "unix:/s.{worker}.sock", "[::1]:9100"))
    config = Config(listen=listen)
    assert config.shared_endpoints == (UnixEndpoint("/s.sock"), TcpEndpoint("::1", 9100))
    assert config.own_endpoints(3) == (UnixEndpoint("/s.3.sock"),)


def test_one_worker_per_core_we_may_use() -> None:
    """`workers = 0` means the cores this process may run on, not those of the machine."""
    assert Config().workers == len(os.sched_getaffinity(0))
    assert Config(listen=Listen(workers=7)).workers == 7


def test_an_embedded_store_has_a_url() -> None:
    """The URL of the private Redis survives a blank in its path."""
    config = Config(state_dir=Path("/my state"))
    assert config.store_url == "unix:///my%20state/redis/redis.sock"


@pytest.mark.parametrize(
    ("spop", "sentence"),
    [
        ((), "at least one"),
        (("127.0.0.1:9100",), "insecure = true"),
        (("unix:/a", "unix:/a"), "twice"),
        (("unix:a",), "absolute"),
        (("unix:/" + "a" * 107,), "108 bytes, 107 are allowed"),
        (("unix:/" + "a" * 99 + "{worker}",), "103 bytes|107 are allowed"),
        (("tcp",), "host:port"),
        (("h:",), "host:port"),
        (("h:65536",), "above 65535"),
        (("h:0",), "port 0"),
        (("a..b:9100",), "is no host name"),
        (("a" * 64 + ":9100",), "1 to 63 characters"),
        (("::1:9100",), "brackets"),
    ],
)
def test_an_address_that_cannot_be_bound_is_refused(spop: tuple[str, ...], sentence: str) -> None:
    """An address is refused with a sentence that says what is allowed."""
    if "{worker}" in "".join(spop):
        spop = ("unix:/" + "a" * 104 + "{worker}",)
    with pytest.raises(ValidationError, match=sentence):
        Listen(spop=spop)


def test_the_longest_path_is_allowed() -> None:
    """107 bytes fit."""
    assert Listen(spop=("unix:/" + "a" * 106,))


@pytest.mark.parametrize(
    "url",
    [
        "embedded",
        "redis://localhost",
        "redis://user:p%40ss@10.0.0.1:6380/2",
        "redis://[::1]:6379/",
        "unix:///run/redis.sock",
        "unix://:pass@/run/redis.sock?db=1",
        "rediss://h",
        "redis+sentinel://a,b:26380/tokens",
        "rediss+cluster://a,b:7001",
    ],
)
def test_a_store_url_is_taken(url: str) -> None:
    """These name a Redis."""
    assert Store(url=url).url == url


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("redis+sentinel://h", "names no service"),
        ("redis://", 'must be "embedded"'),
        ("redis://h:0", "port 0"),
        ("redis://h/one", "database"),
        ("unix://relative.sock", 'must be "embedded"'),
        ("http://h", 'must be "embedded"'),
        ("embeded", 'must be "embedded"'),
        ("redis://h:port", "host or its port"),
        ("redis://[::1", "host or its port"),
        ("redis://a..b", "is no host name"),
        ("redis://a%2e%2eb", "is no host name"),
        (f"redis://{'a' * 64}.org", "is no host name"),
        ("redis://h?db=1", "option"),
        ("unix:///s?timeout=1", "option"),
        ("unix:///a%00b", "not printable"),
        ("unix:///" + "a" * 107, "longer than 107"),
    ],
)
def test_a_url_of_something_else_is_refused(url: str, sentence: str) -> None:
    """What names no Redis is refused."""
    with pytest.raises(ValidationError, match=sentence):
        Store(url=url)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "(unknown)", "\u00e9", "a" * 65, "a\n"])
def test_an_acl_has_a_name_that_a_token_can_hold(name: str) -> None:
    """An ACL's name is one that the Redis contract allows."""
    with pytest.raises(ValidationError):
        Config(acl={name: Acl()})


@pytest.mark.parametrize("deadline_ms", [0, -1, 10_001])
def test_a_limit_has_limits(deadline_ms: int) -> None:
    """A deadline is neither none nor forever."""
    with pytest.raises(ValidationError):
        Limits(deadline_ms=deadline_ms)


@pytest.mark.parametrize("url", ["embedded", "redis://h"])
def test_a_state_directory_too_deep_for_a_socket_is_refused(url: str) -> None:
    """The sockets must find room, and the directory that was chosen is to blame."""
    with pytest.raises(ValidationError, match="is too long") as caught:
        Config(state_dir=Path("/" + "a" * 100), store=Store(url=url))
    [fault] = caught.value.errors()
    assert fault["ctx"]["key"] == "state_dir"


@pytest.mark.parametrize(
    ("metrics", "sentence"),
    [
        ("unix:/s", "must be host:port or [ipv6]:port"),
        ("9464", "must be host:port or [ipv6]:port"),
        ("a..b:9464", "is no host name"),
        ("a\0b:9464", "is no host name"),
    ],
)
def test_metrics_are_at_a_tcp_port(metrics: str, sentence: str) -> None:
    """What is refused for `metrics` is told what `metrics` takes."""
    with pytest.raises(ValidationError, match=rf"Value error, {re.escape(sentence)}"):
        Listen(metrics=metrics)


@pytest.mark.parametrize("value", [True, "4", 4.0])
def test_a_number_is_a_number(value: object) -> None:
    """Neither a boolean nor a text is taken for a number."""
    with pytest.raises(ValidationError, match="valid integer"):
        Listen.model_validate({"workers": value})


@pytest.mark.parametrize("value", [1, "yes"])
def test_a_boolean_is_a_boolean(value: object) -> None:
    """Neither a number nor a text is taken for a boolean."""
    with pytest.raises(ValidationError, match="valid boolean"):
        Listen.model_validate({"insecure": value})


def test_what_is_no_number_is_no_limit() -> None:
    """A time-out is neither infinite nor undefined."""
    for drain_s in (float("nan"), float("inf")):
        with pytest.raises(ValidationError):
            Limits(drain_s=drain_s)


def test_a_relative_xdg_directory_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where files are does not depend on where `kat` was called."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/h")
    for name in ("XDG_STATE_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, "here")
    assert Config().state_dir == Path("/h/.local/state/kat")
    assert Config().run_dir == Path("/h/.local/state/kat/run")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert Config().run_dir == Path("/run/user/1000/kat")
