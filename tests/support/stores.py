"""What the tests of the store share: who watches it, who waits for it, and a clock to skip."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Protocol, TypeVar

import uvloop

from tests.support.eventually import DEADLINE_S as PATIENCE_S
from tokens.policy import cut, redeem
from tokens.question import Command, Fence, Question, Reply
from tokens.record import Keys
from tokens.store.settings import StoreSettings
from tokens.store.store import Store, open_store
from tokens.store.tls import TlsFiles
from tokens.store.wire import StoreUnavailable

LoopFactory = Callable[[], asyncio.AbstractEventLoop]
T = TypeVar("T")

DEADLINE_S = 2.0
"""What batches are given. Far longer than on any machine that a test runs on Redis is silent."""

NO_FILES = TlsFiles()

_real_monotonic = time.monotonic


class SkippingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock a test moves on: nobody sleeps to see a deadline pass."""

    skipped_s = 0.0

    def time(self) -> float:
        return _real_monotonic() + self.skipped_s

    def skip(self, seconds: float) -> None:
        self.skipped_s += seconds


LOOPS: tuple[LoopFactory, ...] = (SkippingLoop, uvloop.new_event_loop)


def skip(seconds: float) -> None:
    """Move the clock of the running SkippingLoop on, and time.monotonic() with it."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SkippingLoop)
    loop.skip(seconds)


@contextmanager
def _one_clock(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Let time.monotonic() be the loop's time, as it is outside of tests."""
    if isinstance(loop, SkippingLoop):
        time.monotonic = loop.time
    try:
        yield
    finally:
        time.monotonic = _real_monotonic


def run(main: Coroutine[Any, Any, T], loop_factory: LoopFactory = SkippingLoop) -> T:
    """Run on a loop of its own; fail if it leaves a task, or an error that nobody caught.

    A socket that is left open fails the test as a ResourceWarning.
    """
    problems: list[dict[str, Any]] = []
    with asyncio.Runner(loop_factory=loop_factory) as runner, _one_clock(runner.get_loop()):
        runner.get_loop().set_exception_handler(lambda _, problem: problems.append(problem))
        result = runner.run(_leaving_nothing(main))
    gc.collect()
    assert not problems
    return result


async def _leaving_nothing(main: Awaitable[T]) -> T:
    result = await main
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left
    return result


async def until(
    look: Callable[[], T], what: str = "what is awaited", *, skipping_s: float = 0.0
) -> T:
    """Return the first true value that `look` gives, skipping time between two looks."""
    deadline = _real_monotonic() + PATIENCE_S
    while not (found := look()):
        assert _real_monotonic() < deadline, f"{what}: not within {PATIENCE_S} s"
        await asyncio.sleep(0.001)
        if skipping_s:
            skip(skipping_s)
    return found


class Recorder:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.is_up = False
        self.ups: list[float] = []
        self.errors: list[str] = []
        self.round_trips: list[float] = []
        self.again = 0
        self.fences: list[Fence] = []

    def redis_round_trip(self, seconds: float) -> None:
        self.round_trips.append(seconds)

    def store_up(self, is_up: bool) -> None:  # noqa: FBT001 - a gauge
        self.is_up = is_up
        if is_up:
            self.ups.append(asyncio.get_running_loop().time())

    def store_error(self, kind: str) -> None:
        self.errors.append(kind)

    def asked_again(self) -> None:
        self.again += 1

    def greeted(self, fence: Fence) -> None:
        self.fences.append(fence)


Result = list[Reply] | StoreUnavailable


class Settlement:
    """One `settle`: remembers each time that it was called and with what, then tells `then`."""

    def __init__(self, then: Callable[[Result], object] = lambda _: None) -> None:
        self.calls: list[Result] = []
        self._then = then

    def __call__(self, result: Result) -> None:
        self.calls.append(result)
        self._then(result)

    @property
    def is_settled(self) -> bool:
        return bool(self.calls)

    @property
    def replies(self) -> list[Reply]:
        (result,) = self.calls
        assert isinstance(result, list), result
        return result

    @property
    def fault(self) -> StoreUnavailable:
        (result,) = self.calls
        assert isinstance(result, StoreUnavailable), result
        return result


class Keeper:
    """A store that runs, its observer, and every settlement that it owes."""

    def __init__(self, settings: StoreSettings) -> None:
        self.deadline_s = settings.deadline_s
        self.observer = Recorder()
        self.store: Store = open_store(settings, self.observer)
        self.owed: list[Settlement] = []

    @property
    def fence(self) -> Fence:
        """That of the server in use, as a store of one primary knows it."""
        fence = getattr(self.store, "fence")  # noqa: B009 - not every store has one
        assert isinstance(fence, Fence)
        return fence

    def execute(
        self,
        *asked: Command | Question,
        then: Callable[[Result], object] = lambda _: None,
        give_up_in_s: float | None = None,
        is_repeatable: bool = True,
    ) -> Settlement:
        """Execute with the deadline of the settings, unless another one is given."""
        settlement = Settlement(then)
        self.owed.append(settlement)
        questions = [one if isinstance(one, Question) else Question(b"", one) for one in asked]
        wait_s = self.deadline_s if give_up_in_s is None else give_up_in_s
        give_up_at = time.monotonic() + wait_s
        self.store.execute(questions, settlement, give_up_at, is_repeatable=is_repeatable)
        return settlement

    async def ask(self, *asked: Command | Question, is_repeatable: bool = True) -> Settlement:
        """Execute, and wait for the settlement."""
        settlement = self.execute(*asked, is_repeatable=is_repeatable)
        await settled(settlement)
        return settlement

    async def up(self, times: int = 1, *, skipping_s: float = 0.0) -> None:
        """Wait until a connection was greeted, for the n-th time, and is in use."""
        await until(
            lambda: len(self.observer.ups) >= times and self.observer.is_up,
            f"the store is up for the {times}. time",
            skipping_s=skipping_s,
        )


class Owed(Protocol):
    """Something that will be settled."""

    @property
    def is_settled(self) -> bool: ...


async def settled(*settlements: Owed, skipping_s: float = 0.0) -> None:
    """Wait until all are settled."""
    await until(
        lambda: all(one.is_settled for one in settlements),
        "all settlements",
        skipping_s=skipping_s,
    )


def store_settings(
    url: str,
    *,
    is_fenced: bool = True,
    clock_skew_ms: int = 0,
    deadline_s: float = DEADLINE_S,
    tls: TlsFiles = NO_FILES,
    probe: Question | None = None,
) -> StoreSettings:
    return StoreSettings(
        url=url,
        fence_key=Keys().fence,
        is_fenced=is_fenced,
        clock_skew_ms=clock_skew_ms,
        scripts=(redeem.SCRIPT, cut.SCRIPT),
        deadline_s=deadline_s,
        tls=tls,
        probe=probe,
    )


@asynccontextmanager
async def running_store(url: str, **settings: Any) -> AsyncIterator[Keeper]:
    """Run a store until the block ends; then see that it settled every batch exactly once."""
    keeper = Keeper(store_settings(url, **settings))
    task = asyncio.create_task(keeper.store.run())
    try:
        yield keeper
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    assert [len(settlement.calls) for settlement in keeper.owed] == [1] * len(keeper.owed)
