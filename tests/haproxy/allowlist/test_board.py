"""haproxy/allowlist/board.py: what ought to be, as Redis said it last."""

from haproxy.allowlist.board import CURRENT_S, MAX_SILENCE_S, Board
from tokens.admin.mirror import Snapshot

NOW = 1_700_000_000_000


class Clock:
    """Monotonic seconds that a test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def snapshot(now_ms: int = NOW, **grants: int) -> Snapshot:
    members = {f"192.0.2.{name.removeprefix('n')}": end for name, end in grants.items()}
    return Snapshot(now_ms=now_ms, grants={"wiki": members}, blocks={}, unread={})


def test_a_grant_ends_by_redis_clock_without_another_word() -> None:
    """Nothing need be read for a grant to end, and ours is not the clock that counts."""
    clock = Clock()
    board = Board(clock)
    board.post(snapshot(n7=NOW + 2000, n8=NOW + 9000), clock())
    assert board.entries("wiki") == {"192.0.2.7/032", "192.0.2.8/032"}
    assert board.left_s() == 2.0
    clock.now_s += 1.999
    assert board.entries("wiki") == {"192.0.2.7/032", "192.0.2.8/032"}
    clock.now_s += 0.002
    assert board.entries("wiki") == {"192.0.2.8/032"}


def test_what_was_asked_earlier_is_older() -> None:
    """The time that the answer took counts: a grant does not gain it."""
    clock = Clock()
    board = Board(clock)
    board.post(snapshot(n7=NOW + 1000), clock() - 1.5)
    assert board.entries("wiki") == frozenset()


def test_only_a_change_rings() -> None:
    """Who waits is woken by what is new, and left alone by the same again."""
    board = Board(Clock())
    bell = board.bell()
    board.post(snapshot(n7=NOW + 1000), 100.0)
    assert bell.is_set()
    bell.clear()
    board.post(snapshot(NOW + 1, n7=NOW + 1000), 100.0)
    assert not bell.is_set()
    board.post(snapshot(NOW + 2, n7=NOW + 3000), 100.0)
    assert bell.is_set()


def test_a_block_rings_and_counts() -> None:
    """A block is a change, and takes its address out."""
    board = Board(Clock())
    board.post(snapshot(n7=NOW + 1000), 100.0)
    bell = board.bell()
    told = Snapshot(
        now_ms=NOW,
        grants={"wiki": {"192.0.2.7": NOW + 1000}},
        blocks={"192.0.2.7": NOW + 500},
        unread={},
    )
    board.post(told, 100.0)
    assert bell.is_set()
    assert board.entries("wiki") == frozenset()
    assert board.picture(["wiki"]).blocked == {"192.0.2.7/032"}
    assert board.left_s() == 0.5


def test_a_clock_that_goes_back_brings_back_what_was_over() -> None:
    """After a failover Redis may be behind: a block that had ended stands again, and counts."""
    clock = Clock()
    board = Board(clock)
    told = Snapshot(
        now_ms=NOW,
        grants={"wiki": {"192.0.2.7": NOW + 9000}},
        blocks={"192.0.2.7": NOW + 100},
        unread={},
    )
    board.post(told, clock())
    clock.now_s += 0.2
    assert board.entries("wiki") == {"192.0.2.7/032"}
    board.post(told, clock())
    assert board.entries("wiki") == frozenset()


def test_what_was_said_seconds_ago_is_put_in_place_no_more() -> None:
    """Somebody else may know better by then."""
    clock = Clock()
    board = Board(clock)
    board.post(snapshot(n7=NOW + 1000), clock())
    assert board.picture(["wiki"]).is_current
    clock.now_s += CURRENT_S + 0.001
    assert not board.picture(["wiki"]).is_current


def test_a_long_silence_is_no_word_any_more() -> None:
    """What Redis said last counts for MAX_SILENCE_S, and no longer."""
    clock = Clock()
    board = Board(clock)
    assert not board.is_known
    assert not board.is_fresh
    board.post(snapshot(), clock())
    clock.now_s += MAX_SILENCE_S
    assert board.is_fresh
    clock.now_s += 0.001
    assert board.is_known
    assert not board.is_fresh
