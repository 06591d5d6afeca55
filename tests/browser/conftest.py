"""One Chromium and one world for all tests of this folder that a process runs."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Unpack

import pytest
from playwright.sync_api import Browser

from tests.browser.elsewhere import ELSEWHERE_PORT, Elsewhere, elsewhere
from tests.browser.person import Habits, Meet, Person, person
from tests.browser.world import OLDEST, PORT, World, whole_world
from tests.support.authority import make_authority
from tests.support.browser import browsing
from tests.support.haproxy import Haproxy


@pytest.fixture(scope="package")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the certificate of every host in this folder, with its key in the same file."""
    files = make_authority(tmp_path_factory.mktemp("authority")).issue(
        "world", "DNS:*.localhost", "DNS:*.example"
    )
    assert files.cert_file
    assert files.key_file
    both = files.cert_file.with_name("world-and-key.pem")
    both.write_text(files.cert_file.read_text() + files.key_file.read_text())
    return both


# Not for the session: the thread that drives it has an event loop until it ends, and the tests
# that come after those of this folder call asyncio.run.
@pytest.fixture(scope="package")
def chromium(certificate: Path) -> Iterator[Browser]:
    with browsing(certificate) as browser:
        yield browser


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory, certificate: Path) -> Iterator[World]:
    with whole_world(tmp_path_factory.mktemp("world"), certificate) as world:
        yield world


@pytest.fixture(scope="package")
def door(world: World) -> Iterator[Haproxy]:
    """Give the HAProxy that most tests go through."""
    with world.door("door") as door:
        yield door


@pytest.fixture(scope="package")
def old_door(world: World) -> Iterator[Haproxy]:
    """Give one of the oldest version."""
    with world.door("old-door", version=OLDEST) as door:
        yield door


@pytest.fixture(params=["door", "old_door"])
def each_door(request: pytest.FixtureRequest) -> Haproxy:
    door = request.getfixturevalue(request.param)
    assert isinstance(door, Haproxy)
    return door


@pytest.fixture(scope="package")
def asking_door(world: World) -> Iterator[Haproxy]:
    """Give one that asks before it takes a token."""
    with world.door("asking-door", KAT_CONFIRM="1") as door:
        yield door


@pytest.fixture(scope="package")
def other_site(certificate: Path) -> Iterator[Elsewhere]:
    with elsewhere(certificate) as site:
        yield site


@pytest.fixture
def meet(chromium: Browser, other_site: Elsewhere) -> Iterator[Meet]:
    """Give what brings somebody to a door, for as long as the test lasts."""
    with ExitStack() as people:

        def someone(door: Haproxy, **habits: Unpack[Habits]) -> Person:
            ports = {PORT: door.port, ELSEWHERE_PORT: other_site.port}
            return people.enter_context(person(chromium, ports, **habits))

        yield someone
