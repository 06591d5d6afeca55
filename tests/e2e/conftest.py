"""The scenes of scene.py, one of each per HAProxy version and module."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.scene import PATIENCE, Agent, Gate, Stage, staged, until
from tests.e2e.visiting import BROWSERS, assert_logged_no_secret, browsed, judged
from tests.support.application import Application
from tests.support.haproxy import binary, running, versions


@pytest.fixture(scope="module", params=versions())
def haproxy_binary(request: pytest.FixtureRequest) -> Path:
    return binary(request.param)


@pytest.fixture(scope="module")
def _stage(haproxy_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    settings = {"KAT_HOSTS": "localhost other.example"}
    with staged(haproxy_binary, tmp_path_factory.mktemp("stage"), settings=settings) as stage:
        yield stage


@pytest.fixture
def stage(_stage: Stage) -> Stage:
    return _stage.renewed()


@pytest.fixture(scope="module")
def _watched(_stage: Stage) -> Iterator[Stage]:
    yield _stage
    assert_logged_no_secret(_stage.haproxy)


@pytest.fixture
def watched(_watched: Stage) -> Iterator[Stage]:
    """Give a stage of which visiting.py's laws must hold, whatever a test sends."""
    with judged(_watched) as stage:
        yield stage


@pytest.fixture(scope="module")
def _gate(haproxy_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    folder = tmp_path_factory.mktemp("gate")
    agent = Agent(folder)
    try:
        with (
            Application() as application,
            running(
                haproxy_binary,
                folder,
                {
                    "KAT_AGENT": f"unix@{agent.socket}",
                    "KAT_APP": application.address,
                    "KAT_PROCESSING": PATIENCE,
                },
            ) as haproxy,
        ):
            yield Gate(haproxy, agent, application)
    finally:
        agent.stop()


@pytest.fixture
def gate(_gate: Gate) -> Gate:
    """Return the gate once it decides, with an application that has seen nothing."""
    until(_gate.is_judging)
    _gate.application.take()
    return _gate


@pytest.fixture(scope="session")
def browsers_agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """Give the real agent for sessions; it serves any number of gates."""
    agent = Agent(tmp_path_factory.mktemp("browsers"), {"KAT_CONFIG": str(BROWSERS)})
    yield agent
    agent.stop()


@pytest.fixture(scope="module")
def house(
    haproxy_binary: Path, browsers_agent: Agent, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gate]:
    """Give a gate that browsers enter, with no more settings than it needs."""
    with browsed(haproxy_binary, tmp_path_factory.mktemp("house"), browsers_agent, {}) as gate:
        yield gate
