"""haproxy.cfg and what it loads, as HAProxy reads them."""

import re
from pathlib import Path

import pytest

from haproxy import CONFIGURATION, FILES
from tests.support.haproxy import complaints

CERTIFICATE = Path(__file__).with_name("localhost.pem")
SHIPPED = [path for path in FILES.rglob("*") if path.is_file() and path.suffix != ".pyc"]
PAGES = sorted((FILES / "errors").iterdir())

EVERYTHING = {
    "KAT_CERT": str(CERTIFICATE),
    "KAT_HTTP": ":8081,[::1]:8081",
    "KAT_HTTPS": ":8443",
    "KAT_HOSTS": "one.example two.example",
    "KAT_ACL": "confluence",
    "KAT_APP": "192.0.2.1:8000",
    "KAT_PORTAL": "https://portal.example/get?a=(1),b=2",
    "KAT_PORTAL_APP": "192.0.2.3:8001",
    "KAT_PORTAL_HOSTS": "portal.example",
    "KAT_CONFIRM": "on",
    "KAT_NONCE_KEY": "c2VjcmV0/+==",
    "KAT_AGENT": "unix@/kat/one.sock",
    "KAT_AGENT_2": "192.0.2.2:9100",
    "KAT_AGENT_CA": str(CERTIFICATE),
    "KAT_AGENT_CERT": str(CERTIFICATE),
    "KAT_AGENT_NAME": "agents.example",
    "KAT_LOG": "/dev/log",
    "KAT_CHROOT": "/var/empty",
    "KAT_RUNTIME": "/run/haproxy/kat.sock",
    "KAT_RUNTIME_GROUP": "root",
    "KAT_USER": "nobody",
    "KAT_GROUP": "nogroup",
    "KAT_ACME": "127.0.0.1:8402",
    "KAT_GUESSES": "5",
    "KAT_RETRY_ON": "conn-failure empty-response",
    "KAT_TIMEOUT_CONNECT": "1s",
    "KAT_TIMEOUT_SERVER": "5s",
    "KAT_TIMEOUT_TUNNEL": "5m",
    "KAT_PROCESSING": "200ms",
}


REMOTE = ("KAT_AGENT_2", "KAT_AGENT_CA", "KAT_AGENT_CERT")


@pytest.mark.parametrize(
    "environment",
    [{}, EVERYTHING, {name: EVERYTHING[name] for name in REMOTE}],
    ids=["defaults", "everything set", "a remote agent beside ours"],
)
def test_haproxy_accepts_the_configuration_without_a_warning(
    haproxy_binary: Path, environment: dict[str, str]
) -> None:
    """Neither the defaults nor a value for every setting make HAProxy say a word."""
    assert complaints(haproxy_binary, environment) == ""


def test_every_setting_is_listed_where_operators_look() -> None:
    """The head of haproxy.cfg names each variable that the files read, and no other."""
    head, _, body = CONFIGURATION.read_text().partition("\nglobal\n")
    body += (FILES / "kat.spoe.conf").read_text()
    named = re.findall(r"\bKAT_[A-Z_0-9]+", head)
    assert set(named) == set(re.findall(r"(?:\$\{|defined\()(KAT_[A-Z_0-9]+)", body))
    assert set(named) == {*EVERYTHING, "KAT_FILES"}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_files_are_plain_ascii(path: Path) -> None:
    """No file of haproxy/ holds a byte beyond ASCII, a tab, or a space at a line's end."""
    text = path.read_text("ascii")
    assert "\t" not in text
    assert not re.search(r" $", text, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_need_nothing_from_elsewhere(page: Path) -> None:
    """A page loads nothing and runs nothing; the page that asks alone repeats token and query."""
    text = page.read_text()
    allowed = {"portal", "action", "token"} if page.name == "confirm.html" else {"portal"}
    assert ("<form" in text) == (page.name == "confirm.html")
    assert not re.search(r"<(script|img|link|iframe)|url\(|@import|//", text)
    assert set(re.findall(r"%\[.*?\]", text)) <= {f"%[var(txn.gate.{name})]" for name in allowed}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_fit_into_one_buffer(page: Path) -> None:
    """A page stays small: HAProxy keeps an answer, with what is filled in, in one of 16 KiB."""
    assert page.stat().st_size < 8192
