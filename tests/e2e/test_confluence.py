"""examples/confluence.cfg and its page, as HAProxy, `kat check` and operators read them."""

import re
import tomllib
from itertools import chain
from pathlib import Path

import pytest

from haproxy import CONFIGURATION, FILES
from spoa.check.agreement import disagreements, doubts
from spoa.check.haproxyfile import read_haproxy_files
from spoa.config.model import Config
from tests.support.confluence import ADMINS, EXAMPLE, HOST, STAFF, complaints

CERTIFICATE = Path(__file__).with_name("localhost.pem")
PAGE = Path(__file__).parents[2] / "docs" / "confluence.md"
MODES = ("ip", "token", "both")

EVERYTHING = {
    "KAT_CERT": str(CERTIFICATE),
    "KAT_HTTP": ":8081,[::1]:8081",
    "KAT_HTTPS": ":8443",
    "KAT_HOSTS": "one.example two.example",
    "KAT_ACL": "wiki",
    "KAT_PORTAL": "https://portal.example/get?a=(1),b=2",
    "KAT_AGENT": "unix@/kat/one.sock",
    "KAT_AGENT_2": "192.0.2.2:9100",
    "KAT_AGENT_CA": str(CERTIFICATE),
    "KAT_AGENT_CERT": str(CERTIFICATE),
    "KAT_AGENT_NAME": "agents.example",
    "KAT_LOG": "/dev/log",
    "KAT_APP": "192.0.2.1:8443",
    "KAT_APP_NAME": "wiki.internal",
    "KAT_CA": str(CERTIFICATE),
    "KAT_CHECK": "/wiki/status",
    "KAT_RUNTIME": "/run/haproxy/other.sock",
    "KAT_RUNTIME_GROUP": "root",
    "KAT_LIST_ID": "1500",
    "KAT_LIST": "a file that _lists writes",
    "KAT_ADMIN_LIST_ID": "1701",
    "KAT_ADMIN_LIST": "another one",
    "KAT_ADMIN_ACL": "wiki-admin",
    "KAT_ADMIN_PATHS": "/wiki/admin /wiki/setup",
    "KAT_ADMIN_GROUP": "wiki administrators",
    "KAT_STAFF_GROUP": "wiki users",
    "KAT_OTHER_LIST_ID": "500",
    "KAT_OTHER_ADMIN_LIST_ID": "701",
    "KAT_BEAT": "10s",
    "KAT_CHROOT": "/var/empty",
    "KAT_USER": "nobody",
    "KAT_GROUP": "nogroup",
    "KAT_GUESSES": "5",
    "KAT_RETRY_ON": "conn-failure empty-response",
    "KAT_TIMEOUT_CONNECT": "1s",
    "KAT_TIMEOUT_SERVER": "5m",
    "KAT_TIMEOUT_TUNNEL": "5m",
    "KAT_PROCESSING": "200ms",
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("is_everything", [False, True], ids=["defaults", "everything set"])
def test_haproxy_accepts_it_without_a_warning(
    haproxy_binary: Path, tmp_path: Path, mode: str, *, is_everything: bool
) -> None:
    """In no mode do the defaults, or a value for every setting, make HAProxy say a word."""
    settings = EVERYTHING | _lists(tmp_path) if is_everything else {}
    assert complaints(haproxy_binary, {**settings, "KAT_MODE": mode}) == ""


def test_both_is_what_it_is_without_a_mode(haproxy_binary: Path) -> None:
    """Where nobody chose, an address and a token are needed, and HAProxy says nothing."""
    assert complaints(haproxy_binary, {}) == ""
    assert "presetenv KAT_MODE both\n" in EXAMPLE.read_text()


@pytest.mark.parametrize("mode", ["", "IP", "tokens", "ip+token", "none"])
def test_another_mode_is_refused(haproxy_binary: Path, mode: str) -> None:
    """A misspelt mode does not start, and is told what there is."""
    words = complaints(haproxy_binary, {"KAT_MODE": mode})
    assert f"""'KAT_MODE is "{mode}": it must be ip, token or both'""" in words


def test_lists_may_be_virtual_from_3_0(haproxy_binary: Path) -> None:
    """virt@ names need no file from HAProxy 3.0; 2.6 takes them for one, and says so."""
    words = complaints(haproxy_binary, {"KAT_LIST": "virt@a", "KAT_ADMIN_LIST": "virt@b"})
    assert ("failed to open pattern file <virt@a>" in words) == (words != "")
    assert (words != "") == (haproxy_binary.parent.name == "2.6")


def test_an_unverified_application_is_announced(haproxy_binary: Path) -> None:
    """Whoever gives up verifying the certificate reads it at each start."""
    words = complaints(haproxy_binary, {"KAT_APP_UNVERIFIED": "yes"})
    assert "KAT_APP_UNVERIFIED is set: whoever answers" in words
    assert "[WARNING]" not in words
    assert "[ALERT]" not in words


def test_only_that_option_stops_verifying() -> None:
    """Every server line but that one verifies by CA and by name."""
    live = [line for line in EXAMPLE.read_text().splitlines() if "server app" in line]
    assert len(live) == 2
    assert [("ssl verify none" in line) for line in live] == [True, False]
    assert "ssl verify required ca-file" in live[1]
    assert "verifyhost" in live[1]


def test_every_setting_is_listed_where_operators_look() -> None:
    """The head of the example names each variable that the files read, and no other."""
    head, _, body = EXAMPLE.read_text().partition("\nglobal\n")
    head = head[head.index("# Settings come from the environment") :]
    body += (FILES / "kat.spoe.conf").read_text()
    named = set(re.findall(r"\bKAT_[A-Z_0-9]+", head))
    assert named == set(re.findall(r"(?:\$\{|\"\$|defined\()(KAT_[A-Z_0-9]+)", body))
    assert named == {*EVERYTHING, "KAT_FILES", "KAT_MODE", "KAT_APP_UNVERIFIED"}


def test_the_page_speaks_of_settings_that_there_are() -> None:
    """Each setting in docs/confluence.md is one of the example's, or of haproxy.cfg's."""
    known = set(re.findall(r"\bKAT_[A-Z_0-9]+", EXAMPLE.read_text() + CONFIGURATION.read_text()))
    said = set(re.findall(r"(?<!\w)KAT_[A-Z_0-9]+(?!__)", PAGE.read_text()))
    assert {name for name in said if "__" not in name} <= known


def test_kat_check_agrees_with_it() -> None:
    """`kat check --haproxy` finds no fault with the example beside an agent as its page has it."""
    config = _page_config()
    facts = read_haproxy_files([EXAMPLE], {"KAT_FILES": str(FILES), "KAT_MODE": "both"})
    ours = frozenset({"unix:/run/kat/spoa.sock"})
    assert list(chain(disagreements(config, facts, ours), doubts(config, facts))) == []
    assert set(facts.acls) == {"confluence"}


def test_its_page_fills_the_lists_that_it_reads() -> None:
    """The page's kat.toml names the lists, grants and frontend of the example's defaults."""
    (edge,) = _page_config().allowlist.values()
    assert edge.acl == {"confluence": (STAFF,), "confluence-admin": (ADMINS,)}
    assert edge.heartbeat == "kat_alive"
    text = EXAMPLE.read_text()
    assert f"unix:{re.findall(r'KAT_RUNTIME-([^}]*)}', text)[0]}" == edge.runtime
    assert set(re.findall(r"KAT_(?:ADMIN_)?LIST_ID-([^}]*)}", text)) == {STAFF[1:], ADMINS[1:]}
    assert set(re.findall(r"KAT_(?:ADMIN_)?ACL-([^}]*)}", text)) == set(edge.acl)
    assert all(f"frontend {name}\n" in text for names in edge.shut.values() for name in names)


def test_hosts_are_what_the_example_says() -> None:
    """The name that the tests ask for is the example's default, for people and for its server."""
    text = EXAMPLE.read_text()
    assert set(re.findall(r"\$\{KAT_(?:HOSTS\[\*\]|APP_NAME)-([^}]*)\}", text)) == {HOST}


def _page_config() -> Config:
    """Read the configuration that docs/confluence.md shows."""
    (toml,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return Config.model_validate(tomllib.loads(toml))


def _lists(folder: Path) -> dict[str, str]:
    """Write the files of addresses that KAT_LIST and KAT_ADMIN_LIST name."""
    files = {name: folder / f"{name}.acl" for name in ("KAT_LIST", "KAT_ADMIN_LIST")}
    for file in files.values():
        file.write_text("192.0.2.7\n")
    return {name: str(file) for name, file in files.items()}


def test_a_comma_between_paths_is_refused(haproxy_binary: Path) -> None:
    """It would make one path of two, which nobody has, and both would be everybody's."""
    assert complaints(haproxy_binary, {"KAT_ADMIN_PATHS": "/admin /setup"}) == ""
    words = complaints(haproxy_binary, {"KAT_ADMIN_PATHS": "/admin, /setup"})
    assert "paths_without_a_comma" in words
