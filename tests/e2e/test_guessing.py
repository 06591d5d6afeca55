"""Guessing: who is slowed down, and who must not be."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from spoa.spop.codec import Notify
from tests.e2e.scene import TOKEN, Stage, staged
from tests.support.haproxy import fresh_source
from tests.support.stub_agent import Script, acknowledging, allow, refuse

LIMIT = 5
GOOD = "kat_" + "G00d" * 9 + "00"


def refusing(reason: bytes, verdict: bytes = b"denied") -> Script:
    """Refuse every token for this reason, but the good one."""
    yes, no = acknowledging(allow()), acknowledging(refuse(verdict, reason))

    def answer(notify: Notify) -> bytes | None:
        is_good = notify.messages[0].args[b"token"] == GOOD.encode()
        return (yes if is_good else no)(notify)

    return answer


@pytest.fixture(scope="module")
def guarded(haproxy_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Return a stage that bears five guesses a minute."""
    settings = {"KAT_GUESSES": str(LIMIT)}
    with staged(haproxy_binary, tmp_path_factory.mktemp("guess"), settings=settings) as stage:
        yield stage


@pytest.fixture(scope="module")
def dual_stack(haproxy_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Return the same on a socket for IPv6 and IPv4 at once."""
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    folder, settings = tmp_path_factory.mktemp("dual"), {"KAT_GUESSES": str(LIMIT)}
    with staged(haproxy_binary, folder, is_dual_stack=True, settings=settings) as stage:
        yield stage


def statuses(stage: Stage, source: str, count: int, token: str = TOKEN) -> list[int]:
    return [stage.ask(f"X-KAT: {token}", source=source).status for _ in range(count)]


@pytest.mark.parametrize("reason", [b"unknown", b"malformed"])
def test_a_guesser_is_told_to_stop(guarded: Stage, reason: bytes) -> None:
    """After five wrong guesses from an address the next is a 429, for people and for programs."""
    guarded.agent.script = refusing(reason)
    source = fresh_source()
    assert statuses(guarded, source, LIMIT + 2) == [403] * LIMIT + [429] * 2
    page = guarded.ask(f"X-KAT: {TOKEN}", source=source)
    assert page.header("Retry-After") == "60"
    assert page.body.startswith("<!doctype html>")
    answer = guarded.ask(f"X-KAT: {TOKEN}", "Accept: application/json", source=source)
    assert (answer.status, answer.header("Content-Type")) == (429, "application/json")


def test_an_honest_token_passes_beside_a_guesser(guarded: Stage) -> None:
    """A shared address is not locked out by one of its users."""
    guarded.agent.script = refusing(b"unknown")
    source = fresh_source()
    assert statuses(guarded, source, LIMIT + 1)[-1] == 429
    assert statuses(guarded, source, 1, GOOD) == [200]


def test_a_request_without_a_token_is_no_guess(guarded: Stage) -> None:
    """Junk images on a page cannot lock their reader out: 429 is for requests with a token."""
    guarded.agent.script = refusing(b"missing", b"missing")
    source = fresh_source()
    asked = [guarded.ask(source=source).status for _ in range(LIMIT + 2)]
    assert asked == [403] * (LIMIT + 2)
    guarded.agent.script = refusing(b"unknown")
    assert statuses(guarded, source, LIMIT + 1) == [403] * LIMIT + [429]
    guarded.agent.script = refusing(b"missing", b"missing")
    assert guarded.ask(source=source).status == 403


@pytest.mark.parametrize("reason", [b"replayed", b"wrong_acl", b"early", b"fenced", b"bad_record"])
def test_a_token_that_exists_is_no_guess(guarded: Stage, reason: bytes) -> None:
    """Reloading a page with a consumed token never leads to a 429."""
    guarded.agent.script = refusing(reason)
    assert statuses(guarded, fresh_source(), LIMIT + 2) == [403] * (LIMIT + 2)


def test_an_agent_in_trouble_counts_no_guesses(guarded: Stage) -> None:
    """A 503 is nobody's guess."""
    guarded.agent.script = refusing(b"overloaded", b"broken")
    source = fresh_source()
    assert statuses(guarded, source, LIMIT + 2) == [503] * (LIMIT + 2)
    guarded.agent.script = refusing(b"unknown")
    assert statuses(guarded, source, 1) == [403]


def test_a_neighbour_is_not_a_guesser(guarded: Stage) -> None:
    """IPv4 addresses are counted one by one."""
    guarded.agent.script = refusing(b"unknown")
    assert statuses(guarded, fresh_source(), LIMIT + 1)[-1] == 429
    assert statuses(guarded, fresh_source(), 1) == [403]


def test_on_a_dual_socket_ipv4_is_still_counted_one_by_one(dual_stack: Stage) -> None:
    """::ffff:a.b.c.d is an IPv4 client, not a host in the /64 of all of them."""
    dual_stack.agent.script = refusing(b"unknown")
    assert statuses(dual_stack, fresh_source(), LIMIT + 1)[-1] == 429
    assert statuses(dual_stack, fresh_source(), 1) == [403]


def test_an_ipv6_guesser_is_counted(dual_stack: Stage) -> None:
    """The table keeps IPv6 clients too."""
    dual_stack.agent.script = refusing(b"unknown")
    assert statuses(dual_stack, "::1", LIMIT + 1) == [403] * LIMIT + [429]
