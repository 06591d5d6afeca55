"""What `kat check` finds about TLS and tunnels, and what `kat serve` says before it starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from spoa.check.agreement import disagreements
from spoa.check.check import Finding, Level, findings
from spoa.check.haproxyfile import read_haproxy_files
from spoa.config.model import Config
from spoa.config.sections import ListenerFiles
from tests.support.redis import RedisServer
from tests.support.running_worker import running_worker
from tests.support.tls_peers import Authority, free_address, make_authority

HAPROXY = """
backend agents
 server a {address} {options}
spoe-agent kat
 timeout processing 100ms
 use-backend agents
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("ca"))


def _config(
    place: Path, address: str, files: ListenerFiles | None, store: str = "redis://127.0.0.1:1"
) -> Config:
    names = ListenerFiles.__slots__
    tls = {name: getattr(files, name) for name in names} if files else {}
    listen = {"spop": [address], "metrics": "", "insecure": files is None, **tls}
    return Config.model_validate({"state_dir": place, "store": {"url": store}, "listen": listen})


def _about(subject: str, config: Config) -> list[Finding]:
    return [finding for finding in findings(config, []) if finding.subject == subject]


def _somewhere() -> str:
    host, port = free_address()
    return f"{host}:{port}"


# --- Certificates --------------------------------------------------------------------------------


def test_how_long_certificates_hold_is_told(place: Path, authority: Authority) -> None:
    """Our own for a year, the CA's for ten, made by the documentation's commands."""
    assert [str(one) for one in _about("tls", _config(place, _somewhere(), authority.agent))] == [
        f"ok    tls: listen.cert_file {authority.agent.cert_file} holds for 365 days",
        f"ok    tls: listen.client_ca_file {authority.ca} holds for 3650 days",
    ]


@pytest.mark.parametrize(
    ("age_d", "level", "said"),
    [
        (350, Level.OK, "holds for 15 days"),
        (352, Level.WARN, "ends in 13 days: renew it"),
        (366, Level.FAIL, "has expired: HAProxy refuses it"),
    ],
)
def test_a_certificate_that_ends_soon_is_a_warning(
    place: Path, authority: Authority, age_d: int, level: Level, said: str
) -> None:
    """For two weeks; then a fault."""
    files = authority.sign("ageing", clock=f"-{age_d}d")
    finding = _about("tls", _config(place, _somewhere(), files))[0]
    assert finding.level is level
    assert finding.sentence == f"listen.cert_file {files.cert_file} {said}"


def test_a_ca_that_is_over_is_a_fault(place: Path, authority: Authority, tmp_path: Path) -> None:
    """No client's certificate counts any more."""
    old = make_authority(tmp_path / "old", clock="-4000d")
    agent = authority.agent
    files = ListenerFiles(agent.cert_file, agent.key_file, old.ca)
    [_, finding] = _about("tls", _config(place, _somewhere(), files))
    assert finding.level is Level.FAIL
    assert finding.sentence.endswith("ca.pem has expired: nobody can connect")


def test_a_fault_of_the_files_is_told(place: Path, authority: Authority) -> None:
    """In the words of `kat serve`."""
    files = ListenerFiles(authority.agent.cert_file, Path("/none/k.pem"), authority.ca)
    [finding] = _about("tls", _config(place, _somewhere(), files))
    assert finding.level is Level.FAIL
    assert finding.sentence.startswith("listen.key_file /none/k.pem cannot be read")


def test_without_tls_nothing_is_said_of_it(place: Path) -> None:
    """Nobody misses what nobody asked for."""
    assert _about("tls", _config(place, _somewhere(), None)) == []


# --- The listener --------------------------------------------------------------------------------


def test_an_agent_behind_tls_is_found(
    place: Path, authority: Authority, redis_server: RedisServer
) -> None:
    """Without a certificate of HAProxy's: that it is refused without is what shows it."""
    address, store = _somewhere(), f"unix://{redis_server.socket}"
    with running_worker(place, redis_server.socket, spop=address, tls=authority.agent):
        [finding] = _about("listen", _config(place, address, authority.agent, store))
    assert finding == Finding(
        Level.OK,
        "listen",
        f"TLS is spoken at {address}, and only with those who show a certificate",
    )


def test_an_agent_without_the_tls_that_is_configured_is_a_fault(
    place: Path, authority: Authority, redis_server: RedisServer
) -> None:
    """It was started before TLS was configured."""
    address, store = _somewhere(), f"unix://{redis_server.socket}"
    with running_worker(place, redis_server.socket, spop=address):
        [finding] = _about("listen", _config(place, address, authority.agent, store))
    assert finding.level is Level.FAIL
    assert finding.sentence == f"what listens at {address} does not speak the TLS of an agent"


# --- HAProxy's side ------------------------------------------------------------------------------


def _told(place: Path, listens: str, files: ListenerFiles | None, haproxy: str) -> list[str]:
    config = _config(place, listens, files)
    file = place / "haproxy.cfg"
    file.write_text(haproxy)
    return list(disagreements(config, read_haproxy_files([file], {}), frozenset([listens])))


AT = "192.0.2.1:9100"


def test_plain_spop_to_tls_is_a_fault(place: Path, authority: Authority) -> None:
    """HAProxy would find no agent there."""
    told = _told(place, AT, authority.agent, HAPROXY.format(address=AT, options=""))
    assert told == [f"speaks plain SPOP to {AT}, where we speak TLS: set KAT_AGENT_CA"]
    assert _told(place, AT, authority.agent, HAPROXY.format(address=AT, options="ssl")) == []


def test_tls_to_plain_spop_is_a_fault(place: Path) -> None:
    """The other way round, too; whether ssl stands at the server or before it."""
    told = [f"speaks TLS to {AT}, where we do not: set listen.cert_file"]
    plain = HAPROXY.format(address=AT, options="")
    before = plain.replace("backend agents\n", "backend agents\n default-server ssl crt x\n")
    in_defaults = f"defaults\n default-server ssl\n{plain}"
    for haproxy in (HAPROXY.format(address=AT, options="check ssl"), before, in_defaults):
        assert _told(place, AT, None, haproxy) == told
    assert _told(place, AT, None, plain) == []
    no_ssl = before.replace(f"{AT} \n", f"{AT} no-ssl\n")
    assert no_ssl != before
    assert _told(place, AT, None, no_ssl) == []


@pytest.mark.parametrize("listens", ["0.0.0.0:9100", "[::]:9100"])
def test_who_listens_everywhere_is_found_anywhere(place: Path, listens: str) -> None:
    """HAProxy names one address of ours; the port must be right."""
    haproxy = HAPROXY.format(address=AT, options="")
    assert _told(place, listens, None, haproxy) == []
    [told] = _told(place, listens, None, haproxy.replace(":9100", ":9101"))
    assert told == f"sends to 192.0.2.1:9101; we listen at {listens}"


def test_where_a_tunnel_begins_is_not_ours_to_know(place: Path) -> None:
    """HAProxy's end of it is on another machine, under a name of its own."""
    config = Config.model_validate({"state_dir": place, "listen": {"spop": ["tunnel:/run/t.sock"]}})
    file = place / "haproxy.cfg"
    file.write_text(HAPROXY.format(address="unix@/run/agent1.sock", options=""))
    facts = read_haproxy_files([file], {})
    assert list(disagreements(config, facts, frozenset(map(str, config.endpoints)))) == []


# --- Before it starts ----------------------------------------------------------------------------


def _serve(place: Path, files: ListenerFiles, **more: str) -> "subprocess.CompletedProcess[str]":
    environ = {key: value for key, value in os.environ.items() if "KAT_" not in key}
    tls = {f"KAT_LISTEN__{name.upper()}": str(getattr(files, name)) for name in files.__slots__}
    return subprocess.run(
        [Path(sys.executable).with_name("kat"), "serve"],
        env={
            **environ,
            **tls,
            "KAT_STATE_DIR": str(place),
            "KAT_LISTEN__SPOP": _somewhere(),
            "KAT_LISTEN__METRICS": "",
            **more,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_fault_of_the_files_ends_it_before_anything_starts(
    place: Path, authority: Authority
) -> None:
    """One sentence, exit code 1, and no private Redis was started."""
    files = ListenerFiles(authority.agent.cert_file, authority.agent.key_file, Path("/none/ca.pem"))
    done = _serve(place, files)
    said = "kat: listen.client_ca_file /none/ca.pem cannot be read: No such file or directory\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    ("age_d", "said"),
    [(366, "has expired: HAProxy refuses it"), (352, "certificate ends soon"), (0, "")],
)
def test_a_certificate_at_its_end_is_told_and_used(
    place: Path, authority: Authority, age_d: int, said: str
) -> None:
    """Who comes by a unix socket is served all the same: it is no reason not to start."""
    files = authority.sign("late", clock=f"-{age_d}d" if age_d else "")
    # It gets as far as a metrics port that it cannot have, and ends there.
    done = _serve(place, files, KAT_LISTEN__METRICS="192.0.2.1:1", KAT_STORE__URL="redis://x:1")
    assert "listen.metrics: 192.0.2.1:1 cannot be bound" in done.stderr
    if said:
        assert said in done.stderr
    else:
        assert "certificate" not in done.stderr
