"""Who asks for the same no again and again."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from tokens.flood import MAX_CLIENTS, MAX_NAMED, MAX_TOKENS, Flood, Kind, Summary, client

_KIND: Kind = (b"refused", b"wrong_src", b"demo", b"0123456789ab", b"\xc0\x00\x02\x07")


def _kind(number: int) -> Kind:
    return (*_KIND[:3], b"%012x" % number, _KIND[4])


def test_the_first_passes_and_the_others_are_counted() -> None:
    """One passes; what repeats it is told once, when a second is over."""
    flood = Flood()
    assert [flood.swallows(_KIND, b"u", b"192.0.2.7") for _ in range(3)] == [False, True, True]
    assert flood.take(10.0) == []
    assert flood.take(10.99) == []
    assert flood.take(11.0) == [Summary(*_KIND[:4], b"u", b"192.0.2.7", 2)]


def test_what_goes_on_is_told_every_second() -> None:
    """None of it passes a second time, and each second's number is told on its own."""
    flood = Flood()
    flood.swallows(_KIND, b"u", b"")
    flood.take(0.0)
    for second in range(1, 4):
        assert all(flood.swallows(_KIND, b"u", b"") for _ in range(second))
        assert [told.number for told in flood.take(float(second))] == [second]


def test_what_has_ended_is_news_again() -> None:
    """After a second without it there is nothing left to wait for, and the next one passes."""
    flood = Flood()
    flood.swallows(_KIND, b"u", b"")
    flood.swallows(_KIND, b"u", b"")
    flood.take(0.0)
    assert flood.take(1.0)
    assert flood.is_rising
    assert flood.take(2.0) == []
    assert not flood.is_rising
    assert not flood.swallows(_KIND, b"u", b"")


def test_what_came_once_is_not_told_again() -> None:
    """A single refusal leaves no summary."""
    flood = Flood()
    flood.swallows(_KIND, b"u", b"")
    assert flood.take(0.0) == flood.take(1.0) == []
    assert not flood.is_rising


def test_another_kind_is_no_repetition() -> None:
    """A difference in event, reason, ACL, kid or client makes another kind."""
    flood = Flood()
    others = [(*_KIND[:at], b"other", *_KIND[at + 1 :]) for at in range(5)]
    assert not any(flood.swallows(kind, b"u", b"") for kind in (_KIND, *others))


def test_unknown_tokens_have_no_names() -> None:
    """None passes, and each second has one summary per ACL: its number, and nothing of anybody."""
    flood = Flood()
    for kid, acl in itertools.product(range(5), (b"a", b"b")):
        assert flood.swallows((b"refused", b"unknown", acl, b"%d" % kid, b"x"), b"u", b"s")
    flood.take(0.0)
    assert sorted(flood.take(1.0)) == [
        Summary(b"refused", b"unknown", acl, b"", b"", b"", 5) for acl in (b"a", b"b")
    ]
    assert not flood.is_rising
    flood.swallows((b"refused", b"unknown", b"a", b"", b""), b"", b"")
    flood.take(5.0)
    assert [told.number for told in flood.take(6.0)] == [1]


def _other(number: int) -> Kind:
    """Return a kind of a token and a client of its own."""
    return (*_KIND[:3], b"%012x" % number, number.to_bytes(4))


def test_memory_is_bounded() -> None:
    """Beyond MAX_NAMED kinds nothing more passes: the rest is one number per reason and ACL."""
    flood = Flood()
    passed = [
        number for number in range(MAX_NAMED + 50) if not flood.swallows(_other(number), b"", b"")
    ]
    assert passed == [*range(MAX_NAMED)]
    assert not flood.take(0.0)
    assert flood.take(1.0) == [Summary(*_KIND[:3], b"", b"", b"", 50)]
    flood.take(2.0)
    assert not flood.swallows(_other(MAX_NAMED + 1), b"", b"")


def test_one_token_from_everywhere_takes_few_names() -> None:
    """Whoever shows one token from every network he has leaves room for the others."""
    flood = Flood()
    for second in range(5):
        for number in range(2 * MAX_NAMED):
            flood.swallows((*_KIND[:4], number.to_bytes(4)), b"u", b"192.0.2.7")
        assert not flood.swallows(_other(7000 + second), b"", b""), "an honest one beside it"
        told = flood.take(float(second))
    together = [one for one in told if not one.src]
    assert [(one.kid, one.user) for one in together] == [(_KIND[3], b"u")]
    assert sum(one.number for one in told) == 2 * MAX_NAMED
    assert len(told) == MAX_CLIENTS + 1


def test_one_client_with_many_tokens_takes_few_names() -> None:
    """Whoever shows every token that he once had leaves room for the others, too."""
    flood = Flood()
    passed = [not flood.swallows(_kind(number), b"u", b"192.0.2.7") for number in range(300)]
    assert sum(passed) == MAX_TOKENS
    assert not flood.swallows(_other(7000), b"", b"")
    flood.take(0.0)
    (rest,) = flood.take(1.0)
    assert (rest.kid, rest.user, rest.src) == (b"", b"", b"192.0.2.7")
    assert rest.number == 300 - MAX_TOKENS


def test_replays_beyond_the_bound_lose_what_names_them() -> None:
    """When and from where each of many tokens was consumed makes no kinds of summaries."""
    flood = Flood()
    for number in range(MAX_NAMED + 2):
        flood.swallows((b"replayed", b"%d 192.0.2.7" % number, b"demo", b"", b""), b"", b"")
    flood.take(0.0)
    assert flood.take(1.0) == [Summary(b"replayed", b"", b"demo", b"", b"", b"", 2)]


@given(st.lists(st.tuples(st.integers(0, MAX_NAMED + 9), st.floats(0.01, 1.5)), max_size=400))
def test_nothing_is_lost(steps: list[tuple[int, float]]) -> None:
    """What passed and what was counted is all that there was, whatever came when."""
    flood = Flood()
    now_s, passed, counted = 0.0, 0, 0
    for number, pause_s in steps:
        passed += not flood.swallows(_kind(number), b"", b"")
        now_s += pause_s
        counted += sum(told.number for told in flood.take(now_s))
    counted += sum(told.number for told in flood.take(now_s + 9.0))
    assert passed + counted == len(steps)


def test_an_ipv6_client_is_its_network() -> None:
    """Its owner may draw any address of his /64; an IPv4 address is nobody else's."""
    network = bytes.fromhex("20010db800000001")
    assert client(network + bytes(8)) == client(network + b"whatever")
    assert client(network + bytes(8)) != client(b"\x20\x01\x0d\xb9" + bytes(12))
    mapped = bytes(10) + b"\xff\xff"
    assert client(mapped + b"\x01\x02\x03\x04") != client(mapped + b"\x01\x02\x03\x05")
    assert client(b"\x01\x02\x03\x04") != client(b"\x01\x02\x03\x05")
