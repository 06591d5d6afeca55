"""How mistakes are told."""

from pathlib import Path

import pytest

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


def test_what_haproxy_reads_is_not_ours() -> None:
    """haproxy.cfg's own variables are left alone."""
    load(None, {"KAT_BIND": "x", "KAT_ACL": "x", "KAT_CONFIG": "", "PATH": "x"})


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
        "acl.a b: must match pattern",
        "KAT_LOG__LEVEL: log.level = 'loud': must be 'debug', 'info', 'warning' or 'error'",
        "KAT_FOO__BAR: foo: unknown key",
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
        "rediss://user:hunter2@h",
        ":hunter2@h",
        "redis://h?password=hunter2",
        "redis://:hun@hunter2@h:x",
        "redis://:x?hunter2@h:x",
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


def test_a_value_where_a_section_belongs_is_a_mistake(tmp_path: Path) -> None:
    """`limits = 3` is told as such, also when a variable wants to add to it."""
    told = _mistakes("limits = 3\nacl = 4\n", tmp_path, KAT_LIMITS__DEADLINE_MS="5")
    assert any("limits = 3: must be a section" in mistake for mistake in told)
    assert any("acl = 4: must be a section" in mistake for mistake in told)


def test_a_relative_directory_is_refused() -> None:
    """Where files are must not depend on where `kat` was called."""
    with pytest.raises(ConfigError, match="KAT_STATE_DIR: state_dir = 'here': must be an absolute"):
        load(None, {"KAT_STATE_DIR": "here"})
