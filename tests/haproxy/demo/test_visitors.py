"""The portal's own sessions."""

from haproxy.demo.people import USERS
from haproxy.demo.visitors import MAX_VISITORS, TTL_S, Visitors

ALICE, BOB, _ = USERS


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_each_is_found_by_a_secret_of_its_own() -> None:
    """No two sessions share a secret, and a secret finds the user that it was made for."""
    visitors = Visitors()
    secrets = {visitors.welcome(user): user for user in (ALICE, BOB, ALICE)}
    assert len(secrets) == 3
    for secret, user in secrets.items():
        found = visitors.find(secret)
        assert found
        assert found.user == user
        assert len(secret) >= 43
    assert visitors.find("") is None


def test_a_session_ends_by_itself() -> None:
    """At its end a session is found no more."""
    clock = Clock()
    visitors = Visitors(clock)
    secret = visitors.welcome(ALICE)
    clock.now_s = TTL_S - 1
    assert visitors.find(secret)
    clock.now_s = TTL_S
    assert visitors.find(secret) is None


def test_their_number_is_bounded() -> None:
    """One more than the limit costs the oldest, and nobody else."""
    visitors = Visitors()
    secrets = [visitors.welcome(ALICE) for _ in range(MAX_VISITORS + 1)]
    assert [secret for secret in secrets if not visitors.find(secret)] == secrets[:1]


def test_a_user_is_forgotten_everywhere() -> None:
    """All sessions of a user end at once, and those of others stay."""
    visitors = Visitors()
    first, second, other = (visitors.welcome(user) for user in (ALICE, ALICE, BOB))
    visitors.forget_user("alice")
    assert [bool(visitors.find(secret)) for secret in (first, second, other)] == [0, 0, 1]


def test_a_notice_is_told_once() -> None:
    """What was to be told is not told again."""
    visitors = Visitors()
    visitor = visitors.find(visitors.welcome(ALICE))
    assert visitor
    visitor.notice = "done"
    assert [visitor.take_notice(), visitor.take_notice()] == ["done", ""]
