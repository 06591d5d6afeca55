"""An agent that is gone, frozen, slow or out of its mind, while a browser comes in every way."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import pytest

from spoa.spop.codec import Notify, encode_ack
from tests.e2e.scene import DEADLINE_S, Agent, Gate, Stage, staged, until
from tests.e2e.visiting import COOKIE, LINK, OPENS, OURS, STANDS, browsed, cookie_of, frozen, post
from tests.support.haproxy import Answer, Haproxy
from tests.support.stub_agent import GARBAGE, Script, acknowledging, actions, closing, saying

PROCESSING_S = 0.2
MARGIN_S = 2  # far below any other time-out

FORM = "/page?kat=kat_form"
LOGOUT = "/.kat/logout"

WAYS: dict[str, Callable[[Haproxy, Haproxy], Answer]] = {
    "a link": lambda plain, _: plain.ask(target=f"/page?{LINK}"),
    "a link and a session": lambda plain, _: plain.ask(f"Cookie: {COOKIE}", target=f"/?{LINK}"),
    "a session": lambda plain, _: plain.ask(f"Cookie: {COOKIE}"),
    "a form": lambda _, asking: post(asking, FORM, OURS, body=LINK),
    "a logout": lambda plain, _: post(plain, LOGOUT, OURS, f"Cookie: {COOKIE}"),
}
"""Through a gate, or one that asks first."""

NONSENSE: dict[str, Script] = {
    "garbage": saying(GARBAGE),
    "a huge frame": saying(b"\xff\xff\xff\xff"),
    "HTTP": saying(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    "a closed connection": closing,
    "half a yes": acknowledging(OPENS[: len(OPENS) // 2]),
    "a yes with a fault before it": acknowledging(
        actions(acl=b"demo", session=b"x" * 43) + b"\x09\x03\x02\x01x\x11" + actions(allow=True)
    ),
    "a yes for nobody": lambda _: encode_ack(b"\xef\xef", OPENS),
}


@dataclass
class Pair:
    """Two gates, the second of which asks before it takes a link's token."""

    plain: Stage
    asking: Stage

    def say(self, script: Script) -> None:
        self.plain.agent.script = self.asking.agent.script = script

    def visit(self, way: str) -> Answer:
        """Come in this way; the answer must be a 503 in time, and change no cookie."""
        started = time.monotonic()
        answer = WAYS[way](self.plain.haproxy, self.asking.haproxy)
        assert time.monotonic() - started < PROCESSING_S + MARGIN_S
        assert (answer.status, answer.header("Set-Cookie")) == (503, None)
        assert answer.header("Retry-After")
        return answer

    def received(self) -> list[object]:
        return [*self.plain.application.received, *self.asking.application.received]

    def recover(self) -> None:
        """Have both agents say yes, and wait until that is heard."""
        self.say(acknowledging(STANDS))
        until(lambda: self.plain.ask().status == self.asking.ask().status == 200)
        self.plain.renewed()
        self.asking.renewed()


@pytest.fixture(scope="module")
def _pair(haproxy_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    settings = {"KAT_PROCESSING": f"{PROCESSING_S * 1000:.0f}ms"}
    asking = {**settings, "KAT_CONFIRM": "on"}
    with (
        staged(haproxy_binary, tmp_path_factory.mktemp("plain"), settings=settings) as plain,
        staged(haproxy_binary, tmp_path_factory.mktemp("asking"), settings=asking) as asking_stage,
    ):
        yield Pair(plain, asking_stage)


@pytest.fixture
def pair(_pair: Pair) -> Pair:
    _pair.recover()
    return _pair


@pytest.mark.parametrize("way", WAYS)
def test_silence_is_a_503(pair: Pair, way: str) -> None:
    """It costs `timeout processing`, and not much more: on 2.6 too, where a body was waited for."""
    pair.say(saying(b""))
    pair.visit(way)
    assert pair.received() == []


@pytest.mark.parametrize("way", WAYS)
def test_a_late_answer_is_nobodys(pair: Pair, way: str) -> None:
    """What comes when HAProxy has given up opens nothing, for this visitor or the next."""
    has_given_up = Event()

    def answer_late(notify: Notify) -> bytes:
        assert has_given_up.wait(DEADLINE_S)
        return encode_ack(notify.ids, OPENS)

    pair.say(answer_late)
    try:
        pair.visit(way)
    finally:
        has_given_up.set()
    pair.say(saying(b""))
    pair.visit(way)
    assert pair.received() == []


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", NONSENSE)
def test_nonsense_is_a_503(pair: Pair, case: str, way: str) -> None:
    """Whatever the agent's socket says that is no answer, no visitor gets in by it."""
    pair.say(NONSENSE[case])
    pair.visit(way)
    assert pair.received() == []


@pytest.mark.parametrize("way", WAYS)
def test_an_agent_that_is_gone_is_a_503(pair: Pair, way: str) -> None:
    """Killed before the request, it lets nobody in; back again, it does."""
    agents = (pair.plain.agent, pair.asking.agent)
    for agent in agents:
        agent.vanish()
    try:
        pair.visit(way)
    finally:
        for agent in agents:
            agent.listen()
    assert pair.received() == []


@pytest.fixture(scope="module")
def gates(
    haproxy_binary: Path, browsers_agent: Agent, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Gate, Gate]]:
    """Give two gates before the real agent; the second asks first."""
    # Twice the agent's own 400 ms: what is too late is so by far.
    settings = {"KAT_PROCESSING": "800ms"}
    asking = {**settings, "KAT_CONFIRM": "on"}
    folders = (tmp_path_factory.mktemp(name) for name in ("plain", "asking"))
    with (
        browsed(haproxy_binary, next(folders), browsers_agent, settings) as plain,
        browsed(haproxy_binary, next(folders), browsers_agent, asking) as other,
    ):
        yield plain, other


def test_a_frozen_agent_consumes_nothing_afterwards(gates: tuple[Gate, Gate]) -> None:
    """The real agent: 503 in time, in each way; awake, it leaves what is in Redis as it was."""
    plain, asking = gates
    link, form = plain.issue(ttl_s=600), plain.issue(ttl_s=600)
    before = [plain.value(link), plain.value(form)]
    session = f"Cookie: {cookie_of(plain, plain.issue())}"
    ways: list[Callable[[], Answer]] = [
        lambda: plain.ask(target=f"/page?kat={link}"),
        lambda: post(asking.haproxy, FORM, OURS, body=f"kat={form}"),
        lambda: plain.ask(session),
        lambda: post(plain.haproxy, LOGOUT, OURS, session),
    ]
    with ThreadPoolExecutor(len(ways)) as pool, frozen(plain.agent):
        started = time.monotonic()
        answers = [future.result() for future in [pool.submit(way) for way in ways]]
        assert time.monotonic() - started < 0.8 + MARGIN_S
    assert [(one.status, one.header("Set-Cookie")) for one in answers] == [(503, None)] * len(ways)
    until(plain.is_judging)
    until(asking.is_judging)
    assert plain.application.take() + asking.application.take() == []
    assert [plain.value(link), plain.value(form)] == before
    assert plain.ask(session).status == 200
    assert [way().status for way in ways] == [303, 303, 200, 200]
    assert plain.ask(session).status == 403
