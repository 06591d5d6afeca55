from collections.abc import Iterator

import pytest

from tests.support.haproxy import versions
from tests.support.runtime import Edge, running_edge


@pytest.fixture(scope="session", params=versions())
def shared_edge(request: pytest.FixtureRequest) -> Iterator[Edge]:
    """One of each version for all tests of a process. Ask for `edge`, whose ACLs are empty."""
    with running_edge(request.param) as edge:
        yield edge


@pytest.fixture
def edge(shared_edge: Edge) -> Edge:
    for acl in ("#500", "#600", "#601"):
        assert shared_edge.tell("clear", "acl", acl) == ""
    for table in ("alive", "addresses", "endless", "short", "uncounted"):
        assert shared_edge.tell("clear", "table", table) == ""
    return shared_edge
