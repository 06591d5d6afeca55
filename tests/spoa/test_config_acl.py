"""The modes of an ACL, and their settings."""

from pathlib import Path

import pytest

from spoa.config.file import ConfigError, load
from spoa.config.model import Config
from tokens.policy.rule import AclRule, Bind, Mode
from tokens.record import MAX_GRANT_TTL_S, MAX_SESSION_TTL_S

HOUR_MS = 3_600_000


def _rule(text: str, tmp_path: Path, **environ: str) -> AclRule:
    file = tmp_path / "kat.toml"
    file.write_text(f"[acl.wiki]\n{text}")
    return load(file, environ).rules["wiki"]


def _mistake(text: str, tmp_path: Path, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        _rule(text, tmp_path, **environ)
    [mistake] = caught.value.mistakes
    return mistake.removeprefix(f"{tmp_path / 'kat.toml'}: ")


@pytest.mark.parametrize("mode", ["strict", "session", "grant", "ip", "ip+token"])
def test_every_mode_of_the_contract_can_be_configured(mode: str, tmp_path: Path) -> None:
    """An ACL has one of five modes."""
    assert _rule(f'mode = "{mode}"', tmp_path).mode is Mode(mode)


def test_an_acl_of_nothing_has_defaults() -> None:
    """A session lasts a working day and ends after half an hour of rest; a grant lasts an hour."""
    rule = Config().rules["demo"]
    assert rule.mode is Mode.STRICT
    assert (rule.session_ttl_ms, rule.session_idle_ms) == (8 * HOUR_MS, HOUR_MS // 2)
    assert (rule.session_bind, rule.grant_ttl_ms) == (Bind.OFF, HOUR_MS)


def test_a_session_is_what_the_file_says(tmp_path: Path) -> None:
    """Durations have units, and reach the gate in milliseconds."""
    text = 'mode = "session"\nsession = { ttl = "2h", idle = "10m", bind = "network" }'
    rule = _rule(text, tmp_path)
    assert (rule.session_ttl_ms, rule.session_idle_ms) == (2 * HOUR_MS, HOUR_MS // 6)
    assert rule.session_bind is Bind.NETWORK


@pytest.mark.parametrize("idle", ['"off"', '"2h"'])
def test_a_session_need_not_end_for_rest(idle: str, tmp_path: Path) -> None:
    """An idle time of `off`, or one as long as the session, ends nothing before its end."""
    rule = _rule(f'mode = "session"\nsession = {{ ttl = "2h", idle = {idle} }}', tmp_path)
    assert rule.session_idle_ms is None


def test_a_session_may_be_shorter_than_the_usual_rest(tmp_path: Path) -> None:
    """The default of `idle` is nobody's mistake: a shorter `ttl` alone is enough."""
    rule = _rule('mode = "session"\nsession = { ttl = "5m" }', tmp_path)
    assert (rule.session_ttl_ms, rule.session_idle_ms) == (HOUR_MS // 12, None)


def test_a_grant_is_what_the_file_says(tmp_path: Path) -> None:
    """A number without a unit is seconds."""
    assert _rule('mode = "grant"\ngrant = { ttl = 90 }', tmp_path).grant_ttl_ms == 90_000


def test_the_environment_reaches_the_settings_of_a_mode(tmp_path: Path) -> None:
    """A variable overrides a nested key as it does any other."""
    environ = {"KAT_ACL__WIKI__SESSION__TTL": "1h", "KAT_ACL__WIKI__SESSION__BIND": "exact"}
    text = 'mode = "session"\nsession = { ttl = "2h", idle = "10m" }'
    rule = _rule(text, tmp_path, **environ)
    assert (rule.session_ttl_ms, rule.session_idle_ms) == (HOUR_MS, HOUR_MS // 6)
    assert rule.session_bind is Bind.EXACT


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('mode = "off"', "acl.wiki.mode = 'off': must be 'strict', 'session', 'grant', 'ip' or"),
        ('session = "8h"', "acl.wiki.session = '8h': must be a section"),
        ("session = { ttl = 0 }", "acl.wiki.session.ttl = 0: must be 1s to 30d"),
        ('session = { ttl = "31d" }', "acl.wiki.session.ttl = '31d': must be 1s to 30d"),
        ('session = { ttl = "8 hours" }', "acl.wiki.session.ttl = '8 hours': must be a whole numb"),
        ("session = { ttl = 1.5 }", "acl.wiki.session.ttl = 1.5: must be a duration: 90s"),
        ("session = { ttl = true }", "acl.wiki.session.ttl = True: must be a whole number"),
        ("session = { ttl = [1] }", "acl.wiki.session.ttl = a list: must be a duration: 90s"),
        ("session = { idle = 0 }", 'acl.wiki.session.idle = 0: must be at least 1s, or "off"'),
        ('session = { idle = "0s" }', "acl.wiki.session.idle = '0s': must be at least 1s, or"),
        ('session = { idle = "none" }', "acl.wiki.session.idle = 'none': must be a whole number"),
        (
            'session = { ttl = "1h", idle = "61m" }',
            "acl.wiki.session.idle = '61m': must not be longer than ttl, which is 1h",
        ),
        ('session = { idle = "9h" }', "acl.wiki.session.idle = '9h': must not be longer than ttl"),
        ('session = { bind = "src" }', "acl.wiki.session.bind = 'src': must be 'off', 'exact' or"),
        ("session = { tll = 1 }", "acl.wiki.session.tll: unknown key; did you mean acl.wiki.sess"),
        ("grant = { ttl = 0 }", "acl.wiki.grant.ttl = 0: must be 1s to 30d"),
        ('grant = { ttl = "31d" }', "acl.wiki.grant.ttl = '31d': must be 1s to 30d"),
    ],
)
def test_a_mistake_is_told_with_its_key_and_what_is_allowed(
    text: str, told: str, tmp_path: Path
) -> None:
    """One sentence for each mistake, for nested keys too."""
    mode = "" if text.startswith("mode") else f'mode = "{text.partition(" ")[0]}"\n'
    assert _mistake(mode + text, tmp_path).startswith(told)


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("setting", ["session", "grant"])
def test_a_setting_that_would_do_nothing_is_a_mistake(
    setting: str, mode: Mode, tmp_path: Path
) -> None:
    """`session` and `grant` belong to the modes of their names, and to no other."""
    text = f'mode = "{mode.value}"\n{setting} = {{ ttl = "1h" }}'
    if mode.value == setting:
        assert _rule(text, tmp_path)
        return
    assert _mistake(text, tmp_path) == (
        f'acl.wiki.{setting} = a section: needs mode = "{setting}"; '
        f'with "{mode.value}" it would do nothing'
    )


@pytest.mark.parametrize("mode", list(Mode))
def test_a_nonce_may_be_required_where_tokens_are(mode: Mode, tmp_path: Path) -> None:
    """`nonce` is for every mode that takes tokens; the one that takes none has no use for it."""
    assert not _rule(f'mode = "{mode.value}"', tmp_path).is_nonce_required
    text = f'mode = "{mode.value}"\nnonce = "required"'
    if mode is Mode.IP:
        assert "it would do nothing: no token is looked at" in _mistake(text, tmp_path)
    else:
        assert _rule(text, tmp_path).is_nonce_required


def test_a_variable_that_would_do_nothing_is_named(tmp_path: Path) -> None:
    """A setting of another mode is a mistake in the environment, too."""
    told = _mistake("", tmp_path, KAT_ACL__WIKI__GRANT__TTL="1h")
    assert told.startswith("KAT_ACL__WIKI__GRANT__TTL: acl.wiki.grant = a section: needs mode")


def test_the_longest_times_are_the_contracts(tmp_path: Path) -> None:
    """30 days are allowed, and no second more: by then old revocations are forgotten."""
    for mode, limit in (("session", MAX_SESSION_TTL_S), ("grant", MAX_GRANT_TTL_S)):
        head = f'mode = "{mode}"\n{mode} = {{ ttl = '
        assert _rule(f"{head}{limit} }}", tmp_path)
        assert "must be 1s to 30d" in _mistake(f"{head}{limit + 1} }}", tmp_path)
