"""HAProxy's files and our configuration, held against each other."""

from pathlib import Path

import pytest

from spoa.check.agreement import disagreements, doubts
from spoa.check.haproxyfile import read_haproxy_files
from spoa.config.acl import Acl
from spoa.config.model import Config
from tokens.policy.rule import Mode

SPOE = """
spoe-agent kat
 groups check-http check-tcp logout
 timeout processing {processing}
 use-backend agents
spoe-group check-http
 messages check-http
spoe-group check-tcp
 messages check-tcp
spoe-group logout
 messages logout
spoe-message check-http
 args {http}
spoe-message check-tcp
 args {tcp}
spoe-message logout
 args {logout}
"""

HTTP = ["acl", "token", "via", "session", "nonce", "src", "host", "method", "path", "id", "at"]

WEB = """
backend gate
 http-request set-var(txn.gate.acl) str(wiki)
 http-request send-spoe-group kat {group}
"""

TCP = """
frontend door
 {delay}
 tcp-request content set-var(txn.gate.acl) str(wiki)
 tcp-request content send-spoe-group kat check-tcp
"""

TOO_SHORT = "`timeout processing` 100 ms: it would not wait for the agent"


def _args(names: list[str]) -> str:
    return " ".join(f"{name}=var(txn.gate.{name})" for name in names)


def _told(
    tmp_path: Path,
    text: str,
    acl: dict[str, object],
    *,
    http: list[str] = HTTP,
    tcp: list[str] = ["acl", "src"],  # noqa: B006 - never changed
    logout: list[str] = ["acl", "session"],  # noqa: B006
    processing: str = "100ms",
) -> list[str]:
    """Hold these files against a configuration of the one ACL `wiki`."""
    file = tmp_path / "haproxy.cfg"
    spoe = SPOE.format(
        http=_args(http), tcp=_args(tcp), logout=_args(logout), processing=processing
    )
    file.write_text(spoe + text)
    config = Config(acl={"wiki": Acl.model_validate(acl)})
    return list(disagreements(config, read_haproxy_files([file], {}), frozenset()))


@pytest.mark.parametrize("mode", list(Mode))
def test_all_arguments_are_enough_for_every_mode(mode: Mode, tmp_path: Path) -> None:
    """A message with everything in it lacks nothing."""
    assert _told(tmp_path, WEB.format(group="check-http"), {"mode": mode}) == []


@pytest.mark.parametrize(
    ("mode", "needed"),
    [
        (Mode.STRICT, ["acl", "token"]),
        (Mode.SESSION, ["acl", "token", "via", "session", "host"]),
        (Mode.GRANT, ["acl", "token", "src"]),
        (Mode.IP, ["acl", "src"]),
        (Mode.IP_TOKEN, ["acl", "token", "src"]),
    ],
)
def test_an_argument_that_a_mode_needs_is_missed(
    mode: Mode, needed: list[str], tmp_path: Path
) -> None:
    """Each argument without which nobody could get in is named, and no other."""
    web = WEB.format(group="check-http")
    assert _told(tmp_path, web, {"mode": mode}, http=needed) == []
    for name in HTTP:
        told = _told(tmp_path, web, {"mode": mode}, http=[arg for arg in HTTP if arg != name])
        about = f"backend gate sends check-http for the ACL wiki, whose mode is {mode.value}, "
        assert told == ([f"{about}without its arguments {name}"] if name in needed else [])


@pytest.mark.parametrize(
    ("bind", "misses"), [("off", []), ("exact", ["src"]), ("network", ["src"])]
)
def test_a_session_bound_to_an_address_needs_the_address(
    bind: str, misses: list[str], tmp_path: Path
) -> None:
    """`src` is missed as soon as sessions are bound to it."""
    acl: dict[str, object] = {"mode": "session", "session": {"bind": bind}}
    without = [arg for arg in HTTP if arg != "src"]
    told = _told(tmp_path, WEB.format(group="check-http"), acl, http=without)
    assert [sentence.partition(" arguments ")[2] for sentence in told] == misses


@pytest.mark.parametrize("mode", list(Mode))
def test_only_addresses_open_a_connection(mode: Mode, tmp_path: Path) -> None:
    """A TCP door for an ACL that wants a token could never open, and that is said."""
    told = _told(tmp_path, TCP.format(delay="tcp-request inspect-delay 1s"), {"mode": mode})
    about = f"frontend door sends check-tcp for the ACL wiki, whose mode is {mode.value}: "
    can = mode in (Mode.GRANT, Mode.IP)
    assert told == ([] if can else [f"{about}only grant or ip can be asked so"])


@pytest.mark.parametrize("mode", list(Mode))
def test_only_sessions_end(mode: Mode, tmp_path: Path) -> None:
    """A logout needs to say which session ends where there are some, and is harmless elsewhere."""
    web = WEB.format(group="logout")
    about = f"backend gate sends logout for the ACL wiki, whose mode is {mode.value}"
    assert _told(tmp_path, web, {"mode": mode}) == []
    told = _told(tmp_path, web, {"mode": mode}, logout=["acl"])
    can_end = mode is Mode.SESSION
    assert told == ([f"{about}, without its arguments session"] if can_end else [])


@pytest.mark.parametrize(
    ("delay", "told"),
    [
        ("tcp-request inspect-delay 101ms", []),
        (
            "tcp-request inspect-delay 100ms",
            ["`tcp-request inspect-delay` of frontend door is 100 ms, " + TOO_SHORT],
        ),
        (
            "",
            ["frontend door has no `tcp-request inspect-delay`: it would turn everybody away"],
        ),
    ],
)
def test_a_door_must_wait_for_the_agent(delay: str, told: list[str], tmp_path: Path) -> None:
    """HAProxy waits no longer than its inspect-delay, which must exceed `timeout processing`."""
    assert _told(tmp_path, TCP.format(delay=delay), {"mode": "ip"}) == told


def test_http_needs_no_inspect_delay(tmp_path: Path) -> None:
    """`http-request send-spoe-group` waits by itself."""
    assert _told(tmp_path, WEB.format(group="check-http"), {"mode": "ip"}) == []


def test_a_door_for_an_unknown_acl_is_told(tmp_path: Path) -> None:
    """What a TCP door asks for must be configured, as with HTTP."""
    text = TCP.format(delay="tcp-request inspect-delay 1s").replace("wiki", "mail")
    assert _told(tmp_path, text, {}) == [
        "a gate asks for the ACL mail, which is not configured: unknown_acl, 503"
    ]


def _doubted(
    tmp_path: Path, text: str, mode: str = "session", args: str = _args(HTTP)
) -> list[str]:
    file = tmp_path / "haproxy.cfg"
    spoe = SPOE.format(http=args, tcp="acl=x", logout="acl=x", processing="100ms")
    file.write_text(f"{spoe}{text}\nbackend agents\n server a unix@/s\n")
    config = Config(acl={"wiki": Acl(mode=Mode(mode))})
    return list(doubts(config, read_haproxy_files([file], {})))


NONCE = "http-request set-var(txn.gate.nonce) req.cook(k),sha2(256),hex,lower"


@pytest.mark.parametrize("rule", ["", NONCE])
def test_a_required_nonce_must_be_sent(rule: str, tmp_path: Path) -> None:
    """Where tokens must be bound to a browser, a gate that cannot tell one from another is told."""
    web = f"{rule}\n{WEB.format(group='check-http')}"
    text = f"frontend web\n{web}"
    told = "backend gate asks for the ACL wiki, whose nonce is required, but sends none"
    expected = [] if rule else [f"{told} (KAT_NONCE_KEY): no link would open it"]
    assert _told(tmp_path, text, {"mode": "session", "nonce": "required"}) == expected
    assert _told(tmp_path, text, {"mode": "session"}) == []


WAY = "http-request set-var(txn.gate.via) str({})"
COOKIE = "http-request set-var(txn.gate.session) req.cook(k)"
NO_WAY = "txn.gate.via is never set to query or form: no token opens a session"
NO_COOKIE = "txn.gate.session is never set: no cookie is looked at, each request needs a token"


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ([], [NO_COOKIE, NO_WAY]),
        ([WAY.format("header")], [NO_COOKIE, NO_WAY]),
        ([WAY.format("query")], [NO_COOKIE]),
        ([COOKIE], [NO_WAY]),
        ([COOKIE, WAY.format("header"), WAY.format("form")], []),
        ([COOKIE, "http-request set-var(txn.gate.via,ifnotexists) str(query)"], []),
        ([COOKIE, "http-request set-var-fmt(txn.gate.via) query"], []),
        ([COOKIE.replace("http-request", "tcp-request content"), WAY.format("query")], []),
        (["# " + COOKIE, "# " + WAY.format("query")], [NO_COOKIE, NO_WAY]),
    ],
)
def test_sessions_that_nobody_can_have_are_told(
    rules: list[str], told: list[str], tmp_path: Path
) -> None:
    """An ACL of sessions needs their cookie, and a token that came by query or form."""
    text = "\n".join(["frontend web", *rules, WEB.format(group="check-http")])
    about = "backend gate asks for the ACL wiki, whose mode is session, but "
    assert _doubted(tmp_path, text) == [about + sentence for sentence in told]
    in_vain = "backend gate asks visitors before a token is consumed (KAT_CONFIRM), but the ACL "
    told = [f"{in_vain}wiki is strict: the page behind it would need another one"]
    assert _doubted(tmp_path, text, "strict") == (told if WAY.format("form") in rules else [])


def test_an_argument_without_a_variable_needs_none(tmp_path: Path) -> None:
    """What is sent as it is, or is not sent at all, is not missed as a variable."""
    text = WEB.format(group="check-http")
    args = "acl=var(txn.gate.acl) session=req.cook(k) via=str(query)"
    assert _doubted(tmp_path, text, args=args) == []
    assert _doubted(tmp_path, text, args="acl=var(txn.gate.acl)") == []


def test_what_was_not_looked_at_is_told(tmp_path: Path) -> None:
    """Of two files one alone says half of it: the other half is named, with the file it is in."""
    file = tmp_path / "one"
    file.write_text(SPOE.format(http="", tcp="", logout="", processing="100ms"))
    [doubt] = doubts(Config(), read_haproxy_files([file], {}))
    assert doubt == (
        "no `send-spoe-group` found: which ACLs gates ask for, and where agents are, was not "
        "looked at; give haproxy.cfg with --haproxy, too"
    )
    file.write_text(WEB.format(group="check-http"))
    facts = read_haproxy_files([file], {})
    assert list(doubts(Config(), facts)) == []
    [fault] = disagreements(Config(acl={"wiki": Acl()}), facts, frozenset())
    assert fault == (
        "no spoe-agent found: `timeout processing`, messages and where agents are was not looked "
        "at; give the SPOE file (kat.spoe.conf) with --haproxy, too"
    )


def test_a_backend_of_another_file_is_told(tmp_path: Path) -> None:
    """Where agents are cannot be compared when the backend is not in the files."""
    file = tmp_path / "haproxy.cfg"
    spoe = SPOE.format(http=_args(HTTP), tcp="", logout="", processing="100ms")
    file.write_text(spoe + WEB.format(group="check-http"))
    assert list(doubts(Config(acl={"wiki": Acl()}), read_haproxy_files([file], {}))) == [
        "the backend agents has no server in these files: where agents are was not looked at"
    ]


def test_a_group_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    """Messages that are none of ours are another agent's."""
    assert _told(tmp_path, WEB.format(group="other"), {"mode": "session"}) == []
