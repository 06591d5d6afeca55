"""haproxy/allowlist/change.py: what to do to an ACL."""

from hypothesis import given
from hypothesis import strategies as st

from haproxy.allowlist.change import LARGE, Change, Foreign, change_of
from haproxy.allowlist.entry import is_own

OURS = [f"192.0.2.{number}/032" for number in range(6)]
OTHERS = ["192.0.2.1", "192.0.2.2/32", "198.51.100.0/24"]
present_lists = st.lists(st.sampled_from(OURS + OTHERS), max_size=9)
wanted_sets = st.frozensets(st.sampled_from(OURS))


def after(present: list[str], change: Change) -> list[str]:
    """Do what HAProxy does."""
    left = [entry for entry in present if entry not in change.delete]
    return list(change.add) if change.is_whole else left + list(change.add)


@given(present_lists, wanted_sets, st.sampled_from(Foreign))
def test_afterwards_it_has_what_it_ought_to_have(
    present: list[str], wanted: frozenset[str], foreign: Foreign
) -> None:
    """Of ours exactly what is wanted; of others all, or nothing."""
    left = after(present, change_of(present, wanted, foreign))
    assert {entry for entry in left if is_own(entry)} == wanted
    others = [entry for entry in left if not is_own(entry)]
    assert others == ([] if foreign is Foreign.REMOVE else [it for it in present if not is_own(it)])


@given(present_lists, wanted_sets, st.sampled_from(Foreign))
def test_a_second_look_finds_nothing_to_do(
    present: list[str], wanted: frozenset[str], foreign: Foreign
) -> None:
    """What was put right stays as it is."""
    left = after(present, change_of(present, wanted, foreign))
    assert not change_of(left, wanted, foreign)


def test_a_large_difference_is_put_in_place_at_once() -> None:
    """More than LARGE entries go in by one step, fewer one by one; out they go one by one."""
    many = frozenset(f"10.0.{number // 256}.{number % 256}/032" for number in range(LARGE + 1))
    assert change_of([], many, Foreign.REMOVE) == Change(tuple(sorted(many)), is_whole=True)
    assert change_of(list(many), frozenset(), Foreign.REMOVE) == Change((), tuple(sorted(many)))
    some = frozenset(sorted(many)[:LARGE])
    assert change_of([], some, Foreign.REMOVE) == Change(tuple(sorted(some)))


def test_an_acl_with_others_is_never_put_in_place_as_a_whole() -> None:
    """What others add between our look and our commit would be lost."""
    many = frozenset(f"10.0.{number // 256}.{number % 256}/032" for number in range(LARGE + 1))
    assert not change_of(OTHERS, many, Foreign.KEEP).is_whole
