import subprocess
from difflib import ndiff
from pathlib import Path

import pytest

import spoa.bench.haproxy
from haproxy import CONFIGURATION, FILES
from spoa.bench.haproxy.gateway import Subject, gateway
from tests.support.haproxy import binary, versions

LUA = Path(spoa.bench.haproxy.__file__).with_name("ask_redis.lua")


@pytest.mark.parametrize("version", versions())
@pytest.mark.parametrize("subject", Subject)
def test_haproxy_takes_it(subject: Subject, version: str, tmp_path: Path) -> None:
    """Every HAProxy reads every subject's configuration."""
    file = tmp_path / "haproxy.cfg"
    file.write_text(gateway(subject, 1))
    settings = {"KAT_FILES": str(FILES), "KAT_LUA": str(LUA), "KAT_STORE": "unix@/nowhere"}
    command = [binary(version), "-c", "-f", file]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_rules_are_those_of_haproxy_cfg() -> None:
    """Whoever is asked, only the log, the question and the application differ from haproxy.cfg."""
    original = CONFIGURATION.read_text().splitlines()
    for subject in Subject:
        lines = ndiff(original, gateway(subject, 3).splitlines())
        lost = [line[2:].strip() for line in lines if line.startswith("- ")]
        assert all(
            line.startswith(("log  global", "filter spoe", "http-request send-spoe-group"))
            for line in lost
        ), lost
        assert len(lost) == (1 if subject.asks else 4)


@pytest.mark.parametrize("times", [0, 2])
def test_another_haproxy_cfg_is_a_mistake(
    times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is to be replaced must be there, and once: else something else would be measured."""
    question = (
        "    http-request send-spoe-group kat logout if logout\n"
        "    http-request send-spoe-group kat check if !logout\n"
    )
    changed = tmp_path / "haproxy.cfg"
    changed.write_text(CONFIGURATION.read_text().replace(question, times * question))
    monkeypatch.setattr("spoa.bench.haproxy.gateway.CONFIGURATION", changed)
    with pytest.raises(ValueError, match=f"has {times} times, not once: http-request send-spoe"):
        gateway(Subject.LUA, 1)
