"""An admin revokes while a gate opens: every order in which the commands of both may run."""

from collections.abc import Callable, Iterator
from functools import partial

import pytest
import redis

from tests.support.asking import Steps
from tests.support.gates import Site, bringing, coming, kid_of, returning
from tokens.admin import nodes
from tokens.admin.admin import Admin
from tokens.admin.revoke import Revoked, Revoker
from tokens.check import Decision
from tokens.outcome import Outcome

Act = Callable[[Revoker, bytes, str], Revoked]

ACTS: dict[str, Act] = {
    "user": lambda revoker, _, __: revoker.revoke_user("user1"),
    "group": lambda revoker, _, __: revoker.revoke_group("staff"),
    "acl": lambda revoker, _, acl: revoker.revoke_acl(acl),
    "all": lambda revoker, _, __: revoker.revoke_all(),
    "kid": lambda revoker, token, __: revoker.revoke_kid(kid_of(token).decode()),
    "token": lambda revoker, token, __: revoker.revoke_token(token),
}


class Meanwhile:
    """Lets a gate go on before certain commands of an admin, by their number."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.commands = 0
        self._steps: dict[int, Callable[[], object]] = {}
        real_run = nodes._Link.run

        def run(link: nodes._Link, *command: bytes | str | float) -> object:
            if step := self._steps.get(self.commands):
                step()
            self.commands += 1
            return real_run(link, *command)

        monkeypatch.setattr(nodes._Link, "run", run)

    def plan(self, steps: dict[int, Callable[[], object]]) -> None:
        self.commands, self._steps = 0, steps


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    return Meanwhile(monkeypatch)


def consumed(site: Site, acl: str) -> tuple[bytes, Steps]:
    """Return a token that was consumed, and the gate about to write what it opens."""
    token = site.issue(groups=["staff"])
    return token, site.opening(site.judging(bringing(token, acl)).finish())


def splits(admins: int, gates: int) -> Iterator[tuple[int, int, int]]:
    """Say before which command of the admin so many of the gate's run, and before which the rest.

    The rest: at once, before the next one, or after all of the admin's.
    """
    for first in range(admins + 1):
        yield first, gates, first
        for written in range(gates):
            yield first, written, first + 1
            yield first, written, admins


# Not `group` and `grant`: a grant names no groups, and stands if it stood before.
CASES = [
    (act, acl) for act in ACTS for acl in ("session", "grant") if (act, acl) != ("group", "grant")
]


@pytest.mark.parametrize("per_call", [128, 1])
@pytest.mark.parametrize(("name", "acl"), CASES)
def test_nothing_stands_that_was_revoked(
    client: redis.Redis, meanwhile: Meanwhile, name: str, acl: str, per_call: int
) -> None:
    """However the commands of both are mixed, what the token opened is good for nothing."""
    site = Site(client, keys_per_call=per_call)
    revoker = Revoker(Admin(client, by="tester"))
    token, opening = consumed(site, acl)
    gates = len(opening.questions)
    meanwhile.plan({})
    ACTS[name](revoker, token, acl)
    admins = meanwhile.commands
    assert admins >= 3
    for first, written, second in splits(admins, gates):
        client.flushdb()
        token, opening = consumed(site, acl)
        meanwhile.plan({second: opening.finish, first: partial(opening.ask, written)})
        ACTS[name](revoker, token, acl)
        (decision,) = opening.finish().decisions
        assert_worth_nothing(site, acl, decision)


def assert_worth_nothing(site: Site, acl: str, decision: Decision) -> None:
    assert decision.outcome in {Outcome.OK, Outcome.REVOKED}
    if acl == "grant":
        assert site.outcome(coming("grant")) is Outcome.NO_GRANT
    elif decision.session:
        assert site.outcome(returning(decision.session)).verdict != b"allow"
    else:
        assert not site.client.keys("kat:s:*")
