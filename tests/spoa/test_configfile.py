"""How mistakes are told."""

import os
import re
from pathlib import Path

import pytest

from haproxy import FILES
from spoa.config.file import ConfigError, load


def _mistakes(text: str | bytes, tmp_path: Path, **environ: str) -> list[str]:
    file = tmp_path / "kat.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        load(file, environ)
    return [mistake.removeprefix(f"{file}: ") for mistake in caught.value.mistakes]


def test_a_file_is_read(tmp_path: Path) -> None:
    """What the file says, holds."""
    file = tmp_path / "kat.toml"
    file.write_text('[acl.wiki]\nmode = "strict"\n[limits]\ndeadline_ms = 50\n')
    config = load(file, {})
    assert list(config.acl) == ["wiki"]
    assert config.limits.deadline_ms == 50


def test_the_environment_wins(tmp_path: Path) -> None:
    """A variable overrides the file, key by key."""
    file = tmp_path / "kat.toml"
    file.write_text("[limits]\ndeadline_ms = 50\nin_flight = 5\n")
    environ = {
        "KAT_CONFIG": str(file),
        "KAT_LIMITS__DEADLINE_MS": "60",
        "KAT_LISTEN__SPOP": "unix:/a, unix:/b",
        "KAT_LISTEN__METRICS": "",
        "KAT_STORE__FENCE": "false",
        "KAT_ACL__WIKI__MODE": "strict",
        "KAT_STATE_DIR": "/s",
    }
    config = load(None, environ)
    assert (config.limits.deadline_ms, config.limits.in_flight) == (60, 5)
    assert config.listen.spop == ("unix:/a", "unix:/b")
    assert config.listen.metrics == ""
    assert not config.store.fence
    assert list(config.acl) == ["wiki"]
    assert config.run_dir == Path("/s/run")


@pytest.mark.parametrize(
    "file", [FILES / "kat.spoe.conf", *FILES.rglob("*.cfg")], ids=lambda file: file.name
)
def test_what_haproxy_reads_is_not_ours(file: Path) -> None:
    """The variables of HAProxy's own files are left alone, all of them."""
    names = set(re.findall(r"KAT_[A-Z0-9_]+", file.read_text()))
    assert names
    load(Path(os.devnull), dict.fromkeys(names, "x"))


def test_what_is_unlike_ours_is_left_alone() -> None:
    """A variable of somebody else is no mistake."""
    load(None, {"KAT_BIND": "x", "KAT_CONFIG": "", "PATH": "x", "XKAT_STORE__URL": "x"})


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("KAT_STORE_URL", "; did you mean KAT_STORE__URL?"),
        ("KAT_STORE", "; did you mean KAT_STORE__URL?"),
        ("KAT_LISTEN_WORKERS", "; did you mean KAT_LISTEN__WORKERS?"),
        ("KAT_ACL_WIKI__MODE", "; did you mean KAT_ACL__NAME__MODE?"),
        ("KAT_ACL__WIKI", "; did you mean KAT_ACL__WIKI__MODE?"),
        ("KAT_LOG_LEVEL", "; did you mean KAT_LOG__LEVEL?"),
        ("KAT_STORE__URL__X", "; did you mean KAT_STORE__URL?"),
        ("KAT_STORE__PASWORD", "; did you mean KAT_STORE__URL?"),
    ],
)
def test_a_variable_that_is_nearly_ours_is_not_ignored(
    name: str, hint: str, tmp_path: Path
) -> None:
    """A setting that would have no effect is refused by its name, and its value is not told."""
    text = '[store]\nurl = "redis://h"\n'
    assert _mistakes(text, tmp_path, **{name: "hunter2"}) == [f"{name}: unknown variable{hint}"]


def test_a_number_in_the_environment_is_text(tmp_path: Path) -> None:
    """Only the environment may write a number or a boolean as text."""
    environ = {"KAT_LISTEN__WORKERS": "4", "KAT_STORE__FENCE": "no", "KAT_LIMITS__DRAIN_S": "1.5"}
    config = load(Path(os.devnull), environ)
    assert (config.workers, config.store.fence, config.limits.drain_s) == (4, False, 1.5)
    told = _mistakes('[listen]\nworkers = "4"\n', tmp_path, KAT_LIMITS__IN_FLIGHT="many")
    assert told == [
        "listen.workers = '4': must be a valid integer",
        "KAT_LIMITS__IN_FLIGHT: limits.in_flight = 'many': must be a valid integer",
    ]


def test_all_mistakes_come_at_once(tmp_path: Path) -> None:
    """Each mistake is named with its key, its value and what is allowed, in one go."""
    text = """
limts = 1
deadline_ms = 1
[limits]
deadline_ms = 0
in_fligt = 1
[listen]
spop = ["unix:a", "h:1"]
[acl.wiki]
mode = "stric"
mod = 1
[acl."a b"]
"""
    told = "\n".join(_mistakes(text, tmp_path, KAT_LOG__LEVEL="loud", KAT_FOO__BAR="1"))
    for sentence in (
        "limits.deadline_ms = 0: must be greater than or equal to 1",
        "limits.in_fligt: unknown key; did you mean limits.in_flight?",
        "limts: unknown key; did you mean limits?",
        "deadline_ms: unknown key; did you mean limits.deadline_ms?",
        "listen.spop.0 = 'unix:a': the path of a unix socket must be absolute",
        "listen.spop.1 = 'h:1': whoever reaches a TCP port",
        "acl.wiki.mode = 'stric': must be 'strict'",
        "acl.wiki.mod: unknown key; did you mean acl.wiki.mode?",
        "acl.a b: must be 1 to 64 of A-Z a-z 0-9 _ . -",
        "KAT_LOG__LEVEL: log.level = 'loud': must be 'debug', 'info', 'warning' or 'error'",
        "KAT_FOO__BAR: unknown variable",
    ):
        assert sentence in told
    assert len(told.splitlines()) == 11


def test_unreadable_toml_is_named_with_its_line(tmp_path: Path) -> None:
    """A file that is no TOML is refused with the line."""
    assert "line 2" in _mistakes("[limits]\ndeadline_ms = = 1\n", tmp_path)[0]
    assert "line 3" in _mistakes(b"\n\n# \xff\n", tmp_path)[0]


def test_a_file_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    """A named file must exist, and be a file."""
    for path, reason in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError, match=reason):
            load(path, {})


def test_a_file_of_any_size_is_not_read(tmp_path: Path) -> None:
    """A megabyte is no configuration."""
    assert "more than" in _mistakes(b"#" * 2**21, tmp_path)[0]


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunter2@h:port",
        "redis://user:hunter2@h/x",
        "rediss://user:hunter2@h/x",
        ":hunter2@h",
        "redis://h?password=hunter2",
        "redis://:hun@hunter2@h:x",
        "redis://:x?hunter2@h:x",
        "redis://h?password=hunt@er2hunter2",
        "redis://:hunter2",
        "redis://user:hunter2/0",
        "redis://user:hunter2",
        "redis://hunter2/x",
        "hunter2",
        "hunter2://h",
        "unix://:hunter2/run/s",
        "http://user:hunter2@h",
    ],
)
def test_no_password_is_ever_told(url: str, tmp_path: Path) -> None:
    """A mistake in a URL does not show its password."""
    [mistake] = _mistakes(f'[store]\nurl = "{url}"\n', tmp_path)
    assert mistake.startswith("store.url = ")
    assert "hunter2" not in mistake


def test_the_value_of_an_unknown_key_is_not_told(tmp_path: Path) -> None:
    """Nobody knows what an unknown key holds."""
    [mistake] = _mistakes('[store]\npassword = "hunter2"\n', tmp_path)
    assert mistake == "store.password: unknown key"
    [mistake] = _mistakes('[store]\n"redis://:hunter2@h" = 1\n', tmp_path)
    assert mistake == "store.***: unknown key"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[[store]]\nurl = "redis://u:hunter2@h"', "store = a list: must be a section"),
        ('store = "redis://u:hunter2@h"', "store = 'redis://***@h': must be a section"),
        ('store = "hunter2"', "store = ***: must be a section"),
        ('[store]\nurl = ["redis://u:hunter2@h"]', "store.url = a list: must be a valid string"),
        ('[store.url]\na = "hunter2"', "store.url = a section: must be a valid string"),
        ("[store]\nurl = 12345", "store.url = ***: must be a valid string"),
        ('[store]\nprefix = "redis://:hunter2@h"', "store.prefix = 'redis://***@h': must be 1 to"),
        ('[store]\nurl = "rediss://u:hunter2@h:0/2"', "store.url = 'rediss://***@h:0/2': has the"),
        ('[listen]\nmetrics = "redis://u:hunter2@h"', "listen.metrics = 'redis://***@h': must be"),
        ('acl = ["hunter2"]', "acl = a list: must be a section"),
    ],
)
def test_no_container_and_no_secret_is_shown(text: str, told: str, tmp_path: Path) -> None:
    """A password in the wrong place is not told either."""
    [mistake] = _mistakes(text, tmp_path)
    assert mistake.startswith(told)


def test_a_password_in_a_variable_is_not_told(tmp_path: Path) -> None:
    """A mistake in a variable names the variable."""
    [mistake] = _mistakes("", tmp_path, KAT_STORE__URL="redis://u:hunter2")
    assert mistake.startswith("KAT_STORE__URL: store.url = ***: is no URL")


def test_a_default_file_that_cannot_be_read_is_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a default file that is not there is passed over."""
    monkeypatch.setattr("spoa.config.file.DEFAULT_PATH", tmp_path / "none")
    load(None, {})
    monkeypatch.setattr("spoa.config.file.DEFAULT_PATH", tmp_path / ("a" * 256))
    with pytest.raises(ConfigError, match="cannot be read: File name too long"):
        load(None, {})


@pytest.mark.parametrize("value", ["[" * 100_000, "9" * 5000])
def test_toml_that_python_cannot_bear_is_a_mistake(value: str, tmp_path: Path) -> None:
    """Neither depth nor length ends in a traceback."""
    assert "is not TOML" in _mistakes(f"a = {value}", tmp_path)[0]


def test_a_directory_that_cannot_be_is_told_by_its_name(tmp_path: Path) -> None:
    """The directory that was set is to blame, with words for humans."""
    assert _mistakes("run_dir = 5", tmp_path) == ["run_dir = 5: must be an absolute path"]
    long = "/" + "a" * 100
    [mistake] = _mistakes("", tmp_path, KAT_STATE_DIR=long, KAT_LIMITS__DRAIN_S="1")
    assert mistake.startswith(f"KAT_STATE_DIR: state_dir = '{long}': is too long: the socket")


def test_a_user_without_a_home_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has no home directory learns what to set."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    for name in ("XDG_STATE_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "relative")
    with pytest.raises(ConfigError, match="set state_dir or KAT_STATE_DIR"):
        load(Path(os.devnull), {})


def test_a_value_where_a_section_belongs_is_a_mistake(tmp_path: Path) -> None:
    """`limits = 3` is told as such, also when a variable wants to add to it."""
    told = _mistakes("limits = 3\nacl = 4\n", tmp_path, KAT_LIMITS__DEADLINE_MS="5")
    assert any("limits = 3: must be a section" in mistake for mistake in told)
    assert any("acl = 4: must be a section" in mistake for mistake in told)


def test_a_relative_directory_is_refused() -> None:
    """Where files are must not depend on where `kat` was called."""
    with pytest.raises(ConfigError, match="KAT_STATE_DIR: state_dir = 'here': must be an absolute"):
        load(None, {"KAT_STATE_DIR": "here"})
